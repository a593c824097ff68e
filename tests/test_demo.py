"""The demonstration makes anew what it made before, and touches nothing else."""

import json
import os

import pytest

from ball_features import ExtractConfig, FitConfig, draw_smears, extract
from ball_features.demo import PLANTED, demo
from ball_features.errors import CacheBusyError, ConfigError, DataError
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


@pytest.mark.slow
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
    assert {path.name for path in tmp_path.iterdir()} <= {"images", "truth.json", "truth.json.lock", "cache.h5.lock"}


@pytest.mark.parametrize(
    "name",
    [
        "images/mine.jpg",
        "images/Benign/WBC-Benign-001.jpg",
        "cache.h5",
        "truth.json",
        "Benign/a.jpg",
        "a.jpg",
        "runs/b",
    ],
)
def test_what_others_made_is_kept(draw, tmp_path, name):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(DataError, match=r"not made by `ball demo`.*Name another folder"):
        draw(tmp_path)
    assert files(tmp_path) == {name: b"mine"}


@pytest.mark.parametrize(
    "text",
    [
        "[" * 200_000,
        '{"sha256": {"a": 5}}',
        '{"sha256": {"a": 5}, "label": {"a": "Pro"}}',
        '{"sha256": [["a", 5]], "label": 3}',
        "null",
    ],
)
def test_a_truth_of_others_is_kept(draw, tmp_path, text):
    (tmp_path / "truth.json").write_text(text)
    with pytest.raises(DataError, match=r"truth.json was not made by `ball demo`"):
        draw(tmp_path)
    assert (tmp_path / "truth.json").read_text() == text


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
@pytest.mark.parametrize("kind", ["pipe", "device", "link"])
def test_a_truth_that_never_ends(draw, tmp_path, kind):
    truth = tmp_path / "demo" / "truth.json"
    draw(tmp_path / "demo")
    truth.rename(tmp_path / "kept.json")
    os.mkfifo(truth) if kind == "pipe" else truth.symlink_to(
        "/dev/zero" if kind == "device" else tmp_path / "kept.json"
    )
    with pytest.raises(DataError, match=r"not made by `ball demo`"):
        draw(tmp_path / "demo")
    assert truth.is_fifo() if kind == "pipe" else truth.is_symlink()


@pytest.mark.slow
def test_what_no_person_left_is_no_hindrance(draw, tmp_path):
    """What a killed demonstration leaves before its `truth.json`, and what desktops write."""
    (tmp_path / ".ball-x.host.1.partial" / "images").mkdir(parents=True)
    for name in (".DS_Store", "Thumbs.db"):
        (tmp_path / name).touch()
    draw(tmp_path)
    assert (tmp_path / "images" / "Benign").is_dir()


@pytest.mark.slow
def test_what_was_added_to_a_demonstration_is_kept(draw, tmp_path, small_cache):
    draw(tmp_path / "demo")
    before = files(tmp_path)
    for name, data in (("images/Pro/notes.txt", b"mine"), ("cache.h5", small_cache.read_bytes())):
        added = tmp_path / "demo" / name
        added.write_bytes(data)
        with pytest.raises(DataError, match=f"{added} was not made"):
            draw(tmp_path / "demo")
        added.unlink()
    own = next((tmp_path / "demo" / "images" / "Pro").iterdir())
    drawn = own.read_bytes()
    own.write_bytes(b"the user's, under a name that was drawn")
    with pytest.raises(DataError, match=f"{own} was not made"):
        draw(tmp_path / "demo")
    own.write_bytes(drawn)
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
    found = verdict_on(tmp_path, 10, **PLANTED["both"].faults)
    assert set(PLANTED["both"].codes) <= set(found)
    assert found["overlay-tells-class"].severity == "serious"
    assert found["overlay-tells-class"].numbers["overlay_accuracy"] > 0.95
    assert found["shortcut-matches-network"].severity == "serious"
    assert "without seeing the shape of a single cell" in found["shortcut-matches-network"].sentence


@pytest.mark.slow  # 80 images are drawn, embedded, audited and compared: fewer would leave room for chance
def test_where_nothing_is_planted_the_verdict_does_not_cry_wolf(tmp_path):
    found = verdict_on(tmp_path, 20, **PLANTED["none"].faults)
    assert {code for code, finding in found.items() if finding.severity == "serious"} == set()
    assert {code for code, finding in found.items() if finding.severity == "warning"} == {"random-weights"}


@pytest.mark.slow
def test_a_second_demonstration_waits_for_nothing_and_touches_nothing(draw, tmp_path):
    from ball_features.cache import lock_cache

    draw(tmp_path)
    before = files(tmp_path / "images")
    with lock_cache(tmp_path / "truth.json"), pytest.raises(CacheBusyError, match=r"being written by .*process \d+"):
        draw(tmp_path)
    assert files(tmp_path / "images") == before
    draw(tmp_path)


def test_a_demonstration_holds_its_folder_until_it_has_been_assessed(draw, tmp_path, monkeypatch):
    from ball_features.cache import lock_cache

    def busy(images, out, *more, **named):
        with pytest.raises(CacheBusyError), lock_cache(tmp_path / "truth.json"):
            pass
        return Assessment(out, [], [], [], out / "assess.html", lambda: out)

    monkeypatch.setattr("ball_features.runs.assess.assess", busy)
    demo(tmp_path, per_class=1)
