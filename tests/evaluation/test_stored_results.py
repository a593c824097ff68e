"""A table that was edited is refused by whatever quotes it: its figures are those of the predictions beside it."""

import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from ball_features import FitConfig, fit
from ball_features.cache import read_cache
from ball_features.errors import ConfigError, DataError
from ball_features.evaluation.stored_results import read_curve, read_ladder, read_measurement
from ball_features.reporting.curve_page import write_curve_report
from ball_features.reporting.evaluation_list import list_evaluations
from ball_features.reporting.external_summary import read_summary as read_evaluation
from ball_features.reporting.joint import write_joint_report, write_ladder_report
from ball_features.reporting.markup import write_page
from ball_features.reporting.page import write_report
from ball_features.reporting.run_list import list_runs
from ball_features.runs.evaluate import evaluate
from ball_features.runs.evidence_of import comparison_evidence
from ball_features.runs.ladder import ladder
from ball_features.runs.learning_curve import learning_curve
from ball_features.runs.strictest import choose_best
from tests.commands import ball
from tests.made import clouds, write_cache

MODELS = ("logistic", "lda", "colour")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A cache, and a ladder, a learning curve, a run with a saved model and its evaluation elsewhere."""
    folder = tmp_path_factory.mktemp("stored")
    embeddings, label = clouds(40, distance=0.7)
    site = [f"s{row % 3}" for row in range(len(label))]
    cache = write_cache(folder / "a.h5", embeddings, label, {"site": site})
    plain = FitConfig(models=MODELS, repeats=2, jobs=1)
    ladder(cache, replace(plain, group_column="site"), out_root=folder, name="ladder")
    learning_curve(cache, replace(plain, protocol="learning-curve"), out_root=folder, name="curve")
    run = fit(cache, plain, out_root=folder, name="run", save="logistic").folder
    loaded = read_cache(cache)
    noisy = loaded.embeddings + np.random.default_rng(0).normal(0, 1, loaded.embeddings.shape).astype("f4")
    elsewhere = replace(loaded, embeddings=noisy.astype(np.float32), mapped=None)
    evaluate(run / "models" / "logistic", elsewhere, out=folder / "evaluation")
    return folder


@pytest.fixture
def copy(made, tmp_path):
    return lambda name: shutil.copytree(made / name, tmp_path / name)


def change(folder, name, column, value, where=lambda row: True):
    """Write a value, or what a function makes of each row, into a column of a table."""
    with (folder / name).open(newline="") as file:
        rows = list(csv.DictReader(file))
    chosen = [row for row in rows if where(row)]
    assert chosen
    for row in chosen:
        row[column] = value(row) if callable(value) else value
    with (folder / name).open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def drop(folder, name):
    lines = (folder / name).read_text().splitlines(keepends=True)
    (folder / name).write_text("".join(line for line in lines if "lda" not in line))


def test_what_was_written_agrees(made):
    assert {row.rung for row in read_ladder(made / "ladder")} == {"random", "copies together", "site left out"}
    assert all(row.mean_recall is not None for row in read_ladder(made / "ladder") if row.rung == "site left out")
    assert read_curve(made / "curve") and read_measurement(made / "run").models
    assert read_evaluation(made / "evaluation").images == 160
    for folder in ("ladder", "curve", "run"):
        page = (made / folder / "report.html").read_text()
        assert "were computed from predictions.csv again, and agree" in page
    found = list_runs(made)
    assert [run.name for run in found.runs] == ["curve", "ladder", "run"] and not found.damaged


LADDER = {
    **{name: ("ladder.csv", name, "0.999") for name in ("accuracy", "balanced_recall")},
    **{
        name: ("ladder.csv", name, "0.999", lambda row: row["mean_recall"])
        for name in ("mean_recall", "worst_recall", "mean_balanced_recall")
    },
    "another model": ("ladder.csv", "model", "mlp", lambda row: row["model"] == "lda"),
    "another kind": ("ladder.csv", "kind", "shortcut", lambda row: row["model"] == "lda"),
    "predicted": ("predictions.csv", "predicted", lambda row: row["label"]),
    "label": ("predictions.csv", "label", lambda row: row["predicted"]),
    "probability": ("predictions.csv", "p_Pro", "nan"),
    "no number": ("predictions.csv", "p_Pro", "x"),
    "unknown class": ("predictions.csv", "label", "x"),
    "a long cell": ("predictions.csv", "path", "x" * 200_000),
}


@pytest.mark.slow
@pytest.mark.parametrize("edit", LADDER.values(), ids=LADDER)
def test_an_edited_ladder_is_refused(copy, tmp_path, edit):
    folder = copy("ladder")
    change(folder, *edit)
    for quoting in (read_ladder, write_ladder_report):
        with pytest.raises(DataError, match="was edited or damaged"):
            quoting(folder)
    found = list_runs(tmp_path)
    assert not found.runs and "was edited or damaged" in found.damaged[0].reason


CURVE = {
    **{name: ("curve.csv", name, "0.999") for name in ("accuracy", "recall", "log_loss")},
    "subsets": ("curve.csv", "subsets", "9"),
    "predicted": ("predictions.csv", "predicted", lambda row: row["label"]),
}


@pytest.mark.parametrize("edit", CURVE.values(), ids=CURVE)
def test_an_edited_learning_curve_is_refused(copy, tmp_path, edit):
    folder = copy("curve")
    change(folder, *edit)
    for quoting in (read_curve, write_curve_report):
        with pytest.raises(DataError, match="was edited or damaged"):
            quoting(folder)
    assert "was edited or damaged" in list_runs(tmp_path).damaged[0].reason


@pytest.mark.parametrize("table", ["ladder.csv", "predictions.csv"])
def test_a_ladder_without_one_of_its_models_is_refused(copy, table):
    folder = copy("ladder")
    drop(folder, table)
    with pytest.raises(DataError, match=r"(ladder|predictions)\.csv has none of copies together lda"):
        read_ladder(folder)


def test_a_ladder_that_keeps_no_predictions_says_that_nothing_was_checked(copy):
    folder = copy("ladder")
    (folder / "predictions.csv").unlink()
    change(folder, "ladder.csv", "accuracy", "0.999")
    page = write_ladder_report(folder).read_text()
    assert "no figure of this page was checked" in page and "and agree" not in page


def edit_accuracy(folder):
    values = json.loads((folder / "metrics.json").read_text())
    values["models"][0]["accuracy"] = 0.999
    (folder / "metrics.json").write_text(json.dumps(values))


@pytest.mark.parametrize("column", ["accuracy", "predicted"])
def test_an_edited_run_is_named_and_left_out_where_runs_are_compared(made, copy, tmp_path, column):
    folder = copy("run")
    if column == "predicted":
        change(folder, "predictions.csv", "predicted", lambda row: row["label"])
    else:
        edit_accuracy(folder)
    shutil.copytree(made / "run", tmp_path / "sound")
    shutil.copytree(made / "run", tmp_path / "again")
    found = list_runs(tmp_path)
    assert [run.name for run in found.runs] == ["again", "sound"]
    assert found.damaged[0].name == "run" and "was edited or damaged" in found.damaged[0].reason
    told = ball("runs", tmp_path).stdout
    assert "Damaged: run:" in told and "All 2 runs tested the same" in told and "100.00 %" not in told
    with pytest.raises(DataError, match="was edited or damaged"):
        write_joint_report([folder, tmp_path / "sound"], tmp_path / "page.html", [None, None])


def test_an_edited_run_chooses_no_model(copy, tmp_path):
    folder = copy("ladder")
    details = json.loads((folder / "run.json").read_text()) | {"config": {"protocol": "holdout", "adapt": "none"}}
    best = max((row for row in read_ladder(folder) if row.rung == "site left out"), key=lambda row: row.accuracy)
    others = [name for name in MODELS if name != best.model]
    assert choose_best(tmp_path, details, [*others, best.model]).model == best.model
    change(folder, "ladder.csv", "accuracy", "0.999", lambda row: row["model"] == others[0])
    assert choose_best(tmp_path, details, [*others, best.model]).model == others[0]  # of the present table
    assert not choose_best(tmp_path, details, [*others, best.model]).note


CELLS = ("", "x", "nan", "inf", "-1", "1e400", "=1", "9" * 400)
VALUES = (None, True, -1, 1e308, "x", "", [], [None], {}, {"a": {}}, [[1]])


def places(values, most=3):
    """Containers and keys of everything in a JSON value; of lists the first."""
    keys = [*values] if isinstance(values, dict) else [*range(len(values))][:most] if isinstance(values, list) else []
    for key in keys:
        yield values, key
        yield from places(values[key])


def edits(folder):
    """Each edit of each table and JSON file of a folder, made there and taken back; yields what it was."""
    for path in sorted(folder.glob("*.csv")):
        before = path.read_bytes()
        with path.open(newline="") as file:
            rows = list(csv.reader(file))
        for column, name in enumerate(rows[0]):
            cut = [[cell for at, cell in enumerate(row) if at != column] for row in rows]
            first = rows[1] if len(rows) > 1 else []
            changed = [[cell if at == column else own for at, own in enumerate(first)] for cell in CELLS]
            for number, table in enumerate([cut, *([rows[0], row, *rows[2:]] for row in changed)]):
                with path.open("w", newline="") as file:
                    csv.writer(file, lineterminator="\n").writerows(table)
                yield f"{path.name} {name} {number}"
        for part in (before.split(b"\n")[0] + b"\n", b"", before[: len(before) // 2]):
            path.write_bytes(part)
            yield f"{path.name} {len(part)} bytes"
        path.write_bytes(before)
    for path in sorted(folder.glob("*.json")):
        before = path.read_bytes()
        values = json.loads(before)
        for container, key in [*places(values)]:
            kept = container[key]
            for value in VALUES:
                container[key] = value
                path.write_text(json.dumps(values))
                yield f"{path.name} {key} {value}"
            container[key] = kept
        path.write_bytes(before)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "every"), [("run", 61), ("ladder", 11), ("curve", 11)])
def test_a_page_of_edited_files_is_made_or_refused_in_words(copy, tmp_path, name, every):
    """Some of the edits; with `every` 1 all of them were tried."""
    folder = copy(name)
    write = {"run": write_report, "ladder": write_ladder_report, "curve": write_curve_report}[name]
    refused = made = 0
    for number, _ in enumerate(edits(folder)):
        if number % every:
            continue
        try:
            write(folder)
            made += 1
        except DataError:
            refused += 1
        list_runs(tmp_path)
    assert refused > 20 and made > 10


EVALUATION = {
    "predicted": ("predictions.csv", "predicted", lambda row: row["label"]),
    "label": ("predictions.csv", "true", lambda row: row["predicted"]),
    "fewer": ("predictions.csv", "status", "unlabelled", lambda row: row["predicted"] != row["true"]),
}


@pytest.mark.parametrize("edit", EVALUATION.values(), ids=EVALUATION)
def test_predictions_of_an_evaluation_that_were_edited_are_refused(copy, edit):
    folder = copy("evaluation")
    change(folder, *edit)
    with pytest.raises(DataError, match="was edited or damaged"):
        read_evaluation(folder)


@pytest.mark.parametrize("name", ["n", "accuracy", "balanced_recall"])
def test_figures_of_an_evaluation_that_were_edited_are_refused(copy, name):
    folder = copy("evaluation")
    values = json.loads((folder / "evaluation.json").read_text())
    (folder / "evaluation.json").write_text(json.dumps(values | {name: 1}))
    with pytest.raises(DataError, match="was edited or damaged"):
        read_evaluation(folder)


@pytest.mark.parametrize(("name", "value"), [("published", [1]), ("n", "1e999"), ("sets", 5), ("verdict", {"a": 1})])
def test_an_evaluation_with_a_field_of_another_type_is_named(copy, tmp_path, name, value):
    folder = copy("evaluation")
    values = json.loads((folder / "evaluation.json").read_text()) | {name: value}
    (folder / "evaluation.json").write_text(json.dumps(values).replace('"1e999"', "1e999"))
    found = list_evaluations(tmp_path)
    assert not found.evaluations and [own.name for own in found.damaged] == ["evaluation"]


def test_a_run_beside_a_table_that_cannot_be_read_is_not_lost(made, copy, tmp_path):
    """Of the cells of `ladder.csv` one is longer than any table has; the present run is saved all the same."""
    folder = copy("ladder")
    change(folder, "ladder.csv", "model", "x" * 200_000, lambda row: row["model"] == "lda")
    config = FitConfig(models=("logistic", "lda"), repeats=1, jobs=1)
    done = fit(made / "a.h5", config, out_root=tmp_path, name="own", save="best")
    assert (done.folder / "models").is_dir()
    found = list_runs(tmp_path)
    assert [run.name for run in found.runs] == ["own"] and [own.name for own in found.damaged] == ["ladder"]


def test_a_run_that_is_moved_before_its_page_is_written_is_not_made_anew(made, tmp_path, monkeypatch):
    def moving(contents):
        (tmp_path / "runs").rename(tmp_path / "moved")
        return comparison_evidence(contents)

    monkeypatch.setattr("ball_features.runs.store.comparison_evidence", moving)
    config = FitConfig(models=("colour",), repeats=1, jobs=1)
    done = fit(made / "a.h5", config, out_root=tmp_path / "runs", name="x")
    assert "was moved or removed" in done.unwritten[0] and "verdict.json and report.html" in done.unwritten[0]
    assert [path.name for path in tmp_path.iterdir()] == ["moved"] and (tmp_path / "moved" / "x" / "run.json").exists()
    with pytest.raises(DataError, match="it was moved or removed"):
        write_page(
            tmp_path / "runs" / "x" / "report.html", "report.html", "t", named=False, sections=[], side_by_side=None
        )


def test_notes_of_a_run_are_texts(made, tmp_path):
    with pytest.raises(ConfigError, match=r"Got notes=\[5\], expected texts"):
        fit(made / "a.h5", FitConfig(models=("colour",)), out_root=tmp_path, notes=["a", 5])  # type: ignore[list-item]
    assert not list(tmp_path.iterdir())


def test_a_table_is_compared_again_once_it_has_changed(copy):
    folder = copy("ladder")
    before = (folder / "ladder.csv").read_bytes()
    read_ladder(folder)
    change(folder, "ladder.csv", "accuracy", "0.999")
    with pytest.raises(DataError, match="was edited or damaged"):
        read_ladder(folder)
    (folder / "ladder.csv").write_bytes(before)
    read_ladder(folder)
