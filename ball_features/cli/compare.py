"""`ball compare`."""

from __future__ import annotations

from typing import Annotated

import typer

from ball_features.cli.derive import command
from ball_features.cli.layers import Subset
from ball_features.cli.options import RunFolder, Shown, told
from ball_features.cli.screen import echo, print_json, progress_bar, require_written, show, width
from ball_features.config import FitConfig

__all__ = ["COMMAND", "compare"]

_SETTINGS = Subset(
    (
        "protocol", "models", "repeats", "groups", "jobs", "group_column", "folds", "seed", "train_views", "test_views",
    ),
    defaults={"models": ("mlp", "logistic", "colour", "histogram", "nuclei")},
    help={
        "protocol": "How images are divided: holdout (at random), cv (cross-validation), group-cv (of whole groups), "
        "block-cv (of runs of neighbouring files), leave-group-out (each series in turn).",
        "models": "Models of the table, with commas between, of: {names}.",
    },
    ignores=("channels", "combine", "compat_batch_metrics"),
)  # fmt: skip


def compare(
    caches: Annotated[
        list[str],
        typer.Argument(
            help="Two or more caches of the same images. CACHE.h5:original, :segmented, :original,segmented or :mean "
            "chooses the channels of a cache.",
            show_default=False,
        ),
    ],
    config: Annotated[FitConfig, _SETTINGS],
    options: RunFolder,
    shown: Shown,
) -> None:
    """Compare caches (networks, channels, recipes of views) on the same images and splits.

    One table, with a paired test of each line against the best.
    """
    from ball_features.reporting.run_tables import render_comparison
    from ball_features.reporting.verdict import findings_to_json, render_verdict
    from ball_features.runs.compare import compare as run
    from ball_features.runs.store import annotate

    with progress_bar("Fitting", shown.silent, "fits") as progress:
        result, rows = run(
            caches,
            config,
            out_root=options.out,
            name=options.name or None,
            notes=told(options.note),
            progress=progress,
        )
    if options.note:
        annotate(result.folder, options.note)
    if shown.as_json:
        values = {"run": str(result.folder), "verdict": findings_to_json(result.findings), "rows": rows}
        print_json(values | {"notes": result.notes})
        require_written(result.unwritten)
        return
    show(
        render_verdict(result.findings),
        *(() if shown.quiet else result.remarks),
        render_comparison(rows, result.title, width()),
        quiet=shown.quiet,
    )
    echo(f"Run: {result.folder}")
    require_written(result.unwritten)


COMMAND = command(compare, file=True)
