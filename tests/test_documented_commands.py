"""Commands of the documentation: all are understood, and those of the README's steps run one after the other."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ball_features.cli import app
from ball_features.errors import BallError, ConfigError

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = sorted([README, *(ROOT / "docs").glob("*.md"), ROOT / "benchmarks" / "README.md"])
VARIABLES = {"$IMAGES": "IMAGES", "$SLURM_ARRAY_TASK_ID": "3"}
# Without an input they would run, fetch files, or need packages of a store.
NEED_NO_INPUT = re.compile(r"ball (demo|download)\b|(s3|gs)://")


def commands(text):
    """Commands in indented lines, without what a shell does with their output; a backslash carries a line on."""
    lines = re.sub(r" *\\\n\s*", " ", text).splitlines()
    found = [re.sub(r"^.*&& (?=ball )", "", line.strip()) for line in lines if re.match(r" {4}(.*&& )?ball ", line)]
    found = [re.sub(r"\s+(#|>|\||&&|2>).*$", "", line) for line in found]
    for name, value in VARIABLES.items():
        found = [line.replace(name, value) for line in found]
    return found


DOCUMENTED = {line: page.name for page in PAGES for line in commands(page.read_text(encoding="utf-8"))}


@pytest.mark.parametrize("line", [line for line in DOCUMENTED if not NEED_NO_INPUT.search(line)])
def test_a_command_is_understood(line, tmp_path, monkeypatch):
    """Its inputs are missing here: what it says must be about these, not about its options or their values."""
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, shlex.split(line)[1:])
    assert isinstance(done.exception, BallError), (DOCUMENTED[line], done.output)
    if isinstance(done.exception, ConfigError):  # an export of a bundle that is not there
        assert "is no folder" in str(done.exception)


def test_commands_are_found_in_text():
    text = (
        "a\n\n    pip install . && ball demo\n    ball fit $IMAGES \\\n      --seed 1 > out.txt\n    ball runs  # all\n"
    )
    assert commands(text) == ["ball demo", "ball fit IMAGES --seed 1", "ball runs"]
    assert "ball assess IMAGES --out artifacts/assess" in DOCUMENTED


@pytest.mark.slow
def test_the_steps_of_the_readme_run(smears, small_cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "IMAGES").symlink_to(smears)
    shutil.copy(small_cache, "artifacts/all.h5")
    quick = {
        "extract": "--backbone densenet121 --weights random --views 2 --precision fp32 --input-px 96",
        "fit": "--models logistic,majority,colour --repeats 1 --jobs 1",
        "audit": "",
    }
    steps = README.read_text(encoding="utf-8").split("## Step by step")[1].split("##")[0]
    lines = commands(steps)
    assert [line.split()[1] for line in lines] == ["extract", "audit", "fit", "fit"]
    for line in lines:
        name, *words = shlex.split(line)[1:]
        done = CliRunner().invoke(app, [name, *words, *quick[name].split()])
        assert done.exit_code == 0, (line, done.output)
    for made in ("groups.csv", "audit.html", "runs"):
        assert (tmp_path / "artifacts" / made).exists()
