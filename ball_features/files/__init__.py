"""Files that commands read and write: whole or not at all, where they were checked; CSV, strict JSON."""

from ball_features.files.apart import require_apart
from ball_features.files.delivery import STORED, delivered
from ball_features.files.partial import (
    clear_partial,
    is_begun_by_others,
    is_running,
    partial_of,
    settle,
    temporary_folder,
    this_host,
)
from ball_features.files.plain import open_plain, open_regular, read_json, read_whole
from ball_features.files.replacement import (
    expect,
    forget,
    free_name,
    is_changed,
    is_expected,
    replacing,
    where_checked,
    whole_file,
)
from ball_features.files.stored_file import StoredFile, copies_folder, is_certain, make_folder
from ball_features.files.text_files import (
    IMAGE_SUFFIXES,
    escaped_controls,
    is_plain_name,
    joined_names,
    json_text,
    plain_cell,
    read_csv,
    safe_cell,
    write_cells,
    write_csv,
    write_json,
    write_text,
)
from ball_features.files.user_folder import user_folder
from ball_features.files.walking import walk

__all__ = [
    "IMAGE_SUFFIXES",
    "STORED",
    "StoredFile",
    "clear_partial",
    "copies_folder",
    "delivered",
    "escaped_controls",
    "expect",
    "forget",
    "free_name",
    "is_begun_by_others",
    "is_certain",
    "is_changed",
    "is_expected",
    "is_plain_name",
    "is_running",
    "joined_names",
    "json_text",
    "make_folder",
    "open_plain",
    "open_regular",
    "partial_of",
    "plain_cell",
    "read_csv",
    "read_json",
    "read_whole",
    "replacing",
    "require_apart",
    "safe_cell",
    "settle",
    "temporary_folder",
    "this_host",
    "user_folder",
    "walk",
    "where_checked",
    "whole_file",
    "write_cells",
    "write_csv",
    "write_json",
    "write_text",
]
