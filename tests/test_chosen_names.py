"""Names that `ball` chooses in a folder of a stranger's: no link is followed there, no pipe waited for."""

import json
import os
import shutil

import pytest

from ball_features import ExtractConfig, FitConfig, fit
from ball_features.deployment.answers import require_replaceable
from ball_features.errors import BallError, DataError
from ball_features.reporting.events import write_events
from ball_features.reporting.joint import write_own_report
from ball_features.reporting.page import write_report
from ball_features.runs.assess import assess
from ball_features.runs.ladder import ladder
from ball_features.runs.learning_curve import learning_curve
from tests.made import clouds, write_cache
from tests.tiny import TINY

PLAIN = FitConfig(models=("logistic",), repeats=2, jobs=1)
EMBEDDING = ExtractConfig(TINY, weights="random", input_px=64, precision="fp32")
pytestmark = pytest.mark.usefixtures("tiny_densenet")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    embeddings, label = clouds(20)
    cache = write_cache(folder / "a.h5", embeddings, label, {"site": [f"s{row % 3}" for row in range(len(label))]})
    fit(cache, PLAIN, out_root=folder, name="run")
    ladder(cache, FitConfig(**{**PLAIN.to_dict(), "group_column": "site"}), out_root=folder, name="ladder")
    learning_curve(cache, FitConfig(**{**PLAIN.to_dict(), "protocol": "learning-curve"}), out_root=folder, name="curve")
    return folder


def dangling(place, tmp_path):
    place.symlink_to(tmp_path / "home" / "authorized_keys")


def to_a_page(place, tmp_path):
    own = tmp_path / "own.html"
    own.write_bytes(place.read_bytes() if place.is_file() else b"")
    place.unlink(missing_ok=True)
    place.symlink_to(own)


def pipe(place, tmp_path):
    os.mkfifo(place)


KINDS = {"dangling": dangling, "to a page": to_a_page, "pipe": pipe}
if not hasattr(os, "mkfifo"):
    del KINDS["pipe"]


def contents(folder):
    return {
        str(path): path.read_bytes() if path.is_file() and not path.is_symlink() else os.lstat(path).st_mode
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("name", ["run", "ladder", "curve"])
def test_a_page_in_a_run_is_written_there_or_nowhere(runs, tmp_path, name, kind):
    (tmp_path / "home").mkdir()
    folder = shutil.copytree(runs / name, tmp_path / name)
    values = json.loads((folder / "run.json").read_text())
    values["notes"] = ["see below\nssh-ed25519 AAAA evil\nend"]
    (folder / "run.json").write_text(json.dumps(values))
    if kind is not to_a_page:
        (folder / "report.html").unlink()
    kind(folder / "report.html", tmp_path)
    before = contents(tmp_path)
    with pytest.raises(DataError, match=r"report\.html is (a link, and what it leads to|no file, and) would be"):
        (write_report if name == "run" else write_own_report)(folder)
    assert contents(tmp_path) == before


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize(
    "name", ["cache.h5", "groups.csv", "audit.json", "verdict.json", "assess.html", "ladder", ".ladder.rungs"]
)
def test_an_assessment_follows_no_name_of_its_folder(tmp_path, few_smears, name, kind):
    (tmp_path / "home").mkdir()
    (tmp_path / "out").mkdir()
    kind(tmp_path / "out" / name, tmp_path)
    before = contents(tmp_path)
    if kind is pipe and name.endswith(("ladder", "rungs")):  # where a folder is made, under another name
        assess(few_smears, tmp_path / "out", EMBEDDING, PLAIN)
    else:
        with pytest.raises(BallError, match=name.replace(".", r"\.")):
            assess(few_smears, tmp_path / "out", EMBEDDING, PLAIN)
    after = contents(tmp_path)
    assert {place: after[place] for place in before} == before
    assert not list((tmp_path / "home").iterdir())


@pytest.mark.parametrize("name", ["run", "run/test-logistic"])
def test_training_curves_follow_no_link(runs, tmp_path, name):
    pytest.importorskip("tensorboard")
    (tmp_path / "home").mkdir()
    place = tmp_path / "tensorboard" / name
    place.parent.mkdir(parents=True)
    place.symlink_to(tmp_path / "home")
    with pytest.raises(DataError, match="is a link"):
        write_events(runs / "run", tmp_path / "tensorboard")
    assert not list((tmp_path / "home").iterdir())


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("name", ["p.csv.json", "p.patients.csv"])
def test_files_beside_predictions_follow_no_link(tmp_path, name, kind):
    (tmp_path / "home").mkdir()
    kind(tmp_path / name, tmp_path)
    with pytest.raises(DataError, match=r"is (a link, and what it leads to|no file, and) would be"):
        require_replaceable(tmp_path / "p.csv", "out", [])
    assert not list((tmp_path / "home").iterdir())


def test_a_page_that_the_caller_names_may_lie_in_a_new_folder_and_behind_a_link(runs, tmp_path):
    (tmp_path / "link.html").symlink_to(tmp_path / "page.html")
    for out in (tmp_path / "new" / "folder" / "page.html", tmp_path / "link.html"):
        assert write_report(runs / "run", out) == out and out.read_text(encoding="utf-8").startswith("<!doctype html")
    assert (tmp_path / "page.html").is_file() and (tmp_path / "link.html").is_symlink()
