"""Tar files of a few bytes that would take hours or gigabytes to read, and those that are cut or damaged."""

import io
import tarfile
import zipfile

import pytest

from ball_features.dataset.archives import index_archive, read_entry
from ball_features.dataset.sources import open_source
from ball_features.errors import DataError

END = bytes(1024)


def block(kind, body, size=None):
    item = tarfile.TarInfo("m.png")
    item.type, item.size = kind, len(body) if size is None else size
    return item.tobuf(tarfile.GNU_FORMAT) + body + bytes(-len(body) % 512)


def record(key, value):
    """A record of POSIX.1-2001: its length counts itself."""
    length = len(key) + len(value) + 3
    while len(line := f"{length} {key}={value}\n") != length:
        length = len(line)
    return line.encode()


def member(data=b"x" * 10, name="z.png"):
    item = tarfile.TarInfo(name)
    item.size = len(data)
    return item.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % 512)


def index(content):
    return index_archive(io.BytesIO(content), "a.tar")


TRAPS = {
    "a number of a million digits": block(b"x", record("a", "9" * 1_000_000)) + member(),
    "a number of 60,000 digits": block(b"x", record("a", "9" * 60_000)) + member(),
    "records within records": block(b"x", b"1 " * 30_000 + b"=") + member(),
    "a record that is longer than the header": block(b"x", b"99 path=a\n") + member(),
    "thousands of values for all": block(b"g", b"".join(record(f"k{n}", "v") for n in range(5000))) + member(),
    "thousands of headers for all": b"".join(block(b"g", record(f"k{n}", "v")) + member() for n in range(5000)),
    "headers of headers": b"".join(block(b"x", record("path", "p")) for _ in range(5000)) + member(),
    "a name of 10 MB": block(b"L", b"n" * 10_000_000) + member(),
    "a sparse file": block(b"x", record("GNU.sparse.major", "1") + record("GNU.sparse.minor", "0")) + member(),
    "a size that leads back": block(b"x", record("size", "-1536")) + member() + member(),
    "a size that leads back, in binary": block(tarfile.REGTYPE, b"", -1536),
    "a size of thirty digits": block(b"x", record("size", "9" * 30)) + member(),
}


@pytest.mark.timeout(30)
@pytest.mark.parametrize("name", TRAPS)
def test_headers_that_cost_hours_or_gigabytes_are_refused(name):
    with pytest.raises(DataError, match="no sound archive"):
        index(member() + TRAPS[name] + END)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_form_of_sound_archives_is_read(form):
    file = io.BytesIO()
    names = ["a.png", "ü/" + "long" * (20 if form == tarfile.USTAR_FORMAT else 40) + ".png", "1" * 60 + ".png"]
    with tarfile.open(fileobj=file, mode="w", format=form, pax_headers={"comment": "f" * 40}) as archive:
        for number, name in enumerate(names):
            item = tarfile.TarInfo(name)
            item.size, item.mtime = 3, 1.5  # a part of a second has a header of its own
            archive.addfile(item, io.BytesIO(bytes([number]) * 3))
    found = index(file.getvalue())
    assert list(found) == names
    for number, entry in enumerate(found.values()):
        assert read_entry(lambda start, end: file.getvalue()[start:end], entry) == bytes([number]) * 3


FLIPPED = member(name="b.png")[:512].replace(b"b.png", b"c.png")


@pytest.mark.parametrize("second", [FLIPPED, b"garbage of a disk" * 60, bytes(100) + b"x" * 412])
def test_what_is_no_member_is_not_taken_for_the_end(second):
    content = member(name="a.png") + second.ljust(1024, b"x") + member(name="c.png") + END
    with pytest.raises(DataError, match="no sound archive"):
        index(content)


def test_an_archive_that_was_cut_is_refused_wherever_it_was():
    whole = member(name="a.png") + member(b"y" * 700, "b.png") + END
    for length in range(0, len(whole) - len(END) + 1, 256):
        with pytest.raises(DataError, match="no sound archive"):
            index(whole[:length])
    assert list(index(whole)) == ["a.png", "b.png"]


@pytest.mark.parametrize("form", ["tar", "zip"])
def test_an_archive_that_is_replaced_gives_no_bytes_of_other_images(tmp_path, form):
    path = tmp_path / f"a.{form}"
    names = ["A/1.png", "A/2.png", "B/3.png"]
    pack(path, {name: name.encode() * 50 for name in names})
    source = open_source(path)
    pack(path, {name: name.encode() * 50 for name in reversed(names)})
    kept = 0
    for name in names:
        try:
            assert (source / name).read_bytes() == name.encode() * 50
            kept += 1
        except OSError as error:
            assert "changed" in str(error) or "damaged" in str(error)
    assert kept == 1  # the one in the middle


def pack(path, contents):
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in contents.items():
                archive.writestr(name, data)
        return
    with tarfile.open(path, "w") as archive:
        for name, data in contents.items():
            item = tarfile.TarInfo(name)
            item.size = len(data)
            archive.addfile(item, io.BytesIO(data))


@pytest.mark.parametrize("form", ["tar", "zip"])
def test_archives_that_hold_images_of_one_name_are_no_collection(tmp_path, form):
    for stem in ("Benign", "Early"):
        pack(tmp_path / f"{stem}.{form}", {"1.png": stem.encode(), "notes.txt": b"", f"{stem}.png": b"x"})
    with pytest.raises(DataError, match=rf"Benign.{form} and Early.{form} both hold an image '1.png'"):
        open_source(tmp_path)


def test_notes_and_hidden_files_may_have_one_name(tmp_path):
    for stem in ("Benign", "Early"):
        pack(tmp_path / f"{stem}.zip", {f"{stem}/1.png": b"x", "notes.txt": b"", "__MACOSX/._x.png": b"x"})
    assert {"Benign/1.png", "Early/1.png"} <= set(open_source(tmp_path).sizes)


@pytest.mark.parametrize("name", ["a/" * 30_000 + "1.png", "a" * 60_000 + ".png", "a/" * 100 + "1.png"])
def test_names_that_cost_memory_are_refused(tmp_path, name):
    pack(tmp_path / "a.zip", {"1.png": b"x", name: b"x"})
    with pytest.raises(DataError, match=r"no sound archive \(a name of"):
        open_source(tmp_path / "a.zip")


@pytest.mark.parametrize("form", ["tar", "zip"])
@pytest.mark.parametrize("names", [("x/1.jpg", "/x/1.jpg"), ("x/1.jpg", "../x/1.jpg"), ("x/1.jpg", "x\\1.jpg")])
def test_members_whose_names_become_one_are_refused(tmp_path, form, names):
    pack(tmp_path / f"a.{form}", {name: name.encode() for name in names})
    with pytest.raises(DataError, match="which are one file once they are unpacked"):
        open_source(tmp_path / f"a.{form}")


@pytest.mark.parametrize("form", ["tar", "zip"])
def test_a_member_that_was_added_again_counts(tmp_path, form):
    path = tmp_path / f"a.{form}"
    pack(path, {"x/1.jpg": b"old"})
    if form == "tar":
        with tarfile.open(path, "a") as archive:
            item = tarfile.TarInfo("./x/1.jpg")
            item.size = 3
            archive.addfile(item, io.BytesIO(b"new"))
    else:
        with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("x/1.jpg", b"new")
    assert (open_source(path) / "x/1.jpg").read_bytes() == b"new"
