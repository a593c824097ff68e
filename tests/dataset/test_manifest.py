import errno
import hashlib
import os
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from ball_features.dataset.manifest import scan
from ball_features.dataset.twins import twin_folder, with_twins
from ball_features.deployment.inputs import find_images
from ball_features.errors import DataError
from ball_features.files import walk


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "set"
    for name in ("a/x10.jpg", "a/x9.JPG", "a/deep/er/y.png", "b/z.tiff", "b/z.bmp"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return root


def test_classes_depth_order_and_hashes(folder):
    manifest = scan(folder)
    assert manifest.path == ("a/deep/er/y.png", "a/x9.JPG", "a/x10.jpg", "b/z.bmp", "b/z.tiff")
    assert manifest.label == ("a", "a", "a", "b", "b")
    assert manifest.sha256[1] == hashlib.sha256(b"a/x9.JPG").hexdigest()
    assert manifest.rejected == ()
    assert manifest.note == ""


def test_what_is_no_image_is_counted_and_what_cannot_be_used_is_listed(folder):
    (folder / "a" / "notes.txt").write_text("x")
    (folder / "a" / ".hidden.jpg").write_text("x")
    (folder / "a" / "empty.jpg").touch()
    (folder / "loose.jpg").write_text("x")
    (folder / "b" / "dangling.png").symlink_to(folder / "nowhere.png")
    (folder / "b" / "loop").symlink_to(folder)
    manifest = scan(folder)
    assert len(manifest.path) == 5
    assert "Skipped 1 file that is no image: 1 .txt." in manifest.note
    reasons = {item.path: item.reason for item in manifest.rejected}
    assert set(reasons) == {"a/empty.jpg", "loose.jpg", "b/dangling.png"}
    assert "empty" in reasons["a/empty.jpg"]
    assert "class folders" in reasons["loose.jpg"]


@pytest.mark.parametrize(
    ("names", "table"),
    [
        (("images/1.png", "images/2.png"), "train.csv"),
        (("train/1.png", "test/2.png"), "train/metadata.csv"),
        (("1.png", "2.png"), "labels.xlsx"),
    ],
)
def test_tables_that_lie_there_are_named(tmp_path, names, table):
    for name in (*names, table):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    with pytest.raises(DataError, match=f"give it as sheet: {table}"):
        scan(tmp_path)
    if table.endswith(".csv"):
        (tmp_path / table).write_text("file,label\n1.png,a\n2.png,b\n")
        assert sorted(scan(tmp_path, sheet=tmp_path / table).label) == ["a", "b"]


def test_names_that_are_not_utf8_are_rejected_not_fatal(folder):
    with open(os.fsencode(folder / "a") + b"/\xff.jpg", "wb") as file:  # noqa: PTH123
        file.write(b"x")
    assert [item.path for item in scan(folder).rejected] == ["a/\\xff.jpg"]


def test_original_is_taken_where_its_twin_is_there(tmp_path, folder):
    (tmp_path / "both").mkdir()
    folder.rename(tmp_path / "both" / "Original")
    (tmp_path / "both" / "Segmented").mkdir()
    manifest = scan(tmp_path / "both")
    assert manifest.root.name == "Original"
    assert "Took" in manifest.note


def test_limit_is_spread_over_classes(tmp_path):
    for name, count in (("a", 30), ("b", 10), ("c", 2)):
        (tmp_path / name).mkdir()
        for number in range(count):
            (tmp_path / name / f"{number}.jpg").write_text(f"{name}{number}")
    manifest = scan(tmp_path, limit=14)
    assert len(manifest.path) == 14
    assert [manifest.label.count(name) for name in "abc"] == [10, 3, 1]
    assert manifest == scan(tmp_path, limit=14)
    assert len(scan(tmp_path, limit=999).path) == 42
    with pytest.raises(DataError, match="at least one a class"):
        scan(tmp_path, limit=2)


@pytest.fixture
def locked(monkeypatch):
    """Folders added to it cannot be listed; modes would not do, since root reads everything."""
    folders, own = set(), os.scandir

    def scandir(path="."):
        if os.fspath(path) in map(os.fspath, folders):
            raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))
        return own(path)

    monkeypatch.setattr(os, "scandir", scandir)
    monkeypatch.setattr(os, "listdir", lambda path: [entry.name for entry in scandir(path)])
    return folders


