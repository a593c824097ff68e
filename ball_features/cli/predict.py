"""`ball predict`."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ball_features.cli.derive import command
from ball_features.cli.layers import Subset
from ball_features.cli.options import BundleFolder, BundleUse, Strict
from ball_features.cli.screen import echo, print_json, progress_bar, say, show
from ball_features.config import CollectionConfig, Coverage
from ball_features.config.fields import option
from ball_features.config.paths import is_address
from ball_features.errors import DataError

__all__ = ["COMMAND", "PredictOptions", "predict"]


_SHEET = Subset(
    ("sheet", "path_column", "patient_column", "site_column"),
    help={
        "sheet": "Table with the patient of each image, as `ball extract --sheet` takes it: patients get answers too. "
        "A column site serves a bundle fitted with --adapt."
    },
)


@dataclass(frozen=True)
class PredictOptions(Coverage):
    """Options of `ball predict`."""

    out: Path | None = option(
        None, "File to write: .csv (with a .csv.json beside it), .json or .html.", short="o", stored="file"
    )
    site: str = option(
        "",
        "Site of all these images (hospital, scanner), for a bundle fitted with --adapt: it is adapted to the site by "
        "the images themselves, or by what `ball adapt` kept.",
    )
    mixed: bool = option(
        False,
        "The images of each site are known to be of several classes. A model that cannot tell images of one class from "
        "several is adapted to a new site only then.",
    )


def predict(
    bundle: BundleFolder,
    images: Annotated[
        list[str],
        typer.Argument(
            help="Folders, patterns such as 'new/*.png', or files; - reads their names from standard input."
        ),
    ],
    options: PredictOptions,
    columns: Annotated[CollectionConfig, _SHEET],
    use: BundleUse,
    shown: Strict,
) -> None:
    """Predict the class of new images: research use only, not a diagnosis.

    Columns: path, predicted, a calibrated probability for each class, a set of
    classes that holds the true one for a share --coverage of images (if they
    are like the calibration images), the distance to the nearest training images,
    and whether that is unusual. An unusual image (another stain, another
    magnification, no smear at all) gets a class all the same: do not trust it.
    Where the model errs on fewer images than --coverage allows, every set holds
    one class, however uncertain the model is. Folders are searched as `ball
    extract` does. The file beside a CSV holds what does not belong to one image:
    the verdict, the model, the coverage, thresholds, rejected files. With
    --sheet, patients get an answer too, with the number of images behind each:
    in P.patients.csv beside P.csv, in the JSON file and on the page.
    """
    from ball_features.deployment.answers import require_replaceable
    from ball_features.deployment.predict import predict as run
    from ball_features.reporting.verdict import render_verdict

    if options.out is not None:
        require_replaceable(options.out, "--out", images)
    names = [item for item in images if item != "-"]
    if "-" in images:
        names += _listed(sys.stdin.buffer.read())
    if not names:
        raise DataError("Got no names on standard input, expected one file, folder or pattern on each line.")
    with progress_bar("Predicting", shown.silent) as progress:
        found = run(
            bundle,
            names,
            coverage=options.coverage,
            weights=use.weights,
            device=use.device,
            precision=use.precision,
            trust=use.trust,
            site=options.site,
            mixed=options.mixed,
            sheet=columns.sheet or None,
            columns=columns,
            progress=progress,
        )
    written = [] if options.out is None else found.write(options.out)
    if shown.as_json:
        print_json(found.to_dict())
    else:
        for item in found.predictions if options.out is None else ():
            strange = "  UNUSUAL" if item.unusual else ""
            echo(f"{item.path}  {item.predicted} {item.probability[item.predicted]:.3f}  {'|'.join(item.set)}{strange}")
        for one in found.patients if options.out is None else ():
            odd = f"  {one.unusual} UNUSUAL" if one.unusual else ""
            count = f"{one.images} image{'' if one.images == 1 else 's'}"
            echo(f"patient {one.patient}  {one.predicted} {one.probability[one.predicted]:.3f}  {count}{odd}")
        for item in found.rejected:
            say(f"rejected  {item.path}: {item.reason}")
        if not shown.quiet:
            show(render_verdict(found.findings), err=True)
            unusual = sum(item.unusual for item in found.predictions)
            where = f" in {options.out}" if options.out is not None else ""
            beside = f" Verdict, coverage, bundle and rejected files: {written[1]}." if len(written) > 1 else ""
            beside += f" Answers for {len(found.patients)} patients: {written[2]}." if len(written) > 2 else ""
            say(
                f"{len(found.predictions)} predictions{where}, {unusual} of unusual images, "
                f"{len(found.rejected)} files rejected.{beside}"
            )
        for note in () if shown.quiet else (*found.remarks, *found.notes):
            say(note)
    if shown.strict and found.rejected:
        raise typer.Exit(1)


def _listed(data: bytes) -> list[str]:
    """Names of a list: one on each line, or with NUL after each, as `find -print0` has them."""
    lines = data.split(b"\0") if b"\0" in data else [line.removesuffix(b"\r") for line in data.split(b"\n")]
    names = [os.fsdecode(line) for line in lines if line.strip()]
    names = [name if os.path.lexists(name) else name.strip() for name in names]
    for name in names:
        if is_address(name) and not os.path.lexists(name):  # a list may be a stranger's
            raise DataError(f"Standard input names the address {name}, expected files. Give addresses as arguments.")
    return names


COMMAND = command(predict)
