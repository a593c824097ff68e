"""Classes of one to three images, groups that hold a class alone, sites of one image: words, or true numbers."""

import json
import math
import warnings

import numpy as np
import pytest

from ball_features.config import FitConfig, HeadConfig
from ball_features.config.bundling import Saving
from ball_features.errors import BallError
from ball_features.files import read_csv
from ball_features.runs.fit import fit
from ball_features.runs.label_check import check_labels
from ball_features.runs.ladder import ladder
from ball_features.runs.learning_curve import learning_curve
from ball_features.runs.tune import tune
from tests.made import write_cache

pytestmark = pytest.mark.slow
PROTOCOLS = (
    *("holdout", "cv", "group-cv", "block-cv", "patient-cv", "leave-group-out", "leave-site-out", "given"),
    *("ladder", "learning-curve", "tune", "labels"),
)
BOTH = ["a"] * 14 + ["b"] * 14


def of(sizes):
    return [f"c{number}" for number, size in enumerate(sizes) for _ in range(size)]


def alone(label):
    return [str(row) for row in range(len(label))]


def two(label):
    return ["ab"[row % 2] for row in range(len(label))]


def all_but_first(label):
    return ["x", *["y"] * (len(label) - 1)]


def mixed(label):
    """Patients of one image, but for one of both classes."""
    return ["x" if 10 < row < 18 else str(row) for row in range(len(label))]


def thirds(label):
    return ["test" if row % 3 == 0 else "train" for row in range(len(label))]


# Classes, and the columns of a sheet as functions of the classes of all images.
DESIGNS = {
    "one image of a class": (of((1, 14, 14)), {"group": alone}),
    "two and three images of a class": (of((2, 3, 14)), {"group": alone, "site": two}),
    "all classes of two images": (of((2, 2, 2)), {"patient": alone}),
    "two images": (of((1, 1)), {"site": alone, "patient": alone}),
    "groups that are the classes": (
        BOTH, {name: lambda own: [*own] for name in ("group", "series", "patient", "site", "block")}
    ),
    "one class in one group, the other in many": (
        BOTH, {name: lambda own: [one if one == "a" else f"b{n}" for n, one in enumerate(own)]
               for name in ("group", "patient", "site", "series")},
    ),
    "one patient with two classes": (BOTH, {"patient": mixed}),
    "one patient": (BOTH, {name: lambda own: ["x"] * len(own) for name in ("patient", "site", "series", "group")}),
    "sites of one image": (BOTH, {"site": alone, "series": alone}),
    "one image of a site, the rest of another": (
        BOTH, {"site": all_but_first, "series": all_but_first}
    ),
    "columns of gaps": (BOTH, {name: lambda own: ["" if n % 3 else str(n % 2) for n in range(len(own))]
                               for name in ("patient", "site", "group", "series")}),
    "a test of one image": (BOTH, {"split": lambda own: ["test", *["train"] * (len(own) - 1)]}),
    "a test of one class": (BOTH, {"split": lambda own: ["test" if n < 5 else "train" for n in range(len(own))]}),
    "a class that is only tested": (BOTH, {"split": lambda own: ["test" if one == "a" else "train" for one in own]}),
    "a class that is only validated": (
        of((2, 14, 14)),
        {"split": lambda own: ["val", "val", *thirds(own[2:])]},
    ),
    "a validation of one image": (
        BOTH, {"split": lambda own: ["val", *thirds(own[1:])]}
    ),
    "folds of one image": (of((6, 6)), {"split": alone}),
    "a fold of one class": (BOTH, {"split": lambda own: ["0" if n < 5 else str(1 + n % 2) for n in range(len(own))]}),
}  # fmt: skip


@pytest.fixture(scope="module")
def cache_of(tmp_path_factory):
    """Function from the name of a design to its cache; a number tells the class a little."""

    def make(name):
        label, columns = DESIGNS[name]
        rng = np.random.default_rng(3)
        code = np.unique(label, return_inverse=True)[1]
        embeddings = rng.normal(size=(len(label), 6)) + code[:, None] * 1.5
        texts = {column: cells(label) for column, cells in columns.items()}
        return write_cache(tmp_path_factory.mktemp("tiny") / "c.h5", embeddings, label, texts)

    return make


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_tiny_parts_end_in_words_or_in_true_numbers(cache_of, tmp_path, protocol, design):
    cache, own = cache_of(design), {"models": ("logistic", "lda", "majority"), "repeats": 1, "jobs": 1}
    folds = {"folds": 2} if protocol.endswith("cv") else {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # no library says what is wrong in its own words
            if protocol == "ladder":
                run = ladder(cache, FitConfig(**own), out_root=tmp_path, keep=True)
                assert (tmp_path / "ladder" / "ladder.csv").exists()
                return
            if protocol == "learning-curve":
                learning_curve(cache, FitConfig(**own, protocol=protocol), out_root=tmp_path)
                return
            if protocol == "labels":
                check_labels(
                    cache, tmp_path / "labels.csv", FitConfig(models=("logistic",), protocol="cv", folds=2, jobs=1)
                )
                listed = read_csv(tmp_path / "labels.csv")
                assert sorted(row["label"] for row in listed) == sorted(DESIGNS[design][0])
                return
            if protocol == "tune":
                run, _ = tune(
                    cache, FitConfig(repeats=1, jobs=1, head=HeadConfig(epochs=2)), trials=3, out_root=tmp_path
                )
            else:
                config = FitConfig(**own, **folds, protocol=protocol)
                run = fit(cache, config, out_root=tmp_path, save=Saving("logistic", final=protocol == "cv"))
    except BallError as error:
        assert 20 < len(str(error)) < 1500
        assert "Traceback" not in str(error)
        assert not any(path.name.startswith("run.json") for path in tmp_path.rglob("*"))
        return
    require_true(run.folder)


def require_true(folder):
    """Figures are those of the rows of `predictions.csv`; what no image tells is no number."""
    rows = [*read_csv(folder / "predictions.csv")]
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    for found in metrics["models"]:
        mine = [row for row in rows if row["model"] == found["model"]]
        if not mine:
            assert found["accuracy"] is None
            continue
        assert math.isclose(found["accuracy"], np.mean([row["label"] == row["predicted"] for row in mine]))
        assert found["accuracy_low"] <= found["accuracy"] <= found["accuracy_high"]
        tested = {row["label"] for row in mine}
        for name, values in found["per_class"].items():
            here = [row["predicted"] == name for row in mine if row["label"] == name]
            if here:
                assert math.isclose(values["recall"], np.mean(here))
                assert len(here) > 5 or values["recall_high"] - values["recall_low"] > 0.3
            else:
                assert values["recall"] is None
        if len(tested) == 1:
            assert found["auroc"] is None
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.rstrip().endswith("</html>")
    table = (folder / "table.md").read_text(encoding="utf-8")
    for text in (table, json.dumps(metrics)):
        assert not {"nan", "inf", "NaN", "Infinity"} & {*text.replace("|", " ").replace(",", " ").split()}
    verdict = (folder / "verdict.json").read_text(encoding="utf-8")
    assert "too few" in verdict or "Fewer than" in verdict or len(rows) > 200
