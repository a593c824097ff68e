"""Recipes are parsed once and checked; views are functions of content, index, recipe and seed alone."""

import dataclasses
import hashlib
import itertools
import re

import numpy as np
import pytest
import torch

from ball_features.dataset.decode import decode
from ball_features.errors import ConfigError
from ball_features.extraction.normalization import NORMALIZATIONS, normalize
from ball_features.extraction.readouts import READOUTS
from ball_features.extraction.recipe import RECIPE_SETS, ViewPlan
from ball_features.extraction.rendering import SourceImages, render_view
from ball_features.extraction.transforms import TRANSFORMS

DIGESTS = [hashlib.sha256(bytes([row])).hexdigest() for row in range(3)]


def make_view(images, sha256, index, recipe, seed, mask=None):
    plan = ViewPlan.parse(recipe, max(index + 1, 2))
    return render_view(plan.views[index], SourceImages(images, mask), sha256, seed)[0]


@pytest.fixture
def images():
    return torch.rand(3, 3, 64, 48, generator=torch.Generator().manual_seed(0))


def test_view_zero_is_the_image(images):
    assert make_view(images, DIGESTS, 0, "report", 0) is images


@pytest.mark.parametrize("recipe", sorted(TRANSFORMS))
def test_a_view_depends_on_its_own_row_only(recipe, images):
    images = images[..., :48, :48]
    index = 2 if TRANSFORMS[recipe].draw else 1
    together = make_view(images, DIGESTS, index, recipe, 7)
    alone = make_view(images[1:2], DIGESTS[1:2], index, recipe, 7)
    side = 96 if recipe == "enlarge" else TRANSFORMS[recipe].side_px or 48
    assert together.shape == (3, 3, side, side)
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
    draws = np.stack([TRANSFORMS["report"].draw(np.random.default_rng(seed)) for seed in range(500)])
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
        got = TRANSFORMS["report"].apply(square, parameters)[0]
        assert torch.allclose(got, expected, atol=2e-4)
    turned = TRANSFORMS["report"].apply(square, torch.tensor([[15.0, 1, 1, 1, 1]]))[0]
    candidates = [TF.rotate(square[0], angle, TF.InterpolationMode.BILINEAR) for angle in (15, -15)]
    assert min((turned - c)[:, 16:48, 16:48].abs().max() for c in candidates) < 2e-3


def test_normalize(images):
    mean, std = (np.array(v)[:, None, None] for v in NORMALIZATIONS["imagenet"])
    assert np.allclose(normalize(images, "imagenet").numpy(), (images.numpy() - mean) / std, atol=1e-5)
    assert torch.equal(normalize(images, "unit"), images)


def test_names():
    assert ViewPlan.parse("report", 3).names() == ("plain", "report-1", "report-2")
    with pytest.raises(ConfigError, match="report"):
        ViewPlan.parse("raport")
    assert ViewPlan.parse("blur,zoom", 4).names() == ("plain", "blur-1", "zoom-2", "blur-3")
    with pytest.raises(ConfigError, match="Valid: blur"):
        ViewPlan.parse("grey+gray")
    assert ViewPlan.parse("report").version == 2
    assert ViewPlan.parse("grey+blur").version == "[[2, 1]]"
    assert ViewPlan.parse("plain").version == 0


def test_parts_take_turns():
    plan = ViewPlan.parse("zoom, blur@block2", 6)
    assert plan.names() == ("plain", "zoom-1", "blur@block2-2", "zoom-3", "blur@block2-4", "zoom-5")
    assert [view.number for view in plan.views[1:]] == [0, 0, 1, 1, 2]
    assert [view.readout.name for view in plan.views[1:]] == ["average", "block2"] * 2 + ["average"]
    two = plan.select([0, 4])
    assert two.names(("original", "segmented")) == (
        "plain", "segmented:plain", "blur@block2-4", "segmented:blur@block2-4"
    )  # fmt: skip
    assert (two.recipe, two.indices, two.version) == (plan.recipe, [0, 4], plan.version)


def test_the_plain_image_is_a_plan():
    plan = ViewPlan.parse("plain")
    assert plan == ViewPlan.parse("plain", 1) == ViewPlan.parse("auto", 1) == ViewPlan.parse("auto")
    assert (plan.names(), plan.needs_mask, plan.views[0].fixed) == (("plain",), False, True)
    with pytest.raises(ConfigError, match="expected views=1"):
        ViewPlan.parse("plain", 2)


def test_views_that_would_be_copies_are_refused():
    ViewPlan.parse("grey,soft", 3)
    with pytest.raises(ConfigError, match="at most 3"):
        ViewPlan.parse("grey,blur", 4)
    ViewPlan.parse("grey+blur", 100)


def test_each_step_has_a_purpose_and_its_own_name():
    assert all(step.purpose for step in TRANSFORMS.values())
    for registry in (TRANSFORMS, READOUTS):
        assert all(name == record.name for name, record in registry.items())


def test_recipes_compose(images):
    both = make_view(images, DIGESTS, 1, "stain-jitter+grey", 0)
    first = make_view(images, DIGESTS, 1, "stain-jitter", 0)
    assert torch.equal(both, make_view(first, DIGESTS, 1, "grey", 0))
    assert torch.equal(
        make_view(images, DIGESTS, 2, "grey,stain-jitter", 0), make_view(images, DIGESTS, 2, "stain-jitter", 0)
    )


