"""What labelled images of elsewhere mend: a temperature and a set threshold, fitted on some and tested on others."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from ball_features.bundles.calibration import conformal_threshold, fit_temperature, tempered
from ball_features.dataset.dealing import deal
from ball_features.evaluation.metrics import calibration_error, log_losses

__all__ = ["CalibrationFigures", "Recalibration", "recalibrate"]

_LEAST = 20  # fewest images that a temperature is fitted to, and tested on


@dataclass(frozen=True)
class CalibrationFigures:
    """Calibration on the images that test it.

    Attributes:
        ece: expected calibration error.
        log_loss: mean log loss.
        confidence: mean probability of the predicted class.
        covered: share of prediction sets that hold the true class.
        size: mean number of classes in a set.
    """

    ece: float
    log_loss: float
    confidence: float
    covered: float
    size: float


@dataclass(frozen=True, eq=False)
class Recalibration:
    """A temperature and a threshold fitted on a share of the images, and their effect on the others.

    Attributes:
        share: share of the images that was asked for.
        fitted: images that they were fitted on, bool (images,).
        temperature: temperature by which the logits are divided, beside that of the bundle.
        threshold: largest 1 - p of a class in the set of this coverage.
        coverage: coverage of the sets.
        accuracy: accuracy on the other images, which a temperature does not change.
        before: figures on the other images with the bundle's own temperature and threshold.
        after: figures on the other images with the new ones.
    """

    share: float
    fitted: np.ndarray
    temperature: float
    threshold: float
    coverage: float
    accuracy: float
    before: CalibrationFigures
    after: CalibrationFigures

    def to_dict(self) -> dict[str, object]:
        """Everything but the rows, ready for JSON."""
        names = ("share", "temperature", "threshold", "coverage", "accuracy")
        counts = {"images_fitted": int(self.fitted.sum()), "images_tested": int((~self.fitted).sum())}
        own: dict[str, object] = {name: getattr(self, name) for name in names}
        return own | counts | {"before": asdict(self.before), "after": asdict(self.after)}


def recalibrate(
    truth: np.ndarray,
    probability: np.ndarray,
    inside: np.ndarray,
    unit: np.ndarray,
    *,
    coverage: float,
    share: float,
    seed: int,
) -> Recalibration | None:
    """Fit a temperature (Guo et al. 2017) and a set threshold on some images, and measure both on the others.

    Whole units are dealt to either part, so that no copy, patient or group is in both.

    Args:
        truth: true class indices, int (images,).
        probability: probabilities that the bundle gives, float64 (images, classes).
        inside: classes in the bundle's sets, bool (images, classes).
        unit: number of the unit of each image, int (images,).
        coverage: coverage of the sets.
        share: share of the images to fit on.
        seed: seed of the choice.

    Returns:
        The effect; None where either part would have fewer than 20 images, or the images are one unit.
    """
    if len(np.unique(unit)) < 2 or not 0 < share < 1:
        return None
    names = np.array([f"{row:012d}" for row in range(len(truth))])
    fitted = deal(unit, truth, (share, 1 - share), names, np.random.default_rng(seed)) == 0
    if min(fitted.sum(), (~fitted).sum()) < _LEAST:
        return None
    temperature = fit_temperature(probability[fitted], truth[fitted])
    new = tempered(probability, temperature)
    scores = 1 - new[np.arange(len(truth)), truth]
    threshold = min(conformal_threshold(scores[fitted], coverage), 1.0)
    own = 1 - new <= threshold
    own[np.arange(len(truth)), new.argmax(1)] = True
    tested = ~fitted
    return Recalibration(
        share=share,
        fitted=fitted,
        temperature=temperature,
        threshold=threshold,
        coverage=coverage,
        accuracy=float((probability.argmax(1) == truth)[tested].mean()),
        before=_figures(truth[tested], probability[tested], inside[tested]),
        after=_figures(truth[tested], new[tested], own[tested]),
    )


def _figures(truth: np.ndarray, probability: np.ndarray, inside: np.ndarray) -> CalibrationFigures:
    return CalibrationFigures(
        ece=calibration_error(truth, probability),
        log_loss=float(log_losses(truth, probability).mean()),
        confidence=float(probability.max(1).mean()),
        covered=float(inside[np.arange(len(truth)), truth].mean()),
        size=float(inside.sum(1).mean()),
    )
