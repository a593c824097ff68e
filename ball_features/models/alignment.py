"""What can be taken out of embeddings before a model sees them: an image's own level, the mean of its kind."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["Alignment"]


class Alignment:
    """Standardises each embedding in itself, takes from each the mean of its kind, or first one, then the other.

    Labels are not looked at. A kind (a stain, a scanner, a series; of several views, each view of it) that was there in
    training keeps the mean it had there; of a new one the mean is that of the rows given, so that the answer on a row
    depends on the others (it is transductive). A kind that holds one class loses that class with its mean.

    Args:
        per_image: Subtract each row's mean and divide by its standard deviation, over the columns that vary.

    Attributes:
        used_: bool (D,), the columns that vary in training; with `per_image`.
        centers_: Kind -> float32 (D,), its mean; None without kinds.
    """

    def __init__(self, per_image: bool) -> None:
        self.per_image = per_image

    def fit_transform(self, X: np.ndarray, kinds: Any = None) -> np.ndarray:
        """Learn from X (N, D) and the kind of each row, (N,) or None for no centring, and return X aligned."""
        if self.per_image:  # short embeddings are filled up with zeros, which are no part of them
            self.used_ = X.min(0) < X.max(0)
        self.centers_: dict[Any, np.ndarray] | None = None
        if kinds is not None:
            Z, names = self._each(X), _checked(X, kinds)
            self.centers_ = {name: Z[names == name].mean(0) for name in np.unique(names).tolist()}
        return self.transform(X, kinds)

    def transform(self, X: np.ndarray, kinds: Any = None) -> np.ndarray:
        """X (N, D) aligned, float32; X itself where there is nothing to do.

        Raises:
            ValueError: Rows were centred in training and their kinds are not given now, or the other way round.
        """
        if (kinds is None) != (self.centers_ is None):
            raise ValueError(
                f"Got {len(X)} rows {'without' if kinds is None else 'with'} kinds, expected them as in training: give "
                "kinds to fit and to predict_proba, or to neither."
            )
        Z = self._each(X)
        if self.centers_ is None:
            return Z
        names, out = _checked(X, kinds), Z.astype(np.float32)
        for name in np.unique(names).tolist():
            own = names == name
            center = self.centers_.get(name)
            out[own] -= Z[own].mean(0) if center is None else center
        return out

    def _each(self, X: np.ndarray) -> np.ndarray:
        if not self.per_image:
            return X
        own = X[:, self.used_].astype(np.float32)
        out = np.zeros(X.shape, dtype=np.float32)
        spread = own.std(1, keepdims=True)
        out[:, self.used_] = (own - own.mean(1, keepdims=True)) / np.maximum(spread, np.finfo(np.float32).tiny)
        return out


def _checked(X: np.ndarray, kinds: Any) -> np.ndarray:
    names = np.asarray(kinds)
    if names.shape != (len(X),):
        raise ValueError(f"Got kinds of shape {names.shape} and {len(X)} rows, expected one a row.")
    return names