def test_a_masked_overlay_tells_nothing():
    """With and without a scale bar, on the same background, the view is the same."""
    generator = torch.Generator().manual_seed(0)
    clean = 0.8 + 0.02 * torch.rand(1, 3, 64, 64, generator=generator)
    marked = clean.clone()
    marked[:, :, 50:58, 40:60] = torch.tensor([1.0, 0, 0])[:, None, None]
    mask = torch.zeros(64, 64, dtype=torch.bool)
    mask[49:59, 39:61] = True
    views = [make_view(item, DIGESTS[:1], 1, "mask-overlay", 0, mask) for item in (clean, marked)]
    assert torch.allclose(views[0], views[1], atol=1e-6)
    assert torch.equal(views[0][..., ~mask], clean[..., ~mask])
    assert 0.8 <= views[0][..., mask].min() <= views[0][..., mask].max() <= 0.82


def test_haematoxylin_agrees_with_scikit_image(images):
    from skimage.color import separate_stains

    stains = np.array([[0.650, 0.704, 0.286], [0.072, 0.990, 0.105], [0.268, 0.570, 0.776]])
    stains /= np.linalg.norm(stains, axis=1, keepdims=True)
    density = -np.log(np.maximum(images[0].permute(1, 2, 0).double().numpy(), 1 / 255))
    expected = -(density @ np.linalg.inv(stains))[..., 0]
    expected = np.clip(0.5 + 0.2 * (expected - expected.mean()) / (expected.std() + 1e-4), 0, 1)
    got = make_view(images, DIGESTS, 1, "haematoxylin", 0)[0]
    assert np.allclose(got[0].numpy(), expected, atol=1e-3)
    assert torch.equal(got[0], got[2])
    theirs = separate_stains(images[0].permute(1, 2, 0).numpy(), np.linalg.inv(stains))[..., 0]
    assert np.corrcoef(theirs.ravel(), -expected.ravel())[0, 1] > 0.9


def test_stain_jitter_without_a_change_is_the_image(images):
    parameters = torch.tensor([[1.0, 1, 1, 0, 0, 0]]).expand(3, -1)
    assert torch.allclose(TRANSFORMS["stain-jitter"].apply(images, parameters), images.clamp_min(1 / 255), atol=1e-4)


def test_reinhard_forgets_a_colour_cast(images):
    soft = 0.3 + 0.4 * images
    cast = soft * torch.tensor([0.8, 0.9, 1.0])[:, None, None]
    apart = (soft - cast).abs().mean()
    views = [make_view(item, DIGESTS, 1, "reinhard", 0) for item in (soft, cast)]
    assert (views[0] - views[1]).abs().mean() < 0.2 * apart


@pytest.mark.parametrize("recipe", ["grey", "haematoxylin"])
def test_a_flat_picture_is_the_same_grey_whatever_its_colour(recipe):
    flat = torch.tensor([0.1, 1 / 3, 0.77])[:, None, None, None].expand(3, 3, 64, 64).contiguous()
    assert torch.equal(make_view(flat, DIGESTS, 1, recipe, 0), torch.full((3, 3, 64, 64), 0.5))


def test_the_eight_positions_are_views_of_their_own(images):
    images = images[..., :48, :48]
    views = [make_view(images, DIGESTS, index, "dihedral", 0) for index in range(8)]
    for one, other in itertools.combinations(views, 2):
        assert all(not torch.equal(a, b) for a, b in zip(one, other, strict=True))
    ninth = dataclasses.replace(ViewPlan.parse("dihedral").views[1], index=8, number=7)
    assert torch.equal(render_view(ninth, SourceImages(images), DIGESTS, 0)[0], views[1])
    with pytest.raises(ConfigError, match=r"expected at most 8: there are eight positions"):
        ViewPlan.parse("dihedral", 9)
    ViewPlan.parse("dihedral+zoom", 20)


def test_recipes_that_cannot_be_meant():
    for recipe in ("enlarge+mask-overlay", "grey+dihedral+mask-overlay", "cells+mask-overlay"):
        with pytest.raises(ConfigError, match=f"Got mask-overlay after .* in '{re.escape(recipe)}', which moves"):
            ViewPlan.parse(f"blur,{recipe}")  # the part at fault is named, not the whole recipe
    with pytest.raises(ConfigError, match="Got 'grey' twice"):
        ViewPlan.parse("grey,grey", 3)
    with pytest.raises(ConfigError, match="with views=1, which is the plain image alone"):
        ViewPlan.parse("robust", 1)
    assert ViewPlan.parse("grey, blur").recipe == "grey,blur"
    assert ViewPlan.parse("robust").recipe == RECIPE_SETS["robust"]


def test_nuclei_move_with_the_report_and_keep_their_brightness(smears):
    images = torch.stack([decode(path) for path in sorted(smears.rglob("*.*"))[:3]]).float() / 255
    source = SourceImages(images)
    _, nuclei = render_view(ViewPlan.parse("report").views[1], source, DIGESTS, 0, with_nuclei=True)
    assert 0 <= nuclei.min() <= nuclei.max() <= 1
    empty = (source.nuclei == 0).float().mean((1, 2, 3))
    assert empty.max() < 0.999
    # Turning blurs edges by a pixel; contrast would have lifted every empty place.
    assert torch.all((nuclei == 0).float().mean((1, 2, 3)) > empty - 0.1)
