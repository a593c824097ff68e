"""What was chosen by looking at the images at hand: figures of it on them are too good."""

from __future__ import annotations

from collections.abc import Callable, Collection

from ball_features.cache import Cache
from ball_features.dataset.known import known_dataset
from ball_features.extraction.training_sets import TRAINING_SETS, TrainingSet

__all__ = ["CHOSEN_ON", "chosen_here"]

_MOST = 0.1  # share of the images from which a collection is one of these
_SINGLE_CELLS = (
    TRAINING_SETS["acevedo"],
    TrainingSet("BCCD", "github.com/Shenggan/BCCD_Dataset", names=r"\bbccd\b", files=r"BloodImage_\d{5}"),
    TrainingSet("Zheng et al. 2018", "doi 10.1016/j.micron.2018.01.010", names=r"\bzheng ?[12]?\b"),
)
_MALARIA = TrainingSet(
    "Rajaraman et al. 2018 (NIH malaria)",
    "doi 10.7717/peerj.4568",
    names=r"\bnih malaria\b",
    files=r"^C\d+\w*[tT]hinF_IMG_\d{8}_\d{6}\w?_cell_\d+",
)


def _is_public_set(cache: Cache) -> bool:
    match = known_dataset(cache.sha256.tolist())
    return match is not None and match[0].name == "mehradaria-leukemia"


def _is_one_of(*collections: TrainingSet) -> Callable[[Cache], bool]:
    """A test whether a tenth of the images or more bear the names of these collections."""

    def test(cache: Cache) -> bool:
        sites = cache.columns["site"].tolist() if "site" in cache.columns else ()
        paths = cache.path.tolist()
        return sum(item.count(paths, sites) for item in collections) >= _MOST * len(paths)

    return test


# Model -> what of it was chosen with which collection in view (docs/shift.md).
CHOSEN_ON: dict[str, dict[str, tuple[Callable[[Cache], bool], ...]]] = {
    "robust-views": {"views": (_is_public_set,)},
    "robust": {
        "views": (_is_public_set, _is_one_of(*_SINGLE_CELLS)),
        "candidates": (_is_one_of(_MALARIA),),
    },
}


def chosen_here(cache: Cache, models: Collection[str]) -> tuple[str, ...]:
    """Name what of these models was chosen on the images of a cache, such as "the views of robust-views".

    Args:
        cache: images.
        models: names of the models that were compared.
    """
    return tuple(
        f"the {part} of {name}"
        for name, parts in CHOSEN_ON.items()
        if name in models
        for part, tests in parts.items()
        if any(test(cache) for test in tests)
    )
