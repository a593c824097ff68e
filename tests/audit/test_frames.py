"""What surrounds pictures: it is found in any of them, and makes no two of them alike."""

import numpy as np
import pytest
from PIL import Image

from ball_features.audit.findings import audit
from ball_features.audit.frames import frame, painted, same_everywhere
from ball_features.dataset.manifest import scan
from ball_features.dataset.synthetic import draw_smears

SIDE = 224
ROWS, COLUMNS = np.mgrid[:SIDE, :SIDE]
AROUND = np.hypot(ROWS - 111.5, COLUMNS - 111.5) > 106
ABOVE = (ROWS < 20) | (ROWS >= 204)


def pictures(count, seed=0):
    """Blobs on a bright ground, uint8 (count, 224, 224)."""
    from scipy.ndimage import gaussian_filter

    noise = gaussian_filter(np.random.default_rng(seed).standard_normal((count, SIDE, SIDE)), (0, 6, 6))
    return np.clip(200 + 60 * noise / noise.std() - 40, 40, 250).astype(np.uint8)


@pytest.mark.parametrize(("outside", "value"), [(AROUND, 8), (ABOVE, 0), (ABOVE, 255), (COLUMNS < 12, 120)])
def test_a_frame_is_found_in_one_picture(outside, value):
    grey = pictures(1)[0]
    assert not frame(grey).any()
    grey[outside] = value
    found = frame(grey)
    assert found[outside].all()
    assert found[~outside].mean() < 0.15
    assert np.ptp(painted(grey, found)[outside]) == 0


def test_cells_cut_out_on_black_are_no_frame():
    cells = np.zeros((SIDE, SIDE), dtype=np.uint8)
    for y, x in ((40, 60), (150, 50), (90, 170), (180, 160)):
        cells[np.hypot(ROWS - y, COLUMNS - x) < 25] = 150
    assert not frame(cells).any()
    assert not frame(np.zeros_like(cells)).any()


def test_a_speck_on_black_has_no_frame_that_covers_it():
    speck = np.zeros((SIDE, SIDE), dtype=np.uint8)
    speck[100:108, 100:108] = 255
    assert not frame(speck).any()
    assert np.array_equal(painted(speck, np.ones_like(speck, dtype=bool)), speck)  # frame and collection, together


def test_what_nearly_all_images_have_is_left_out():
    greys = pictures(20)
    assert not same_everywhere(greys).any()
    patch = (slice(60, 100), slice(80, 120))
    greys[1:, *patch] = 77
    found = same_everywhere(greys)
    assert found[patch].all()
    assert found.mean() < 0.06
    assert not same_everywhere(greys[:9]).any()  # so few may agree by chance
    assert not same_everywhere(np.repeat(greys[:1], 20, axis=0)).any()


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.5, 1])
def test_an_aperture_makes_no_pairs(tmp_path, share):
    truth = draw_smears(tmp_path, per_class=4, seed=31, near_duplicates=2)
    rng = np.random.default_rng(0)
    for name in truth.label:
        if rng.random() < share or any(name in pair for pair in truth.near_duplicates):
            pixels = np.array(Image.open(tmp_path / name))
            pixels[AROUND] = 8
            Image.fromarray(pixels).save(tmp_path / name, quality=90)
    found = audit(scan(tmp_path))
    pairs = {frozenset((found.path[pair.first], found.path[pair.second])) for pair in found.pairs}
    assert pairs == {frozenset(pair) for pair in truth.near_duplicates}
    assert set(found.overlay) == {"none"} or share < 1
