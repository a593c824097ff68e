"""`ball tune`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from ball_features.cli.derive import command
from ball_features.cli.fit import print_run
from ball_features.cli.layers import Subset
from ball_features.cli.options import CachePath, RunFolder, Shown, told
from ball_features.cli.screen import print_json, progress_bar, require_written, show
from ball_features.config import FitConfig
from ball_features.config.fields import COMMON, flat_name, option, options_of

__all__ = ["COMMAND", "TuneOptions", "tune"]

_HEEDED = (
    "groups", "jobs", "group_column", "test_size", "val_size", "seed", "epochs", "channels", "combine",
)  # fmt: skip
_SETTINGS = Subset(
    _HEEDED,
    help={
        "jobs": "Number of trainings at the same time; 0 uses every core.",
        "test_size": "Share of images in the test set, which chooses nothing.",
        "val_size": "Share of images in the validation set, which chooses the settings.",
        "seed": "Random seed of the split, the settings and the trainings.",
        "epochs": "Number of epochs of a full training.",
    },
    ignores=tuple(
        ".".join(path)
        for path, item, _ in options_of(FitConfig)
        if flat_name(item) not in (*_HEEDED, "models", "repeats", "protocol", "center")  # the last two are refused
    ),
)


@dataclass(frozen=True)
class TuneOptions(RunFolder):
    """Options of `ball tune` that are no settings of the models."""

    trials: int = option(
        27, "Number of settings to try; those of the student report are the first.", panel=COMMON, low=1
    )


def tune(cache: CachePath, config: Annotated[FitConfig, _SETTINGS], options: TuneOptions, shown: Shown) -> None:
    """Search the head's settings: width, depth, dropout, learning rate, weight decay, batch, epochs, use of views.

    Validation images choose, in many short trainings of which the best third
    goes on (successive halving). The chosen head and that of the student report
    are then tested once, on images that chose nothing. Writes trials.csv and a
    run.
    """
    from ball_features.reporting.run_tables import render_trials
    from ball_features.runs.store import annotate
    from ball_features.runs.tune import tune as run

    with progress_bar("Training", shown.silent, "heads") as progress:
        result, rows = run(
            cache,
            config,
            trials=options.trials,
            out_root=options.out,
            name=options.name or None,
            notes=told(options.note),
            progress=progress,
        )
    if options.note:
        annotate(result.folder, options.note)
    if shown.as_json:
        values = {"run": str(result.folder), "trials": rows, "metrics": result.metrics, "notes": result.notes}
        print_json(values)
    else:
        show(render_trials(rows))
        print_run(result, shown)
    require_written(result.unwritten)


COMMAND = command(tune, file=True)
