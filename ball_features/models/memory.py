"""Work that several models on the same training rows have in common, done once."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import numpy as np

__all__ = ["SplitMemory"]


class SplitMemory:
    """Results by the identity of the arrays they were computed from, behind joblib.Memory's `cache`.

    Given as `memory` to scikit-learn's `Pipeline` and to `KernelSVM`, models that are fitted one after the other on
    the very same X share its scaling and its kernel products. joblib.Memory itself compares contents and keeps results
    on disk, which takes longer than scaling again.

    Arrays given and returned are held as long as this object lives; those returned cannot be written to, since
    they belong to several models.
    """

    def __init__(self) -> None:
        self._results: dict[Hashable, tuple[Any, Any]] = {}

    def cache(self, func: Callable[..., Any], ignore: Any = ()) -> Callable[..., Any]:
        """`func` with a memory: the same arrays and equal other arguments, those of `ignore` left out, give the same.

        Args:
            func: Depends on its arguments only.
            ignore: Names of keyword arguments that do not matter to the result.
        """

        def remembered(*args: Any, **kwargs: Any) -> Any:
            told = {name: value for name, value in kwargs.items() if name not in ignore}
            key = (func.__module__, func.__qualname__, *map(_identity, args), *map(_identity, told.items()))
            if key not in self._results:
                result = func(*args, **kwargs)
                for part in result if isinstance(result, tuple) else (result,):
                    if isinstance(part, np.ndarray):
                        part.flags.writeable = False
                # The arguments are held too: the identity of an array that is gone may be given to another.
                self._results[key] = (result, (args, kwargs))
            return self._results[key][0]

        return remembered


def _identity(value: Any) -> Hashable:
    if isinstance(value, np.ndarray):
        return ("array", id(value))
    if isinstance(value, tuple):
        return tuple(map(_identity, value))
    return (type(value).__qualname__, repr(value))  # an estimator's shows its parameters
