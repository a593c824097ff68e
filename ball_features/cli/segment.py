"""`ball segment`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ball_features.cli.options import Images, Json, Quiet, Strict, Verbose
from ball_features.cli.root import app, print_json, progress_bar, say

__all__ = ["segment"]


@app.command()
def segment(
    images: Images,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder that the pictures are written into.", show_default=False)
    ],
    method: Annotated[
        str,
        typer.Option(
            help="How nuclei are found: hsv (the published colour thresholds) or otsu (a threshold for each image, for "
            "another stain)."
        ),
    ] = "hsv",
    clean: Annotated[
        bool, typer.Option("--clean", help="Clean the masks: fill holes, close gaps, drop specks.")
    ] = False,
    strict: Strict = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Write a copy of each image that is black but for the nuclei, as a PNG file of the same name.

    `ball extract --channels original,segmented --twins OUT` takes the copies as
    its second channel. OUT/nuclei.csv holds numbers of the nuclei of each
    picture, such as their area.
    """
    from ball_features.extraction.segment import segment_folder

    with progress_bar("Segmenting", quiet or as_json) as progress:
        result = segment_folder(images, out, method=method, clean=clean, progress=progress)
    if as_json:
        values = {"folder": str(out), "images": result.images, "median_area": result.median_area}
        print_json(values | {"rejected": [vars(item) for item in result.rejected]})
    else:
        for item in result.rejected:
            say(f"rejected  {item.path}: {item.reason}")
        typer.echo(
            f"{result.images} pictures in {out}, {len(result.rejected)} files rejected. Nuclei are "
            f"{100 * result.median_area:.1f} % of a picture (median); none were found in {result.empty}."
        )
    if strict and result.rejected:
        raise typer.Exit(1)
