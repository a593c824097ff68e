"""Single cells in the middle of plain grounds: strangers look alike when shrunk, and copies are copies."""

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from ball_features.audit.findings import audit
from ball_features.audit.registration import register
from ball_features.dataset.manifest import scan

SIDE = 224


def cell(seed):
    """A grey picture of one stained cell with a nucleus of its own grain, float (side, side)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    tilt, stretch = rng.uniform(0, np.pi), rng.uniform(0.9, 1.1)
    u, v = x * np.cos(tilt) + y * np.sin(tilt), (y * np.cos(tilt) - x * np.sin(tilt)) * stretch
    inside = 1 / (1 + np.exp((np.hypot(u, v) - rng.uniform(40, 50)) / 4))
    grain = gaussian_filter(rng.normal(size=(SIDE, SIDE)), 3)
    ground = 215 + 4 * gaussian_filter(rng.normal(size=(SIDE, SIDE)), 8) / 0.04
    return ground - inside * (110 + 25 * grain / grain.std()) + rng.normal(0, 1, (SIDE, SIDE))


def save(folder, name, pixels):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    grey = np.clip(pixels, 0, 255).astype(np.uint8)
    Image.fromarray(np.stack([grey, (grey * 0.9).astype(np.uint8), grey], 2)).save(path)


@pytest.mark.slow
def test_cells_that_only_look_alike_are_no_copies(tmp_path):
    for number in range(24):
        save(tmp_path, f"{'AB'[number % 2]}/{number}.png", cell(number))
    copy = np.rot90(cell(0)) * 0.95 + 8 + np.random.default_rng(9).normal(0, 1, (SIDE, SIDE))
    save(tmp_path, "B/copy.png", copy)
    found = audit(scan(tmp_path))
    pairs = [{str(found.path[pair.first]), str(found.path[pair.second])} for pair in found.pairs]
    assert pairs == [{"A/0.png", "B/copy.png"}]
    assert len(found.conflicts) == 1


@pytest.mark.parametrize("change", [(1.03, 2, -3), (0.97, -4, 1)])
def test_a_map_is_found_and_undone(change):
    from PIL import Image as Pictures

    scale, dx, dy = change
    first = np.clip(cell(5), 0, 255).astype(np.uint8)
    matrix = (1 / scale, 0, -dx / scale, 0, 1 / scale, -dy / scale)
    second = np.asarray(Pictures.fromarray(first).transform((SIDE, SIDE), Pictures.Transform.AFFINE, matrix, 2))
    everywhere = np.ones((SIDE, SIDE), bool)
    found = register(first, second, everywhere, everywhere, (0, 0))
    assert found is not None
    off = np.abs(found.second.astype(float) - first)[found.valid & (np.hypot(*(np.mgrid[:SIDE, :SIDE] - 112)) < 80)]
    assert off.mean() < 3
    assert found.valid.mean() > 0.7


def test_pictures_without_a_map_are_told():
    rng = np.random.default_rng(0)
    one, two = (rng.integers(0, 255, (SIDE, SIDE)).astype(np.uint8) for _ in range(2))
    nowhere = np.zeros((SIDE, SIDE), bool)
    assert register(one, two, nowhere, nowhere, (0, 0)) is None
