"""Images in zip and tar files, read in place: an index of the members, and a range of bytes for each.

Nothing is unpacked to a disk, and the name of a member is nothing but its id. A member is read within the size that the
archive states for it, and none above the limit of an image file, so that a zip bomb is a rejected row.
"""

from __future__ import annotations

import errno
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, ClassVar, Self

from ball_features.dataset.decode import MAX_BYTES
from ball_features.errors import DataError

__all__ = ["ARCHIVES", "Entry", "index_archive", "is_archive", "read_entry", "require_bounded"]

ARCHIVES = (".zip", ".tar")
_PACKED = (".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tbz2", ".txz", ".tar.zst")
_LOCAL_HEADER = struct.Struct("<4s5H3L2H")
_HEADER_MORE = 512  # bytes read beyond the content, for the local header's name and extra field
_DEFLATE_MORE = 1 << 16  # bytes that deflate may add to what it cannot pack

_LONGEST_NAME, _LONGEST_PART, _DEEPEST = 4096, 255, 64
_BLOCK = 512  # bytes of a header in a tar file, of which all parts are multiples
_LONGEST_HEADER = 1 << 16  # bytes of what is said of a member beside its header
_GLOBAL_HEADERS = 1 << 12  # bytes of what is said of all members, which is looked at for each of them
_LONGEST_NUMBER = 64  # digits; Python's reader takes the square of that
_MORE_HEADERS = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.XGLTYPE)
_LONG_NAMES = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)

Range = Callable[[int, int], bytes]  # (first byte, byte after the last) -> bytes


@dataclass(frozen=True)
class Entry:
    """A member of an archive.

    Attributes:
        size: bytes of the image file.
        start: first byte: of the header before the content.
        packed: bytes in the archive, without that header; -1 for a tar file.
        method: method of compression of a zip file: 0 for none, 8 for deflate.
        crc: checksum: of the content in a zip file, of the header in a tar file.
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


class _Index(dict[str, Entry]):
    """Id -> entry; the last of members of one name counts, as when they are unpacked."""

    def __init__(self) -> None:
        super().__init__()
        self._named: dict[str, str] = {}

    def add(self, name: str, entry: Entry) -> None:
        """Add a member; raise `ValueError` where one of another name has its id, which would be lost."""
        parts = _parts(name)
        require_bounded(name, parts)
        own = _id(parts)
        other = self._named.setdefault(own, name)
        if other.removeprefix("./") != name.removeprefix("./"):
            raise ValueError(f"members {other!r} and {name!r}, which are one file once they are unpacked")
        self[own] = entry


def _index_zip(file: Any) -> dict[str, Entry]:
    found = _Index()
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
            entry = Entry(item.file_size, item.header_offset, item.compress_size, item.compress_type, item.CRC, fault)
            found.add(item.filename, entry)
    return found


def _index_tar(file: Any) -> dict[str, Entry]:
    found = _Index()
    bounded = type("Bounded", (_Header,), {"file": file})
    with tarfile.open(fileobj=file, mode="r:", tarinfo=bounded) as archive:
        item: Any
        while (item := archive.next()) is not None:
            if item.isreg():
                fault = "is a sparse file; pack it anew" if item.issparse() else ""
                found.add(item.name, Entry(item.size, item.offset_data - _BLOCK, crc=item.crc, fault=fault))
            elif item.islnk():  # tar stores a file of two names once
                lost = Entry(1, 0, fault="is another name of a file that is not there")
                found.add(item.name, found.get(_id(_parts(item.linkname)), lost))
            elif item.issym():
                found.add(item.name, Entry(1, 0, fault="is a link; pack the file that it leads to"))
            vars(archive)["members"] = []  # which keeps all that is said of each member
        file.seek(archive.offset)
        end = file.read(_BLOCK)  # Python's reader takes anything for the end that is no member
        if any(end) or not end:
            raise tarfile.ReadError(f"after {archive.offset:,} bytes it is {'damaged' if end else 'cut'}")
    return found


class _Header(tarfile.TarInfo):
    """Header of a member of a tar file; one that Python's reader takes hours or gigabytes for is refused."""

    file: ClassVar[Any]
    of_all: ClassVar[int] = 0  # bytes of what is said of all members
    crc = 0

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        item = super().frombuf(buf, encoding, errors)
        item.crc = zlib.crc32(buf)
        if item.size < 0:  # the member before it would follow it, for ever
            raise tarfile.ReadError(f"a member of {item.size} bytes")
        if item.type in (*_MORE_HEADERS, *_LONG_NAMES):
            cls.of_all += item.size if item.type == tarfile.XGLTYPE else 0
            if item.size > _LONGEST_HEADER or cls.of_all > _GLOBAL_HEADERS:
                raise tarfile.ReadError(f"a header of {max(item.size, cls.of_all)} bytes, which no image needs")
            if item.type in _MORE_HEADERS:
                start = cls.file.tell()
                _require_records(cls.file.read(item.size))
                cls.file.seek(start)
        return item


def _require_records(data: bytes) -> None:
    """Raise `ReadError` unless a header holds sound records of POSIX.1-2001 (pax), and none of a sparse file."""
    place = 0
    while place < len(data):
        length = re.match(rb"([1-9]\d{0,5}) ", data[place : place + 8])
        end = place + int(length[1]) if length else 0
        record = data[place:end]
        if not record.endswith(b"\n") or end > len(data) or b"=" not in record:
            raise tarfile.ReadError("a header whose records are damaged")
        name, _, value = record.partition(b" ")[2].partition(b"=")
        if name.startswith(b"GNU.sparse."):
            raise tarfile.ReadError("sparse files, whose images cannot be read in place")
        if name == b"size" and not value.strip().isdigit():
            raise tarfile.ReadError(f"a member of {value.decode('ascii', 'replace').strip()} bytes")
        place = end
    if re.search(rb"\d{%d}" % (_LONGEST_NUMBER + 1), data):
        raise tarfile.ReadError(f"a header with a number of more than {_LONGEST_NUMBER} digits")


def _parts(name: str) -> tuple[str, ...]:
    return PurePosixPath(name.replace("\\", "/")).parts


def _id(parts: Sequence[str]) -> str:
    """The name as a relative path: a name that leads elsewhere is a name all the same."""
    return "/".join(part.replace("\0", "") for part in parts if part not in ("/", "..", "."))


def require_bounded(name: str, parts: Sequence[str]) -> None:
    """Raise `ValueError` for a name that no disk takes, which costs the square of its length to look at."""
    longest = max(map(len, parts), default=0)
    if len(name) > _LONGEST_NAME or len(parts) > _DEEPEST or longest > _LONGEST_PART:
        raise ValueError(f"a name of {len(name)} characters and {len(parts)} parts, of up to {longest}")


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
        block = read(entry.start, entry.start + _BLOCK + entry.size)
        if zlib.crc32(block[:_BLOCK]) != entry.crc:  # else the bytes of one image would go under another's name
            raise OSError(0, "the archive was changed while it was read")
        data = block[_BLOCK:]
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
