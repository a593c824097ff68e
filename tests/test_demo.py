"""The demonstration makes anew what it made before, and touches nothing else."""

import json

import pytest

from ball_features import ExtractConfig, extract
from ball_features.demo import demo
from ball_features.errors import DataError


@pytest.fixture
def draw(monkeypatch):
    """Draws only; what comes after it needs no test here."""
    monkeypatch.setattr("ball_features.extraction.extract.extract", lambda images, cache, config, **more: None)
    monkeypatch.setattr("ball_features.runs.fit.fit", lambda cache, config, **more: None)
    return lambda out, per_class=2: demo(out, per_class=per_class)


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_it_made_is_made_anew(draw, tmp_path):
    draw(tmp_path, 3)
    extract(
        tmp_path / "images",
        tmp_path / "cache.h5",
        ExtractConfig(backbone="mobilenet_v3_large", weights="random", views=1),
    )
    draw(tmp_path)
    assert not (tmp_path / "cache.h5").exists()
    assert set(files(tmp_path / "images")) == set(json.loads((tmp_path / "truth.json").read_text())["label"])
    assert len(files(tmp_path / "images")) == 8
    assert {path.name for path in tmp_path.iterdir()} <= {"images", "truth.json", "cache.h5.lock"}


@pytest.mark.parametrize("name", ["images/mine.jpg", "images/Benign/WBC-Benign-001.jpg", "cache.h5", "truth.json"])
def test_what_others_made_is_kept(draw, tmp_path, name):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(DataError, match=r"not made by `ball demo`.*Name another folder"):
        draw(tmp_path)
    assert files(tmp_path) == {name: b"mine"}


def test_what_was_added_to_a_demonstration_is_kept(draw, tmp_path, small_cache):
    draw(tmp_path / "demo")
    before = files(tmp_path)
    for name, data in (("images/Pro/notes.txt", b"mine"), ("cache.h5", small_cache.read_bytes())):
        added = tmp_path / "demo" / name
        added.write_bytes(data)
        with pytest.raises(DataError, match=f"{added} was not made"):
            draw(tmp_path / "demo")
        added.unlink()
    (tmp_path / "demo" / "images").rename(tmp_path / "elsewhere")
    (tmp_path / "demo" / "images").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="images was not made"):
        draw(tmp_path / "demo")
    assert len(files(tmp_path)) == len(before)
