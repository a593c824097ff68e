"""`ball predict`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ball_features.cli.root import Json, Quiet, Trust, Verbose, app, print_json, progress_bar, say

__all__ = ["predict"]


@app.command()
def predict(
    bundle: Annotated[Path, typer.Argument(help="RUN/models/MODEL, made by `ball fit --save`.", show_default=False)],
    images: Annotated[list[str], typer.Argument(help="Folders, patterns or files; - reads names from standard input.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write .csv, .json or .html.")] = None,
    coverage: Annotated[float, typer.Option(help="Share of images whose set should hold the true class.")] = 0.95,
    weights: Annotated[str | None, typer.Option(help="Weights, where the bundle's own path has moved.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto (the bundle's), fp32, bf16 or fp16.")] = "auto",
    trust: Trust = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 where files were rejected.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Predict the class of new images: research use only, not a diagnosis.

    Columns: path, predicted, a calibrated probability a class, the set of classes that holds the true one at
    --coverage, the distance to the nearest training images, and whether that is unusual. An unusual image (another
    stain, another magnification, no smear at all) gets a class all the same: do not trust it.
    """
    from ball_features.dataset.targets import require_writable
    from ball_features.deployment.bundle import read_bundle
    from ball_features.deployment.predict import Predictor, find_images, write_predictions
    from ball_features.errors import DataError
    from ball_features.extraction.choosing import COMPILE_FROM

    if out is not None and out.suffix not in (".csv", ".json", ".html"):
        raise DataError(f"Got --out {out}, expected a name that ends in .csv, .json or .html.")
    listed = sys.stdin.read().splitlines() if "-" in images else []
    files, missing = find_images([item for item in images if item != "-"], listed)
    if not files:
        raise DataError(f"Found no image in {', '.join(images[:3])}, expected folders, patterns or files.")
    compiled = len(files) >= COMPILE_FROM
    loaded = read_bundle(bundle, trust=trust)
    require_writable(out, "--out")
    predictor = Predictor(loaded, weights=weights, device=device, precision=precision, compiled=compiled)
    if predictor.caveat:
        say(predictor.caveat)
    with progress_bar("Predicting", quiet or as_json) as progress:
        predictions, rejected = predictor(files, coverage=coverage, progress=progress)
    rejected = [*missing, *rejected]
    if out is not None:
        write_predictions(predictions, out, predictor.bundle.classes)
    if as_json:
        values = [vars(item) | {"set": list(item.set), "nearest": list(item.nearest)} for item in predictions]
        print_json({"predictions": values, "rejected": [vars(item) for item in rejected]})
    else:
        for item in predictions if out is None else ():
            strange = "  UNUSUAL" if item.unusual else ""
            typer.echo(
                f"{item.path}  {item.predicted} {item.probability[item.predicted]:.3f}  {'|'.join(item.set)}{strange}"
            )
        for item in rejected:
            say(f"rejected  {item.path}: {item.reason}")
        unusual = sum(item.unusual for item in predictions)
        where = f" in {out}" if out is not None else ""
        say(f"{len(predictions)} predictions{where}, {unusual} of unusual images, {len(rejected)} files rejected.")
    if strict and rejected:
        raise typer.Exit(1)
