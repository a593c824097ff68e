"""Copies that are turned by any angle, zoomed, flipped, brightened or re-encoded are found; strangers are not."""

import io
import itertools

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from ball_features.audit.sift import describe, mirrored_order, root_vectors
from ball_features.audit.traits import grey
from ball_features.audit.transformed import find_transformed

SIDE_PX = 224


@pytest.fixture(scope="module")
def fields(smears):
    """Fourteen drawn fields of all classes, RGB."""
    files = sorted(smears.rglob("*.jpg"))[:: 48 // 14][:14]
    return [Image.open(file).convert("RGB").resize((SIDE_PX, SIDE_PX)) for file in files]


def moved(image, angle_deg=0.0, zoom=1.0, flip=False, shift_px=(0, 0)):
    """The picture turned about its centre, zoomed and shifted; what comes in from outside is its own edge colour."""
    if flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    cos, sin = np.cos(np.deg2rad(angle_deg)) / zoom, np.sin(np.deg2rad(angle_deg)) / zoom
    half = SIDE_PX / 2
    x, y = half + shift_px[0], half + shift_px[1]
    matrix = (cos, sin, half - cos * x - sin * y, -sin, cos, half + sin * x - cos * y)
    fill = tuple(int(value) for value in np.asarray(image)[0, 0])
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC, fillcolor=fill)


def pairs_of(pictures, **more):
    greys = [grey(np.asarray(picture)) for picture in pictures]
    everywhere = np.ones((SIDE_PX, SIDE_PX), dtype=bool)
    return find_transformed(lambda row: (greys[row], everywhere), len(greys), **more)


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        {"angle_deg": 15.0},
        {"angle_deg": 37.0},
        {"angle_deg": 123.0, "shift_px": (20, -15)},
        {"zoom": 0.7},
        {"zoom": 1.4, "angle_deg": -8.0},
        {"flip": True, "angle_deg": 25.0},
    ],
    ids=str,
)
def test_copies_are_found_and_strangers_are_not(fields, change):
    count = len(fields)
    found = pairs_of([*fields, *(moved(field, **change) for field in fields)])
    right = {(row, row + count) for row in range(count)}
    named = {(pair.first, pair.second) for pair in found}
    assert named <= right
    assert len(named) >= 0.9 * count
    assert {pair.kind for pair in found} == {"near-duplicate"}


@pytest.mark.slow
def test_brightness_and_encoding_do_not_matter(fields):
    copies = []
    for field in fields:
        buffer = io.BytesIO()
        ImageEnhance.Brightness(moved(field, 20.0)).enhance(1.2).save(buffer, "JPEG", quality=60)
        copies.append(Image.open(buffer).convert("RGB"))
    found = pairs_of([*fields, *copies])
    assert {(pair.first, pair.second) for pair in found} == {(row, row + len(fields)) for row in range(len(fields))}


@pytest.mark.slow
def test_copies_of_copies_are_connected(fields):
    """Five copies of each of four photographs: all ten pairs of each, and no others."""
    angles = (0, 24, 51, -33, 140)
    pictures = [moved(field, angle) for field in fields[:4] for angle in angles]
    found = {(pair.first, pair.second) for pair in pairs_of(pictures)}
    right = {(5 * k + a, 5 * k + b) for k in range(4) for a, b in itertools.combinations(range(5), 2)}
    assert found == right


@pytest.mark.slow
def test_known_pairs_are_left_out(fields):
    pictures = [*fields[:3], *(moved(field, 30.0) for field in fields[:3])]
    found = pairs_of(pictures, known=[(0, 3)])
    assert {(pair.first, pair.second) for pair in found} == {(1, 4), (2, 5)}


@pytest.mark.slow
def test_strangers_alone(fields):
    assert not pairs_of(fields)
    assert not pairs_of(fields[:1])


def test_blank_pictures_have_no_features():
    blank = np.full((SIDE_PX, SIDE_PX), 200, dtype=np.uint8)
    everywhere = np.ones_like(blank, dtype=bool)
    assert not find_transformed(lambda row: (blank, everywhere), 3)


def test_a_mirrored_feature_is_that_of_the_mirrored_picture(fields):
    """The order of its numbers, against SIFT on the flipped picture itself."""
    image = grey(np.asarray(fields[0]))
    everywhere = np.ones_like(image, dtype=bool)
    pictures = (image, np.ascontiguousarray(image[:, ::-1]))
    features = describe(lambda row: (pictures[row], everywhere), 2, lambda done: None)
    own, flipped = (root_vectors(features.vector[features.of(row)]) for row in (0, 1))
    right, wrong = ((vectors @ flipped.T).max(1) for vectors in (own[:, mirrored_order()], own))
    assert np.median(right) > 0.98
    assert np.mean(right > wrong) > 0.9
