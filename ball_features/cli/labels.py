"""`ball labels`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from ball_features.cli.derive import command
from ball_features.cli.layers import Subset
from ball_features.cli.options import CachePath, Shown
from ball_features.cli.screen import echo, print_json, progress_bar, say, show
from ball_features.config import FitConfig
from ball_features.config.fields import COMMON, REQUIRED, Config, option

__all__ = ["COMMAND", "LabelsOptions", "labels"]

_SETTINGS = Subset(
    ("models", "groups", "folds", "seed", "jobs", "channels", "combine"),
    help={
        "models": "Models that judge, with commas between, of those on embeddings; logistic and lda if left out.",
        "folds": "Number of folds; each image is judged by models of the folds without it.",
        "seed": "Random seed of the folds and the models.",
    },
)


@dataclass(frozen=True)
class LabelsOptions(Config):
    """Options of `ball labels` that are no settings of the models."""

    out: Path = option(
        REQUIRED, "Sheet to write, a CSV; a file that exists is not replaced.", short="o", panel=COMMON, stored="file"
    )
    page: Path | None = option(None, "Page to write with the most doubtful images.", panel=COMMON, stored="file")
    images: Path | None = option(None, "Folder or archive of the images, for pictures on the page.", panel=COMMON)


def labels(cache: CachePath, config: Annotated[FitConfig, _SETTINGS], options: LabelsOptions, shown: Shown) -> None:
    """Find labels that are possibly wrong: by models that have not seen the image, and by its neighbours.

    Writes a sheet with all images, the most doubtful first. Correct its column
    label, or empty it to leave an image out, then run `ball extract IMAGES
    --sheet labels.csv` on the same cache: labels change, nothing is computed
    anew. Columns such as patient and site are kept.
    """
    from ball_features.reporting.labels_page import render_labels, say_labels
    from ball_features.runs.label_check import check_labels

    with progress_bar("Fitting", shown.silent, "fits") as progress:
        done = check_labels(cache, options.out, config, page=options.page, images=options.images, progress=progress)
    if shown.as_json:
        values = {"labels": str(done.out), "page": done.page, "images": len(done.rows), "flagged": done.flagged}
        print_json(values | {"rows": [row for row in done.rows if row.flagged], "notes": done.notes})
        return
    for note in () if shown.quiet else done.notes:
        say(note)
    echo(say_labels(done.rows, done.flagged))
    show(render_labels(done.rows, min(done.flagged, 20)))
    echo(f"Labels: {done.out}" + (f". Page: {done.page}" if done.page is not None else ""))


COMMAND = command(labels)
