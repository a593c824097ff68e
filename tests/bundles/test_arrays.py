"""Every array of a bundle missing, of another shape or type, out of range or not finite: refused, or harmless."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

from ball_features import FitConfig, fit
from ball_features.bundles.bundle import read_bundle
from ball_features.bundles.sums import SUMS
from ball_features.cache import read_cache
from ball_features.errors import BallError
from tests.made import clouds, write_cache

OLD = Path(__file__).parent.parent / "data" / "v0.1.0" / "bundles"
SETTINGS = {"resize": "224 px, bilinear, antialiased", "normalize": "imagenet", "views": 1, "dtype": "float32"}


@pytest.fixture(scope="module")
def new(tmp_path_factory):
    folder = tmp_path_factory.mktemp("arrays")
    cache = write_cache(folder / "a.h5", *clouds(20), **SETTINGS)
    run = fit(cache, FitConfig(models=("logistic",), repeats=1, jobs=1), out_root=folder, save="logistic")
    return run.folder / "models" / "logistic"


@pytest.fixture(scope="module")
def adapted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapted")
    X, labels = clouds(20)
    cache = write_cache(folder / "a.h5", X, labels, **SETTINGS)
    rows = [f"{path},{'ab'[number % 2]}" for number, path in enumerate(read_cache(cache).path.tolist())]
    (folder / "sites.csv").write_text("\n".join(["path,site", *rows]) + "\n")
    config = FitConfig(models=("logistic",), repeats=1, jobs=1, adapt="auto", groups=str(folder / "sites.csv"))
    run = fit(cache, config, out_root=folder, save="logistic")
    kept = run.folder / "models" / "logistic"
    assert "elsewhere_middle" in load((kept / "reference.safetensors").read_bytes())
    return kept


def changes(values):
    """(name, array) pairs; None stands for an array that is missing."""
    yield from (("missing", None), ("empty", values[:0]), ("more axes", values[None]), ("of bytes", np.zeros(4, "u1")))
    yield from (("short", values[:-1]), ("other type", values.astype("i1")), ("huge", np.zeros(10**6, values.dtype)))
    for wrong in (np.nan, np.inf, -1e30) if values.dtype.kind == "f" else (-1, 10**6):
        changed = values.copy()
        changed.flat[0] = wrong if abs(wrong) < 6e4 or values.dtype != np.float16 else np.inf
        yield f"one {wrong}", changed


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", ["new", "adapted", "mlp", "xgboost"])
def test_every_array_is_checked(name, new, adapted, tmp_path):
    made = {"new": new, "adapted": adapted}
    folder = Path(shutil.copytree(made.get(name, OLD / name), tmp_path / name))
    (folder / SUMS).unlink(missing_ok=True)
    accepted, draw = set(), np.random.default_rng(0)
    for file in sorted(folder.glob("*.safetensors")):
        data = file.read_bytes()
        arrays = load(data)
        for key, values in arrays.items():
            for what, changed in changes(values):
                rest = {own: item for own, item in arrays.items() if own != key}
                file.write_bytes(save(rest if changed is None else rest | {key: np.ascontiguousarray(changed)}))
                try:
                    bundle = read_bundle(folder)
                except BallError:
                    continue
                accepted.add((key, what))
                X = draw.normal(size=(3, len(bundle.facts.preprocessing.plan), bundle.train.shape[1]))
                probability = bundle.probability(X.astype(np.float32))
                assert np.allclose(probability.sum(1), 1), (key, what)
                bundle.unusual(X.astype(np.float32), probability)
                bundle.sets(probability, 0.9)
        file.write_bytes(data)
    read_bundle(folder)
    # Earlier versions kept no classes of scores and no largest scale; where a view has no other directions, rest is
    # infinite.
    older = {(key, "missing") for key in ("score_class", "train_class", "scale_largest", "scale_order", "scale_groups")}
    # Nor did they keep shares of the training sites.
    assert accepted <= {*older, ("gaussian_rest", "one inf"), ("site_shares", "missing")}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "value"),
    [("floor", value) for value in (None, {}, True, 1e308, float("nan"), -1, "x", 0.5)]
    + [("whole_field", value) for value in ([[]], "x", [1], [True] * 99, 3)],
)
def test_parameters_out_of_range_are_refused(tmp_path, key, value):
    folder = Path(shutil.copytree(OLD / "robust-views", tmp_path / "b"))
    file = folder / "parameters.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))
    with pytest.raises(BallError):
        read_bundle(folder)
