"""Files that version 0.1.0 wrote, in tests/data/v0.1.0: caches, a run, bundles of every file format."""

import csv
import shutil
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from ball_features import ExtractConfig, FitConfig, extract, fit, predict, read_bundle, read_cache, read_run
from ball_features.errors import DataError, WeightsError
from tests.commands import ball

OLD = Path(__file__).parent / "data" / "v0.1.0"
RANDOM = {"backbone": "densenet121", "weights": "random", "precision": "fp32"}
# Cache -> views, channels, and the settings that made it.
CACHES = {
    "plain": (1, 1, {"views": 1}),
    "views": (5, 1, {}),
    "seeded": (3, 1, {"views": 3, "recipe": "report,zoom+grey", "seed": 3}),
    "channels": (1, 2, {"views": 1, "channels": ("original", "segmented"), "twins": "none"}),
}
BUNDLES = ("mlp", "logistic", "xgboost", "channels", "robust-views", "own")
# Versions that wrote the bundles; older ones cannot promise to read them.
WRITERS = {"xgboost": ("xgboost", (3, 2))}
WRITERS |= dict.fromkeys(("logistic", "channels", "robust-views"), ("scikit-learn", (1, 9)))
# Another processor rounds the network's float32 otherwise.
PROBABILITY = 2e-5


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


@pytest.fixture
def cache(tmp_path):
    """A copy of a cache by its name, for what may write into it."""
    return lambda name: Path(shutil.copy(OLD / f"{name}.h5", tmp_path / f"{name}.h5"))


@pytest.mark.parametrize("name", CACHES)
def test_caches_are_read(name):
    views, channels, _ = CACHES[name]
    read = read_cache(OLD / f"{name}.h5")
    assert read.complete
    assert read.embeddings.shape == (24, views * channels, 1024)
    assert np.isfinite(read.embeddings).all()
    assert read.view[0] == "plain"
    assert sorted(set(read.label)) == ["Benign", "Early", "Pre", "Pro"]
    assert read.path[0] == "Benign/WBC-Benign-001.jpg"


@pytest.mark.parametrize("name", CACHES)
def test_nothing_is_computed_anew_for_unchanged_images(cache, name):
    _, _, settings = CACHES[name]
    path = cache(name)
    before = read_cache(path).embeddings.copy()
    done = extract(OLD / "images", path, ExtractConfig(**RANDOM, **settings))
    assert done.computed == 0
    assert np.array_equal(read_cache(path).embeddings, before)


@pytest.mark.slow
def test_an_interrupted_cache_is_completed(cache):
    path = cache("interrupted")
    before = read_cache(path)
    there = before.committed.copy()
    kept = before.embeddings[there].copy()
    assert 0 < there.sum() < len(there)
    done = extract(OLD / "images", path, ExtractConfig(**RANDOM, views=2, batch_size=2))
    after = read_cache(path)
    assert done.computed == (~there).sum()
    assert after.complete
    assert np.array_equal(after.embeddings[there], kept)
    same = read_cache(OLD / "plain.h5").embeddings[:, 0]
    assert np.abs(after.embeddings[:, 0].astype(float) - same.astype(float)).max() < 1e-3


@pytest.mark.slow
def test_new_images_are_added_and_no_other_is_computed(cache, tmp_path):
    images = tmp_path / "images"
    shutil.copytree(OLD / "images", images)
    (images / "Pro" / "WBC-Pro-003.jpg").unlink()
    shutil.copy(images / "Pro" / "WBC-Pro-001.jpg", images / "Pro" / "WBC-Pro-900.jpg")
    from PIL import Image

    Image.new("RGB", (96, 96), "pink").save(images / "Pro" / "WBC-Pro-901.png")
    path = cache("views")
    before = read_cache(path)
    old = dict(zip(before.path.tolist(), before.embeddings.copy(), strict=True))
    done = extract(images, path, ExtractConfig(**RANDOM), prune=True)
    after = read_cache(path)
    assert after.complete
    assert done.computed <= 2
    assert set(after.path) == {p.relative_to(images).as_posix() for p in images.rglob("*.*g")}
    for name, values in zip(after.path.tolist(), after.embeddings, strict=True):
        if name in old:
            assert np.array_equal(values, old[name])


def test_other_settings_are_refused_and_change_nothing(cache):
    from ball_features.errors import CacheError

    path = cache("seeded")
    before = path.read_bytes()
    with pytest.raises(CacheError, match="seed"):
        extract(OLD / "images", path, ExtractConfig(**RANDOM, views=3, recipe="report,zoom+grey", seed=4))
    assert path.read_bytes() == before


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Trying to unpickle estimator")  # other versions of scikit-learn warn
@pytest.mark.parametrize("name", BUNDLES)
def test_bundles_answer_as_they_did(name, monkeypatch):
    library, made_by = WRITERS.get(name, ("", ()))
    if library and tuple(map(int, metadata.version(library).split(".")[:2])) < made_by:
        pytest.skip(f"written by a newer {library}")
    monkeypatch.chdir(OLD)
    monkeypatch.syspath_prepend(OLD)
    expected = rows(OLD / f"predictions-{name}.csv")
    weights = None
    if name == "robust-views":  # its network is where it was made, in a folder that is gone
        with pytest.raises(WeightsError, match="Give its file as weights"):
            predict(f"bundles/{name}", ["images"], precision="fp32")
        weights = "small.pt"
    answers = predict(f"bundles/{name}", ["images"], precision="fp32", trust=name == "own", weights=weights)
    classes = [key[2:] for key in expected[0] if key.startswith("p_")]
    assert list(answers.classes) == classes
    assert [one.path for one in answers.predictions] == [row["path"] for row in expected]
    for one, row in zip(answers.predictions, expected, strict=True):
        assert one.probability == pytest.approx({key: float(row[f"p_{key}"]) for key in classes}, abs=PROBABILITY)
        assert one.distance == pytest.approx(float(row["distance"]), abs=PROBABILITY)
        assert one.predicted == row["predicted"]
        assert list(one.set) == row["set"].split("|")
        assert one.unusual == (row["unusual"] == "true")


def test_joblib_still_asks_for_trust():
    with pytest.raises(DataError, match="trust"):
        read_bundle(OLD / "bundles" / "own")


@pytest.mark.slow
def test_a_run_is_read_and_shown(tmp_path):
    folder = tmp_path / "table"
    shutil.copytree(OLD / "runs" / "table", folder)
    assert read_run(folder).folder == folder
    assert ball("report", folder, "--quiet").returncode == 0
    page = (folder / "report.html").read_text(encoding="utf-8")
    for row in rows(OLD / "runs" / "table" / "metrics.csv"):
        assert row["model"] in page
        assert f"{100 * float(row['accuracy']):.2f}" in page


@pytest.mark.slow
@pytest.mark.parametrize("name", ["views", "channels"])
def test_a_table_is_made_of_an_old_cache(name, tmp_path):
    done = fit(OLD / f"{name}.h5", FitConfig(models=("logistic",), repeats=1), out_root=tmp_path)
    assert (done.folder / "metrics.csv").is_file()
