"""`ball predict`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ball_features.cli.options import (
    BundleFolder,
    BundlePrecision,
    Device,
    Json,
    MovedWeights,
    Quiet,
    Strict,
    Trust,
    Verbose,
)
from ball_features.cli.root import app, print_json, progress_bar, say

__all__ = ["predict"]


@app.command()
def predict(
    bundle: BundleFolder,
    images: Annotated[
        list[str],
        typer.Argument(
            help="Folders, patterns such as 'new/*.png', or files; - reads their names from standard input."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="File to write: .csv (with a .csv.json beside it), .json or .html."),
    ] = None,
    coverage: Annotated[
        float, typer.Option(help="Share of images whose set of classes should hold the true one.")
    ] = 0.95,
    weights: MovedWeights = None,
    device: Device = "auto",
    precision: BundlePrecision = "auto",
    trust: Trust = False,
    strict: Strict = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Predict the class of new images: research use only, not a diagnosis.

    Columns: path, predicted, a calibrated probability for each class, a set of
    classes that holds the true one for a share --coverage of images (if they
    are like those of validation), the distance to the nearest training images,
    and whether that is unusual. An unusual image (another stain, another
    magnification, no smear at all) gets a class all the same: do not trust it.
    Where the model errs on fewer images than --coverage allows, sets hold one
    class, whatever the doubt. Folders are searched as `ball extract` does. The
    file beside a CSV holds what does not belong to one image: the model, the
    coverage, thresholds, rejected files.
    """
    from ball_features.deployment.answers import check_suffix
    from ball_features.deployment.predict import predict as run
    from ball_features.files import require_writable

    if out is not None:
        check_suffix(out)
        require_writable(out, "--out")
    names = [item for item in images if item != "-"]
    if "-" in images:
        names += [line.strip() for line in sys.stdin.read().splitlines() if line.strip()]
    with progress_bar("Predicting", quiet or as_json) as progress:
        found = run(
            bundle,
            names,
            coverage=coverage,
            weights=weights,
            device=device,
            precision=precision,
            trust=trust,
            progress=progress,
        )
    written = [] if out is None else found.write(out)
    if as_json:
        print_json(found.to_dict())
    else:
        for item in found.predictions if out is None else ():
            strange = "  UNUSUAL" if item.unusual else ""
            typer.echo(
                f"{item.path}  {item.predicted} {item.probability[item.predicted]:.3f}  {'|'.join(item.set)}{strange}"
            )
        for item in found.rejected:
            say(f"rejected  {item.path}: {item.reason}")
        unusual = sum(item.unusual for item in found.predictions)
        where = f" in {out}" if out is not None else ""
        beside = f" Coverage, bundle and rejected files: {written[1]}." if len(written) > 1 else ""
        say(
            f"{len(found.predictions)} predictions{where}, {unusual} of unusual images (beyond a distance of "
            f"{found.about['unusual_from']:.4f}), {len(found.rejected)} files rejected.{beside}"
        )
        for note in () if quiet else found.notes:
            say(note)
    if strict and found.rejected:
        raise typer.Exit(1)
