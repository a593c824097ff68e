"""Many runs: found again in natural order, damaged ones named, and compared where they tested the same images."""

import importlib.util
import io
import json
import re
import shutil
import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from ball_features import FitConfig, fit
from ball_features.cli import app
from ball_features.errors import ConfigError, DataError
from ball_features.evaluation.paired_tests import corrected_best, paired_bootstrap
from ball_features.files import read_csv
from ball_features.reporting.joint import write_joint_report
from ball_features.reporting.mlflow_store import write_mlflow
from ball_features.reporting.run_list import _short_data, changed, differing, list_runs, natural_key, sort_runs
from ball_features.reporting.run_tables import render_runs
from ball_features.reporting.run_tests import choice_of_runs, comparable_runs
from ball_features.runs.store import annotate
from tests.made import clouds, write_cache

TRIES = {"try1": {"seed": 0}, "try2": {"head": {"epochs": 2}}, "try10": {"test_size": 0.3}}


def test_folders_that_cannot_be_read_are_named(tmp_path, monkeypatch):
    for name in ("closed", "open"):
        (tmp_path / name).mkdir()
    inside = Path.iterdir

    def refusing(folder):
        if folder.name == "closed":
            raise PermissionError(13, "Permission denied", str(folder))
        return inside(folder)

    monkeypatch.setattr(Path, "iterdir", refusing)
    found = list_runs(tmp_path)
    assert [(item.name, item.reason) for item in found.damaged] == [
        ("closed", "The folder cannot be read (Permission denied).")
    ]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return write_cache(tmp_path_factory.mktemp("made") / "own.h5", *clouds(20, distance=0.5))


@pytest.fixture(scope="module")
def folder(made, tmp_path_factory):
    """Three runs, two of which tested the same images; one damaged run, one folder that is none."""
    root = tmp_path_factory.mktemp("runs")
    for name, change in TRIES.items():
        base = {"models": ("mlp", "logistic", "majority"), "repeats": 2, "head": {"epochs": 1}}
        fit(made, FitConfig.from_mapping(base | change), out_root=root, name=name)
    annotate(root / "try2", "more epochs")
    shutil.copytree(root / "try1", root / "broken")
    (root / "broken" / "metrics.json").write_text('{"models": [')
    (root / "figures").mkdir()
    (root / "evaluation").mkdir()  # of a bundle elsewhere, which is no run, and damaged
    for name in ("evaluation.json", "predictions.csv", "verdict.json"):
        (root / "evaluation" / name).write_text("")
    return root


@pytest.mark.parametrize("width", [50, 80, 120, 200])
def test_a_terminal_of_any_width_shows_names_accuracies_and_notes(folder, width):
    runs = [replace(run, name=f"{run.name}-of-a-long-name", note="stain of May") for run in list_runs(folder).runs]
    console = Console(width=width, file=io.StringIO())
    console.print(render_runs(runs, width))
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= width
    flat = re.sub(r"\s", "", text)
    for word in ("try", "stain", "May", "acc.", "note"):
        assert word in flat
    assert ("No room for: data" in text) == (width < 100)


def test_one_cache_by_two_paths_is_one_cache(folder):
    runs = list_runs(folder).runs
    elsewhere = [replace(run, data=f"../{number}/own.h5") for number, run in enumerate(runs)]
    assert {run.data for run in _short_data(elsewhere)} == {"own.h5"}
    others = [replace(run, content=str(number)) for number, run in enumerate(elsewhere)]
    assert len({run.data for run in _short_data(others)}) == 3


def test_numbers_in_names_sort_by_value():
    assert sorted(["try10", "try2", "Try1", "a"], key=natural_key) == ["a", "Try1", "try2", "try10"]
    assert sorted(["2", "b/10", "b/9", "10"], key=natural_key) == ["2", "10", "b/9", "b/10"]
    many = "1" * 5000  # digits, more than Python makes a number of
    assert sorted([f"a{many}", "a٣", "a007", "a2", f"a{many[1:]}"], key=natural_key) == [
        "a2", "a٣", "a007", f"a{many[1:]}", f"a{many}"
    ]  # fmt: skip


