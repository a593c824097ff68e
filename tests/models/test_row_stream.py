"""Rows read block by block: the same rows, a shuffle near a uniform one, and models equal to those of held rows."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import chisquare, spearmanr
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ball_features.bundles.formats import read_model, write_model
from ball_features.cache import read_rows
from ball_features.config import HeadConfig
from ball_features.models import streamed
from ball_features.models.boosting import XGBoost
from ball_features.models.mlp import MLPHead
from ball_features.models.registry import MODELS
from ball_features.models.row_stream import RowStream, stratified


@pytest.fixture(scope="module")
def mapped(tmp_path_factory):
    """A memory map of rows in the order of their classes, float16 (3000, 2, 24), with an offset in its file."""
    rng = np.random.default_rng(0)
    codes = np.sort(rng.integers(4, size=3000))
    centre, shift = rng.normal(size=(4, 24)) * 0.5, rng.normal(size=24) * 3
    numbers = (centre[codes][:, None] + shift + rng.normal(size=(3000, 2, 24))).astype(np.float16)
    path = tmp_path_factory.mktemp("rows") / "rows.bin"
    path.write_bytes(b"x" * 48 + numbers.tobytes())
    return np.memmap(path, np.float16, "r", 48, numbers.shape), numbers, codes


def stream(mapped, images, memory=400_000, views=(0,)):
    numbers, _, codes = mapped
    return RowStream(numbers, images, codes, views, memory)


ROWS = [
    np.arange(100),
    np.arange(5, 2900, 3),
    np.array([1, 2900]),
    np.array([], int),
    np.r_[7:9, 100, 2000:2050],
    np.array([9, 2, 2, 3]),
    np.array([4, -1]),
]


@pytest.mark.parametrize("rows", ROWS)
def test_rows_read_from_the_file_are_those_of_the_map(mapped, rows):
    numbers, held, _ = mapped
    assert np.array_equal(read_rows(numbers, rows), held[rows])
    assert np.array_equal(read_rows(numbers[:], rows), held[rows])  # a view of the map has no offset of its own
    assert np.array_equal(read_rows(held, rows), held[rows])


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="no count of bytes that are read")
def test_rows_far_apart_are_read_from_the_file_and_nothing_else(mapped):
    """A map would not count here, and would read ahead."""

    def taken():
        return int(Path("/proc/self/io").read_text().split()[1])

    numbers, held, _ = mapped
    rows = np.arange(3, 3000, 30)
    before = taken()
    found = read_rows(numbers, rows)
    assert found.nbytes <= taken() - before < found.nbytes + 2000
    assert np.array_equal(found, held[rows])


def test_a_file_that_became_shorter_is_an_error(tmp_path):
    path = tmp_path / "rows.bin"
    np.zeros((1000, 2, 24), np.float16).tofile(path)
    numbers = np.memmap(path, np.float16, "r", 0, (1000, 2, 24))
    with path.open("rb+") as file:
        file.truncate(5000)
    with pytest.raises(OSError, match="has become shorter"):
        read_rows(numbers, np.array([1, 900]))


@pytest.mark.parametrize("views", [(0,), (1,), (1, 0)])
def test_blocks_and_windows_hold_every_row_once(mapped, views):
    _, held, codes = mapped
    images = np.setdiff1d(np.arange(3000), np.arange(0, 3000, 7))
    own = stream(mapped, images, views=views)
    blocks = list(own.blocks())
    assert np.array_equal(np.concatenate([X for X, _ in blocks]), held[images][:, list(views)].reshape(-1, 24))
    assert np.array_equal(np.concatenate([y for _, y in blocks]), own.y)
    assert np.array_equal(own.y, np.repeat(codes[images], len(views)))
    windows = list(own.windows(np.random.default_rng(0)))
    assert len(windows) > 3
    assert all(np.array_equal(X, held[rows[:: len(views)]][:, list(views)].reshape(-1, 24)) for X, rows in windows)
    assert np.array_equal(np.sort(np.concatenate([rows for _, rows in windows])), np.repeat(images, len(views)))


def test_shuffled_windows_are_near_a_uniform_shuffle():
    """Classes lie one behind the other in the file, the hardest order; 20,000 rows, windows of a sixteenth."""
    count = 20_000
    numbers, codes = np.zeros((count, 1, 8), np.float16), np.arange(count) * 4 // count
    own = RowStream(numbers, np.arange(count), codes, (0,), memory=16 * 8 * count // 16)
    assert own.window_images == count // 16
    rng, order = np.random.default_rng(0), []
    for _, images in own.windows(rng):
        order.append(images[rng.permutation(len(images))])
    place = np.concatenate(order)
    trend: Any = spearmanr(np.arange(count), place)
    assert abs(trend.statistic) < 0.05
    same = (codes[place][1:] == codes[place][:-1]).mean()  # a quarter in a uniform shuffle
    assert abs(same - 0.25) < 0.02
    batches = codes[place].reshape(-1, 16)
    share = (batches == 0).sum(1)
    assert share.var() == pytest.approx(16 * 0.25 * 0.75, rel=0.15)  # the binomial's
    thirds = np.array([np.bincount(part // (count // 10), minlength=10) for part in np.array_split(place, 10)])
    assert chisquare(thirds.ravel()).statistic < 100 * own.block_images * 2  # rows of a block stay in one window
    again = np.concatenate([images for _, images in own.windows(np.random.default_rng(1))])
    assert not np.array_equal(np.concatenate([np.sort(part) for part in order]), again)


def test_stratified_samples_keep_shares_and_small_classes():
    codes = np.array([0] * 900 + [1] * 98 + [2] * 2)
    drawn = stratified(np.arange(1000), codes, 100, seed=0)
    assert np.bincount(codes[drawn]).tolist() == [90, 10, 2]
    assert np.array_equal(drawn, np.unique(drawn))
    assert np.array_equal(stratified(np.arange(50), codes, 100, seed=0), np.arange(50))


@pytest.mark.slow
@pytest.mark.parametrize("classes", [2, 4])
def test_streamed_logistic_regression_is_that_of_held_rows(mapped, classes):
    """Same objective, same minimum: coefficients agree with a fit of scikit-learn to a tighter tolerance."""
    numbers, held, codes = mapped
    images = np.flatnonzero(codes < classes)[::2]
    unfitted = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500, tol=1e-7))
    found, words = streamed.fit_logistic(unfitted, RowStream(numbers, images, codes, (0, 1), 100_000), None)
    X, y = held[images].reshape(-1, 24).astype(np.float64), np.repeat(codes[images], 2)
    exact = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500, tol=1e-9)).fit(X, y)
    assert np.abs(found.predict_proba(X) - exact.predict_proba(X)).max() < 1e-4
    scaler: Any = exact[0]
    assert np.allclose(found[0].scale_, scaler.scale_, rtol=1e-5)
    assert "passes" in words
    usual = MODELS["logistic"].build(0, HeadConfig()).fit(X.astype(np.float32), y)  # stops at a wide tolerance
    found, _ = streamed.fit_logistic(
        MODELS["logistic"].build(0, HeadConfig()), RowStream(numbers, images, codes, (0, 1), 100_000), None
    )
    assert np.abs(found.predict_proba(X) - usual.predict_proba(X)).max() < 1e-3
    assert np.array_equal(found.predict(X), usual.predict(X))


@pytest.mark.slow
def test_streamed_boosting_has_the_trees_of_held_rows(mapped):
    _, held, codes = mapped
    images = np.arange(0, 3000, 6)
    found, words = streamed.fit_xgboost(XGBoost(4), stream(mapped, images, 10_000_000), None)
    in_files, told = streamed.fit_xgboost(XGBoost(4), stream(mapped, images, 20_000), None)
    usual = XGBoost(4).fit(held[images, 0].astype(np.float32), codes[images])
    X = held[1::2, 0].astype(np.float32)
    assert np.abs(found.predict_proba(X) - usual.predict_proba(X)).max() < 1e-5
    assert (in_files.predict(X) == usual.predict(X)).mean() > 0.99  # bins of blocks differ a little
    assert ("in memory" in words) and ("in files" in told)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlp", "linear-svm"])
def test_streamed_gradients_reach_the_accuracy_of_held_rows(mapped, name, tmp_path):
    _, held, codes = mapped
    train, val, test = (np.arange(start, 3000, 3) for start in range(3))
    head = HeadConfig(epochs=8, learning_rate=3e-3, clip_norm=None)
    options = {"X_val": held[val, 0], "y_val": codes[val]} if name == "mlp" else {}
    usual = MODELS[name].build(0, head).fit(held[train, 0].astype(np.float32), codes[train], **options)
    fit = getattr(streamed, MODELS[name].streams)
    found, _ = fit(MODELS[name].build(0, head), stream(mapped, train), stream(mapped, val))
    X = held[test, 0].astype(np.float32)
    own, other = ((model.predict(X) == codes[test]).mean() for model in (found, usual))
    assert own == pytest.approx(other, abs=0.03)
    assert np.allclose(found.predict_proba(X).sum(1), 1)
    file = write_model(tmp_path, found, MODELS[name].file_format)  # a bundle takes it without code of its own
    read = read_model(tmp_path, file, [0, 1, 2, 3], trust=False)
    assert np.array_equal(read.predict_proba(X), found.predict_proba(X))


def test_a_head_in_one_window_sees_the_rows_of_the_usual_training(mapped):
    """With a window that holds all rows, a streamed training is the usual one but for the order of its windows."""
    _, held, codes = mapped
    images = np.arange(0, 3000, 10)
    head = MLPHead((8,), epochs=3)
    found = head.fit_stream(stream(mapped, images, memory=10**9))
    usual = MLPHead((8,), epochs=3).fit(held[images, 0], codes[images])
    assert all(np.array_equal(found.state_[name], usual.state_[name]) for name in usual.state_)
    assert np.allclose(found.history_["train_loss"], usual.history_["train_loss"])


def test_a_streamed_machine_knows_classes_of_few_images(mapped):
    """Three classes of 2, 3 and 60 images: five folds of calibration images would need five of each."""
    codes = mapped[2].copy()
    rare = {0: 2, 1: 3, 2: 60}
    kept = [np.flatnonzero(codes == code)[: rare.get(code, 3000)] for code in range(4)]
    images = np.sort(np.concatenate(kept))
    model, _ = streamed.fit_linear_svm(MODELS["linear-svm"].build(0, HeadConfig()), stream(mapped, images), None)
    assert model.classes_.tolist() == [0, 1, 2, 3]
    probability = model.predict_proba(mapped[1][:, 0].astype(np.float32))
    assert np.isfinite(probability).all()
    others = (codes == 2) | (codes == 3)
    assert (probability.argmax(1) == codes)[others].mean() > 0.7
