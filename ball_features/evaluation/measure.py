"""Out-of-sample predictions to the rows of a comparison table, with intervals and paired tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ball_features.cache import Cache
from ball_features.evaluation.intervals import Interval, metric_intervals, share_interval
from ball_features.evaluation.metrics import evaluate_predictions
from ball_features.evaluation.paired_tests import corrected_best, holm, mcnemar_exact, paired_bootstrap
from ball_features.evaluation.patient_scores import PatientScores, measure_patients
from ball_features.evaluation.patients import PatientAnswers, answer_patients
from ball_features.evaluation.protocols import ModelResult
from ball_features.evaluation.results import BestOf, Measurement, ModelRow

__all__ = ["measure", "patient_answers"]


@dataclass(frozen=True, eq=False)
class _Measured:
    """A model's row before it is compared with the others.

    Attributes:
        row: the row.
        hits: number of correct predictions of each image, int (images,).
        first: correctness of each prediction of the first repeat, which tests an image once, bool (tests,).
    """

    row: ModelRow
    hits: np.ndarray
    first: np.ndarray


def measure(
    cache: Cache, results: Sequence[ModelResult], units: np.ndarray, patient: np.ndarray | None = None
) -> Measurement:
    """Measure every model that was fitted, and test each against the best.

    Args:
        cache: the images; its labels are the truth.
        results: a result a model; those that failed have no row.
        units: int (images,); images of one unit count as one image in intervals and tests.
        patient: patient of each image, str (images,), "" where unknown; None without patients.
    """
    classes, codes = np.unique(cache.label, return_inverse=True)
    names = [str(name) for name in classes]
    found = [_measure_model(result, names, codes, units) for result in results if result.fitted]
    found.sort(key=lambda item: (-item.row.accuracy, item.row.values["log_loss"]))
    tests = np.zeros(len(codes), dtype=int)
    for result in results:
        if result.fitted:  # all models have the same test images
            tests = np.bincount(_tested(result), minlength=len(codes))
    tested = tests > 0
    rows = _against_best(found, tests, units)
    rivals = [item.hits for item in found if item.row.kind != "shortcut"]
    best = None
    if len(rivals) > 1:
        best = BestOf(len(rivals), *corrected_best(np.column_stack(rivals)[tested], tests[tested], units[tested]))
    scores = [] if patient is None else _on_patients(results, rows, names, codes, patient)
    return Measurement(names, rows, len(np.unique(units[tested])), best, scores)


def _tested(result: ModelResult) -> np.ndarray:
    """Row numbers of the tested images, a row a prediction, int (tests,)."""
    return np.concatenate([item.split.test for item in result.fitted])


def _repeats(result: ModelResult) -> np.ndarray:
    """Number of the repeat of each prediction, int (tests,)."""
    return np.concatenate([np.full(len(item.split.test), item.split.repeat) for item in result.fitted])


def patient_answers(result: ModelResult, codes: np.ndarray, patient: np.ndarray) -> PatientAnswers:
    """Combine a model's predictions of each patient's images.

    Args:
        result: the model's predictions.
        codes: class index of each image, int (images,).
        patient: patient of each image, str (images,), "" where unknown.
    """
    tested = _tested(result)
    probability = np.concatenate([item.probability for item in result.fitted])
    return answer_patients(patient[tested], _repeats(result), codes[tested], probability)


def _on_patients(
    results: Sequence[ModelResult],
    rows: Sequence[ModelRow],
    classes: list[str],
    codes: np.ndarray,
    patient: np.ndarray,
) -> list[PatientScores]:
    """Score each model of the table on patients, in the order of the table."""
    by_name = {result.spec.name: result for result in results}
    found = []
    for row in rows:
        own = by_name[row.model]
        tested = _tested(own)
        probability = np.concatenate([item.probability for item in own.fitted])
        model = (row.model, row.kind)
        found.append(measure_patients(model, patient[tested], _repeats(own), codes[tested], probability, classes))
    return [scores for scores in found if scores is not None]


def _measure_model(result: ModelResult, classes: list[str], codes: np.ndarray, units: np.ndarray) -> _Measured:
    tested = _tested(result)
    truth, probability = codes[tested], np.concatenate([item.probability for item in result.fitted])
    hit = probability.argmax(1) == truth
    scores = evaluate_predictions(truth, probability)
    recalls = _recall_intervals(truth, probability.argmax(1), units[tested], tested, len(classes))
    repeat = _repeats(result)
    row = ModelRow(
        model=result.spec.name,
        kind=result.spec.kind,
        values=scores.values,
        # Repeats test an image several times. It is still one image, and its copies tell nothing new either.
        intervals=metric_intervals(truth, probability, units[tested], images=len(np.unique(tested))),
        fit_s=float(np.mean([item.fit_s for item in result.fitted])),
        predict_s=float(np.mean([item.predict_s for item in result.fitted])),
        per_class={
            name: {key: float(value[code]) for key, value in scores.per_class.items()}
            | {"recall_low": recalls[code][0], "recall_high": recalls[code][1]}
            for code, name in enumerate(classes)
        },
        confusion=scores.confusion.tolist(),
        accuracy_by_repeat={str(own): float(np.mean(hit[repeat == own])) for own in dict.fromkeys(repeat.tolist())},
        best_epochs=[item.best_epoch for item in result.fitted if item.best_epoch >= 0],
        fitted_on=result.fitted[0].fitted_on,
    )
    return _Measured(row, np.bincount(tested, hit, minlength=len(codes)), hit[repeat == repeat[0]])


def _against_best(found: Sequence[_Measured], tests: np.ndarray, units: np.ndarray) -> list[ModelRow]:
    """Add the paired tests against the best, which is the first."""
    if not found:
        return []
    tested = tests > 0
    best, others = found[0], found[1:]
    compared = [
        paired_bootstrap((best.hits - item.hits)[tested], units[tested], tests=tests[tested]) for item in others
    ]
    adjusted = holm([p for _, _, p in compared]).tolist()
    exact = holm([mcnemar_exact(best.first, item.first) for item in others]).tolist()
    rows = [best.row]
    for item, (low, high, _), p, mcnemar in zip(others, compared, adjusted, exact, strict=True):
        own = replace(
            item.row,
            ties_best=p > 0.05,
            p_against_best=p,
            mcnemar_p_against_best=mcnemar,
            behind_best=(low, high),
        )
        rows.append(own)
    return rows


def _recall_intervals(
    truth: np.ndarray, predicted: np.ndarray, unit: np.ndarray, tested: np.ndarray, classes: int
) -> list[Interval]:
    """95 % interval of the recall of each class; NaN where none of its images was tested."""
    found = []
    for code in range(classes):
        own = truth == code
        hit = predicted[own] == code
        images = len(np.unique(tested[own]))
        unknown = (float("nan"), float("nan"))
        found.append(share_interval(hit, unit[own], images=images) if images else unknown)
    return found
