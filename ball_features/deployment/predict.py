"""Predictions for new images: class, probabilities, a set of stated coverage, and how unusual the image is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ball_features.bundles.bundle import COVERAGE, read_bundle
from ball_features.bundles.prediction import describe
from ball_features.bundles.predictor import Predictor, check_coverage
from ball_features.bundles.site_use import answer_for
from ball_features.dataset.listing import printable
from ball_features.deployment.answers import Predictions
from ball_features.deployment.inputs import find_images
from ball_features.errors import DataError

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
    progress: Callable[[int, int], None] | None = None,
) -> Predictions:
    """Predict the classes of new images: research use only, not a diagnosis.

    Args:
        bundle: folder RUN/models/MODEL, made by `fit(..., save=MODEL)`.
        images: folders, patterns or files.
        coverage: coverage of the prediction sets.
        weights: weights of the backbone, if the path that the bundle names has moved.
        device: "auto", "cpu", "cuda" or "mps".
        precision: "auto" (that of the bundle), "fp32", "bf16" or "fp16".
        trust: load a model in joblib's format too, which can execute any code.
        site: site of all these images, for a site-adapted bundle, which takes its statistics from them without labels.
        progress: function that takes (images done, images in all).

    Raises:
        ConfigError: The coverage is not between 0 and 1, or the device is not available.
        DataError: The folder is no bundle, or no image can be predicted.
        WeightsError: The weights are missing, or not those of the bundle.
    """
    from ball_features.extraction.engine.choose import COMPILE_FROM

    check_coverage(coverage)
    names = [str(name) for name in ([images] if isinstance(images, Path | str) else images)]
    files, missing = find_images(names)
    if not files:
        raise DataError(
            f"Found no image in {', '.join(map(printable, names[:3]))}, expected folders, patterns or files."
        )
    loaded = read_bundle(bundle, trust=trust)
    if site:
        loaded.require_sites()
    predictor = Predictor(
        loaded, weights=weights, device=device, precision=precision, compiled=len(files) >= COMPILE_FROM
    )
    told = ""
    if site:
        names, X, rejected = predictor.embed_all(files, progress)
        loaded, told = answer_for(loaded, site, X)
        predictions = describe(loaded, names, X, coverage)
    else:
        predictions, rejected = predictor(files, coverage=coverage, progress=progress)
    rejected = [*missing, *rejected]
    if not predictions:
        listed = "".join(f"\n  {item.path}: {item.reason}" for item in rejected[:5])
        raise DataError(f"No file of {len(rejected)} can be predicted, expected images. Rejected files:{listed}")
    return Predictions(
        predictions=predictions,
        rejected=rejected,
        classes=loaded.classes,
        about={"bundle": str(bundle)} | predictor.about(coverage),
        notes=[*([told] if told else []), *([predictor.caveat] if predictor.caveat else []), *loaded.notes(coverage)],
    )
