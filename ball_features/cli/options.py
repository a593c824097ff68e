"""Positional arguments and records of options that several commands share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ball_features.config import BundleUse
from ball_features.config.fields import COMMON, Config, option

__all__ = [
    "NOTE",
    "BundleFolder",
    "BundleUse",
    "CachePath",
    "Images",
    "Quiet",
    "RunFolder",
    "Shown",
    "Strict",
    "told",
]

BundleFolder = Annotated[
    Path,
    typer.Argument(
        help="Folder of a saved model (a bundle), RUN/models/MODEL, made by `ball fit --save`.", show_default=False
    ),
]
CachePath = Annotated[
    Path, typer.Argument(help="Cache of embeddings, made by `ball extract`; a path or an address.", show_default=False)
]
Images = Annotated[
    Path,
    typer.Argument(
        help="Folder, archive (.zip, .tar) or address (such as s3://bucket/set) of images, one folder per class in it.",
        show_default=False,
    ),
]


@dataclass(frozen=True)
class Quiet(Config):
    """How much a command says."""

    quiet: bool = option(False, "Print results and errors only.", panel="Output", short="q", in_file=False)
    verbose: bool = option(False, "Show where in the code an internal error happened.", panel="Output", in_file=False)


@dataclass(frozen=True)
class Shown(Quiet):
    """How much a command says, and in which form."""

    as_json: bool = option(
        False, "Print one JSON object on standard output, for other programs.", panel="Output", in_file=False
    )

    @property
    def silent(self) -> bool:
        """True where nothing but the result and errors is printed."""
        return self.quiet or self.as_json


@dataclass(frozen=True)
class Strict(Shown):
    """How much a command says, in which form, and whether rejected files are an error."""

    strict: bool = option(False, "End with exit code 1 where files were rejected.", panel="Output", in_file=False)


NOTE: str = option("", "Note on the run, which `ball runs` and the run's page show.", panel="Output", in_file=False)


@dataclass(frozen=True)
class RunFolder(Config):
    """Where a run is written."""

    out: Path = option(
        Path("artifacts/runs"),
        "Folder that the run's own folder is written into; a path or an address.",
        panel=COMMON,
        stored="runs",
    )
    name: str = option("", "Name of the run's own folder; protocol and time if left out.", panel=COMMON)
    note: str = NOTE


def told(note: str) -> list[str]:
    """The user's note as a note of a run."""
    return [f"Note: {note}"] if note else []
