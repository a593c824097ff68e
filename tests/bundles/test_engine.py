"""A predictor compares its engine with the network before it answers."""

import numpy as np
import pytest
import torch

from ball_features.config import ExtractConfig
from ball_features.extraction.engine.confirm import confirm
from ball_features.extraction.engine.densenet import Engine
from ball_features.extraction.engine.modules import ModuleEngine
from ball_features.extraction.preprocessing import Preprocessing
from ball_features.extraction.weights import load_backbone

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def network():
    config = ExtractConfig(backbone="densenet121", weights="random", views=1, precision="fp32", input_px=64)
    made = Preprocessing.from_config(config)
    return load_backbone(made.backbone, "random", 0), made


@pytest.mark.slow
def test_a_right_pass_is_kept(network):
    found = confirm(*network, CPU)
    assert isinstance(found.engine, Engine)
    assert found.remark == ""


@pytest.mark.slow
def test_a_wrong_pass_is_left_for_the_librarys(network, monkeypatch):
    whole = Engine._maps
    monkeypatch.setattr(Engine, "_maps", lambda *own: {key: one.flip(-1).flip(1) for key, one in whole(*own).items()})
    found = confirm(*network, CPU)
    assert isinstance(found.engine, ModuleEngine)
    assert "The fast pass is wrong on this machine" in found.remark
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        assert np.allclose(found.engine(images), network[0](images), atol=1e-4)
