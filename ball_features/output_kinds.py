"""Kinds of files that `ball` writes, and how one that is there is recognised: nothing else is ever replaced."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from ball_features.files import plain_cell

__all__ = ["OUTPUTS", "Output", "is_own"]


@dataclass(frozen=True)
class Output:
    """A kind of file that `ball` writes, and how an existing one is recognised.

    Attributes:
        begins: bytes that the file begins with, letter case ignored.
        contains: texts that all occur in its first or last bytes.
        within: number of these bytes.
        empty: the whole of a file without entries, or b"" where such a file begins like any other.
        columns: names of all columns that a table may have; one with others was extended by somebody. Empty if any
            may be there.
        prefixes: beginnings of the names of further columns, one for each class.
    """

    begins: bytes = b""
    contains: tuple[str, ...] = ()
    within: int = 4096
    empty: bytes = b""
    columns: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()


def _table(begins: str, columns: str) -> Output:
    """A table with columns for each class; `begins` with its first columns, and the names of the others."""
    first = [name for name in begins.split(",") if name]
    return Output(begins.encode(), columns=(*first, *columns.split()), prefixes=("p_", "share_"))


OUTPUTS: dict[str, Output] = {
    "cache": Output(b"\x89HDF\r\n\x1a\n", ("schema_version", "fingerprint", "committed", "embeddings"), 1 << 21),
    "groups": Output(contains=("path", "group", "series")),
    "predictions": _table("path,predicted,", "set distance unusual patient"),
    "evaluated predictions": _table(
        "path,label,true,status,predicted,",
        "set covered distance unusual nearest recalibration patient site trained_on",
    ),
    "patients table": _table("model,repeat,patient,images,", "label predicted majority agreement"),
    "patient answers": _table("patient,images,unusual,predicted", "majority agreement"),
    "answers": Output(b"{", ('"bundle": "', '"cache_fingerprint"')),
    "evaluation": Output(b"{", ('"balanced_recall"', '"cache_fingerprint"')),
    "verdict": Output(b"[", ('"code": "', '"severity": "'), empty=b"[]\n"),
    "audit": Output(b'{\n  "images": "'),
    "page": Output(b"<!doctype html", ("Content-Security-Policy", "'sha256-", "<style>")),
    "card": Output(contains=("# Model card: ", "with ball ")),
    "captions": Output(contains=("table.tex", "table.csv")),
    "nuclei table": Output(
        b"path,area,count,",
        columns=("path", "area", "count", "mean_area", "sd_of_area", "largest_area", "share_of_stained_area"),
    ),
    "embeddings table": Output(b"path,label,sha256,view,e0"),
    "parquet": Output(b"PAR1", ('"weights_sha256"',), 1 << 20),
    "onnx": Output(b"\x08", ("\x12\x04ball",)),
}


def is_own(path: Path, output: Output) -> bool:
    """Whether a file is of a kind that `ball` writes, and nobody has added columns to it.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(output.within).removeprefix(b"\xef\xbb\xbf")
        file.seek(max(file.tell(), path.stat().st_size - output.within))
        text = (head + file.read()).decode("utf-8", "replace")
    if output.empty and head == output.empty:
        return True
    if output.columns and not _has_columns(head, output):
        return False
    return head.lower().startswith(output.begins.lower()) and all(part in text for part in output.contains)


def _has_columns(head: bytes, output: Output) -> bool:
    """Whether the header has no columns but those of the kind, as far as it lies in the first bytes."""
    line, ended, _ = head.decode("utf-8", "replace").partition("\n")
    try:
        names = [plain_cell(name) for name in next(csv.reader([line.rstrip("\r")]), [])]
    except csv.Error:
        return False
    names = names if ended else names[:-1]
    further = [name for name in names if name not in output.columns]
    return bool(further) == bool(output.prefixes) and all(name.startswith(output.prefixes) for name in further)
