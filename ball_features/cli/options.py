"""Options that several commands have, each with one help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "BundleFolder",
    "BundlePrecision",
    "CachePath",
    "Combine",
    "Device",
    "Folds",
    "GroupColumn",
    "Groups",
    "Images",
    "Jobs",
    "Json",
    "MovedWeights",
    "Quiet",
    "Repeats",
    "RunName",
    "RunsFolder",
    "Seed",
    "Strict",
    "TestViews",
    "TrainViews",
    "Trust",
    "UsedChannels",
    "Verbose",
]

BundleFolder = Annotated[
    Path,
    typer.Argument(
        help="Folder of a saved model (a bundle), RUN/models/MODEL, made by `ball fit --save`.", show_default=False
    ),
]
BundlePrecision = Annotated[
    str, typer.Option(help="Number format the network computes in: auto (the bundle's own), fp32, bf16 or fp16.")
]
CachePath = Annotated[Path, typer.Argument(help="Cache of embeddings, made by `ball extract`.", show_default=False)]
Combine = Annotated[str, typer.Option(help="How several channels are joined: concat (one behind the other) or mean.")]
Device = Annotated[str, typer.Option(help="Where the network runs: auto, cpu, cuda (NVIDIA) or mps (Apple).")]
Folds = Annotated[int, typer.Option(help="Number of folds of a cross-validation (cv, group-cv, block-cv).")]
GroupColumn = Annotated[
    str, typer.Option(help="Column of --groups that a split keeps together; several joined with +.")
]
Groups = Annotated[
    Path | None,
    typer.Option(help="Groups file, such as `ball audit` writes: a CSV of path,group, whose groups no split cuts."),
]
Images = Annotated[Path, typer.Argument(help="Folder of images, with one folder per class in it.", show_default=False)]
Jobs = Annotated[int, typer.Option(help="Number of models fitted at the same time; 0 uses every core.")]
MovedWeights = Annotated[
    str | None,
    typer.Option(help="File of the network's weights, where it is no longer at the path that the bundle names."),
]
Repeats = Annotated[int, typer.Option(help="How often the protocol is repeated, each time with another random seed.")]
RunName = Annotated[str, typer.Option(help="Name of this run's folder; protocol and time if left out.")]
RunsFolder = Annotated[Path, typer.Option(help="Folder that the run's own folder is written into.")]
Seed = Annotated[int, typer.Option(help="Random seed of the splits and the models.")]
UsedChannels = Annotated[
    str, typer.Option(help="Channels of the cache to use, such as original,segmented; all if left out.")
]
Strict = Annotated[bool, typer.Option("--strict", help="End with exit code 1 where files were rejected.")]
TrainViews = Annotated[
    str,
    typer.Option(
        help="Views that models are trained on: auto (the views of --test-views, and random views), all, or names or "
        "numbers with commas between. robust-views has a model of its own for each view that it is tested on."
    ),
]
TestViews = Annotated[
    str,
    typer.Option(
        help="Views that models are validated and tested on, by their mean probability: auto (the plain view; for "
        "robust-views all others that are not random), all, or names or numbers with commas between."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output, for other programs.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print results and errors only.")]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust", help="Load the bundle's file model.joblib, which can run any code: only from people you trust."
    ),
]
Verbose = Annotated[bool, typer.Option("--verbose", help="Show where in the code an internal error happened.")]
