"""The nucleus in the middle of drawn cells: where it is, how large, in which colour, and where there is none."""

import numpy as np
import pytest
import torch

from ball_features.extraction.cell_crops import (
    SIDE_PX,
    apply_even_density,
    apply_even_stain,
    apply_fade,
    crop_cell,
)
from ball_features.extraction.central_nucleus import find_central_nucleus

GROUNDS = {
    "white": (0.95, 0.95, 0.95),
    "pink": (0.96, 0.87, 0.8),
    "yellow": (0.95, 0.9, 0.55),
    "grey": (0.7, 0.7, 0.68),
}
PURPLE = (1.0, 1.25, 0.55)  # densities


def disc(side, x, y, radius):
    """Coverage of a disc, x and y in [-1, 1], radius in half sides; float (side, side)."""
    ruler = (np.arange(side) + 0.5) * 2 / side - 1
    away = np.hypot(ruler[None] - x, ruler[:, None] - y)
    return np.clip((radius - away) * side / 2 + 0.5, 0, 1)


def cell(ground="pink", discs=((0.0, 0.0, 0.3),), dark=1.0, body=0.5, side=224, red_cells=True):
    """A smear with one white cell in the middle: ground, red cells, pale body, nuclei."""
    density = np.zeros((3, side, side))
    if red_cells:
        for x, y in ((-0.75, -0.7), (0.8, -0.6), (0.7, 0.75), (-0.8, 0.6)):
            density += 0.35 * disc(side, x, y, 0.2) * np.array([0.25, 0.9, 0.8])[:, None, None]
    x, y = np.mean([part[:2] for part in discs], 0)
    density = np.maximum(density, 0.2 * disc(side, x, y, body) * np.array([0.7, 1, 0.4])[:, None, None])
    for part in discs:
        density = np.maximum(density, dark * disc(side, *part) * np.array(PURPLE)[:, None, None])
    pixels = np.array(GROUNDS[ground])[:, None, None] * np.exp(-density)
    return torch.from_numpy(np.round(pixels * 255) / 255).float()


@pytest.mark.parametrize("ground", GROUNDS)
@pytest.mark.parametrize("dark", [0.5, 1.0, 1.5])
def test_place_and_size_on_every_ground(ground, dark):
    found = find_central_nucleus(cell(ground, ((0.1, -0.15, 0.3),), dark)[None])
    assert found.found.item()
    np.testing.assert_allclose(found.centre[0], (0.1, -0.15), atol=0.02)
    assert found.diameter.item() == pytest.approx(0.6, rel=0.07)
    np.testing.assert_allclose(found.ground[0], GROUNDS[ground], atol=0.03)
    np.testing.assert_allclose(found.density[0], dark * np.array(PURPLE), rtol=0.12)


def test_lobes_belong_together_and_neighbours_do_not():
    lobes = ((-0.15, 0.0, 0.12), (0.15, 0.0, 0.12))
    both = find_central_nucleus(cell(discs=lobes)[None])
    # Two discs of radius r at a distance d: the hull's perimeter is 2 pi r + 2 d.
    assert both.diameter.item() == pytest.approx(0.24 + 2 * 0.3 / np.pi, rel=0.08)
    np.testing.assert_allclose(both.centre[0], (0, 0), atol=0.02)
    far = cell(discs=((0.0, 0.0, 0.2),))
    far = torch.minimum(far, cell(discs=((0.0, 0.0, 0.2), (0.85, 0.85, 0.1)), body=0.01))
    np.testing.assert_allclose(find_central_nucleus(far[None]).centre[0], (0, 0), atol=0.03)


def test_images_without_a_central_nucleus():
    rng = np.random.default_rng(0)
    blank = torch.full((3, 224, 224), 0.9)
    noise = torch.from_numpy(rng.random((3, 224, 224))).float()
    grey = cell().mean(0, keepdim=True).expand(3, -1, -1)
    crowd = cell(discs=tuple((x, y, 0.15) for x in (-0.6, 0, 0.6) for y in (-0.6, 0, 0.6)))
    found = find_central_nucleus(torch.stack([blank, noise, grey, crowd, cell()]))
    assert found.found.tolist() == [False, False, False, False, True]
    for values in (found.centre, found.diameter, found.distance, found.ground, found.density):
        assert torch.isfinite(values).all()


def test_a_black_frame_is_no_nucleus():
    image = cell(discs=((0.1, 0.1, 0.3),))
    image[:, :30] = image[:, :, -25:] = 0.01
    found = find_central_nucleus(image[None])
    assert found.found.item()
    np.testing.assert_allclose(found.centre[0], (0.1, 0.1), atol=0.03)


def test_rows_do_not_depend_on_the_batch():
    images = torch.stack([cell(), cell("yellow", ((0.2, 0.0, 0.25),))])
    together, alone = find_central_nucleus(images), find_central_nucleus(images[1:])
    torch.testing.assert_close(together.distance[1:], alone.distance)
    torch.testing.assert_close(together.centre[1:], alone.centre)


def rendered(image, factor, colour=apply_even_stain):
    pixels, own = crop_cell(image[None], find_central_nucleus(image[None]), factor)
    return apply_fade(*colour(pixels, own))[0][0]


@pytest.mark.parametrize("factor", [1.25, 1.5, 2.0])
def test_a_crop_is_in_units_of_the_nucleus(factor):
    small, large = (rendered(cell(discs=((0.0, 0.0, r),), body=r * 1.3), factor) for r in (0.15, 0.35))
    for pixels in (small, large):
        assert pixels.shape == (3, SIDE_PX, SIDE_PX)
        nucleus = (pixels[0] < 0.6).float().mean().item()
        assert nucleus == pytest.approx(np.pi / 4 / factor**2, rel=0.15)


def test_light_stain_and_surroundings_do_not_show():
    one = rendered(cell("pink", dark=0.8, red_cells=True), 1.5)
    other = rendered(cell("yellow", dark=1.4, red_cells=False), 1.5)
    middle = slice(40, 88)
    torch.testing.assert_close(one[:, middle, middle], other[:, middle, middle], atol=0.06, rtol=0)
    np.testing.assert_allclose(one[:, 60:68, 60:68].mean((1, 2)), np.exp(-np.array(PURPLE)), atol=0.04)
    assert one[:, :3, :3].min() > 0.97  # white corners


def test_even_density_keeps_the_hue():
    pixels = rendered(cell(dark=0.6), 1.5, apply_even_density)
    density = -pixels[:, 60:68, 60:68].mean((1, 2)).log()
    assert density.mean().item() == pytest.approx(0.95, rel=0.1)
    np.testing.assert_allclose(density / density.sum(), np.array(PURPLE) / sum(PURPLE), atol=0.03)


def test_beyond_the_edge_is_ground():
    pixels = rendered(cell(discs=((0.55, 0.0, 0.4),)), 2.0)
    assert pixels[:, :, -8:].min() > 0.97
    assert torch.isfinite(pixels).all() and pixels.max() <= 1
