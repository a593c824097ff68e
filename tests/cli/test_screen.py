"""Names from outside are printed as text: on any terminal, without control characters, never as markup."""

import os
import re
import shutil
import subprocess
import sys

import pytest
from rich.table import Table

from ball_features import ExtractConfig, extract, read_cache
from ball_features.cli.screen import clean, echo, progress_bar, say, show
from tests.commands import ball

CLASSES = ("前B", "[ALL]", "\x1b[31mred", ":smile:")


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("a\tb\n前", "a\tb\n前"),
        ("\x1b[2J", "\\x1b[2J"),
        ("\x9b2J", "\\x9b2J"),
        ("a\rb\x07", "a\\rb\\x07"),
        ("abc\u202etxt.exe", "abc\\u202etxt.exe"),
        ("[/] [red]", "[/] [red]"),
    ],
)
def test_control_characters_are_written_out(text, printed, capsys):
    assert clean(text) == printed
    echo(text)
    say(text)
    out = capsys.readouterr()
    line = printed.replace("\t", r"\t").replace("\n", r"\n")  # of one line, no name makes two
    assert out.out == out.err == f"{line}\n"


def test_a_table_shows_names_as_they_are(capsys):
    table = Table(title="[/] \x1b[1m[red]")
    table.add_column("[bold]class of a long name")
    for name in (*CLASSES, "[/]"):
        table.add_row(name)
    show("a note on [/] and [ALL]", table)
    out = capsys.readouterr().out
    for name in ("a note on [/] and [ALL]", "[/] \\x1b[1m[red]", "[bold]class of a long name", *map(clean, CLASSES)):
        assert name in out
    assert "\x1b" not in out


def test_progress_shows_names_as_they_are(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    for terminal in (True, False):
        monkeypatch.setattr(sys.stderr, "isatty", lambda now=terminal: now)
        with progress_bar("Fitting", False, "[/]") as progress:
            progress(1, 2, "[/] \x9b2J")
        assert "\x9b" not in capsys.readouterr().err


@pytest.fixture(scope="module")
def odd(smears, tmp_path_factory, tiny_densenet):
    """A cache and a groups file whose classes and groups have odd names."""
    folder = tmp_path_factory.mktemp("odd")
    for source, name in zip(sorted(path for path in smears.iterdir() if path.is_dir()), CLASSES, strict=True):
        shutil.copytree(source, folder / "images" / name)
    extract(
        folder / "images",
        folder / "a.h5",
        ExtractConfig(backbone=tiny_densenet, weights="random", views=1, precision="fp32", input_px=64),
    )
    rows = [f"{path},slide [/{row % 9}]" for row, path in enumerate(read_cache(folder / "a.h5", embeddings=False).path)]
    (folder / "groups.csv").write_text("path,group\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_every_terminal_shows_every_name(odd, tmp_path, encoding):
    def run(*arguments):
        done = ball(*arguments, encoding=encoding)
        assert done.returncode == 0, done.stderr
        assert "\x1b" not in done.stdout + done.stderr
        return done.stdout

    first = CLASSES[0] if encoding == "utf-8" else CLASSES[0].encode(encoding, "backslashreplace").decode()
    names = (first, *map(clean, CLASSES[1:]))
    # As a user starts it; the commands below are forked, since their libraries take seconds to load.
    words = [sys.executable, "-m", "ball_features", "inspect", str(odd / "a.h5")]
    environment = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    done = subprocess.run(words, capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert b"\x1b" not in done.stdout + done.stderr
    shown = done.stdout.decode(encoding)
    assert not [name for name in names if name not in shown]
    options = ("--models", "majority,colour", "--repeats", 1, "--jobs", 1, "--out", tmp_path)
    split = ("--protocol", "group-cv", "--groups", odd / "groups.csv", "--folds", 3)
    assert "Run:" in run("fit", odd / "a.h5", *options, *split)
    quiet = run("fit", odd / "a.h5", *options, "--quiet")
    # The verdict and the table, without the notes between them.
    # One sentence may stand above the findings.
    assert any(re.match(r"(Serious|Warning|Note|Good): ", line) for line in quiet.lstrip().splitlines()[:2])
    assert "1 random hold-out" in quiet


def test_a_list_below_a_message_keeps_its_lines(capsys):
    say("Rejected files:\n  a.png: is cut\n  b\nError: c.png: is cut")
    assert capsys.readouterr().err == "Rejected files:\n  a.png: is cut\n  b\\nError: c.png: is cut\n"
