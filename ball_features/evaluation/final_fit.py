"""The final model: fitted on all labelled images after an evaluation, calibrated by predictions of its folds.

The folds are those of the run's protocol where they cover the images (folds, or groups left out), else a
cross-validation that keeps the same images together. A model without an epoch to choose is fitted on all images outside
its fold. The epoch of the head is the median of those that the folds chose.

Every image is scored by a model that has not seen it. One quantile of all these scores is the threshold for sets of
the model of all images. This is cross-conformal prediction (Vovk 2015, doi 10.1007/s10472-013-9368-4) with one model in
place of those of the folds. CV+ (Barber et al. 2021, doi 10.1214/20-AOS1965) keeps these, compares a new image with
each calibration image by the model of its fold, and covers exchangeable images with 1 - 2 (1 - coverage) at least, but
for a term that vanishes with the number of images. The one model has no such bound, but answers in one pass, from one
file. Simulated, both hold the nominal coverage (`benchmarks/coverage.md`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ball_features.config import PROTOCOLS, FitConfig
from ball_features.dataset.splits import ImageTable, Split, make_splits
from ball_features.errors import DataError, SplitError
from ball_features.evaluation.fit_split import Fitted
from ball_features.evaluation.protocols import Progress, evaluate, named_progress
from ball_features.evaluation.tasks import Evaluation
from ball_features.models.registry import Model

__all__ = ["FinalFit", "calibration_folds", "fit_final"]

_LEAST_FOLDS = 2


@dataclass(frozen=True, eq=False)
class FinalFit:
    """A model fitted on all images.

    Attributes:
        spec: the model.
        fitted: fit on all images, which has no test images.
        folds: fits of the folds; their test images share none.
        epochs: epochs that it was trained for; 0 for a model without epochs.
    """

    spec: Model
    fitted: Fitted
    folds: tuple[Fitted, ...]
    epochs: int = 0

    @property
    def rows(self) -> np.ndarray:
        """Rows of the images that were predicted by a fold, int (images,)."""
        return np.concatenate([fold.split.test for fold in self.folds])

    @property
    def fold_of(self) -> np.ndarray:
        """Number of the fold of each of these images, int (images,)."""
        return np.repeat(np.arange(len(self.folds)), [len(fold.split.test) for fold in self.folds])

    @property
    def probability(self) -> np.ndarray:
        """Out-of-fold probabilities of these images, float64 (images, classes)."""
        return np.concatenate([fold.probability for fold in self.folds])


def calibration_folds(config: FitConfig, images: ImageTable, splits: Sequence[Split]) -> list[Split]:
    """Choose the folds that calibrate a final model, which keep together what the protocol keeps together.

    Args:
        config: settings of the run.
        images: ids, classes, hashes and groups.
        splits: splits of the run.

    Returns:
        The splits of the run's first repeat where each image is tested once, else those of a cross-validation.

    Raises:
        SplitError: A class is too small for two folds, or there are too few groups.
    """
    scheme = PROTOCOLS[config.protocol].scheme
    first = [split for split in splits if split.repeat == splits[0].repeat]
    if scheme != "holdout" and len(first) > 1:
        return first
    if scheme == "given":  # the column names parts, which are no groups
        images = replace(images, group=None)
    used = _rows_used(splits)  # a given split may leave images out
    test_size = FitConfig.test_size
    if config.val_size + test_size >= 1:
        test_size = config.test_size
    for folds in range(config.folds, _LEAST_FOLDS - 1, -1):
        own = replace(config, protocol="cv", repeats=1, folds=folds, test_size=test_size)
        try:
            return [_of_all_images(split, used) for split in make_splits(own, images.select(used))[0]]
        except SplitError as error:
            if folds == _LEAST_FOLDS:
                raise SplitError(
                    f"A final model is calibrated by at least {_LEAST_FOLDS} folds, which keep together what "
                    f"protocol={config.protocol!r} keeps together, and these images give none: {error} Take "
                    "protocol='cv' for the final model, or save the first split's."
                ) from error
    raise AssertionError


def fit_final(
    evaluation: Evaluation, folds: Sequence[Split], names: Sequence[str], progress: Progress | None = None
) -> list[FinalFit]:
    """Fit models on the folds, then on all images that the run's splits hold.

    Args:
        evaluation: evaluation of the run.
        folds: result of `calibration_folds`.
        names: names of the models.
        progress: function called with (fits done, all fits, model just done).

    Raises:
        DataError: A model could not be fitted.
    """
    rows = _rows_used(evaluation.splits)
    everything = Split(0, 0, rows, rows[:0], rows[:0])
    found = []
    for spec in (spec for spec in evaluation.models if spec.name in names):
        own = folds if spec.validates else [_without_validation(split) for split in folds]
        part = named_progress(progress, "final model")
        across = replace(evaluation, models=(spec,), splits=tuple(own), keep=())
        fitted = _require(evaluate(across, part)[0].fitted, spec, "one of its folds")
        epochs, config = 0, evaluation.config
        if spec.validates:
            epochs = int(np.median([item.best_epoch for item in fitted])) + 1
            config = replace(config, head=replace(config.head, epochs=epochs))
        whole = replace(evaluation, models=(spec,), splits=(everything,), config=config, keep=(spec.name,))
        last = _require(evaluate(whole, part)[0].fitted, spec, "all images")
        found.append(FinalFit(spec, last[0], tuple(fitted), epochs))
    return found


def _rows_used(splits: Sequence[Split]) -> np.ndarray:
    """Row numbers of the images that take part in any split, increasing, int (images,)."""
    return np.unique(np.concatenate([part for split in splits for part in (split.train, split.val, split.test)]))


def _of_all_images(split: Split, used: np.ndarray) -> Split:
    """A split of the images used, as one of all images."""
    return replace(split, train=used[split.train], val=used[split.val], test=used[split.test])


def _without_validation(split: Split) -> Split:
    """The split whose validation images train."""
    return replace(split, train=np.sort(np.concatenate([split.train, split.val])), val=split.val[:0])


def _require(fitted: list[Fitted], spec: Model, images: str) -> list[Fitted]:
    if not fitted:
        raise DataError(f"The model {spec.name} could not be fitted on {images}. Save another model.")
    return fitted
