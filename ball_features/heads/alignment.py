"""What can be taken out of embeddings before a model sees them: an image's own level, a series' own mean."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["Alignment"]


class Alignment:
    """Standardises each embedding in itself, or takes from each the mean of its group, or first one, then the other.

    Labels are not looked at. A group that was there in training keeps the mean it had there; of a new one the mean is
    that of the rows given, so that the answer on a row depends on the others (it is transductive), and a group that
    holds one class loses that class with its mean.

    Args:
        per_image: Subtract each row's mean and divide by its standard deviation, over the columns that vary.
        center: Subtract from each row the mean of its group.
    """

    def __init__(self, per_image: bool, center: bool) -> None:
        self.per_image = per_image
        self.center = center

    def fit(self, X: np.ndarray, groups: Any) -> np.ndarray:
        """Learn from X (N, D) and the group of each row, (N,) or None, and return what `transform` makes of it."""
        # Short embeddings are filled up with zeros, which are no part of them.
        self.used_ = X.min(0) < X.max(0)
        self.centers_: dict[Any, np.ndarray] = {}
        if self.center:
            Z, names = self._each(X), self._names(X, groups)
            self.centers_ = {name: Z[names == name].mean(0) for name in np.unique(names).tolist()}
        return self.transform(X, groups)

    def transform(self, X: np.ndarray, groups: Any) -> np.ndarray:
        """X (N, D) aligned, float32; X itself where there is nothing to do.

        Raises:
            ValueError: Rows are to be centred and their groups are not given.
        """
        Z = self._each(X)
        if not self.center:
            return Z
        names, out = self._names(X, groups), Z.astype(np.float32)
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

    def _names(self, X: np.ndarray, groups: Any) -> np.ndarray:
        if groups is None:
            raise ValueError(
                f"Got center=True and {len(X)} rows without groups, expected the group of each. Give groups to fit and "
                "to predict_proba."
            )
        names = np.asarray(groups)
        if names.shape != (len(X),):
            raise ValueError(f"Got groups of shape {names.shape} and {len(X)} rows, expected one group a row.")
        return names
