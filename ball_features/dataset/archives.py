"""Images in zip and tar files, read in place: an index of the members, and a range of bytes for each.

Nothing is unpacked to a disk, and the name of a member is nothing but its id. A member is read within the size that the
archive states for it, and none above the limit of an image file, so that a zip bomb is a rejected row.
"""

from __future__ import annotations

import errno
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from ball_features.dataset.decode import MAX_BYTES
from ball_features.errors import DataError

__all__ = ["ARCHIVES", "Entry", "index_archive", "is_archive", "read_entry"]

ARCHIVES = (".zip", ".tar")
_PACKED = (".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tbz2", ".txz", ".tar.zst")
_LOCAL_HEADER = struct.Struct("<4s5H3L2H")
_HEADER_MORE = 512  # bytes read beyond the content, for the local header's name and extra field
_DEFLATE_MORE = 1 << 16  # bytes that deflate may add to what it cannot pack

Range = Callable[[int, int], bytes]  # (first byte, byte after the last) -> bytes


@dataclass(frozen=True)
class Entry:
    """A member of an archive.

    Attributes:
        size: bytes of the image file.
        start: first byte: of the content in a tar file, of the local header in a zip file.
        packed: bytes in the archive, without that header; -1 for a tar file.
        method: method of compression of a zip file: 0 for none, 8 for deflate.
        crc: checksum in a zip file.
        fault: why the member cannot be read, as the end of a sentence, or "".
    """

    size: int
    start: int
    packed: int = -1
    method: int = 0
    crc: int = 0
    fault: str = ""


def is_archive(name: str) -> bool:
    """Whether a name ends like that of an archive, also of one that cannot be read in place."""
    return name.lower().endswith((*ARCHIVES, *_PACKED))


def index_archive(file: Any, name: str) -> dict[str, Entry]:
    """List the files of an archive.

    Args:
        file: binary file that can seek.
        name: name of the archive, for messages; its ending tells the kind.

    Returns:
        Id of the member, a relative path with forward slashes -> its entry; the last of equal ids, as unpacking has it.

    Raises:
        DataError: The archive is damaged, or compressed as a whole.
    """
    if name.lower().endswith(_PACKED):
        raise DataError(
            f"{name} is compressed as a whole, so that no image in it can be read without those before it. Unpack it, "
            "or pack the images as .tar or .zip."
        )
    try:
        return _index_zip(file) if name.lower().endswith(".zip") else _index_tar(file)
    except DataError:
        raise
    except Exception as error:  # the readers raise many kinds for a damaged archive
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # a disk or a share
            raise
        raise DataError(f"{name} is no sound archive ({error}). Make it again, or unpack it.") from error


def _index_zip(file: Any) -> dict[str, Entry]:
    found: dict[str, Entry] = {}
    with zipfile.ZipFile(file) as archive:
        for item in archive.infolist():
            kind = stat.S_IFMT(item.external_attr >> 16)
            if item.is_dir() or kind not in (0, stat.S_IFREG, stat.S_IFLNK):
                continue
            fault = "is a link; pack the file that it leads to" if kind == stat.S_IFLNK else ""
            if item.flag_bits & 1:
                fault = fault or "is encrypted; unpack the archive"
            if not fault and item.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                fault = f"is compressed by method {item.compress_type} of zip; pack it as deflate or unpacked"
            found[_id(item.filename)] = Entry(
                item.file_size, item.header_offset, item.compress_size, item.compress_type, item.CRC, fault
            )
    return found


def _index_tar(file: Any) -> dict[str, Entry]:
    found: dict[str, Entry] = {}
    with tarfile.open(fileobj=file, mode="r:") as archive:
        for item in archive:
            if item.isreg():
                fault = "is a sparse file; pack it anew" if item.issparse() else ""
                found[_id(item.name)] = Entry(item.size, item.offset_data, fault=fault)
            elif item.islnk():  # tar stores a file of two names once
                first = found.get(_id(item.linkname), Entry(1, 0, fault="is another name of a file that is not there"))
                found[_id(item.name)] = first
            elif item.issym():
                found[_id(item.name)] = Entry(1, 0, fault="is a link; pack the file that it leads to")
    return found


def _id(name: str) -> str:
    """The name as a relative path: a name that leads elsewhere is a name all the same."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    return "/".join(part.replace("\0", "") for part in parts if part not in ("/", "..", "."))


def read_entry(read: Range, entry: Entry) -> bytes:
    """Read a member.

    Args:
        read: function that reads a range of bytes of the archive.
        entry: the member.

    Raises:
        OSError: It cannot be read, is damaged, or holds more than is stated.
    """
    if entry.fault:
        raise OSError(0, entry.fault)
    if entry.size > MAX_BYTES:
        raise OSError(0, f"{entry.size / 1e6:.0f} MB in the archive")
    if entry.packed < 0:
        data = read(entry.start, entry.start + entry.size)
    else:
        data = _unpacked(read, entry)
    if len(data) != entry.size:
        raise OSError(0, "the archive ends early, or is damaged there")
    return data


def _unpacked(read: Range, entry: Entry) -> bytes:
    if entry.packed > entry.size + _DEFLATE_MORE + entry.size // 1000:
        raise OSError(0, "the archive states more bytes packed than unpacked: it is damaged")
    # One range for header and content: the header's extra field has no length in the index, and is short.
    end = entry.start + _LOCAL_HEADER.size + entry.packed
    block = read(entry.start, end + _HEADER_MORE)
    if len(block) < _LOCAL_HEADER.size:
        raise OSError(0, "the archive ends early")
    magic, *_, name, extra = _LOCAL_HEADER.unpack_from(block)
    if magic != b"PK\x03\x04":
        raise OSError(0, "the archive is damaged there")
    first = _LOCAL_HEADER.size + name + extra
    if first + entry.packed > len(block):
        block += read(entry.start + len(block), entry.start + first + entry.packed)
    packed = block[first : first + entry.packed]
    if entry.method == zipfile.ZIP_STORED:
        data = packed
    else:
        try:
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, entry.size + 1)
        except zlib.error as error:
            raise OSError(0, f"the archive is damaged there: {error}") from error
    if zlib.crc32(data) != entry.crc:
        raise OSError(0, "its checksum in the archive is another: it is damaged")
    return data
