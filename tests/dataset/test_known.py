"""The known data set: its table, its recognition, and the download against a stand-in."""

import hashlib
import sys
import types

import pytest

from ball_features.dataset import known
from ball_features.dataset.known import KNOWN, download, recognise
from ball_features.dataset.manifest import scan
from ball_features.errors import DataError, MissingExtraError


def test_the_table_holds_every_file():
    own = KNOWN["mehradaria-leukemia"]
    lines = own.table.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "path,sha256,group,series,batch,overlay,block,duplicate_of"
    assert len(lines) - 1 == own.images == 3256
    hashes = list(own.files().values())
    assert all(len(digest) == 64 for digest in hashes)
    assert "3000 of 3000 files" in recognise(hashes[:3000])
    assert recognise(["0" * 64] * 10) == ""
    assert recognise([]) == ""


@pytest.fixture
def stand_in(monkeypatch, tmp_path):
    """A kagglehub that finds a small archive, and a table that knows it."""
    root = tmp_path / "versions" / "1"
    rows = ["path,sha256"]
    for name in ("Benign/a.jpg", "Pro/b.jpg"):
        for part in ("Original", "Segmented"):
            file = root / part / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(name.encode())
        rows.append(f"{name},{hashlib.sha256(name.encode()).hexdigest()}")
    table = tmp_path / "known.csv"
    table.write_text("\n".join(rows) + "\n", encoding="utf-8")
    monkeypatch.setattr(known.KnownDataset, "table", property(lambda self: table))
    module = types.ModuleType("kagglehub")
    module.dataset_download = lambda handle: str(tmp_path / "versions") if handle == "mehradaria/leukemia" else None
    monkeypatch.setitem(sys.modules, "kagglehub", module)
    return root, module


def test_download_checks_every_file(stand_in):
    root, module = stand_in
    said = []
    manifest = download(log=said.append)
    assert manifest.root == root / "Original"
    assert "Cite" in said[0]
    (root / "Original" / "Pro" / "b.jpg").write_bytes(b"another")
    with pytest.raises(DataError, match=r"1 files are others, 0 have the name .*\(first: Pro/b.jpg\), 0 are missing"):
        download()
    (root / "Original" / "Pro" / "b.jpg").unlink()
    (root / "Original" / "Pro" / "c.jpg").write_bytes(b"Pro/b.jpg")
    with pytest.raises(DataError, match=r"0 files are others, 1 have the name .*\(first: Pro/c.jpg\), 1 are missing"):
        download()
    (root / "Original" / "Pro").rename(root / "aside")
    (root / "Original" / "Benign").rename(root / "Original" / "Pro")
    (root / "aside").rename(root / "Original" / "Benign")
    with pytest.raises(DataError, match=r"2 have the name of another"):
        download()

    def offline(handle):
        raise ConnectionError("no route")

    module.dataset_download = offline
    with pytest.raises(DataError, match=r"no route.*By hand"):
        download()


def test_without_kagglehub_there_is_a_way_by_hand(monkeypatch):
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    with pytest.raises(MissingExtraError, match=r"ball-features\[download\].*By hand"):
        download()


@pytest.mark.slow
@pytest.mark.real_data
def test_the_real_folder_is_recognised(real_images):
    assert "3256 of 3256 files" in recognise(scan(real_images).sha256)
