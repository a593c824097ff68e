"""The ladder on terminals of any width: columns are left out and named, letters never."""

import io

import pytest
from rich.console import Console

from ball_features.evaluation.rows import LadderRow
from ball_features.reporting.run_tables import render_ladder
from ball_features.runs.rungs import RUNGS

ROWS = [
    LadderRow(rung, model, kind, 0.987, 0.97, 0.995, 0.5, 0.25)
    for rung in RUNGS
    for model, kind in (("robust-logistic", "baseline"), ("majority", "shortcut"))
]


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
def test_a_narrow_terminal_drops_columns_and_no_letters(width):
    screen = Console(width=width, file=io.StringIO(), record=True)
    screen.print(render_ladder(ROWS, width))
    text = screen.export_text()
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    line = next(line for line in text.splitlines() if "robust-logistic" in line)
    words = " ".join(text.split())
    left = words.split("but in ladder.csv: ")[1].split(". ")[0].split(", ") if "Not shown" in words else []
    rungs = [rung for rung in RUNGS if rung not in left]
    assert line.count("98.7") == len(rungs)
    assert {"random", "site left out"} <= set(rungs)
    assert bool(left) == (width < 120)
    assert ("The first two steps" in words) == ("copies together" in rungs)
