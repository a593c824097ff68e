"""Doubtful labels: planted ones are found, groups do not vote on themselves, the sheet is read back."""

import json

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors
from typer.testing import CliRunner

from ball_features import FitConfig
from ball_features.cli import app
from ball_features.config import CollectionConfig
from ball_features.dataset.sheet import read_sheet
from ball_features.errors import ConfigError, DataError
from ball_features.evaluation.label_doubt import doubts, neighbour_votes, thresholds
from ball_features.files import read_csv
from ball_features.runs.label_check import check_labels
from tests.made import NAMES, clouds, write_cache

CONFIG = FitConfig(models=("logistic", "lda"), jobs=1)


def test_neighbours_are_those_of_scikit_learn_without_the_own_unit():
    rng = np.random.default_rng(0)
    numbers, codes = rng.normal(size=(60, 5)), rng.integers(0, 3, 60)
    votes, near = neighbour_votes(numbers, codes, np.arange(60), 3, count=4)
    expected = NearestNeighbors(n_neighbors=5, metric="cosine").fit(numbers).kneighbors(numbers)[1][:, 1:]
    assert (near == expected).all()
    assert votes == pytest.approx(np.stack([(codes[expected] == code).mean(1) for code in range(3)], 1))
    units = np.arange(60) // 2
    _, apart = neighbour_votes(numbers, codes, units, 3, count=4)
    assert not (units[apart] == units[:, None]).any()
    alone, none = neighbour_votes(numbers[:3], codes[:3], np.zeros(3, dtype=int), 3)
    assert (none == -1).all()
    assert alone == pytest.approx(1 / 3)


def test_doubt_is_the_mean_of_models_and_neighbours():
    codes = np.array([0, 0, 0, 1, 1, 1])
    first = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8], [0.3, 0.7], [0.1, 0.9]])
    votes = np.array([[1, 0], [1, 0], [0, 1], [0, 1], [0, 1], [0, 1]], dtype=float)
    near = np.array([[1, 2], [0, 2], [3, 4], [4, 5], [3, 5], [3, 4]])
    found = doubts([first, first], votes, near, codes)
    mean = (2 * first + votes) / 3
    assert found.doubt == pytest.approx(1 - mean[np.arange(6), codes])
    assert thresholds(mean, codes) == pytest.approx([min(0.8, mean[:3, 0].mean()), min(0.8, mean[3:, 1].mean())])
    assert found.flagged.tolist() == [False, False, True, False, False, False]
    assert (found.order[0], found.suggested[2], found.nearest[2]) == (2, 1, 3)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """160 images of four classes, ten of them with another label; two images a group, which share a label."""
    numbers, label = clouds(40, distance=2.0)
    wrong = np.random.default_rng(3).choice(160, 10, replace=False)
    for row in wrong:
        label[row] = NAMES[(NAMES.index(label[row]) + 1) % 4]
    columns = {"patient": [f"P{row // 2}" for row in range(160)], "site": ["a"] * 160}
    folder = tmp_path_factory.mktemp("planted")
    cache = write_cache(folder / "own.h5", numbers, label, columns)
    paths = [f"{name}/{row:05}.png" for row, name in enumerate(label)]
    return cache, {paths[row] for row in wrong}


@pytest.mark.slow
def test_planted_labels_come_first_and_the_sheet_is_read_back(planted, tmp_path):
    cache, wrong = planted
    done = check_labels(cache, tmp_path / "labels.csv", CONFIG, page=tmp_path / "labels.html")
    first = {row.path for row in done.rows[:10]}
    assert len(first & wrong) >= 8
    flagged = {row.path for row in done.rows if row.flagged}
    assert len(flagged & wrong) >= 8
    assert len(flagged) == done.flagged <= 16
    rows = list(read_csv(tmp_path / "labels.csv"))
    assert [row["path"] for row in rows] == [row.path for row in done.rows]
    assert {row["site"] for row in rows} == {"a"}
    sheet = read_sheet(tmp_path / "labels.csv", CollectionConfig()).rows_of([row["path"] for row in rows])
    assert list(sheet.columns["label"]) == [row["label"] for row in rows]
    assert list(sheet.columns["patient"]) == [row["patient"] for row in rows]
    assert "<img" not in (tmp_path / "labels.html").read_text()
    with pytest.raises(DataError, match="may hold corrections"):
        check_labels(cache, tmp_path / "labels.csv", CONFIG)
    with pytest.raises(ConfigError, match="see no embedding"):
        check_labels(cache, tmp_path / "other.csv", FitConfig(models=("colour",)))
    with pytest.raises(ConfigError, match="Got adapt='auto' with a search for wrong labels"):
        check_labels(cache, tmp_path / "other.csv", FitConfig(models=("lda",), adapt="auto"))


@pytest.mark.slow
def test_images_that_were_left_out_stay_left_out(tmp_path):
    numbers, label = clouds(20, distance=2.0)
    cache = write_cache(tmp_path / "own.h5", numbers, ["", *label[1:]], {"site": ["b"] * 80})
    check_labels(cache, tmp_path / "labels.csv", CONFIG)
    rows = list(read_csv(tmp_path / "labels.csv"))
    assert len(rows) == 80
    assert (rows[-1]["path"], rows[-1]["label"], rows[-1]["site"]) == ("none/00000.png", "", "b")
    assert all(row["label"] for row in rows[:-1])


@pytest.mark.slow
def test_the_command_with_pictures(smears, small_cache, tmp_path):
    words = ["labels", str(small_cache), "--models", "logistic", "--folds", "3", "--jobs", "1", "--json"]
    words += ["--page", str(tmp_path / "page.html"), "--images", str(smears), "--out", str(tmp_path / "labels.csv")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    values = json.loads(done.stdout)
    assert values["images"] == 48
    assert len(values["rows"]) == values["flagged"]
    assert "data:image/jpeg" in (tmp_path / "page.html").read_text()
    again = CliRunner().invoke(app, ["labels", str(small_cache), "--out", str(tmp_path / "labels.csv")])
    assert again.exit_code != 0
