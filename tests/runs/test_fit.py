"""A run directory: complete, and every number in it recomputable from its predictions."""

import csv
import dataclasses
import hashlib
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from sklearn import metrics as reference

from ball_features import FitConfig, HeadConfig, compare, fit, read_cache, read_run
from ball_features.errors import CacheError, ConfigError, DataError
from ball_features.evaluation.intervals import metric_intervals
from ball_features.evaluation.metrics import METRICS
from ball_features.evaluation.paired_tests import paired_bootstrap
from ball_features.files import read_csv
from ball_features.models import registry

MODELS = ("mlp", "logistic", "knn", "majority", "colour", "corner")
CONFIG = FitConfig(models=MODELS, repeats=2, head=HeadConfig(epochs=3))


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def run(small_cache, tmp_path_factory):
    return fit(small_cache, CONFIG, out_root=tmp_path_factory.mktemp("runs"))


def test_every_file_is_there(run):
    names = {path.name for path in run.folder.iterdir()}
    files = {
        "run.json",
        "splits.csv",
        "predictions.csv",
        "report.html",
        "metrics.csv",
        "metrics.json",
        "table.md",
        "curves.csv",
        "intervals.csv",
        "config.toml",
        "verdict.json",
    }
    assert names == files | {"models"}
    assert {path.name for path in (run.folder / "models").iterdir()} == {"mlp.safetensors", "mlp.json"}
    columns = ["model", "kind"]
    for name, metric in METRICS.items():
        columns += [name, f"{name}_low", f"{name}_high"] if metric.share else [name]
    header = (run.folder / "metrics.csv").read_text().splitlines()[0]
    assert header == ",".join([*columns, "fit_s", "predict_s"])
    assert (run.folder / "splits.csv").read_text().startswith("path,label,group,repeat,split")
    curves = table(run.folder / "curves.csv")
    assert len(curves) == 2 * 3
    assert list(curves[0])[:7] == "model repeat epoch train_loss val_loss train_accuracy val_accuracy".split()


def test_the_table_can_be_recomputed_with_scikit_learn(run):
    rows = table(run.folder / "predictions.csv")
    classes = [name[2:] for name in rows[0] if name.startswith("p_")]
    assert len(run.metrics) == len(MODELS)
    for line in table(run.folder / "metrics.csv"):
        own = [row for row in rows if row["model"] == line["model"]]
        truth, predicted = [row["label"] for row in own], [row["predicted"] for row in own]
        probability = np.array([[float(row[f"p_{name}"]) for name in classes] for row in own])
        assert [classes[k] for k in probability.argmax(1)] == predicted
        expected = {
            "accuracy": reference.accuracy_score(truth, predicted),
            "recall": reference.recall_score(truth, predicted, average="macro"),
            "log_loss": reference.log_loss(truth, probability, labels=classes),
            "auroc": reference.roc_auc_score(truth, probability, multi_class="ovr", labels=classes),
        }
        if line["model"] != "majority":
            expected["mcc"] = reference.matthews_corrcoef(truth, predicted)
        for name, value in expected.items():
            assert float(line[name]) == pytest.approx(value, rel=1e-6, abs=1e-9), (line["model"], name)


