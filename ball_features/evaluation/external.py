"""External evaluation in numbers: a fitted model on labelled images of elsewhere, which took no part in it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from ball_features.evaluation.intervals import Interval, metric_intervals, share_interval
from ball_features.evaluation.metrics import evaluate_predictions
from ball_features.evaluation.patient_scores import PatientScores, measure_patients
from ball_features.evaluation.site_scores import SiteMeans, SiteScores, measure_sites

__all__ = [
    "DistanceBin",
    "ExternalScores",
    "ExternalTests",
    "SetScores",
    "Share",
    "difference_interval",
    "distance_bins",
    "measure_external",
]

_BINS = 5  # most bins of distance
_BIN_IMAGES = 20  # fewest images of a bin


@dataclass(frozen=True)
class Share:
    """A share of images with its interval.

    Attributes:
        value: share in [0, 1]; NaN without images.
        low: lower end of its 95 % interval.
        high: upper end.
        images: number of images that it is a share of.
    """

    value: float
    low: float
    high: float
    images: int


@dataclass(frozen=True)
class SetScores:
    """Prediction sets of one coverage.

    Attributes:
        coverage: share of sets that should hold the true class.
        covered: share that hold it.
        size: mean number of classes in a set.
        single: share of sets of one class.
    """

    coverage: float
    covered: Share
    size: float
    single: float


@dataclass(frozen=True)
class DistanceBin:
    """Images of one range of distance to the training images.

    Attributes:
        low: smallest distance.
        high: largest distance.
        accuracy: share of correct predictions.
        confidence: mean probability of the predicted class.
    """

    low: float
    high: float
    accuracy: Share
    confidence: float


@dataclass(frozen=True, eq=False)
class ExternalTests:
    """Predictions of a fitted model on images whose class it knows.

    Attributes:
        classes: names of the classes, in the order of the probabilities.
        truth: true class indices, int (images,).
        probability: calibrated class probabilities, float64 (images, classes).
        sets: coverage -> classes in the set of each image, bool (images, classes).
        distance: distance of each image to the training images, float64 (images,).
        unusual: images that are flagged as unlike the training images, bool (images,).
        unit: number of the unit of each image, int (images,); images of one unit (copies, a patient, a group) are drawn
            together.
        patient: patient of each image, str (images,), "" where unknown; None without patients.
        site: site of each image, str (images,), "" where unknown; None without sites.
    """

    classes: tuple[str, ...]
    truth: Int[np.ndarray, " images"]
    probability: Float[np.ndarray, "images classes"]
    sets: Mapping[float, Bool[np.ndarray, "images classes"]]
    distance: Float[np.ndarray, " images"]
    unusual: Bool[np.ndarray, " images"]
    unit: Int[np.ndarray, " images"]
    patient: Shaped[np.ndarray, " images"] | None = None
    site: Shaped[np.ndarray, " images"] | None = None


@dataclass(frozen=True, eq=False)
class ExternalScores:
    """What was measured on images of elsewhere.

    Attributes:
        images: number of images.
        units: number of units that intervals rest on.
        values: name of a metric -> its value.
        intervals: name of a metric -> its 95 % interval.
        per_class: class -> "support", a metric's name, "recall_low" or "recall_high" -> its value.
        confusion: counts; a row a true class, a column a predicted one.
        confidence: mean probability of the predicted class.
        sets: prediction sets, a row a coverage.
        flagged: share of images that are flagged as unlike the training images.
        accuracy_flagged: accuracy among them.
        accuracy_others: accuracy among the others.
        bins: accuracy by distance, the nearest images first; empty for few images.
        patients: scores on patients; None where the images name none.
        sites: scores on each site; empty where the images name none.
        site_means: means over sites; None without two sites.
    """

    images: int
    units: int
    values: dict[str, float]
    intervals: dict[str, Interval]
    per_class: dict[str, dict[str, float]]
    confusion: list[list[int]]
    confidence: float
    sets: list[SetScores]
    flagged: Share
    accuracy_flagged: Share
    accuracy_others: Share
    bins: list[DistanceBin]
    patients: PatientScores | None
    sites: list[SiteScores]
    site_means: SiteMeans | None

    def to_dict(self) -> dict[str, object]:
        """Everything, ready for JSON; metrics with their intervals under `metrics`."""
        names = ("images", "units", "per_class", "confusion", "confidence")
        own: dict[str, object] = {name: getattr(self, name) for name in names}
        own["metrics"] = {
            name: {"value": value, **_ends(self.intervals.get(name, (math.nan, math.nan)))}
            for name, value in self.values.items()
        }
        own["sets"] = [asdict(row) for row in self.sets]
        own["unusual"] = {
            "flagged": asdict(self.flagged),
            "accuracy_flagged": asdict(self.accuracy_flagged),
            "accuracy_others": asdict(self.accuracy_others),
        }
        own["distance_bins"] = [asdict(row) for row in self.bins]
        own["patients"] = self.patients
        own["sites"] = {"each": [row.to_dict() for row in self.sites], "means": self.site_means}
        return own


def measure_external(tests: ExternalTests) -> ExternalScores:
    """Measure a fitted model on images of elsewhere; nothing is fitted.

    Args:
        tests: at least one prediction.
    """
    truth, probability, unit = tests.truth, tests.probability, tests.unit
    scores = evaluate_predictions(truth, probability)
    hit = probability.argmax(1) == truth
    patients = None
    if tests.patient is not None:
        zeros = np.zeros(len(truth), dtype=int)
        patients = measure_patients(("", ""), tests.patient, zeros, truth, probability, tests.classes)
    sites, means = [], None
    if tests.site is not None:
        sites, means = measure_sites(tests.site, truth, probability, unit, tests.unusual)
    return ExternalScores(
        images=len(truth),
        units=len(np.unique(unit)),
        values=scores.values,
        intervals=metric_intervals(truth, probability, unit, images=len(truth)),
        per_class=_per_class(tests, scores.per_class, hit),
        confusion=scores.confusion.tolist(),
        confidence=float(probability.max(1).mean()),
        sets=[_sets(coverage, inside, truth, unit) for coverage, inside in sorted(tests.sets.items())],
        flagged=_share(tests.unusual, unit),
        accuracy_flagged=_share(hit[tests.unusual], unit[tests.unusual]),
        accuracy_others=_share(hit[~tests.unusual], unit[~tests.unusual]),
        bins=distance_bins(tests.distance, hit, probability.max(1), unit),
        patients=patients,
        sites=sites,
        site_means=means,
    )


def difference_interval(one: Share, other: Share) -> Interval:
    """Compute the 95 % interval of the difference of two shares on different images, one less other.

    The limits of each share are combined as Newcombe 1998 (doi 10.1002/(SICI)1097-0258(19980430)17:8<873::AID-SIM779>
    3.0.CO;2-I, method 10) does it; Zou and Donner 2008 (doi 10.1002/sim.3095) show it for any such limits, so that
    those of one share may respect groups.
    """
    value = one.value - other.value
    low = value - math.hypot(one.value - one.low, other.high - other.value)
    high = value + math.hypot(one.high - one.value, other.value - other.low)
    return low, high


def _ends(interval: Interval) -> dict[str, float]:
    return {"low": interval[0], "high": interval[1]}


def _share(hit: np.ndarray, unit: np.ndarray) -> Share:
    if not len(hit):
        return Share(math.nan, math.nan, math.nan, 0)
    return Share(float(hit.mean()), *share_interval(hit, unit), len(hit))


def _sets(coverage: float, inside: np.ndarray, truth: np.ndarray, unit: np.ndarray) -> SetScores:
    size = inside.sum(1)
    covered = inside[np.arange(len(truth)), truth]
    return SetScores(coverage, _share(covered, unit), float(size.mean()), float((size == 1).mean()))


def _per_class(tests: ExternalTests, rates: Mapping[str, np.ndarray], hit: np.ndarray) -> dict[str, dict[str, float]]:
    found = {}
    for code, name in enumerate(tests.classes):
        own = tests.truth == code
        recall = _share(hit[own], tests.unit[own])
        values = {key: float(value[code]) for key, value in rates.items()}
        found[name] = values | {"recall_low": recall.low, "recall_high": recall.high}
    return found


def distance_bins(distance: np.ndarray, hit: np.ndarray, confidence: np.ndarray, unit: np.ndarray) -> list[DistanceBin]:
    """Divide images into bins of equal numbers by distance; no bins for fewer images than two bins need.

    Args:
        distance: distance to the training images, float (images,).
        hit: whether the prediction is right, bool (images,).
        confidence: probability of the predicted class, float (images,).
        unit: int (images,); images of one unit count as little more than one image in intervals.
    """
    count = min(_BINS, len(distance) // _BIN_IMAGES)
    if count < 2:
        return []
    parts = np.array_split(np.argsort(distance, kind="stable"), count)
    return [
        DistanceBin(
            float(distance[rows[0]]),
            float(distance[rows[-1]]),
            _share(hit[rows], unit[rows]),
            float(confidence[rows].mean()),
        )
        for rows in parts
    ]
