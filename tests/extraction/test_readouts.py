"""Where nuclei lie, cells side by side, and what is read out of which feature map."""

import dataclasses
import hashlib

import numpy as np
import pytest
import torch
import torchvision

from ball_features import ExtractConfig, extract, read_cache
from ball_features.errors import ConfigError
from ball_features.extraction.cells import CELLS, apply_cells, find_nuclei
from ball_features.extraction.engine.densenet import Engine
from ball_features.extraction.preprocessing import Preprocessing
from ball_features.extraction.readouts import READOUTS, module_maps, read_maps, reader
from ball_features.extraction.recipe import ViewPlan
from ball_features.extraction.rendering import SourceImages, render_view

SIDE = 224
PLACES = [(60, 60), (60, 150), (160, 90)]  # x, y
DIGESTS = [hashlib.sha256(bytes([row])).hexdigest() for row in range(2)]


def smear(places, colour=(0.4, 0.2, 0.6)):
    """Discs of 11 px on a bright background."""
    y, x = np.mgrid[:SIDE, :SIDE]
    image = np.full((3, SIDE, SIDE), 0.9, dtype=np.float32)
    for column, row in places:
        image[:, np.hypot(x - column, y - row) < 11] = np.array(colour, dtype=np.float32)[:, None]
    return torch.from_numpy(image)[None]


@pytest.mark.parametrize("colour", [(0.4, 0.2, 0.6), (0.75, 0.4, 0.7)])
def test_nuclei_are_found_whatever_their_stain(colour):
    nuclei = find_nuclei(smear(PLACES, colour))[0, 0]
    y, x = np.mgrid[:SIDE, :SIDE]
    truth = np.any([np.hypot(x - column, y - row) < 11 for column, row in PLACES], axis=0)
    assert np.array_equal(nuclei.numpy() > 0.5, truth)