def test_runs_are_listed_and_damaged_ones_named(folder):
    found = list_runs(folder)
    assert [run.name for run in found.runs] == ["try1", "try2", "try10"]
    assert [own.name for own in found.damaged] == ["broken"]
    assert [run.note for run in found.runs] == ["", "more epochs", ""]
    assert differing(found.runs) == ["test_size", "head.epochs"]
    assert changed(found.runs[2], ["test_size"]) == "test_size=0.3"
    assert changed(found.runs[0], ["test_size"]) == "defaults"
    for run in found.runs:
        best = max(
            (row for row in read_csv(folder / run.name / "metrics.csv") if row["kind"] != "shortcut"),
            key=lambda row: float(row["accuracy"]),
        )
        assert run.accuracy == float(best["accuracy"])
        assert (run.data, run.images, run.protocol) == ("own.h5", 80, "holdout")
    by_accuracy = [run.accuracy for run in sort_runs(found.runs, "accuracy")]
    assert by_accuracy == sorted(by_accuracy, reverse=True)
    with pytest.raises(ConfigError, match="expected one of: name, date"):
        sort_runs(found.runs, "colour")
    with pytest.raises(DataError, match="No folder"):
        list_runs(folder / "nowhere")
    assert [run.name for run in list_runs(folder / "try1").runs] == ["try1"]


def hits(run, model, folder):
    found = {}
    for row in read_csv(folder / run / "predictions.csv"):
        if row["model"] == model:
            found.setdefault(row["path"], []).append(row["predicted"] == row["label"])
    return {path: sum(own) for path, own in found.items()}, {path: len(own) for path, own in found.items()}


def test_runs_of_the_same_test_images_are_tested_and_the_choice_is_corrected(folder):
    runs = [(name, folder / name) for name in TRIES]
    (group,) = comparable_runs(runs)
    assert group.runs == ["try1", "try2"]
    pairs = [(run, model) for run in group.runs for model in ("mlp", "logistic")]
    right = {pair: hits(*pair, folder)[0] for pair in pairs}
    tests = hits("try1", "mlp", folder)[1]
    paths = sorted(tests)
    counted = np.array([tests[path] for path in paths])
    assert group.images == len(paths)
    columns = {pair: np.array([own[path] for path in paths]) for pair, own in right.items()}
    first = group.standings[0]
    assert columns[first.run, first.model].sum() == max(column.sum() for column in columns.values())
    last = group.standings[-1]
    difference = columns[first.run, first.model] - columns[last.run, last.model]
    low, high, p = paired_bootstrap(difference, np.arange(len(paths)), tests=counted)
    assert last.behind == pytest.approx((low, high), abs=0.03)  # units are numbered otherwise
    assert last.p == pytest.approx(min(1, p), abs=0.05) or last.p >= p
    listed = [(run, row) for run in group.runs for row in ("mlp", "logistic")]
    value, *_ = corrected_best(np.column_stack([columns[pair] for pair in listed]), counted, np.arange(len(paths)))
    assert group.best_of.models == 4
    assert group.best_of.accuracy == pytest.approx(value, abs=0.02)
    notes = choice_of_runs([group], 3)
    assert "2 runs (try1, try2) tested the same" in notes[0]
    assert "Corrected accuracy" in notes[0]
    assert "One other run tested other images" in notes[1]
    assert choice_of_runs([], 2)[0].startswith("No two of these runs")
    assert choice_of_runs([], 1) == []


def test_the_page_shows_settings_that_differ_and_models_as_rows(folder, tmp_path):
    folders = [folder / name for name in ("try10", "try2", "try1")]
    text = write_joint_report(folders, tmp_path / "all.html", [None] * 3).read_text(encoding="utf-8")
    head = text.split("<section>")[0]
    assert head.index("try1<") < head.index("try2<") < head.index("try10<")
    assert "head.epochs" in head
    assert "head.dropout" not in head
    assert "try2 logistic" in head
    assert "more epochs" in head
    assert "Corrected accuracy" in head
    assert ">best<" in head


