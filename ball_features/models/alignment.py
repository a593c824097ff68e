"""Alignment of embeddings before a model uses them: an image's own level and the mean of its set are removed."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["Alignment"]


class Alignment:
    """Standardisation of each embedding by its own mean and deviation, subtraction of the mean of its set, or both.

    Labels are not used. `center` names the set of each row: a stain, a scanner or a series; if there are several views,
    each view of it. A set seen in training keeps its training mean. A new one has the mean of the rows given, so that
    the answer for one row depends on the others (the method is transductive). If a set holds one class, that class is
    lost with its mean.

    Args:
        per_image: True subtracts each row's mean and divides by its standard deviation, over the columns that vary.

    Attributes:
        used_: columns that vary in training, bool (D,); with `per_image`.
        centers_: mean of each set, name -> float32 (D,); None where rows are not centred.
    """

    def __init__(self, per_image: bool) -> None:
        self.per_image = per_image

    def fit_transform(self, X: np.ndarray, center: Any = None) -> np.ndarray:
        """Learn from X and return it aligned.

        Args:
            X: embeddings, float (N, D).
            center: set of each row, (N,), or None for no centring.
        """
        if self.per_image:  # short embeddings are padded with zeros, which must not count
            self.used_ = X.min(0) < X.max(0)
        self.centers_: dict[Any, np.ndarray] | None = None
        if center is not None:
            Z, names = self._standardised(X), _checked(X, center)
            self.centers_ = {name: Z[names == name].mean(0) for name in np.unique(names).tolist()}
        return self.transform(X, center)

    def transform(self, X: np.ndarray, center: Any = None) -> np.ndarray:
        """Return X (N, D) aligned, float32, or X itself if there is nothing to do.

        Raises:
            ValueError: Rows were centred in training and are not now, or the reverse.
        """
        if (center is None) != (self.centers_ is None):
            raise ValueError(
                f"Got {len(X)} rows {'without' if center is None else 'with'} center, expected it as in training: give "
                "center to fit and to predict_proba, or to neither."
            )
        Z = self._standardised(X)
        if self.centers_ is None:
            return Z
        names, out = _checked(X, center), Z.astype(np.float32)
        for name in np.unique(names).tolist():
            own = names == name
            mean = self.centers_.get(name)
            out[own] -= Z[own].mean(0) if mean is None else mean
        return out

    def _standardised(self, X: np.ndarray) -> np.ndarray:
        if not self.per_image:
            return X
        own = X[:, self.used_].astype(np.float32)
        out = np.zeros(X.shape, dtype=np.float32)
        spread = own.std(1, keepdims=True)
        out[:, self.used_] = (own - own.mean(1, keepdims=True)) / np.maximum(spread, np.finfo(np.float32).tiny)
        return out


def _checked(X: np.ndarray, center: Any) -> np.ndarray:
    names = np.asarray(center)
    if names.shape != (len(X),):
        raise ValueError(f"Got center of shape {names.shape} and {len(X)} rows, expected one a row.")
    return names
