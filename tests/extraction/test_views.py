"""Views: functions of content, index, recipe and seed alone."""

import hashlib

import numpy as np
import pytest
import torch

from ball_features.errors import ConfigError
from ball_features.extraction.views import NORMALIZATIONS, RECIPES, get_recipe, make_view, normalize, view_names

DIGESTS = [hashlib.sha256(bytes([row])).hexdigest() for row in range(3)]


@pytest.fixture
def images():
    return torch.rand(3, 3, 64, 48, generator=torch.Generator().manual_seed(0))


def test_view_zero_is_the_image(images):
    assert make_view(images, DIGESTS, 0, "report", 0) is images


@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_a_view_depends_on_its_own_row_only(recipe, images):
    together = make_view(images, DIGESTS, 2, recipe, 7)
    alone = make_view(images[1:2], DIGESTS[1:2], 2, recipe, 7)
    assert together.shape == images.shape
    assert torch.allclose(together[1], alone[0], atol=1e-6)
    assert 0 <= together.min() <= together.max() <= 1


def test_content_index_and_seed_each_change_the_view(images):
    same = images[:1].expand(2, -1, -1, -1)
    base = make_view(same, DIGESTS[:2], 1, "report", 0)
    assert not torch.allclose(base[0], base[1])
    assert not torch.allclose(base, make_view(same, DIGESTS[:2], 2, "report", 0))
    assert not torch.allclose(base, make_view(same, DIGESTS[:2], 1, "report", 1))
    assert torch.equal(base, make_view(same, DIGESTS[:2], 1, "report", 0))


def test_report_parameters_stay_in_their_ranges():
    draws = np.stack([get_recipe("report").draw(np.random.default_rng(seed)) for seed in range(500)])
    angle_deg, flips, jitter = draws[:, 0], draws[:, 1:3], draws[:, 3:]
    assert -20 <= angle_deg.min() < -15
    assert 15 < angle_deg.max() <= 20
    assert set(np.unique(flips)) == {-1.0, 1.0}
    assert np.all(abs(flips.mean(0)) < 0.2)
    assert 0.9 <= jitter.min() < 0.91
    assert 1.09 < jitter.max() <= 1.1


def test_report_agrees_with_torchvision(images):
    """Rotation, flips, brightness and contrast against torchvision's functional transforms, one image at a time."""
    from torchvision.transforms.v2 import functional as TF

    square = torch.rand(1, 3, 65, 65, generator=torch.Generator().manual_seed(3))
    for angle_deg, flip_x, flip_y, brightness, contrast in [
        (0, -1, 1, 1.0, 1.0),
        (0, 1, -1, 1.07, 0.93),
        (0, -1, -1, 0.92, 1.08),
        (0, 1, 1, 1.1, 1.1),
    ]:
        parameters = torch.tensor([[angle_deg, flip_x, flip_y, brightness, contrast]], dtype=torch.float32)
        expected = square[0]
        expected = TF.horizontal_flip(expected) if flip_x < 0 else expected
        expected = TF.vertical_flip(expected) if flip_y < 0 else expected
        expected = TF.adjust_contrast(TF.adjust_brightness(expected, brightness), contrast)
        got = get_recipe("report").apply(square, parameters)[0]
        assert torch.allclose(got, expected, atol=2e-4)
    turned = get_recipe("report").apply(square, torch.tensor([[15.0, 1, 1, 1, 1]]))[0]
    candidates = [TF.rotate(square[0], angle, TF.InterpolationMode.BILINEAR) for angle in (15, -15)]
    assert min((turned - c)[:, 16:48, 16:48].abs().max() for c in candidates) < 2e-3


def test_normalize(images):
    mean, std = (np.array(v)[:, None, None] for v in NORMALIZATIONS["imagenet"])
    assert np.allclose(normalize(images, "imagenet").numpy(), (images.numpy() - mean) / std, atol=1e-5)
    assert torch.equal(normalize(images, "unit"), images)


def test_names():
    assert view_names("report", 3) == ("plain", "report-1", "report-2")
    with pytest.raises(ConfigError, match="report"):
        get_recipe("raport")