def test_folders_that_cannot_be_read_are_named(folder, locked):
    locked.add(folder / "a" / "deep")
    manifest = scan(folder)
    assert "a/deep/er/y.png" not in manifest.path
    assert [(item.path, item.reason) for item in manifest.rejected] == [
        ("a/deep", "cannot be read (Permission denied)")
    ]
    with pytest.raises(DataError, match="deep cannot be read"):
        with_twins(manifest, folder)
    locked.add(folder)
    with pytest.raises(DataError, match=r"set cannot be read \(Permission denied\)"):
        scan(folder)
    locked.add(folder.parent)
    with pytest.raises(DataError, match="twins=none"):
        twin_folder(manifest)


def test_wrong_folders(tmp_path, folder):
    with pytest.raises(DataError, match="cannot be read"):
        scan(tmp_path / ("x" * 5000))
    with pytest.raises(DataError, match="nothing at"):
        scan(tmp_path / "no")
    with pytest.raises(DataError, match="a file at"):
        scan(folder / "b" / "z.bmp")
    with pytest.raises(DataError, match="one class, 'deep'"):
        scan(folder / "a")
    with pytest.raises(DataError, match="give its parent"):
        scan(folder / "b")


@pytest.mark.slow
@pytest.mark.real_data
def test_the_known_data_set(real_images):
    manifest = scan(real_images.parent)
    assert len(manifest.path) == 3256
    known = (real_images.parent / "sha256.txt").read_text().split()
    assert set(manifest.sha256) <= set(known)
    assert len(manifest.sha256) - len(set(manifest.sha256)) == 40


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="paths are shorter there")
def test_folders_may_lie_deeper_than_functions_may_call_themselves(tmp_path, monkeypatch):
    for name in ("A", "B"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (64, 64), (len(name), 9, 99)).save(tmp_path / name / f"{name}.png")
    with monkeypatch.context() as patch:
        patch.chdir(tmp_path / "A")
        for _ in range(1100):
            Path("d").mkdir()
            patch.chdir("d")
    try:
        assert scan(tmp_path).path == ("A/A.png", "B/B.png")
        found = find_images([f"{tmp_path}/**/*.png"]).files
        assert found == [tmp_path / "A" / "A.png", tmp_path / "B" / "B.png"]
    finally:
        subprocess.run(["rm", "-r", tmp_path / "A"], check=True)  # shutil.rmtree calls itself for each level


@pytest.mark.parametrize("name", ["Aaa", "Zzz"])
def test_a_link_takes_no_class_from_the_folder_that_it_leads_to(folder, tmp_path, name):
    (folder / name).symlink_to(folder / "a")
    assert scan(folder).label == ("a", "a", "a", "b", "b")
    (tmp_path / "elsewhere").mkdir()
    (folder / "b" / "z.bmp").rename(tmp_path / "elsewhere" / "1.bmp")
    (folder / "c").symlink_to(tmp_path / "elsewhere")
    (folder / "d").symlink_to(tmp_path / "elsewhere")
    assert scan(folder).path[-2:] == ("b/z.tiff", "c/1.bmp")


def test_a_walk_is_that_of_the_standard_library(tmp_path):
    for name in ("b/c", "a", "d"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "x.png").touch()
    (tmp_path / "link").symlink_to(tmp_path / "b")
    (tmp_path / "gone").symlink_to(tmp_path / "none")
    for links in (False, True):
        own, other = (
            [(folder, sorted(names), sorted(files)) for folder, names, files in found(tmp_path, followlinks=links)]
            for found in (walk, os.walk)
        )
        assert own == other
    errors = []
    assert not [*walk(tmp_path / "none", onerror=errors.append)] and len(errors) == 1
    seen = []
    for folder, names, _ in walk(tmp_path):
        names[:] = [name for name in names if name != "b"]
        seen.append(Path(folder).name)
    assert sorted(seen) == sorted([tmp_path.name, "a", "d"])
