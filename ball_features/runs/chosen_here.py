"""What was chosen by looking at the images at hand: figures of it on them are too good."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from ball_features.cache import Cache
from ball_features.dataset.known import known_dataset
from ball_features.extraction.training_sets import TRAINING_SETS

__all__ = ["CHOSEN_ON", "chosen_here"]

_SINGLE_CELLS = 0.1  # share of the images from which a collection is that of the single cells


def _is_public_set(cache: Cache) -> bool:
    match = known_dataset(cache.sha256.tolist())
    return match is not None and match[0].name == "mehradaria-leukemia"


def _is_single_cells(cache: Cache) -> bool:
    sites = cache.columns["site"].tolist() if "site" in cache.columns else ()
    return TRAINING_SETS["acevedo"].count(cache.path.tolist(), sites) >= _SINGLE_CELLS * len(cache.path)


# Model -> the collections on which its views were chosen (docs/shift.md).
CHOSEN_ON: dict[str, tuple[Callable[[Cache], bool], ...]] = {
    "robust-views": (_is_public_set,),
    "robust": (_is_public_set, _is_single_cells),
}


def chosen_here(cache: Cache, models: Collection[str]) -> tuple[str, ...]:
    """Name what of these models was chosen on the images of a cache, such as "the views of robust-views".

    Args:
        cache: images.
        models: names of the models that were compared.
    """
    names: Sequence[str] = [name for name in CHOSEN_ON if name in models]
    return tuple(f"the views of {name}" for name in names if any(known(cache) for known in CHOSEN_ON[name]))