@pytest.mark.slow
def test_intervals_and_tests_can_be_recomputed_from_the_files_alone(small_cache, tmp_path):
    paths = read_cache(small_cache, embeddings=False).path
    groups = tmp_path / "groups.csv"
    groups.write_text("path,group\n" + "\n".join(f"{path},{row // 3}" for row, path in enumerate(paths)))
    run = fit(small_cache, FitConfig(models=("lda", "knn", "colour"), repeats=4, groups=str(groups)), out_root=tmp_path)
    assert run.details["groups_sha256"] == hashlib.sha256(groups.read_bytes()).hexdigest()
    rows, splits = table(run.folder / "predictions.csv"), table(run.folder / "splits.csv")
    assert list(splits[0]) == ["path", "label", "group", "repeat", "split", "fold", "unit"]
    unit = {row["path"]: int(row["unit"]) for row in splits}
    assert 1 < len(set(unit.values())) < len(unit)
    classes = [name[2:] for name in rows[0] if name.startswith("p_")]
    by_model, accuracy = {}, {}
    for name in [row["model"] for row in run.metrics]:
        own = [row for row in rows if row["model"] == name]
        truth = np.array([classes.index(row["label"]) for row in own])
        probability = np.array([[float(row[f"p_{key}"]) for key in classes] for row in own])
        images = len({row["path"] for row in own})
        found = metric_intervals(truth, probability, np.array([unit[row["path"]] for row in own]), images=images)
        for line in table(run.folder / "intervals.csv"):
            if line["model"] == name:
                ends = [float(line[end] or "nan") for end in ("low", "high")]
                assert ends == pytest.approx(found[line["metric"]], nan_ok=True), line
        by_model[name] = np.array([row["label"] == row["predicted"] for row in own], dtype=float)
        accuracy[name] = by_model[name].mean()
    units = np.array([unit[row["path"]] for row in rows if row["model"] == run.metrics[0]["model"]])
    for row in run.metrics[1:]:
        low, high, _ = paired_bootstrap(by_model[run.metrics[0]["model"]] - by_model[row["model"]], units)
        assert (row["behind_low"], row["behind_high"]) == pytest.approx((low, high))
        assert low <= run.metrics[0]["accuracy"] - row["accuracy"] <= high


@pytest.mark.slow
def test_a_model_that_fails_leaves_its_traceback(small_cache, tmp_path, monkeypatch):
    def build(seed, head):
        raise ZeroDivisionError("no luck")

    monkeypatch.setitem(registry.MODELS, "lda", dataclasses.replace(registry.MODELS["lda"], build=build))
    run = fit(small_cache, FitConfig(models=("lda", "knn"), repeats=1, jobs=1), out_root=tmp_path)
    (failure,) = run.details["failures"]
    assert (failure["model"], failure["failure"]) == ("lda", "ZeroDivisionError: no luck")
    assert "in build" in failure["traceback"]
    with pytest.raises(DataError, match=r"No model could be fitted.*no luck") as error:
        fit(small_cache, FitConfig(models=("lda",), repeats=1, jobs=1), out_root=tmp_path / "none")
    assert "in build" in error.value.__notes__[0]
    assert not list((tmp_path / "none").iterdir())


def test_splits_are_those_of_the_predictions(run, small_cache):
    cache = read_cache(small_cache)
    splits = table(run.folder / "splits.csv")
    assert len(splits) == 2 * len(cache.path)
    for repeat in ("0", "1"):
        tested = {row["path"] for row in splits if row["repeat"] == repeat and row["split"] == "test"}
        rows = table(run.folder / "predictions.csv")
        for model in MODELS:
            assert tested == {row["path"] for row in rows if row["model"] == model and row["repeat"] == repeat}


def test_json_is_strict_and_details_add_up(run):
    text = (run.folder / "metrics.json").read_text()
    assert "NaN" not in text
    details = json.loads(text)
    for model in details["models"]:
        counts = np.array(model["confusion"])
        assert np.trace(counts) / counts.sum() == pytest.approx(model["accuracy"])
    assert json.loads((run.folder / "run.json").read_text())["cache_fingerprint"]


@pytest.mark.slow
def test_choosing_the_best_is_paid_for(run, small_cache):
    """A bootstrap of the predictions file alone, with other draws; copies are drawn together."""
    best = json.loads((run.folder / "metrics.json").read_text())["best_of"]
    cache = read_cache(small_cache)
    content = dict(zip(cache.path.tolist(), cache.sha256.tolist(), strict=True))
    order = [row["model"] for row in run.metrics if row["kind"] != "shortcut"]  # of equals the first
    rows = [row for row in table(run.folder / "predictions.csv") if row["model"] in order]
    names = sorted({content[row["path"]] for row in rows})
    right, tests = np.zeros((len(names), len(order))), np.zeros(len(names))
    for row in rows:
        place = names.index(content[row["path"]])
        right[place, order.index(row["model"])] += row["label"] == row["predicted"]
        tests[place] += row["model"] == order[0]
    rng, reached = np.random.default_rng(5), []
    for _ in range(4000):
        drawn = rng.integers(0, len(names), len(names))
        others = np.setdiff1d(np.arange(len(names)), drawn)
        reached.append(right[others, right[drawn].sum(0).argmax()].sum() / tests[others].sum())
    assert best["models"] == len(order) == 3
    assert best["accuracy"] == pytest.approx(np.mean(reached), abs=0.015)
    assert any("Choosing the best of 3 models flatters it" in note for note in run.notes)


