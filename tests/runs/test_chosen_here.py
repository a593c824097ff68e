"""Models whose views were chosen on the images at hand are named, and no others."""

from dataclasses import replace

import numpy as np
import pytest

from ball_features import read_cache
from ball_features.dataset.known import KNOWN
from ball_features.models.registry import MODELS
from ball_features.runs.chosen_here import CHOSEN_ON, chosen_here
from tests.made import clouds, write_cache


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    embeddings, label = clouds(10)
    return read_cache(write_cache(tmp_path_factory.mktemp("chosen") / "c.h5", embeddings, label))


def of_public_set(cache, share):
    """The cache with this share of its images from the public set."""
    hashes = list(KNOWN["mehradaria-leukemia"].files().values())
    number = round(share * len(cache.path))
    return replace(cache, sha256=np.array([*hashes[:number], *cache.sha256[number:]]))


@pytest.mark.parametrize(
    ("share", "models", "expected"),
    [
        (1.0, ("mlp", "robust-views"), ("the views of robust-views",)),
        (1.0, ("robust-views", "robust", "colour"), ("the views of robust-views", "the views of robust")),
        (0.6, ("robust",), ("the views of robust",)),
        (1.0, ("mlp", "logistic", "robust-logistic"), ()),
        (0.1, ("robust-views", "robust"), ()),
        (0.0, ("robust-views", "robust"), ()),
    ],
)
def test_the_public_set(cache, share, models, expected):
    assert chosen_here(of_public_set(cache, share), models) == expected


@pytest.mark.parametrize("by", ["site", "file"])
def test_single_cells_by_name(cache, by):
    paths = np.array([f"eosinophil/EO_{row:06}.jpg" for row in range(len(cache.path))])
    known = (
        replace(cache, columns={"site": np.where(np.arange(len(cache.path)) % 2, "pbc", "bccd")})
        if by == "site"
        else replace(cache, path=paths)
    )
    assert chosen_here(known, ("robust", "robust-views")) == ("the views of robust",)
    assert chosen_here(cache, ("robust", "robust-views")) == ()


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("Parasitized/C101P62ThinF_IMG_20150918_151006_cell_67.png", "candidates"),
        ("Uninfected/C1_thinF_IMG_20150604_104722_cell_9.png", "candidates"),
        ("eosinophil/BloodImage_00009.jpg", "views"),
        ("eosinophil/bccd_BloodImage_00009_1.jpg", "views"),
    ],
)
@pytest.mark.parametrize(("share", "said"), [(0.5, True), (0.05, False)])
def test_collections_by_their_files(cache, name, what, share, said):
    paths = cache.path.copy().astype(object)
    folder, _, file = name.partition("/")
    paths[: round(share * len(paths))] = [f"{folder}/{row}/{file}" for row in range(round(share * len(paths)))]
    found = chosen_here(replace(cache, path=paths.astype(str)), ("mlp", "robust", "robust-views"))
    assert found == ((f"the {what} of robust",) if said else ())


def test_only_models_that_exist_are_listed():
    assert set(CHOSEN_ON) <= set(MODELS)
