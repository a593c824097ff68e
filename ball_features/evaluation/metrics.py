"""Metrics: one record each, from which the tables, files, intervals and curves of a run follow.

A class without test images has no recall, and a class that is never predicted has no precision: such a value is NaN
("n/a" in a table), never 0. A macro average is the mean over the classes that have the value.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from ball_features.evaluation.auroc import aurocs, drawn_auroc
from ball_features.evaluation.pooled import Pooled
from ball_features.evaluation.resampling import Draws, Sums

__all__ = [
    "BINS",
    "METRICS",
    "Metric",
    "Scores",
    "calibration_error",
    "confidence_bins",
    "evaluate_predictions",
    "log_losses",
]

BINS = 15


@dataclass(frozen=True)
class Metric:
    """A metric: its name, its form in tables, and its computation from predictions and from bootstrap samples.

    Attributes:
        name: key of `METRICS`, and column of `metrics.csv`.
        heading: short name for the header of a table.
        digits: number of decimals in a table.
        percent: True for a share, which tables show in percent.
        higher_is_better: direction of improvement.
        rank: columns with a high rank are the first to go on a narrow terminal: 0 always stays.
        pooled: computes the metric of pooled predictions; None for the macro average of `by_class`.
        by_class: computes the metric of each class, float (classes,), NaN where it is undefined; None for a metric that
            classes do not have.
        drawn: computes the metric of each bootstrap sample, float (draws,), NaN where it is undefined; None if `share`.
        sums: numbers that bootstrap samples add up, which `drawn` finds in `Draws.sums`; None for a metric of confusion
            matrices, or of predictions one by one.
        share: for a share of the predictions, tells which of them count, bool (tests,). Its interval is
            `share_interval`, and its ends are columns of `metrics.csv`.
        constant_has_interval: False where the same value in every bootstrap sample says nothing of the uncertainty. A
            rate of exactly 0 or 1 gets the score interval of such a rate.
    """

    name: str
    heading: str
    digits: int
    percent: bool
    higher_is_better: bool
    rank: int
    pooled: Callable[[Pooled], float] | None = None
    by_class: Callable[[Pooled], np.ndarray] | None = None
    drawn: Callable[[Draws], np.ndarray] | None = None
    sums: Callable[[Pooled], Sums] | None = None
    share: Callable[[Pooled], np.ndarray] | None = None
    constant_has_interval: bool = True

    @property
    def title(self) -> str:
        """Name in words."""
        return self.name.replace("_", " ")

    def text(self, value: float | None, digits: int | None = None) -> str:
        """Format a value for a table: "97.4", "0.981", or "n/a" for None and NaN.

        Args:
            value: the metric's value.
            digits: number of decimals; the metric's own if None.
        """
        if value is None or math.isnan(value):
            return "n/a"
        return format(100 * value if self.percent else value, f".{self.digits if digits is None else digits}f")

    def interval_text(self, ends: tuple[float, float], digits: int | None = None) -> str:
        """Format an interval for a table: "95.1 - 99.0", or "n/a" where an end is undefined."""
        known = all(math.isfinite(end) for end in ends)
        return " - ".join(self.text(end, digits) for end in ends) if known else "n/a"


@dataclass(frozen=True, eq=False)
class Scores:
    """Metrics of pooled predictions.

    Attributes:
        values: name of a metric -> its value.
        per_class: "support", or name of a metric -> its value for each class, float64 (classes,).
        confusion: counts, int (classes, classes); a row a true class, a column a predicted one.
    """

    values: dict[str, float]
    per_class: dict[str, np.ndarray]
    confusion: np.ndarray


def evaluate_predictions(truth: Int[np.ndarray, " images"], probability: Float[np.ndarray, "images classes"]) -> Scores:
    """Compute every registered metric of pooled predictions.

    Args:
        truth: class indices, int (images,).
        probability: class probabilities, float (images, classes), whose rows sum to 1; the first of equal maxima is the
            predicted class.
    """
    pooled = Pooled(truth, probability)
    scores = Scores({}, {"support": pooled.rates["support"]}, pooled.counts)
    for name, metric in METRICS.items():
        if metric.by_class is not None:
            scores.per_class[name] = metric.by_class(pooled)
        scores.values[name] = _macro(scores.per_class[name]) if metric.pooled is None else metric.pooled(pooled)
    return scores


def _macro(values: np.ndarray) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def _drawn_macro(part: np.ndarray, whole: np.ndarray, defined: np.ndarray | None = None) -> np.ndarray:
    """Macro average of part / whole in each bootstrap sample, (draws,); both are (draws, classes)."""
    where = whole > 0 if defined is None else defined & (whole > 0)
    share = np.divide(part, whole, out=np.full(part.shape, np.nan), where=where)
    known = np.isfinite(share)
    return np.where(known, share, 0).sum(1) / np.maximum(known.sum(1), 1)


def _drawn_specificity(draws: Draws) -> np.ndarray:
    negatives = draws.total[:, None] - draws.support
    return _drawn_macro(negatives - (draws.called - draws.hits), negatives)


def _mcc(pooled: Pooled) -> float:
    """Matthews correlation; NaN where one class alone is present or predicted, which scikit-learn calls 0."""
    from sklearn.metrics import matthews_corrcoef

    defined = np.ptp(pooled.truth) and np.ptp(pooled.predicted)
    return float(matthews_corrcoef(pooled.truth, pooled.predicted)) if defined else float("nan")


def _drawn_mcc(draws: Draws) -> np.ndarray:
    support, called, total = draws.support, draws.called, draws.total
    spread = np.sqrt((total**2 - (called**2).sum(1)) * (total**2 - (support**2).sum(1)))
    product = draws.hits.sum(1) * total - (support * called).sum(1)
    return np.divide(product, spread, out=np.full(len(total), np.nan), where=spread > 0)


def log_losses(
    truth: Int[np.ndarray, " images"], probability: Float[np.ndarray, "images classes"]
) -> Float[np.ndarray, " images"]:
    """Compute the log loss of each image, float64 (images,); a probability of 0 counts as the float64 epsilon."""
    floor = np.finfo(np.float64).eps
    return -np.log(np.clip(probability[np.arange(len(truth)), truth].astype(np.float64), floor, 1 - floor))


def confidence_bins(confidence: Float[np.ndarray, "*any"], bins: int = BINS) -> Int[np.ndarray, "*any"]:
    """Find the bin of each confidence, int in the same shape; a bin is (low, high], as Guo et al. 2017 have it."""
    return np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)


def calibration_error(
    truth: Int[np.ndarray, " images"], probability: Float[np.ndarray, "images classes"], bins: int = BINS
) -> float:
    """Compute the expected calibration error of the predicted class (Guo et al. 2017, eq. 3), bins of equal width.

    Args:
        truth: class indices, int (images,).
        probability: class probabilities, float (images, classes).
        bins: number of bins.
    """
    gaps = _gaps(Pooled(truth, probability), bins)
    return float(np.abs(np.bincount(gaps.column, gaps.value, minlength=bins)).sum() / len(truth))


def _gaps(pooled: Pooled, bins: int = BINS) -> Sums:
    """Confidence less correctness of each prediction, added up by bins of confidence."""
    return Sums(pooled.confidence - pooled.hit, confidence_bins(pooled.confidence, bins), bins)


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            name="accuracy", heading="acc.", digits=2, percent=True, higher_is_better=True, rank=0,
            pooled=lambda own: float(np.trace(own.counts) / own.counts.sum()),
            share=lambda own: own.hit,
        ),
        Metric(
            name="specificity", heading="spec.", digits=1, percent=True, higher_is_better=True, rank=2,
            by_class=lambda own: own.rates["specificity"],
            drawn=_drawn_specificity,
        ),
        Metric(
            name="precision", heading="prec.", digits=1, percent=True, higher_is_better=True, rank=0,
            by_class=lambda own: own.rates["precision"],
            drawn=lambda draws: _drawn_macro(draws.hits, draws.called),
        ),
        Metric(
            name="recall", heading="rec.", digits=1, percent=True, higher_is_better=True, rank=0,
            by_class=lambda own: own.rates["recall"],
            drawn=lambda draws: _drawn_macro(draws.hits, draws.support),
        ),
        Metric(
            name="f1", heading="F1", digits=1, percent=True, higher_is_better=True, rank=0,
            by_class=lambda own: own.rates["f1"],
            drawn=lambda draws: _drawn_macro(2 * draws.hits, draws.support + draws.called, draws.support > 0),
        ),
        Metric(
            name="auroc", heading="AUROC", digits=3, percent=False, higher_is_better=True, rank=1,
            by_class=aurocs,
            drawn=drawn_auroc,
            constant_has_interval=False,
        ),
        Metric(
            name="mcc", heading="MCC", digits=3, percent=False, higher_is_better=True, rank=2,
            pooled=_mcc,
            drawn=_drawn_mcc,
            constant_has_interval=False,
        ),
        Metric(
            name="log_loss", heading="log l.", digits=3, percent=False, higher_is_better=False, rank=1,
            pooled=lambda own: float(log_losses(own.truth, own.probability).mean()),
            sums=lambda own: Sums(log_losses(own.truth, own.probability), np.zeros(len(own.truth), dtype=int)),
            drawn=lambda draws: draws.sums["log_loss"][:, 0] / draws.total,
        ),
        Metric(
            name="ece", heading="ECE", digits=3, percent=False, higher_is_better=False, rank=2,
            pooled=lambda own: calibration_error(own.truth, own.probability),
            sums=_gaps,
            drawn=lambda draws: np.abs(draws.sums["ece"]).sum(1) / draws.total,
        ),
    )
}  # fmt: skip