def test_reading_back(run):
    again = read_run(run.folder)
    assert [row["model"] for row in again.metrics] == [row["model"] for row in run.metrics]
    assert again.caption == run.caption
    with pytest.raises(DataError, match="no run"):
        read_run(run.folder / "models")


@pytest.mark.slow
def test_the_same_seed_gives_the_same_predictions(run, small_cache, tmp_path):
    again = fit(small_cache, CONFIG, out_root=tmp_path, name="x")
    assert (again.folder / "predictions.csv").read_text() == (run.folder / "predictions.csv").read_text()
    third = fit(small_cache, CONFIG, out_root=tmp_path, name="x")
    assert third.folder.name == "x-2"


@pytest.mark.slow
def test_test_images_do_not_reach_the_models(run, small_cache, tmp_path, monkeypatch):
    """Scramble the embeddings of all test images of repeat 0: what is learnt stays the same."""
    from dataclasses import replace

    import ball_features.runs.checks as module

    splits = table(run.folder / "splits.csv")
    tested = {row["path"] for row in splits if row["repeat"] == "0" and row["split"] == "test"}
    cache = read_cache(small_cache)
    rows = np.isin(cache.path, list(tested))
    embeddings = cache.embeddings.copy()
    embeddings[rows] = 7.0
    monkeypatch.setattr(module, "read_cache", lambda path: replace(cache, embeddings=embeddings))
    other = fit(small_cache, CONFIG, out_root=tmp_path)
    weights = [(folder / "models" / "mlp.safetensors").read_bytes() for folder in (run.folder, other.folder)]
    assert weights[0] == weights[1]


@pytest.mark.slow
def test_tta_averages_views(run, small_cache, tmp_path):
    from dataclasses import replace

    other = fit(small_cache, replace(CONFIG, tta=True), out_root=tmp_path)
    assert (other.folder / "predictions.csv").read_text() != (run.folder / "predictions.csv").read_text()


def test_table_fits_the_terminal(run):
    from rich.console import Console

    for width in (80, 100, 120, 160):
        console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: PTH123
        console.print(run.table(width))
        text = console.export_text()
        console.file.close()
        assert "…" not in text
        for model in MODELS:
            assert model in text


def test_wrong_input(small_cache, tmp_path):
    with pytest.raises(CacheError, match="No cache"):
        fit(tmp_path / "no.h5")
    with pytest.raises(ConfigError, match="Valid: mlp"):
        fit(small_cache, FitConfig(models=("svm",)))
    with pytest.raises(ConfigError, match="without slashes"):
        fit(small_cache, CONFIG, name="../x")


