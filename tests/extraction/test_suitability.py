"""Which recipes suit which images: single cells, whole fields, grey pictures."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from ball_features.config import ExtractConfig
from ball_features.dataset.manifest import scan
from ball_features.errors import ConfigError
from ball_features.extraction.backbones import get_backbone
from ball_features.extraction.central_nucleus import single_cell_share
from ball_features.extraction.preprocessing import Preprocessing
from ball_features.extraction.recipe import RECIPE_SETS, ViewPlan, recipe_of
from ball_features.extraction.suitability import offer_cells, suit
from tests.extraction.test_central_nucleus import cell

CROPS = len(RECIPE_SETS["cells"].split(","))


def write(folder, images):
    for number, image in enumerate(images):
        path = folder / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)).save(path)
    return scan(folder)


@pytest.fixture
def single(tmp_path):
    places = [((0.02 * n, 0.0, 0.25),) for n in range(8)]
    return write(tmp_path / "single", [cell(("pink", "yellow")[n % 2], places[n]) for n in range(8)])


@pytest.fixture
def grey(tmp_path):
    image = cell().mean(0, keepdim=True).expand(3, -1, -1)
    return write(tmp_path / "grey", [image * (1 - 0.02 * n) for n in range(8)])


def suited(manifest, recipe, said=None, backbone="densenet121"):
    config = ExtractConfig(backbone=backbone, recipe=recipe)
    made = Preprocessing.from_config(config)
    return suit(made, manifest, recipe, [].append if said is None else said.append).plan


def recipes(plan):
    return [recipe_of(view) for view in plan.views]


@pytest.mark.slow
def test_robust_has_crops_of_single_cells(single):
    found = recipes(suited(single, "robust"))
    assert found.count("cells") == CROPS and found.count("plain") == 1 and "fields" in found
    assert recipes(suited(single, "cells")) == ["plain"] + ["cells"] * CROPS


@pytest.mark.slow
def test_cells_are_offered_where_they_suit(single, grey):
    def offered(recipe, manifest):
        made = Preprocessing.from_config(ExtractConfig(recipe=recipe))
        return offer_cells(SimpleNamespace(attributes=made.to_attributes()), manifest)

    for recipe in ("plain", "fields"):
        assert "The recipe 'cells'" in offered(recipe, single)
        assert offered(recipe, grey) == ""
    assert offered("cells", single) == ""
    assert len(suited(single, "plain")) == 1


@pytest.mark.slow
def test_cells_are_refused_by_name_where_there_are_none(grey):
    with pytest.raises(ConfigError, match=r"recipe='cells'.*0 % of 8 sampled images"):
        suited(grey, "cells")
    said: list[str] = []
    assert "cells" not in recipes(suited(grey, "robust", said))
    assert "single cells are left out" in said[0]


@pytest.mark.slow
def test_a_view_of_one_colour_is_left_out_with_a_sentence(grey):
    said: list[str] = []
    plan = suited(grey, "fields", said)
    assert "segmented" not in plan.recipe and "haematoxylin+soft@block2" in plan.recipe
    assert "one colour" in said[-1] and "segmented" in said[-1]
    assert "segmented" in suited(grey, "segmented").recipe  # what is written out is made


@pytest.mark.slow
def test_a_backbone_without_maps_gets_each_picture_once(single):
    plan = suited(single, "cells", backbone="vgg16")
    assert recipes(plan) == ["plain", "cells", "cells", "cells"]
    assert {view.readout.name for view in plan.views} == {"average"}


def test_the_share_of_single_cells():
    assert single_cell_share(torch.stack([cell(), torch.full((3, 224, 224), 0.9)])) == 0.5


def test_what_views_cost():
    def cost(recipe):
        return ViewPlan.parse(recipe, backbone=get_backbone("densenet121")).cost(224)

    assert cost("cells").startswith("7 views of each image in 4 forward passes, about 1.9 times")
    assert cost("fields").startswith("5 views of each image in 4 forward passes, about 3.1 times")


def test_recipes_of_single_cells_parse():
    assert [view.side_px(224) for view in ViewPlan.parse("crop-tight+fade,enlarge").views] == [224, 128, 448]
    with pytest.raises(ConfigError, match="readout block2-nuclei of a crop"):
        ViewPlan.parse("crop-tight@block2-nuclei")
    with pytest.raises(ConfigError, match="zoom before crop-tight"):
        ViewPlan.parse("zoom+crop-tight")
