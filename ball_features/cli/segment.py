"""`ball segment`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import typer

from ball_features.cli.derive import command
from ball_features.cli.options import Images, Strict
from ball_features.cli.screen import echo, print_json, progress_bar, say
from ball_features.config.fields import REQUIRED, Config, option

__all__ = ["COMMAND", "SegmentOptions", "segment"]


@dataclass(frozen=True)
class SegmentOptions(Config):
    """Options of `ball segment`."""

    out: Path = option(REQUIRED, "Folder that the pictures are written into.", short="o", stored="folder")
    method: str = option(
        "hsv",
        "Method that finds nuclei: hsv (the published colour thresholds) or otsu (a threshold for each image, for "
        "another stain).",
    )
    clean: bool = option(False, "Clean the masks: fill holes, close gaps, drop specks.")


def segment(images: Images, options: SegmentOptions, shown: Strict) -> None:
    """Write a copy of each image that is black but for the nuclei, as a PNG file of the same name.

    `ball extract --channels original,segmented --twins OUT` takes the copies as
    its second channel. OUT/nuclei.csv holds numbers of the nuclei of each
    picture, such as their area.
    """
    from ball_features.dataset.remarks import some
    from ball_features.extraction.segment import segment_folder

    with progress_bar("Segmenting", shown.silent) as progress:
        result = segment_folder(images, options.out, method=options.method, clean=options.clean, progress=progress)
    if shown.as_json:
        values = {"folder": str(options.out), "images": result.images, "median_area": result.median_area}
        rejected = [vars(item) for item in result.rejected]
        print_json(values | {"rejected": rejected, "left": list(result.left)})
    else:
        for item in result.rejected:
            say(f"rejected  {item.path}: {item.reason}")
        echo(
            f"{result.images} pictures in {options.out}, {len(result.rejected)} files rejected. Nuclei are "
            f"{100 * result.median_area:.1f} % of a picture (median); none were found in {result.empty}."
        )
    if result.left and not shown.as_json:
        say(
            f"{len(result.left)} pictures of an earlier run stay, whose images are not in {images} any more: "
            f"{some(result.left)}. Remove them if nothing needs them."
        )
    if shown.strict and result.rejected:
        raise typer.Exit(1)


COMMAND = command(segment)
