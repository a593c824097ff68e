"""Images in archives and under addresses: the same images as in a folder, and no harm from odd archives."""

import hashlib
import importlib.util
import io
import struct
import tarfile
import typing
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from ball_features.config.paths import as_path, is_address, shown_address, whole_address
from ball_features.dataset import archives, sources
from ball_features.dataset.decode import read_file
from ball_features.dataset.manifest import hash_file, hash_images, scan
from ball_features.dataset.sources import open_file, open_source
from ball_features.errors import DataError, ImageError, MissingExtraError

NAMES = ("Original/Benign/1.png", "Original/Benign/2.png", "Original/Benign/10.png", "Original/Pro/1.png")
BESIDE = ("Segmented/Pro/1.png", "Original/.hidden/3.png", "__MACOSX/Original/Pro/._1.png", "Original/notes.txt")


def picture(number):
    pixels = np.random.default_rng(number).integers(0, 255, (12, 14, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("set")
    for number, name in enumerate((*NAMES, *BESIDE)):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(picture(number))
    return root


def packed(folder, path, compression=zipfile.ZIP_DEFLATED):
    """The folder as an archive of the kind that the name tells."""
    files = sorted(item for item in folder.rglob("*") if item.is_file())
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", compression) as archive:
            for item in files:
                archive.write(item, item.relative_to(folder))
    else:
        with tarfile.open(path, "w") as archive:
            archive.add(folder, "top")
    return path


def same(found, folder):
    usual = scan(folder)
    assert (found.path, found.label, found.sha256) == (usual.path, usual.label, usual.sha256)
    assert found.classes == usual.classes
    for name in found.path:
        assert (found.root / name).read_bytes() == (usual.root / name).read_bytes()


@pytest.mark.parametrize(
    ("name", "compression"), [("a.zip", zipfile.ZIP_DEFLATED), ("b.ZIP", zipfile.ZIP_STORED), ("c.tar", 0)]
)
def test_an_archive_holds_the_images_of_its_folder(folder, tmp_path, name, compression):
    path = packed(folder, tmp_path / name.lower(), compression).rename(tmp_path / name)
    same(scan(path, anywhere=True), folder)
    with pytest.raises(DataError, match="a file"):
        scan(path)  # other commands read folders


def test_a_folder_of_tar_files_is_one_collection(folder, tmp_path):
    for number, name in enumerate(NAMES):
        with tarfile.open(tmp_path / f"shard-{number:06}.tar", "w") as archive:
            archive.add(folder / name, name)
    same(scan(tmp_path, anywhere=True), folder)


@pytest.mark.parametrize("form", ["folder", "zip", "tar", "folder of tar files"])
@pytest.mark.parametrize("kind", ["memory", "file"])
def test_an_address_holds_the_images_of_its_folder(folder, tmp_path, form, kind):
    fsspec = pytest.importorskip("fsspec")
    if form == "folder":
        place, own = folder, "set"
    elif form == "folder of tar files":
        (tmp_path / "shards").mkdir()
        packed(folder, tmp_path / "shards" / "0.tar")
        place, own = tmp_path / "shards", "shards"
    else:
        place = packed(folder, tmp_path / f"a.{form}")
        own = place.name
    address = f"file://{place}"
    if kind == "memory":
        address = f"memory://{tmp_path.name}/{own}"
        fsspec.filesystem("memory").put(str(place), f"/{tmp_path.name}/{own}", recursive=True)
    same(scan(address, anywhere=True), folder)
    same(scan(address.replace("://", ":/", 1) if kind == "memory" else address, anywhere=True), folder)  # of a `Path`


def test_images_of_an_archive_are_read_by_one_range_each(folder, tmp_path):
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    path = packed(folder, tmp_path / "a.zip")
    memory.put(str(path), f"/{tmp_path.name}/a.zip")
    found = scan(f"memory://{tmp_path.name}/a.zip", anywhere=True)
    asked = []
    whole = type(memory).cat_file

    def counted(self, path, start=None, end=None, **more):
        asked.append((start, end))
        return whole(self, path, start, end, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(memory), "cat_file", counted)
        data = (found.root / found.path[0]).read_bytes()
    assert len(asked) == 1
    assert asked[0][1] - asked[0][0] < len(data) + 1000


def test_names_that_lead_out_are_names(folder, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("../../Benign/1.png", "/etc/Benign/../Pro/2.png", "Benign\\3.png", "./Pro/4.png"):
            archive.writestr(zipfile.ZipInfo(name), picture(len(name)))
    found = scan(tmp_path / "a.zip", anywhere=True)
    assert len(found.path) == 4
    assert not any(name.startswith("/") or ".." in name.split("/") for name in found.path)
    assert list(tmp_path.iterdir()) == [tmp_path / "a.zip"]  # nothing is unpacked


def test_links_in_a_zip_file_are_rejected_by_name(tmp_path):
    path = tmp_path / "a.zip"
    link = zipfile.ZipInfo("Benign/link.png")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(2):
            archive.writestr(f"Benign/{number}.png", picture(number))
            archive.writestr(f"Pro/{number}.png", picture(number + 10))
        archive.writestr(link, "/etc/passwd")
    found = scan(path, anywhere=True)
    assert len(found.path) == 4
    (bad,) = found.rejected
    assert bad.path == "Benign/link.png" and "is a link" in bad.reason


def test_damaged_members_are_rejected_and_the_others_read(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(3):
            archive.writestr(f"Benign/{number}.png", picture(number))
            archive.writestr(f"Pro/{number}.png", picture(number + 10))
    with zipfile.ZipFile(path) as archive:
        place = archive.getinfo("Pro/1.png").header_offset + 60
    data = bytearray(path.read_bytes())
    data[place] ^= 255
    path.write_bytes(data)
    found = scan(path, anywhere=True)
    assert len(found.path) == 5
    (bad,) = found.rejected
    assert bad.path == "Pro/1.png" and "damaged" in bad.reason


@pytest.mark.slow
def test_a_zip_bomb_is_a_rejected_row(tmp_path, monkeypatch):
    """A member that states little and unpacks to much, and one that states much: neither fills the memory."""
    path = tmp_path / "a.zip"
    bomb = zlib.compress(b"\0" * 50_000_000)[2:-4]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(4):
            archive.writestr(f"{'Benign' if number % 2 else 'Pro'}/{number}.png", picture(number))
        archive.writestr("Pro/large.png", b"\0" * 30_000_000)
    entry = archives.Entry(size=100, start=0, packed=len(bomb), method=8, crc=0)
    header = struct.pack("<4s5H3L2H", b"PK\x03\x04", 20, 0, 8, 0, 0, 0, len(bomb), 100, 0, 0)
    with pytest.raises(OSError, match="checksum"):
        archives.read_entry(lambda start, end: (header + bomb)[start:end], entry)
    with pytest.raises(OSError, match="more bytes packed"):
        archives.read_entry(lambda start, end: pytest.fail("read"), archives.Entry(100, 0, 10**9, 8))
    for module in ("ball_features.dataset.archives", "ball_features.dataset.manifest"):
        monkeypatch.setattr(f"{module}.MAX_BYTES", 1_000_000)
    found = scan(path, anywhere=True)
    assert [(item.path, "30 MB" in item.reason) for item in found.rejected] == [("Pro/large.png", True)]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.zip", b"PK\x03\x04 and no more", "no sound archive"),
        ("a.tar", b"x" * 2000, "no sound archive"),
        ("a.tar.gz", b"\x1f\x8b", "compressed as a whole"),
        ("a.zip", b"", "no sound archive"),
    ],
)
def test_archives_that_cannot_be_read_say_why(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=words):
        scan(tmp_path / name, anywhere=True)


def test_encrypted_and_odd_members_say_why(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        for number in range(2):
            archive.writestr(f"Benign/{number}.png", picture(number))
            archive.writestr(f"Pro/{number}.png", picture(number), zipfile.ZIP_STORED)
        archive.writestr("Benign/2.png", picture(5), zipfile.ZIP_STORED)
    found = scan(path, anywhere=True)
    assert {item.path for item in found.rejected} == {"Benign/0.png", "Benign/1.png"}
    assert all("method 14" in item.reason for item in found.rejected)


def test_addresses_are_shown_without_keys():
    assert is_address("s3://bucket/a") and is_address("s3:/bucket/a") and not is_address("C:/images")
    assert not is_address("images/a")
    assert shown_address("s3://KEY:SECRET@bucket/a?token=SECRET") == "s3://bucket/a"
    for text in (
        "ftp://ann:S@CRET@host/a",
        "ftp://ann:S/CRET@host/a",
        "ftp://ann:S@C/RET@host/a",
        "zip://x.h5::ftp://ann:SECRET@host/a",
        "simplecache::ftp://ann:SECRET@host/a",
    ):
        for given in (text, as_path(text)):
            assert is_address(given) and shown_address(given) == text.partition("ann")[0] + "host/a"
            assert whole_address(given) == text
    for text in ("hdfs://host:9000/a@b.h5", "s3://bucket/a@b.h5", "gs://bucket/2020@x/a.h5"):
        assert shown_address(text) == shown_address(as_path(text)) == text
    with pytest.raises(DataError) as refused:
        open_source("memory://KEY:SECRET@nowhere/set")
    assert "SECRET" not in str(refused.value) and refused.value.__suppress_context__ in (True, False)


def test_without_fsspec_an_address_names_the_extra(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "fsspec" else found(name))
    with pytest.raises(MissingExtraError, match=r"ball-features\[remote\]"):
        open_source("s3://bucket/set")


def test_errors_of_a_store_hide_the_address(monkeypatch):
    fsspec = pytest.importorskip("fsspec")

    def fail(*args, **more):
        raise RuntimeError("s3://KEY:SECRET@bucket refused")

    monkeypatch.setattr(fsspec.core, "url_to_fs", fail)
    with pytest.raises(DataError, match="RuntimeError") as refused:
        open_source("s3://KEY:SECRET@bucket/set")
    assert "SECRET" not in str(refused.value)
    with pytest.raises(OSError, match="store failed: RuntimeError") as failed:
        sources.fetched(fail)
    assert "SECRET" not in str(failed.value)


@pytest.fixture
def silent():
    """A store that does not say how large its files are, as some servers of HTTP."""
    fsspec = pytest.importorskip("fsspec")
    memory = type(fsspec.filesystem("memory"))

    class Silent(memory):
        protocol = "silent"
        store: typing.ClassVar[dict] = {}
        taken = 0

        @classmethod
        def _strip_protocol(cls, path):
            return super()._strip_protocol(str(path).removeprefix("silent://"))

        def info(self, path, **more):
            return super().info(path, **more) | {"size": None}

        def find(self, path, detail=False, **more):
            found = super().find(path, detail=True, **more)
            return {name: about | {"size": None} for name, about in found.items()} if detail else [*found]

        def open(self, path, mode="rb", **more):
            if mode != "rb":
                return super().open(path, mode, **more)
            content = self.store[path].getvalue() if path in self.store else None
            return io.BytesIO(content) if content is not None else Endless()

    class Endless(io.RawIOBase):
        def readable(self):
            return True

        def readinto(self, buffer):
            Silent.taken += len(buffer)
            buffer[:] = b"a,b,c\n" * (len(buffer) // 6) + b"\n" * (len(buffer) % 6)
            return len(buffer)

        def read(self, count=-1):
            assert 0 <= count <= 1000, "read without a bound"
            return super().read(count)

    fsspec.register_implementation("silent", Silent, clobber=True)
    return Silent


def test_sizes_that_a_store_does_not_tell_are_not_nothing(folder, silent):
    for path in folder.rglob("*.png"):
        silent().pipe_file(f"/set/{path.relative_to(folder).as_posix()}", path.read_bytes())
    same(scan("silent://set", anywhere=True), folder)


def test_a_sheet_without_an_end_is_read_to_its_bound(silent):
    silent().pipe_file("/sheet.csv", b"x")
    file = open_file("silent://sheet.csv", most=999)
    silent.store.pop("/sheet.csv")
    silent.info = lambda self, path, **more: {"name": path, "size": None, "type": "file"}
    assert len(file.read_bytes()) == 1000 and silent.taken == 1000


def test_an_image_without_an_end_is_refused(silent, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "MAX_BYTES", 999)
    monkeypatch.setattr("ball_features.dataset.decode.MAX_BYTES", 999)
    silent().pipe_file("/set/a/1.png", b"x")
    source = open_source("silent://set")
    silent.store.clear()
    silent.info = lambda self, path, **more: {"name": path, "size": None, "type": "file"}
    with pytest.raises(ImageError, match="has more than"):
        read_file(source / "a/1.png")


def test_hashes_can_wait_for_a_part(folder):
    late = scan(folder, hashed=False)
    assert set(late.sha256) == {""}
    assert hash_images(late).sha256 == scan(folder).sha256
    first = folder / NAMES[0]
    assert hash_file(first) == (hashlib.sha256(first.read_bytes()).hexdigest(), "")


@pytest.fixture(scope="module")
def bucket(object_store):
    object_store.mkdir("smears")
    return object_store


@pytest.mark.parametrize("form", ["folder", "zip", "tar"])
def test_an_object_store_holds_the_images_of_its_folder(folder, tmp_path, bucket, form):
    place = folder if form == "folder" else packed(folder, tmp_path / f"a.{form}")
    own = f"smears/{form}/set" if form == "folder" else f"smears/{place.name}"
    bucket.put(str(place), own, recursive=form == "folder")
    same(scan(f"s3://{own}", anywhere=True), folder)
