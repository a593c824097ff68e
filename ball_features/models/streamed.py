"""Classical models on rows that are read from a file when they are used; each becomes the estimator of the usual fit.

The logistic regression minimises the same function as scikit-learn's, with the gradient added up over one pass of the
file for each step of L-BFGS. The linear support vector machine is trained by stochastic gradients on shuffled windows
(Bottou 2010, doi 10.1007/978-3-7908-2604-3_16), and XGBoost reads the file into its own bins.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import SGDClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from ball_features.files import temporary_folder
from ball_features.models.boosting import XGBoost
from ball_features.models.mlp import MLPHead
from ball_features.models.row_stream import RowStream, stratified

__all__ = ["fit_head", "fit_linear_svm", "fit_logistic", "fit_xgboost", "scale_stream"]

CALIBRATION_IMAGES = 20_000  # at most a tenth of the training images, set aside for the probabilities
SVM_EPOCHS = 5
SVM_BATCH = 4096  # rows that are scaled at once; each is a step of its own
_FACTR = 64 * np.finfo(float).eps  # scikit-learn's tolerance of the objective

Read = tuple[Any, str]  # fitted estimator, and how it was fitted


def fit_head(head: MLPHead, rows: RowStream, validation: RowStream | None) -> Read:
    """Train the head on shuffled windows of rows."""
    head.fit_stream(rows, validation)
    held = rows.window_images * len(rows.views)
    return head, f"streamed: shuffled windows of {held:,} rows, in blocks of {rows.block_images} images"


def scale_stream(rows: RowStream) -> StandardScaler:
    """Fit a scaler in one pass."""
    scaler = StandardScaler()
    for X, _ in rows.blocks():
        scaler.partial_fit(X.astype(np.float32))
    return scaler


def fit_logistic(pipeline: Pipeline, rows: RowStream, validation: RowStream | None) -> Read:
    """Fit a scaler and a logistic regression as scikit-learn does: its objective, start and tolerance.

    Each gradient of L-BFGS is one pass.
    """
    from scipy.optimize import minimize

    scaler = scale_stream(rows)
    model: Any = pipeline[-1]
    model.classes_, model.n_features_in_ = np.unique(rows.codes[rows.images]), rows.columns
    count = len(model.classes_) if len(model.classes_) > 2 else 1
    model.coef_, model.intercept_ = np.zeros((count, rows.columns)), np.zeros(count)
    objective = _Objective(rows, scaler, model)
    found = minimize(
        objective,
        objective.start(),
        method="L-BFGS-B",
        jac=True,
        options={"maxiter": model.max_iter, "maxls": 50, "gtol": model.tol, "ftol": _FACTR},
    )
    model.coef_, model.intercept_ = objective.split(found.x)
    model.n_iter_ = np.array([found.nit], dtype=np.int32)
    if found.nit >= model.max_iter:
        warnings.warn("The logistic regression stopped at its limit of iterations.", ConvergenceWarning, stacklevel=2)
    return make_pipeline(scaler, model), f"streamed: {objective.passes} passes of L-BFGS"


class _Objective:
    """Loss and gradient of a logistic regression on standardised rows, by one pass of the file.

    As scikit-learn has it: the mean log loss, and half the squared coefficients over C times the number of rows; two
    classes have one row of coefficients.
    """

    def __init__(self, rows: RowStream, scaler: StandardScaler, model: Any) -> None:
        self.rows, self.model, self.passes = rows, model, 0
        self.mean = np.asarray(scaler.mean_, dtype=np.float32)
        self.scale = np.asarray(scaler.scale_, dtype=np.float64)
        self.classes = np.asarray(model.classes_)
        self.shape = model.coef_.shape
        self.penalty = 1 / (model.C * len(rows))

    def start(self) -> np.ndarray:
        """Return the coefficients and intercepts that the model has, flat."""
        return np.concatenate([self.model.coef_.ravel(), self.model.intercept_]).astype(np.float64)

    def split(self, flat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return coefficients (rows, columns) and intercepts."""
        size = int(np.prod(self.shape))
        return flat[:size].reshape(self.shape).copy(), flat[size:].copy()

    def __call__(self, flat: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the objective and its gradient."""
        self.passes += 1
        weight, bias = self.split(flat)
        seen = (weight / self.scale).astype(np.float32)  # of rows that are centred, not scaled
        loss, slope, offset = 0.0, np.zeros(self.shape), np.zeros(len(bias))
        for X, codes in self.rows.blocks():
            centred = np.subtract(X, self.mean, dtype=np.float32)
            logits = (centred @ seen.T).astype(np.float64) + bias
            own, residual = _log_loss(logits, np.searchsorted(self.classes, codes))
            loss += own
            slope += residual.astype(np.float32).T @ centred
            offset += residual.sum(0)
        count = len(self.rows)
        gradient = slope / self.scale / count + self.penalty * weight
        value = loss / count + self.penalty / 2 * float(np.square(weight).sum())
        return value, np.concatenate([gradient.ravel(), offset / count])


def _log_loss(logits: np.ndarray, code: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the summed log loss, and its gradient in the logits, (rows, classes), or (rows, 1) for two classes."""
    if logits.shape[1] == 1:
        sign = 2.0 * code - 1
        margin = sign * logits[:, 0]
        return float(np.logaddexp(0, -margin).sum()), (-sign / (1 + np.exp(np.clip(margin, -500, 500))))[:, None]
    logits = logits - logits.max(1, keepdims=True)
    whole = np.exp(logits)
    total = whole.sum(1)
    each = np.arange(len(code))
    loss = float((np.log(total) - logits[each, code]).sum())
    whole /= total[:, None]
    whole[each, code] -= 1
    return loss, whole


def fit_linear_svm(pipeline: Pipeline, rows: RowStream, validation: RowStream | None) -> Read:
    """Fit a scaler and one linear support vector machine a class by stochastic gradients, with Platt's probabilities.

    The probabilities are fitted on images that are set aside before.
    """
    from sklearn.frozen import FrozenEstimator

    scaler, seed = scale_stream(rows), 0
    count = min(CALIBRATION_IMAGES, len(rows.images) // 10)
    aside = stratified(rows.images, rows.codes, count, seed)
    # A class that is set aside as a whole, for having few images, trains too.
    few = np.setdiff1d(rows.codes[aside], rows.codes[np.setdiff1d(rows.images, aside)])
    left, rng = rows.without(aside[~np.isin(rows.codes[aside], few)]), np.random.default_rng(seed)
    classes = np.unique(rows.codes[rows.images])
    asked: Any = pipeline[-1]
    settings: Any = {"average": len(left), "random_state": seed, "shuffle": False}  # averaged from then on
    machine: Any = SGDClassifier(loss="hinge", alpha=1 / (asked.C * len(left)), **settings)
    for _ in range(SVM_EPOCHS):
        for X, images in left.windows(rng):
            order = rng.permutation(len(X))
            for start in range(0, len(order), SVM_BATCH):
                batch = order[start : start + SVM_BATCH]
                part = scaler.transform(X[batch].astype(np.float32))
                machine.partial_fit(part, rows.codes[images[batch]], classes=classes)
    held = rows.read(aside).astype(np.float32)
    every = np.arange(len(held))  # a frozen machine needs no folds, which would need five images of each class
    ways: Any = {"method": "sigmoid", "ensemble": False, "cv": [(every, every)]}
    calibrated: Any = CalibratedClassifierCV(FrozenEstimator(machine), **ways)
    calibrated.fit(scaler.transform(held), np.repeat(rows.codes[aside], len(rows.views)))
    (inner,) = calibrated.calibrated_classifiers_
    inner.estimator, calibrated.estimator = machine, machine  # frozen for the fit alone
    del machine._loss_function_  # of no use after the fit, and in no file format of a bundle
    return make_pipeline(scaler, calibrated), f"streamed: {SVM_EPOCHS} epochs of SGD, one machine a class"


def fit_xgboost(model: XGBoost, rows: RowStream, validation: RowStream | None) -> Read:
    """Fit XGBoost through its iterator: bins in memory where they fit into half of it, else in files."""
    held = len(rows) * rows.columns * 2 <= rows.memory  # a byte a bin, and as much for the gradients' index
    with temporary_folder() as folder:
        model.fit_stream(rows, None if held else str(Path(folder) / "bins"))
    return model, "streamed: external iterator, bins " + ("in memory" if held else "in files")
