"""The student report's head: a two-layer perceptron on embeddings, a scikit-learn classifier over PyTorch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from ball_features.models.alignment import Alignment
from ball_features.models.base import AlignedClassifier
from ball_features.models.epochs import Trained, run_epochs
from ball_features.models.group_effects import group_weights
from ball_features.models.head_stream import Windows, evaluate_stream
from ball_features.models.network import absorb_norms, build_module, forward
from ball_features.models.row_stream import RowStream
from ball_features.models.training import Rows, Training, TrainingSettings
from ball_features.threads import one_thread

__all__ = ["MLPHead"]

ROWS_A_PREDICTION = 4096  # bounds the float64 copy that predict_proba makes
DTYPES = (np.float32, np.float16)  # kept as they are; anything else becomes the first


class MLPHead(AlignedClassifier, ClassifierMixin, BaseEstimator):
    """The student report's two-layer head as a scikit-learn classifier; the defaults are that report's recipe.

    BatchNorm(D) - Linear 64 - BatchNorm - LeakyReLU - Dropout 0.2 - Linear 64 - BatchNorm - ReLU - Linear C, trained
    with cross-entropy and Adam. It needs no scaler before it: the first batch norm is one, fitted on the training rows.

    The same data and integer `random_state` give the same weights for any number of threads, and no global random state
    is read or changed. With None the seed comes from NumPy's global generator, as in scikit-learn.
    Rows are shuffled every epoch; a last batch of a single row, which batch norm cannot take, joins the one before it.

    Args:
        hidden: widths of the hidden layers. The first has LeakyReLU and dropout, the others ReLU.
        learning_rate: learning rate of Adam.
        l2: weight decay on all parameters, added to the clipped gradient as `torch.optim.Adam` does.
        epochs: passes over the training rows, at least 1.
        batch_size: rows in a step, at least 2.
        dropout: probability of dropping a unit after the first hidden layer, in [0, 1).
        clip_norm: greatest 2-norm of the whole gradient; None leaves it unclipped.
        class_weight: None, "balanced", or {class: weight}; weights the loss of training and of validation.
        group_loss: how groups given to `fit` weigh in the training loss: None (not at all), "balanced" (each class is
            shared among its groups by the root of their size), or "dro" (a group weighs more the worse it fares:
            group DRO, Sagawa et al. 2020).
        group_step: step of the groups' weights under "dro".
        consistency: weight of a second loss, half the mean squared distance of the logits of an image's views from
            their mean (after Sajjadi et al. 2016, who take the views in pairs), if `views_per_image` is above 1.
        views_per_image: number of consecutive training rows that are views of one image; see `consistency`.
        per_image: True standardises each embedding by its own mean and deviation first; see `Alignment`.
        random_state: seed of the initial weights, the order of rows and dropout.

    Attributes:
        classes_: sorted labels, (C,).
        n_features_in_: number of columns D.
        alignment_: fitted `Alignment`.
        state_: float32 arrays by the names of `to_module().state_dict()`, ready for safetensors.
        history_: "train_loss", "train_accuracy", "val_loss", "val_accuracy" -> float64 (epochs,). Training values are
            taken in train mode before each step; validation values are NaN without validation data.
        best_epoch_: index into the curves of the epoch whose weights were kept: the lowest validation loss (the first
            of equals), or the last epoch without validation data.
    """

    def __init__(
        self,
        hidden: Sequence[int] = (64, 64),
        *,
        learning_rate: float = 1e-4,
        l2: float = 1e-5,
        epochs: int = 40,
        batch_size: int = 16,
        dropout: float = 0.2,
        clip_norm: float | None = 0.01,
        class_weight: Mapping[Any, float] | Literal["balanced"] | None = None,
        group_loss: Literal["balanced", "dro"] | None = None,
        group_step: float = 0.01,
        consistency: float = 0.0,
        views_per_image: int = 1,
        per_image: bool = False,
        random_state: int | np.random.RandomState | None = 0,
    ):
        self.hidden = hidden
        self.learning_rate = learning_rate
        self.l2 = l2
        self.epochs = epochs
        self.batch_size = batch_size
        self.dropout = dropout
        self.clip_norm = clip_norm
        self.class_weight = class_weight
        self.group_loss = group_loss
        self.group_step = group_step
        self.consistency = consistency
        self.views_per_image = views_per_image
        self.per_image = per_image
        self.random_state = random_state

    def fit(
        self,
        X: Any,
        y: Any,
        *,
        X_val: Any = None,
        y_val: Any = None,
        groups: Any = None,
        center: Any = None,
        center_val: Any = None,
    ) -> MLPHead:
        """Train. With validation rows, keep the weights of the epoch with the lowest validation loss.

        There is no sample_weight: rows are weighted by class and group (`class_weight`, `group_loss`).

        Args:
            X: training rows, float16 or float32 (N, D), read in place and cast a few batches at a time; other dtypes
                are cast to float32.
            y: labels of any sortable type, (N,).
            X_val: validation rows, (M, D), or None.
            y_val: labels of the validation rows, (M,), all among those of y; classes may be missing.
            groups: group of each training row, (N,), or None; see `group_loss`.
            center: what each training row is centred with, (N,), or None; see `Alignment`.
            center_val: what each validation row is centred with, (M,), or None.

        Returns:
            self.

        Raises:
            ValueError: A parameter is out of range, there is a single row, or validation does not match training.
        """
        self._check_parameters()
        checked: Any = validate_data(self, X, y, dtype=DTYPES, order="C", ensure_min_samples=2)
        X, y = checked
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(X) % self.views_per_image:
            raise ValueError(
                f"MLPHead got {len(X)} rows and views_per_image={self.views_per_image}, expected a multiple of it."
            )
        weight = compute_class_weight(self.class_weight, classes=self.classes_, y=y).astype(np.float32)
        self.alignment_ = Alignment(self.per_image)
        X = self.alignment_.fit_transform(X, center)
        validation = self._check_validation(X_val, y_val, center_val)
        with torch.inference_mode(), one_thread():
            row_weight, group = self._group_options(y, groups)
            rows = Rows(_tensor(X), torch.from_numpy(codes), row_weight, group, self.views_per_image)
            training = Training(TrainingSettings.of(self), rows, torch.from_numpy(weight), self._draw_seed())
            self._keep(
                run_epochs(
                    training,
                    self.epochs,
                    lambda epoch: training.run_epoch(training.draw_order()),
                    None if validation is None else lambda: training.evaluate(*validation),
                )
            )
        return self

    def fit_stream(self, rows: RowStream, validation: RowStream | None = None) -> MLPHead:
        """Train on rows that are read from a file when they are used, in shuffled windows; see `RowStream`.

        Groups weigh by `RowStream.weight` alone, and nothing is aligned.

        Args:
            rows: training rows.
            validation: validation rows, or None.

        Raises:
            ValueError: A parameter is out of range.
        """
        self._check_parameters()
        self.classes_, self.n_features_in_ = np.unique(rows.codes[rows.images]), rows.columns
        self.alignment_ = Alignment(per_image=False)
        self.alignment_.centers_ = None
        weight = compute_class_weight(self.class_weight, classes=self.classes_, y=rows.y).astype(np.float32)
        seed, number = self._draw_seed(), np.searchsorted(self.classes_, rows.codes)
        windows = Windows(rows, number, self.views_per_image, seed)
        with torch.inference_mode(), one_thread():
            training = Training(TrainingSettings.of(self), windows.first(), torch.from_numpy(weight), seed)
            self._keep(
                run_epochs(
                    training,
                    self.epochs,
                    lambda epoch: windows.run_epoch(training, epoch),
                    None if validation is None else lambda: evaluate_stream(training, validation, self.classes_),
                )
            )
        return self

    def _keep(self, trained: Trained) -> None:
        self.state_, self.history_, self.best_epoch_ = trained.state, trained.history, trained.best_epoch

    def _draw_seed(self) -> int:
        return int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))

    def predict_proba(self, X: Any, center: Any = None) -> np.ndarray:
        """Return class probabilities of X (N, D), float64 (N, C), by `classes_`; center (N,) as in training."""
        check_is_fitted(self)
        checked: Any = validate_data(self, X, dtype=DTYPES, order="C", reset=False)
        X = _tensor(self.alignment_.transform(checked, center))
        with torch.inference_mode():
            layers = absorb_norms(self.state_, len(self.hidden), torch.float64)
            parts = [torch.softmax(forward(layers, part), 1) for part in X.split(ROWS_A_PREDICTION)]
            return torch.cat(parts).numpy()

    def predict(self, X: Any, center: Any = None) -> np.ndarray:
        """Return the most probable label of each row of X (N, D), in the type of the training labels."""
        probability = self.predict_proba(X, center)
        return self.classes_[probability.argmax(axis=1)]

    def to_module(self) -> torch.nn.Sequential:
        """Return the fitted network as a plain torch module in eval mode: float32 aligned (N, D) -> logits (N, C)."""
        check_is_fitted(self)
        module = build_module(len(self.state_["0.weight"]), self.hidden, len(self.classes_), self.dropout)
        module.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in self.state_.items()})
        return module.eval()

    def _group_options(self, y: np.ndarray, groups: Any) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Return the weight of each row and the group of each row, whichever `group_loss` uses."""
        if groups is None or self.group_loss is None:
            return None, None
        group = np.asarray(groups)
        if group.shape != y.shape:
            raise ValueError(f"MLPHead got groups of shape {group.shape}, expected {y.shape}: one a row.")
        group = np.unique(group, return_inverse=True)[1]
        if self.group_loss == "balanced":
            return torch.from_numpy(group_weights(y, group).astype(np.float32)), None
        return None, torch.from_numpy(group)

    def _check_parameters(self) -> None:
        for name, valid, expected in (
            ("hidden", len(self.hidden) > 0 and min(self.hidden) >= 1, "one width or more, each at least 1"),
            ("learning_rate", self.learning_rate > 0, "a number above 0"),
            ("l2", self.l2 >= 0, "a number of at least 0"),
            ("epochs", self.epochs >= 1, "at least 1"),
            ("batch_size", self.batch_size >= 2, "at least 2, since batch norm needs a batch"),
            ("dropout", 0 <= self.dropout < 1, "a probability in [0, 1)"),
            ("group_loss", self.group_loss in (None, "balanced", "dro"), "None, balanced or dro"),
            ("group_step", self.group_step > 0, "a number above 0"),
            ("views_per_image", self.views_per_image >= 1, "at least 1"),
            ("consistency", 0 <= self.consistency < math.inf, "a finite number of at least 0"),
            ("class_weight", self.class_weight is None or self.group_loss != "dro", "None beside group_loss='dro'"),
            ("class_weight", self._weighs(), "None, 'balanced' or a mapping of classes to finite numbers above 0"),
            ("clip_norm", self.clip_norm is None or self.clip_norm > 0, "a number above 0, or None"),
        ):
            if not valid:
                raise ValueError(f"MLPHead got {name}={getattr(self, name)!r}, expected {expected}.")

    def _weighs(self) -> bool:
        if isinstance(self.class_weight, Mapping):
            return all(0 < weight < math.inf for weight in self.class_weight.values())
        return self.class_weight in (None, "balanced")

    def _check_validation(self, X_val: Any, y_val: Any, center: Any) -> tuple[torch.Tensor, torch.Tensor] | None:
        if X_val is None and y_val is None:
            return None
        if X_val is None or y_val is None:
            raise ValueError("MLPHead got one of X_val and y_val, expected both or neither; give the other too.")
        X_val, y_val = validate_data(self, X_val, y_val, dtype=DTYPES, order="C", reset=False)
        unknown = sorted(set(y_val.tolist()) - set(self.classes_.tolist()))
        if unknown:
            raise ValueError(f"MLPHead got y_val with {unknown}, expected only classes of y: {self.classes_.tolist()}.")
        aligned = self.alignment_.transform(X_val, center)
        return _tensor(aligned), torch.from_numpy(np.searchsorted(self.classes_, y_val))


def _tensor(array: np.ndarray) -> torch.Tensor:
    """Return a tensor over the same memory; a read-only array (a memory map) is copied, since torch warns."""
    return torch.from_numpy(array if array.flags.writeable else array.copy())
