"""Commands that a verdict advises are carried out as they are printed, on caches of drawn numbers."""

import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from ball_features import FitConfig
from ball_features.cli import app
from ball_features.config.toml import Repeat
from ball_features.errors import DataError
from ball_features.reporting.finding import Command
from ball_features.runs.fit import fit
from tests.made import clouds, write_cache

GIVEN = FitConfig(models=("majority",), repeats=1, jobs=1, protocol="given")
QUICK = FitConfig(models=("logistic", "majority"), repeats=1, jobs=1)


def make(folder, columns=(), per_class=24, distance=1.2):
    embeddings, label = clouds(per_class, distance=distance)
    columns = {name: [str(value(row)) for row in range(len(label))] for name, value in dict(columns).items()}
    return write_cache(folder / "c.h5", embeddings, label, columns, weights="imagenet")


def leaky(row):
    return "test" if row % 12 in (0, 1) else "train"


def find(findings, code):
    (found,) = [finding for finding in findings if finding.code == code]
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("columns", "protocol"),
    [
        ({"patient": lambda row: f"P{row % 8}", "split": leaky}, "patient-cv"),
        ({"group": lambda row: f"G{row % 8}", "split": leaky}, "group-cv"),
    ],
)
def test_a_split_that_leaks_is_made_anew(tmp_path, monkeypatch, columns, protocol):
    monkeypatch.chdir(tmp_path)
    make(tmp_path, columns)
    found = find(fit("c.h5", GIVEN, out_root="runs").findings, "given-split-leaks")
    run(found.next, protocol)


@pytest.mark.slow
def test_sites_that_tell_the_class_are_left_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make(tmp_path, {"site": lambda row: f"S{(row // 170 + (row % 3 == 0)) % 2}"}, 170)
    found = find(fit("c.h5", QUICK, out_root="runs").findings, "site-tells-class")
    run(found.next, "leave-site-out")


@pytest.mark.slow
def test_columns_of_a_groups_file_are_named_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make(tmp_path)
    lines = [f"{name}/{row:05}.png,P{row % 8},{leaky(row)}" for row, name in enumerate(clouds(24)[1])]
    (tmp_path / "my groups.csv").write_text("\n".join(["path,patient,split", *lines]) + "\n")
    config = replace(GIVEN, groups="my groups.csv")
    run(find(fit("c.h5", config, out_root="runs").findings, "given-split-leaks").next, "patient-cv")


def run(command, protocol):
    program, *words = shlex.split(command)
    assert program == "ball"
    assert words[words.index("--protocol") + 1] == protocol
    done = CliRunner().invoke(app, [*words, "--models", "majority", "--jobs", "1", "--repeats", "1", "--quiet"])
    assert done.exit_code == 0, done.output


def test_one_class_is_nothing_to_tell_apart(tmp_path):
    embeddings = np.random.default_rng(0).normal(size=(30, 8))
    cache = write_cache(tmp_path / "c.h5", embeddings, ["Benign"] * 30)
    with pytest.raises(DataError, match=r"All 30 images of .* are of the class 'Benign', expected at least two"):
        fit(cache, QUICK, out_root=tmp_path)


def test_a_name_that_begins_with_a_dash_is_no_option():
    assert str(Command("fit", ("-x.h5",), {"group_column": "-a"})) == "ball fit ./-x.h5 --group-column=-a"
    command = Repeat("fit", {"cache": "-x.h5"}, FitConfig()).command(Path("-runs"))
    assert command == "ball fit ./-x.h5 --config ./-runs/config.toml"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("names", "columns", "words"),
    [
        ("{row:05}.png", {}, ["--sheet", "SHEET.csv"]),
        ("{label}/{row:05}.png", {}, []),
        ("{label}/P{row}/{row:05}.png", {"patient": lambda row: f"P{row}"}, []),
        ("{label}/{row:05}.png", {"patient": lambda row: f"Q{row % 8}"}, ["--sheet", "SHEET.csv"]),
        ("Training/{label}/{row:05}.png", {"split": lambda row: "train"}, []),
    ],
)
def test_images_are_embedded_again_from_their_sheet(tmp_path, names, columns, words):
    embeddings, label = clouds(24)
    columns = {name: [value(row) for row in range(len(label))] for name, value in columns.items()}
    paths = [names.format(label=name, row=row) for row, name in enumerate(label)]
    cache = write_cache(tmp_path / "c.h5", embeddings, label, columns, paths=paths, weights="random")
    command = find(fit(cache, QUICK, out_root=tmp_path).findings, "random-weights").next
    assert shlex.split(command)[-2:] == (words or ["--weights", "imagenet"])