def test_the_command(folder):
    done = CliRunner().invoke(app, ["runs", str(folder)])
    assert done.exit_code == 0, done.output
    assert "Damaged: broken" in done.output
    assert "more" in done.output
    values = json.loads(CliRunner().invoke(app, ["runs", str(folder), "--json", "--sort", "accuracy"]).stdout)
    assert {run["name"] for run in values["runs"]} == set(TRIES)
    assert [own["name"] for own in values["damaged"]] == ["broken", "evaluation"]
    assert values["comparable"][0]["best_of"]["models"] == 4
    empty = CliRunner().invoke(app, ["runs", str(folder / "figures")])
    assert (empty.exit_code, "No run in" in empty.output) == (0, True)


def test_a_note_is_kept_and_shown(made, tmp_path):
    words = ["fit", str(made), "--models", "logistic", "--repeats", "1", "--out", str(tmp_path), "--name", "a"]
    done = CliRunner().invoke(app, [*words, "--note", "first <try>"])
    assert done.exit_code == 0, done.output
    assert list_runs(tmp_path).runs[0].note == "first <try>"
    assert "first &lt;try&gt;" in (tmp_path / "a" / "report.html").read_text()
    assert "first" not in (tmp_path / "a" / "config.toml").read_text()


class Client:
    """A stand-in for MLflow's client that keeps what it is given."""

    def __init__(self, tracking_uri):
        self.address, self.runs, self.files = tracking_uri, {}, []
        Client.last = self

    def get_experiment_by_name(self, name):
        return None

    def create_experiment(self, name):
        return name

    def create_run(self, experiment, run_name, tags):
        number = str(len(self.runs))
        self.runs[number] = {"name": run_name, "tags": tags, "metrics": [], "params": {}, "ended": False}
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id=number))

    def log_batch(self, number, metrics=(), params=(), tags=()):
        self.runs[number]["metrics"] += [tuple(own) for own in metrics]
        self.runs[number]["params"] |= dict(params)

    def log_artifacts(self, number, folder):
        self.files.append(folder)

    def set_terminated(self, number):
        self.runs[number]["ended"] = True


def test_mlflow_gets_settings_figures_and_files(folder, tmp_path, monkeypatch):
    entities = types.ModuleType("mlflow.entities")
    entities.Metric = entities.Param = entities.RunTag = lambda *own: own
    tracking = types.ModuleType("mlflow.tracking")
    tracking.MlflowClient = Client
    package = types.ModuleType("mlflow")
    package.__spec__ = importlib.util.spec_from_loader("mlflow", None)
    for name, module in {"mlflow": package, "mlflow.entities": entities, "mlflow.tracking": tracking}.items():
        monkeypatch.setitem(sys.modules, name, module)
    write_mlflow(folder / "try2", str(tmp_path / "store"))
    kept = Client.last
    assert kept.address == (tmp_path / "store").as_uri()
    assert kept.files == [str(folder / "try2")]
    assert kept.runs["0"]["name"] == "try2"
    assert kept.runs["0"]["params"]["head.epochs"] == "2"
    by_name = {own["name"]: own for own in kept.runs.values()}
    mlp = by_name["try2/mlp"]
    assert mlp["tags"]["mlflow.parentRunId"] == "0"
    assert [step for name, _, _, step in mlp["metrics"] if name == "val_loss"] == [1, 2]
    row = next(row for row in read_csv(folder / "try2" / "metrics.csv") if row["model"] == "mlp")
    assert {name: value for name, value, _, _ in mlp["metrics"]}["accuracy"] == float(row["accuracy"])
    assert all(own["ended"] for own in kept.runs.values())


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_mlflow_keeps_a_run_in_a_local_store(folder, tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "false")
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)
    code = (
        "import sys; from mlflow.tracking import MlflowClient; client = MlflowClient(tracking_uri=sys.argv[1]); "
        "runs = client.search_runs([client.get_experiment_by_name('ball').experiment_id]); "
        "one = next(own for own in runs if own.info.run_name == 'try2'); "
        "print(len(runs), one.data.params['head.epochs'], len(client.list_artifacts(one.info.run_id)) > 5)"
    )
    number = write_mlflow(folder / "try2", str(tmp_path / "store"))
    assert number
    done = subprocess.run(
        [sys.executable, "-c", code, (tmp_path / "store").as_uri()], capture_output=True, text=True, timeout=120
    )
    assert done.stdout.split() == ["4", "2", "True"], done.stderr[-2000:]
