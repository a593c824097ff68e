"""Predictions for new images: class, probabilities, a set of stated coverage, and how unusual the image is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ball_features.bundles.bundle import read_bundle
from ball_features.bundles.predictor import Predictor
from ball_features.bundles.site_use import describe_sites
from ball_features.config import COVERAGE, CollectionConfig, Coverage
from ball_features.dataset.remarks import alike_ids_remark
from ball_features.dataset.sheet import JoinedSheets, Sheet, read_sheet
from ball_features.deployment.answers import Predictions
from ball_features.deployment.inputs import find_images, require_images
from ball_features.errors import ConfigError, DataError

__all__ = ["predict"]


def predict(
    bundle: Path | str,
    images: Path | str | Sequence[Path | str],
    *,
    coverage: float = COVERAGE,
    weights: str | None = None,
    device: str = "auto",
    precision: str = "auto",
    trust: bool = False,
    site: str = "",
    mixed: bool = False,
    sheet: Any = None,
    columns: CollectionConfig | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Predictions:
    """Predict the classes of new images: research use only, not a diagnosis.

    Args:
        bundle: folder RUN/models/MODEL, made by `fit(..., save=MODEL)`.
        images: folders, archives, addresses, patterns or files.
        coverage: coverage of the prediction sets.
        weights: weights of the backbone, if the path that the bundle names has moved.
        device: "auto", "cpu", "cuda" or "mps".
        precision: "auto" (that of the bundle), "fp32", "bf16" or "fp16".
        trust: load a model in joblib's format too, which can execute any code.
        site: site of all these images, for a site-adapted bundle, which takes its statistics from them without labels.
        mixed: whether the images of each site are known to be of several classes, without which a model that cannot
            tell is not adapted to a new site.
        sheet: a data frame, or the path of a sheet, that names the patient of each image, who get an answer too, or
            the site, for a site-adapted bundle.
        columns: names of the sheet's columns, where they are not the usual ones.
        progress: function that takes (images done, images in all).

    Raises:
        ConfigError: The coverage is not between 0 and 1, the device is not available, or sites are named for a bundle
            that is not site-adapted, or none where the images of each are said to be mixed.
        DataError: The folder is no bundle, no image can be predicted, or the sheet names no patients.
        WeightsError: The weights are missing, or not those of the bundle.
    """
    from ball_features.extraction.engine.choose import COMPILE_FROM

    Coverage(coverage)  # its range is checked
    names = [str(name) for name in ([images] if isinstance(images, Path | str) else images)]
    inputs = find_images(names)
    files = inputs.files
    require_images(names, inputs)
    table = None if sheet is None else read_sheet(sheet, columns)  # once: it may come from a pipe
    patient, said = ({}, []) if table is None else _patients(files, table)
    loaded = read_bundle(bundle, trust=trust)
    named = {} if table is None else _sites(files, table)
    sites = {str(file): site for file in files} if site else named
    if site or (named and not patient):
        loaded.require_sites()
    if mixed and not sites:
        raise ConfigError(
            "Got mixed=True without a site, which it is said of. Name the site of the images.", option="mixed"
        )
    if named and site:
        said.append(f"All images are taken as those of {site}, not of the sites that the sheet names.")
    elif named and loaded.sites is None:
        said.append("The sites that the sheet names change nothing, since the bundle is not site-adapted.")
    predictor = Predictor(
        loaded, weights=weights, device=device, precision=precision, compiled=len(files) >= COMPILE_FROM
    )
    told: list[str] = []
    if sites and loaded.sites is not None:
        found = predictor.embed_all(files, progress)
        rejected = found.rejected
        own = [sites[name] for name in found.paths]
        predictions, told = describe_sites(loaded, found.paths, found.X, coverage, own, mixed=own if mixed else ())
    else:
        predictions, rejected = predictor(files, coverage=coverage, progress=progress)
    rejected = [*inputs.rejected, *rejected]
    notes = [note for note in loaded.notes(coverage) if not told or note != loaded.site_note]
    if not predictions:
        listed = "".join(f"\n  {item.path}: {item.reason}" for item in rejected[:5])
        raise DataError(f"No file of {len(rejected)} can be predicted, expected images. Rejected files:{listed}")
    return Predictions(
        predictions=predictions,
        rejected=rejected,
        classes=loaded.classes,
        about={"bundle": str(bundle)} | predictor.about(coverage),
        notes=[*told, *([predictor.caveat] if predictor.caveat else []), *notes],
        patient=tuple(patient[item.path] for item in predictions) if patient else (),
        remarks=[*inputs.remarks, *said],
    )


def _patients(files: Sequence[Path], table: Sheet | JoinedSheets) -> tuple[dict[str, str], list[str]]:
    """File -> patient, "" where the sheet names none, and remarks on rows and images that do not match.

    Raises:
        DataError: The sheet does not fit, or has no column of patients or sites.
    """
    rows = table.rows_of([file.as_posix() for file in files])
    patient = rows.columns.get("patient")
    if not any(patient or ()) and any(rows.columns.get("site", ())):
        return {}, list(rows.remarks)
    if patient is None or not any(patient):
        raise DataError(
            f"{table.source} names no patient of these images: its columns are {', '.join(rows.columns) or 'none'}. "
            "Name the column of the patients by patient_column."
        )
    alike = alike_ids_remark("patient", patient)
    remarks = [*rows.remarks, *([alike] if alike else [])]
    return {str(file): name for file, name in zip(files, patient, strict=True)}, remarks


def _sites(files: Sequence[Path], table: Sheet | JoinedSheets) -> dict[str, str]:
    """File -> site, "" where the sheet names none; empty without such a column."""
    site = table.rows_of([file.as_posix() for file in files]).columns.get("site", ())
    return dict(zip(map(str, files), site, strict=True)) if any(site) else {}
