"""Copies of single cells against cells that only look alike: round, dark, in the middle of an empty ground."""

import cv2
import numpy as np
import pytest

from ball_features.audit.pairs import find_pairs, shrink
from ball_features.audit.symmetry import agrees_in_one_position

SIDE = 224
EVERYWHERE = np.ones((SIDE, SIDE), dtype=bool)


def cell(seed: int, *, textured: bool = True, radius: float = 60) -> np.ndarray:
    """A round cell with a round nucleus whose grain is its own, and grain of the film, uint8 (224, 224)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    away = np.hypot(x, y)
    body = 230 - 40 / (1 + np.exp((away - radius) / 2)) - 90 / (1 + np.exp((away - 0.7 * radius) / 2))
    if textured:
        grain = cv2.GaussianBlur(rng.normal(size=(SIDE, SIDE)), (0, 0), 3)
        body += 12 * grain / grain.std() / (1 + np.exp((away - 0.7 * radius) / 2))
    return (body + rng.normal(size=body.shape)).clip(0, 255).astype(np.uint8)


def encoded(image: np.ndarray, quality: int = 70) -> np.ndarray:
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_GRAYSCALE)


CHANGES = {
    "nothing": lambda image: image,
    "encoding": encoded,
    "brightness": lambda image: np.clip(0.8 * image.astype(float) + 10, 0, 255).astype(np.uint8),
    "blur": lambda image: cv2.GaussianBlur(image, (0, 0), 2),
    "half the size and back": lambda image: cv2.resize(cv2.resize(image, (112, 112)), (SIDE, SIDE)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_copy_agrees_in_one_position(change):
    assert all(agrees_in_one_position(cell(seed), CHANGES[change](cell(seed)), EVERYWHERE) for seed in range(3))


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("textured", [True, False])
def test_round_cells_that_look_alike_agree_in_every_position(change, textured):
    for seed in range(4):
        one, two = (cell(2 * seed + number, textured=textured) for number in (0, 1))
        assert np.corrcoef(one.ravel(), two.ravel())[0, 1] > 0.9
        assert not agrees_in_one_position(one, CHANGES[change](two), EVERYWHERE)


def test_a_copy_is_told_from_a_part_of_the_picture():
    part = np.zeros_like(EVERYWHERE)
    part[:150, 40:] = True
    shown = np.where(part, cell(1), 0).astype(np.uint8)
    assert agrees_in_one_position(cell(1), shown, part)
    assert not agrees_in_one_position(cell(2), shown, part)


@pytest.mark.parametrize("value", [0, 128])
def test_pictures_without_detail_are_no_copies(value):
    flat = np.full((SIDE, SIDE), value, dtype=np.uint8)
    assert not agrees_in_one_position(flat, flat, EVERYWHERE)
    assert not agrees_in_one_position(cell(0), flat, EVERYWHERE)
    assert not agrees_in_one_position(cell(0), cell(0), np.zeros_like(EVERYWHERE))


@pytest.mark.slow
def test_single_cells_make_no_pairs_but_their_copies_do():
    pictures = np.stack([cell(seed, radius=50 + seed) for seed in range(16)] + [encoded(cell(3, radius=53))])
    found = find_pairs(shrink(pictures), np.zeros((SIDE, SIDE), dtype=bool), lambda row: pictures[row])
    assert [(pair.first, pair.second, pair.kind) for pair in found] == [(3, 16, "near-duplicate")]
