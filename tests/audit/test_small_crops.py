"""Small crops, which are enlarged to be compared: what is interpolated proves nothing."""

import numpy as np
import pytest
from PIL import Image

from ball_features.audit.pairs import find_pairs, shrink
from ball_features.dataset.smear_field import CLASSES, draw_field, draw_stain

SIDE, CROP_PX, GRID = 224, 64, 8


def crops(step: int) -> np.ndarray:
    """Crops of one drawn field of round cells, `step` px apart, enlarged: uint8 (crops, 224, 224)."""
    rng = np.random.default_rng(0)
    length = GRID * CROP_PX
    field = draw_field(rng, CLASSES["Benign"], draw_stain(rng), length, length, 0.6)
    at = range(0, length - CROP_PX + 1, step)
    tiles = [Image.fromarray(field[y : y + CROP_PX, x : x + CROP_PX]) for y in at for x in at]
    enlarged = [tile.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX) for tile in tiles]
    return np.stack([np.asarray(tile) for tile in enlarged])


def pairs(pictures: np.ndarray):
    side_px = np.full(len(pictures), CROP_PX)
    nothing = np.zeros((SIDE, SIDE), dtype=bool)
    return find_pairs(shrink(pictures), nothing, lambda row: pictures[row], side_px=side_px)


@pytest.mark.slow
def test_cells_of_other_crops_make_no_shared_fields():
    assert not pairs(crops(CROP_PX))


@pytest.mark.slow
def test_crops_that_overlap_by_half_do():
    pictures = crops(CROP_PX // 2)[:30]  # two rows of crops
    found = pairs(pictures)
    across = 2 * GRID - 1
    for pair in found:
        assert pair.second - pair.first in (1, across - 1, across, across + 1)
    neighbours = {(pair.first, pair.second) for pair in found if pair.second - pair.first in (1, across)}
    assert len(neighbours) >= 36  # of 43