def test_cells_are_cut_out_and_take_turns():
    image = smear(PLACES)
    picture, nuclei = apply_cells(image, find_nuclei(image))
    assert picture.shape == image.shape
    tile = SIDE // CELLS
    tiles = nuclei[0, 0].reshape(CELLS, tile, CELLS, tile).permute(0, 2, 1, 3).reshape(-1, tile, tile)
    assert torch.all(tiles[:, tile // 2, tile // 2] == 1)  # a nucleus in the middle of each
    area = np.pi * 11**2 * (56 / 40) ** 2
    assert tiles.sum((1, 2)).numpy() == pytest.approx(area, rel=0.05)
    assert torch.equal(tiles[0], tiles[3])
    assert torch.equal(tiles[1], tiles[4])


def test_cells_at_the_edge_are_whole_crops_and_an_empty_picture_is_its_middle():
    picture, _ = apply_cells(smear([(2, 100)]), find_nuclei(smear([(2, 100)])))
    assert picture.min() > 0.1  # nothing from outside, which would be black
    ramp = torch.linspace(0, 1, SIDE).expand(1, 3, SIDE, SIDE)
    picture, _ = apply_cells(ramp, torch.zeros(1, 1, SIDE, SIDE))
    first = picture[0, 0, : SIDE // CELLS, : SIDE // CELLS]
    assert first.mean() == pytest.approx(0.5, abs=0.01)


def test_nuclei_move_with_the_pixels():
    """A view that turns, doubles or cuts out takes its nuclei along; an overlay is none of them."""
    image = smear(PLACES)
    for recipe in ("dihedral", "enlarge", "cells", "enlarge+cells", "dihedral+cells"):
        own = ViewPlan.parse(recipe, 2).views[1]
        view, nuclei = render_view(own, SourceImages(image), DIGESTS[:1], 0, with_nuclei=True)
        dark = (view.mean(1, keepdim=True) < 0.6).float()
        assert (dark - nuclei.round()).abs().mean() < 0.01, recipe
    mask = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    mask[130:190, 60:120] = True  # covers the third
    grey = ViewPlan.parse("grey").views[1]
    _, nuclei = render_view(grey, SourceImages(image, mask), DIGESTS[:1], 0, with_nuclei=True)
    assert nuclei[..., mask].sum() == 0
    assert nuclei.sum() > 0


def lively():
    torch.manual_seed(1)
    module = torchvision.models.densenet121(weights=None).eval()
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.weight.data.uniform_(0.5, 1.5)
            part.bias.data.uniform_(-0.3, 0.3)
            part.running_mean.uniform_(-0.3, 0.3)
    module.classifier = torch.nn.Identity()
    return module


@pytest.mark.slow
def test_readouts_of_the_engine_agree_with_torchvision():
    """Reference: hooks on torchvision's module, and a weighted mean written out."""
    module = lively()
    images = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    nuclei = (torch.rand(2, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(1)) > 0.7).float()
    caught = {}
    hooks = [
        module.features.transition2.relu.register_forward_hook(lambda *args: caught.update({2: args[2].clone()})),
        module.features.transition3.relu.register_forward_hook(lambda *args: caught.update({3: args[2].clone()})),
        module.features.norm5.register_forward_hook(lambda *args: caught.update({4: torch.relu(args[2])})),
    ]
    with torch.no_grad():
        module.features(images)
        wanted = list(READOUTS.values())
        got = reader(Engine(module, torch.device("cpu"), "fp32"))(images, wanted, nuclei)
        plain = read_maps(module_maps(module, images, (2, 3, 4)), wanted, nuclei)
    for hook in hooks:
        hook.remove()
    for name, ours, theirs in zip(READOUTS, got, plain, strict=True):
        activations = caught[READOUTS[name].block]  # (batch, dim, height, width)
        weight = torch.ones(2, 1, *activations.shape[2:])
        if READOUTS[name].nuclei:
            share = SIDE // activations.shape[2]
            weight = torch.nn.functional.avg_pool2d(nuclei, share) + 1e-3
        expected = (activations * weight).sum((2, 3)) / weight.sum((2, 3))
        assert torch.allclose(ours, expected, rtol=1e-4, atol=1e-5), name
        assert torch.allclose(theirs, expected, rtol=1e-4, atol=1e-5), name


@pytest.mark.slow
def test_nothing_behind_the_last_block_is_computed():
    engine = Engine(lively(), torch.device("cpu"), "fp32")
    assert list(engine.maps(torch.zeros(1, 3, 64, 64), (3,))) == [3]
    maps = module_maps(lively(), torch.zeros(1, 3, 64, 64), (2, 3))
    assert {block: tuple(value.shape) for block, value in maps.items()} == {2: (1, 8, 8, 512), 3: (1, 4, 4, 1024)}


def test_views_of_one_picture_share_a_forward_pass():
    calls = []

    def read(images, readouts, nuclei):
        calls.append([readout.name for readout in readouts])
        return [torch.full((2, 4), float(len(calls) * 10 + place)) for place in range(len(readouts))]

    config = ExtractConfig(backbone="densenet121", recipe="grey@block2,grey+soft,grey@nuclei")
    made = Preprocessing.from_config(config)
    preprocessing = dataclasses.replace(made, backbone=dataclasses.replace(made.backbone, dim=6))
    out = preprocessing.embed(smear(PLACES).expand(2, -1, -1, -1), DIGESTS, read)
    assert calls == [["average"], ["block2", "nuclei"], ["average"]]
    assert out[0, :, 0].tolist() == [10, 20, 30, 21]
    assert out.shape == (2, 4, 6)
    assert out[..., 4:].sum() == 0


def test_what_follows_from_a_recipe():
    views = ViewPlan.parse("mask-overlay+grey@block3-nuclei,dihedral@nuclei,cells").views
    assert [view.readout.name for view in views] == ["average", "block3-nuclei", "nuclei", "average"]
    assert [view.keeps_positions for view in views] == [True, True, False, False]
    assert [view.shows_whole_field for view in views] == [True, False, False, False]
    same = ViewPlan.parse("grey@block2,grey").views
    assert same[1].pixels == same[2].pixels
    drawn = ViewPlan.parse("dihedral@block2,dihedral").views
    assert drawn[1].pixels != drawn[2].pixels
    assert ViewPlan.parse("grey@nuclei").needs_mask
    assert ViewPlan.parse("cells", 2).needs_mask  # the transform, as early caches have it
    assert not ViewPlan.parse("grey@block2").needs_mask
    with pytest.raises(ConfigError, match="Unknown readout 'block9'"):
        ViewPlan.parse("grey@block9")


@pytest.mark.slow
def test_a_cache_of_several_readouts(tmp_path, smears, tiny_densenet):
    recipe = "grey@block2,grey@block3-nuclei,cells"
    settings = {"backbone": tiny_densenet, "weights": "random", "dtype": "float32", "precision": "fp32"}
    settings |= {"input_px": 128, "limit": 12}
    extract(smears, tmp_path / "a.h5", ExtractConfig(recipe=recipe, views=4, **settings))
    cache = read_cache(tmp_path / "a.h5")
    assert cache.view == ("plain", "grey@block2-1", "grey@block3-nuclei-2", "cells-3")
    assert cache.embeddings.shape[1:] == (4, 128)
    assert not np.allclose(cache.embeddings[:, 1], cache.embeddings[:, 2], rtol=1e-3)
    with pytest.raises(ConfigError, match="VGG-16 has no feature maps for the readout block2 in"):
        extract(smears, tmp_path / "b.h5", ExtractConfig(backbone="vgg16", weights="random", recipe=recipe, views=2))