@pytest.mark.slow
def test_tensorboard_reads_the_curves(small_cache, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from ball_features.reporting.events import write_events

    run = fit(small_cache, FitConfig(models=("mlp", "colour"), repeats=2), out_root=tmp_path, name="r")
    assert write_events(run.folder, tmp_path / "logs") == 2
    events = EventAccumulator(str(tmp_path / "logs" / "r" / "mlp-1-0"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"loss/train", "loss/val", "accuracy/train", "accuracy/val"}
    with (run.folder / "curves.csv").open(newline="") as file:
        wanted = [float(row["val_loss"]) for row in csv.DictReader(file) if row["repeat"] == "1"]
    assert [item.value for item in events.Scalars("loss/val")] == pytest.approx(wanted, rel=1e-6)
    assert (tmp_path / "logs" / "r" / "test-colour").is_dir()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"folds": 3}, "Got folds=3 with the protocol holdout, which has none"),
        (
            {"test_size": 0.3, "protocol": "cv"},
            "Got test_size=0.3 with the protocol cv, whose test sets are its folds",
        ),
    ],
)
def test_sizes_that_a_protocol_does_not_have_are_refused(small_cache, tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        fit(small_cache, FitConfig(models=("knn",), **settings), out_root=tmp_path)
    with pytest.raises(ConfigError, match=message):
        compare([str(small_cache), "b.h5"], FitConfig(models=("knn",), **settings), out_root=tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("error", [ValueError("a bad name"), MemoryError(), OSError(28, "No space left on device")])
def test_a_page_that_fails_leaves_the_run(small_cache, tmp_path, monkeypatch, error):
    def failing(*arguments, **options):
        raise error

    monkeypatch.setattr("ball_features.runs.store.write_report", failing)
    run = fit(small_cache, FitConfig(models=("knn", "colour"), repeats=1), out_root=tmp_path, name="r", save="knn")
    assert run.folder == tmp_path / "r"
    assert run.notes[-1].startswith(f"report.html could not be written ({type(error).__name__}")
    again = read_run(run.folder)
    assert again.notes == run.notes
    assert [row.model for row in again.metrics] == [row.model for row in run.metrics]
    assert {path.name for path in run.folder.iterdir() if path.name.startswith((".", "report"))} == set()
    assert [path.name for path in run.bundles] == ["knn"]


@pytest.mark.slow
def test_an_interrupt_while_the_page_is_written_leaves_the_run(small_cache, tmp_path, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("ball_features.runs.store.write_report", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit(small_cache, FitConfig(models=("knn",), repeats=1), out_root=tmp_path, name="r")
    assert read_run(tmp_path / "r").metrics[0].model == "knn"


@pytest.mark.slow
@pytest.mark.parametrize("text", ["x\r{}.jpg", "x\n{}.jpg", 'x"{}.jpg', "x,{}.jpg", "<b>{}.jpg", "[red]{}.jpg"])
def test_a_run_over_odd_names_is_whole(small_cache, tmp_path, monkeypatch, text):
    from dataclasses import replace

    import ball_features.runs.checks as module

    cache = read_cache(small_cache)
    odd = np.array([f"{label}/{text.format(number)}" for number, label in enumerate(cache.label)])
    monkeypatch.setattr(module, "read_cache", lambda path: replace(cache, path=odd))
    run = fit(small_cache, FitConfig(models=("knn",), repeats=1), out_root=tmp_path)
    assert {row["path"] for row in read_csv(run.folder / "splits.csv")} == set(odd.tolist())
    assert not any("report.html" in note for note in run.notes)
    assert (run.folder / "report.html").is_file()


@pytest.mark.slow
def test_a_model_that_cannot_be_saved_is_an_error(small_cache, tmp_path, monkeypatch):
    """Before the work if it is known then, else after it, and the run with the other models stands."""

    def build(seed, head):
        raise ZeroDivisionError("no luck")

    config = FitConfig(models=("lda", "knn"), repeats=1, jobs=1)
    monkeypatch.setitem(registry.MODELS, "lda", dataclasses.replace(registry.MODELS["lda"], min_class=10_000))
    with pytest.raises(ConfigError, match="lda cannot be saved, since it cannot be fitted: lda needs 10000 training"):
        fit(small_cache, config, out_root=tmp_path / "known", save="lda")
    assert not list((tmp_path / "known").glob("*"))
    run = fit(small_cache, config, out_root=tmp_path / "other", save="knn")
    assert [bundle.name for bundle in run.bundles] == ["knn"]
    assert any(
        "lda was not fitted and is not in the table: lda needs 10000 training images" in note for note in run.notes
    )
    monkeypatch.setitem(registry.MODELS, "lda", dataclasses.replace(registry.MODELS["lda"], min_class=1, build=build))
    with pytest.raises(DataError, match=r"it has no model to save. lda: ZeroDivisionError: no luck") as error:
        fit(small_cache, config, out_root=tmp_path / "late", save="lda")
    (folder,) = (tmp_path / "late").iterdir()
    assert str(folder) in str(error.value)
    assert [row["model"] for row in read_run(folder).metrics] == ["knn"]


@pytest.mark.slow
def test_fits_in_threads_have_runs_of_their_own(tmp_path, small_cache):
    def one(seed):
        return fit(small_cache, FitConfig(models=("majority", "lda"), repeats=1, seed=seed), out_root=tmp_path)

    with ThreadPoolExecutor(6) as pool:
        runs = list(pool.map(one, range(12)))
    assert len({run.folder for run in runs}) == 12 == len(list(tmp_path.iterdir()))
    for seed, run in enumerate(runs):
        assert json.loads((run.folder / "run.json").read_text())["config"]["seed"] == seed
        stored = read_run(run.folder).metrics
        assert [row.intervals["accuracy"] for row in stored] == [row.intervals["accuracy"] for row in run.metrics]
