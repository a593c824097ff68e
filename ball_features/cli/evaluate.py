"""`ball evaluate`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ball_features.cli.derive import command
from ball_features.cli.options import NOTE, BundleFolder, Strict
from ball_features.cli.screen import echo, print_json, progress_bar, say, show
from ball_features.config import CollectionConfig, EvaluateConfig
from ball_features.config.fields import COMMON, REQUIRED, Config, option
from ball_features.errors import ConfigError

__all__ = ["COMMAND", "EvaluateOptions", "evaluate"]


@dataclass(frozen=True)
class EvaluateOptions(Config):
    """Options of `ball evaluate` that are no settings of the evaluation."""

    out: Path = option(
        REQUIRED,
        "Folder for evaluation.html, evaluation.json, verdict.json and predictions.csv; a path or an address.",
        panel=COMMON,
        short="o",
        stored="folder",
    )
    cache: Path | None = option(
        None,
        "Cache of the images (.h5), a path or an address, made with the bundle's settings, instead of a folder.",
        panel=COMMON,
    )
    note: str = NOTE


def evaluate(
    bundle: BundleFolder,
    images: Annotated[
        Path | None,
        typer.Argument(
            help="Folder, archive or address of labelled images of elsewhere; left out with --cache.",
            show_default=False,
        ),
    ],
    config: EvaluateConfig,
    collection: CollectionConfig,
    options: EvaluateOptions,
    shown: Strict,
) -> None:
    """Evaluate a saved model on labelled images of elsewhere, such as another hospital's.

    The classes are read from folders or a sheet, as `ball extract` does. Says
    how often the model is right there, against its own test, whether its
    probabilities, sets and its flag for unusual images hold, and what labels
    of some of the images would mend. Nothing is fitted to the figures. Images
    whose label the model does not know, and images without one, are predicted
    and reported apart.
    """
    from ball_features.reporting.external_table import render_evaluation
    from ball_features.reporting.verdict import render_verdict
    from ball_features.runs.evaluate import evaluate as run
    from ball_features.runs.evaluate import keep_note

    if (images is None) == (options.cache is None):
        got = "both a folder of images and" if images is not None else "neither a folder of images nor"
        raise ConfigError(f"Got {got} --cache, expected one of them.")
    source = images if images is not None else options.cache
    assert source is not None
    with progress_bar("Predicting", shown.silent) as progress:
        done = run(bundle, source, config, out=options.out, collection=collection, progress=progress)
    done = keep_note(done, options.note) if options.note else done
    if shown.as_json:
        print_json(done)
    else:
        for path, reason in done.rejected:
            say(f"rejected  {path}: {reason}")
        show(render_verdict(done.findings))
        for note in () if shown.quiet else done.notes:
            say(note)
        show(render_evaluation(done))
        echo(f"Page: {options.out / 'evaluation.html'}")
    if shown.strict and done.rejected:
        raise typer.Exit(1)


COMMAND = command(evaluate, optional=("images",))
