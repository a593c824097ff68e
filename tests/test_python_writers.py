"""Functions for Python that write: they replace no file of the user's, no input, and take no address for a path."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from ball_features import draw_smears, merge, predict, read_cache, write_groups
from ball_features.audit.findings import audit
from ball_features.cache import verify_cache
from ball_features.cli import app
from ball_features.errors import BallError, DataError


@pytest.fixture(scope="module")
def tiny_bundle(tmp_path_factory, small_cache):
    root = tmp_path_factory.mktemp("runs")
    words = ("fit", small_cache, "--models", "logistic", "--repeats", "1", "--save", "logistic", "--out", root)
    done = CliRunner().invoke(app, [*map(str, words), "--name", "one"])
    assert done.exit_code == 0, done.output
    return root / "one" / "models" / "logistic"


@pytest.fixture(scope="module")
def writers(tmp_path_factory, few_smears, small_cache, tiny_bundle):
    """Name -> (function of a path that writes there, ending of the path)."""
    found = audit(few_smears)
    answers = predict(tiny_bundle, [next(few_smears.rglob("*.jpg"))])
    return {
        "groups": (lambda path: write_groups(found, path), "g.csv"),
        "answers": (answers.write, "p.csv"),
        "answers in JSON": (answers.write, "p.json"),
        "smears": (lambda path: draw_smears(path, per_class=1, size_px=64), "smears"),
        "merged": (lambda path: merge([small_cache, small_cache], path, overwrite=True), "m.h5"),
    }


NAMES = ["groups", "answers", "answers in JSON", "smears", "merged"]


def everything(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_written_into_a_saved_model(writers, tiny_bundle, name):
    write, end = writers[name]
    before = everything(tiny_bundle)
    with pytest.raises(DataError, match="holds a saved model"):
        write(tiny_bundle / end)
    assert everything(tiny_bundle) == before


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_file_of_another_kind_stays(writers, tmp_path, name):
    write, end = writers[name]
    if name == "smears":
        path = tmp_path / end / "Benign" / "WBC-Benign-001.jpg"
        path.parent.mkdir(parents=True)
    else:
        path = tmp_path / end
    path.write_text("mine\n1\n")
    with pytest.raises(BallError):
        write(tmp_path / end)
    assert everything(tmp_path) == {path: b"mine\n1\n"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["groups", "answers", "smears"])
@pytest.mark.parametrize("place", ["memory://x/", "s3://bucket/", "n" * 300 + "/"])
def test_places_that_are_none_are_told_in_words(writers, tmp_path, monkeypatch, name, place):
    write, end = writers[name]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BallError):
        write(f"{place}{end}")
    assert not [*tmp_path.iterdir()]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["groups", "answers", "answers in JSON", "smears"])
def test_its_own_earlier_result_is_replaced(writers, tmp_path, name):
    write, end = writers[name]
    write(tmp_path / end)
    before = everything(tmp_path)
    write(tmp_path / end)
    assert everything(tmp_path) == before


def test_smears_follow_no_link_and_replace_no_changed_one(tmp_path):
    draw_smears(tmp_path / "a", per_class=1, size_px=64)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "Benign").symlink_to(tmp_path / "a" / "Benign")
    with pytest.raises(DataError, match="is a link"):
        draw_smears(tmp_path / "b", per_class=1, size_px=64)
    path = tmp_path / "a" / "Pro" / "WBC-Pro-001.jpg"
    path.write_bytes(path.read_bytes() + b"edited")
    with pytest.raises(DataError, match="was not drawn here"):
        draw_smears(tmp_path / "a", per_class=1, size_px=64)
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "truth.json").write_text(json.dumps({"mine": 1}))
    with pytest.raises(DataError, match="cannot be drawn into"):
        draw_smears(tmp_path / "c", per_class=1, size_px=64)


def test_a_merged_cache_replaces_none_of_its_shards(tmp_path, small_cache):
    one, other = tmp_path / "1.h5", tmp_path / "2.h5"
    for path in (one, other):
        path.write_bytes(small_cache.read_bytes())
    for out in (one, other):
        with pytest.raises(DataError, match="is an input of this command"):
            merge([one, other], out, overwrite=True)
    assert one.read_bytes() == other.read_bytes() == small_cache.read_bytes()
    merge([one, other], tmp_path / "3.h5")
    merge([one, other], tmp_path / "3.h5", overwrite=True)
    assert verify_cache(tmp_path / "3.h5").sound
    assert np.array_equal(read_cache(tmp_path / "3.h5").path, read_cache(one).path)
