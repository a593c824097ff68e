"""What a user may pass on names no folder and no user: runs, pages, caches and bundles, made with absolute paths."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ball_features import read_cache
from tests.commands import ball
from tests.made import clouds, write_cache

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_no_file_names_the_users_folder(tmp_path):
    home, work = tmp_path / "home-of-alice", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    columns = {"patient": [str(row // 4) for row in range(160)], "site": ["AB"[row // 4 % 2] for row in range(160)]}
    settings = {"resize": "224 px, bilinear, antialiased", "normalize": "imagenet", "views": 1, "input_px": 224}
    settings |= {"images": str(home / "images"), "weights": str(home / "weights.pth"), "dtype": "float32"}
    cache = write_cache(home / "own data.h5", *clouds(40), columns=columns, **settings)
    other = write_cache(home / "other.h5", *clouds(40), columns=columns, **settings)
    (home / "b").mkdir()
    same = write_cache(home / "b" / "other.h5", *clouds(40), columns=columns, **settings)
    names = read_cache(cache).path.tolist()
    rows = "".join(f"{name},{number // 4},{'AB'[number % 2]}\n" for number, name in enumerate([*names[5:], "gone.jpg"]))
    sheet = home / "the sheet.csv"
    sheet.write_text(f"path,patient,ward\n{rows}")
    runs, few = str(work / "runs"), ["--models", "logistic,lda", "--jobs", "1", "--repeats", "1"]
    commands = [
        ["fit", str(cache), *few, "--save", "logistic", "--out", runs, "--name", "one"],
        ["fit", str(cache), *few, "--protocol", "ladder", "--out", runs, "--name", "ladder"],
        ["fit", str(cache), *few, "--groups", str(sheet), "--out", str(work / "more"), "--name", "one"],
        ["fit", str(cache), *few, "--groups", str(sheet), "--protocol", "ladder", "--out", runs, "--name", "lacking"],
        ["compare", str(cache), str(other), *few, "--out", runs, "--name", "two"],
        ["compare", str(other), str(same), *few, "--out", runs, "--name", "of one name"],
        ["report", str(work / "runs" / "one"), str(work / "more" / "one"), "--out", str(work / "of_one_name.html")],
        ["report", str(work / "runs" / "one"), str(work / "runs" / "ladder"), "--out", str(work / "joint.html")],
        ["evaluate", str(work / "runs/one/models/logistic"), "--cache", str(other), "--out", str(work / "external")],
        [
            *("evaluate", str(work / "runs/one/models/logistic"), "--cache", str(same), "--sheet", str(sheet)),
            *("--out", str(work / "with a sheet")),
        ],
        [
            "labels",
            str(cache),
            "--models",
            "logistic",
            "--out",
            str(work / "labels.csv"),
            "--page",
            str(work / "l.html"),
        ],
        ["export", str(work / "runs/one/models/logistic"), "--card", str(work / "card.md")],
        ["export", str(cache), "--csv", str(work / "a.csv")],
    ]
    environment = os.environ | {"HOME": str(home), "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    for command in commands:
        done = ball(*command, env=environment, cwd=work)
        assert done.returncode == 0, (command, done.stderr)
    for path in work.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert b"home-of-alice" not in content, path
            assert bytes(tmp_path) not in content, path
    # The run is repeated by its own command, which a shell reads.
    command = (work / "runs/one/run.json").read_text().split('"command": "ball ')[1].split('",\n')[0]
    command = command.replace('\\"', '"')
    assert command.startswith("fit ~/'own data.h5'")
    again = f"{sys.executable} -m ball_features {command} --name again --out {runs}"
    done = subprocess.run(["sh", "-c", again], capture_output=True, text=True, env=environment, cwd=work)
    assert done.returncode == 0, done.stderr
    first, second = (work / "runs" / name / "predictions.csv" for name in ("one", "again"))
    assert first.read_bytes() == second.read_bytes()
