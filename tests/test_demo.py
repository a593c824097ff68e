"""The demonstration makes anew what it made before, and touches nothing else."""

import json

import pytest

from ball_features import ExtractConfig, FitConfig, draw_smears, extract
from ball_features.demo import PLANTED, demo
from ball_features.errors import ConfigError, DataError
from ball_features.runs.assess import Assessment, assess


@pytest.fixture
def draw(monkeypatch):
    """Draws only; what comes after it needs no test here."""

    def nothing(images, out, *more, **named):
        return Assessment(out, [], [], [], out / "assess.html", lambda: out)

    monkeypatch.setattr("ball_features.runs.assess.assess", nothing)
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


def test_an_unknown_shortcut(tmp_path):
    with pytest.raises(ConfigError, match="both, bar, stain, none"):
        demo(tmp_path, shortcut="watermark")


def verdict_on(folder, per_class, **faults):
    """Verdict on drawn smears with random weights: code -> finding."""
    draw_smears(folder / "images", per_class=per_class, seed=3, **faults)
    (folder / "images" / "truth.json").unlink()
    config = FitConfig(models=("logistic", "majority", "colour", "histogram", "corner"), repeats=2, jobs=1)
    embedding = ExtractConfig(backbone="mobilenet_v3_large", weights="random")
    return {finding.code: finding for finding in assess(folder / "images", folder, embedding, config).findings}


@pytest.mark.slow
def test_what_is_planted_is_found_and_named(tmp_path):
    found = verdict_on(tmp_path, 20, **PLANTED["both"].faults)
    assert set(PLANTED["both"].codes) <= set(found)
    assert found["overlay-tells-class"].severity == "serious"
    assert found["overlay-tells-class"].numbers["overlay_accuracy"] > 0.95
    assert found["shortcut-matches-network"].severity == "serious"
    assert "without seeing the shape of a single cell" in found["shortcut-matches-network"].sentence


@pytest.mark.slow  # 160 images are drawn, embedded, audited and compared: fewer would leave room for chance
def test_where_nothing_is_planted_the_verdict_does_not_cry_wolf(tmp_path):
    found = verdict_on(tmp_path, 40, **PLANTED["none"].faults)
    assert {code for code, finding in found.items() if finding.severity == "serious"} == set()
    assert {code for code, finding in found.items() if finding.severity == "warning"} == {"random-weights"}
