"""Commands of the documentation: all are understood, and those of the README's steps run one after the other."""

import os
import re
import shlex
import shutil
import subprocess
import textwrap
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from ball_features import ExtractConfig, extract, read_cache
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


QUICK = ["--weights", "random", "--input-px", "64", "--views", "1"]


def scale_page(heading):
    return (ROOT / "docs" / "scale.md").read_text(encoding="utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_the_job_array_runs_as_typed(few_smears, tmp_path, monkeypatch, tiny_densenet):
    """A shell expands the page's lines; what it would start is then run here, with a network of a few layers."""
    monkeypatch.chdir(tmp_path)
    block = re.findall(r"(?:^    .*\n|^\n)+", scale_page("A job array"), re.MULTILINE)
    script, after = re.split(r"\n\s*\n", textwrap.dedent("".join(block)).strip())
    (tmp_path / "bin").mkdir()
    for name, body in (("ball", 'printf "%s\\0" "$@" > "$CALL"'), ("sbatch", 'exec bash -c "${2#--wrap=}"')):
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    assert script.startswith("#!/bin/bash\n#SBATCH --array=1-8 ") and after.startswith(
        "sbatch --dependency=afterok:JOB"
    )

    def run(text, **variables):
        environment = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "CALL": str(tmp_path / "call"), **variables}
        subprocess.run(["bash", "-ec", text], env=environment, check=True)
        words = (tmp_path / "call").read_text().split("\0")[:-1]
        more = ["--backbone", tiny_densenet, *QUICK] if words[0] == "extract" else []
        done = CliRunner().invoke(app, [*words, *more])
        assert done.exit_code == 0, (words, done.output)

    for number in range(1, 9):
        run(script, IMAGES=str(few_smears), SLURM_ARRAY_TASK_ID=str(number))
    run(after)
    config = ExtractConfig(tiny_densenet, weights="random", input_px=64, views=1, precision="fp32")
    one, two = read_cache(extract(few_smears, "one.h5", config).cache), read_cache("all.h5")
    assert np.array_equal(one.embeddings, two.embeddings) and np.array_equal(one.path, two.path)


@pytest.mark.slow
def test_the_shards_run_as_typed(few_smears, tmp_path, monkeypatch, tiny_densenet):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "IMAGES").symlink_to(few_smears)
    one_part, merged = commands(scale_page("Shards"))
    for number in range(1, 9):
        words = shlex.split(one_part.replace("3", str(number), 1).replace("3/8", f"{number}/8"))
        done = CliRunner().invoke(app, [*words[1:], "--backbone", tiny_densenet, *QUICK, "--precision", "fp32"])
        assert done.exit_code == 0, (words, done.output)
    done = CliRunner().invoke(app, shlex.split(merged)[1:])
    assert done.exit_code == 0, done.output
    assert read_cache("all.h5").complete and len(read_cache("all.h5").path) == 24


@pytest.mark.slow
def test_the_steps_of_the_readme_run(few_smears, tiny_densenet, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "IMAGES").symlink_to(few_smears)
    quick = {
        "extract": f"--backbone {tiny_densenet} --weights random --views 2 --precision fp32 --input-px 96",
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
