"""DenseNets that are built without torchvision: torchvision's own, to the last bit."""

import subprocess
import sys
from typing import Any

import pytest
import torch
import torchvision

from ball_features.extraction.backbones import get_backbone
from ball_features.extraction.weights import load_backbone


@pytest.mark.slow
@pytest.mark.parametrize("name", ["densenet121", "densenet169", "densenet201"])
def test_densenets_are_those_of_torchvision_to_the_last_bit(name, tmp_path):
    """Random weights of a seed, names and order of the parameters; the forward pass of the smallest one."""
    torch.manual_seed(5)
    theirs: Any = torchvision.models.get_model(name, weights=None)
    own = load_backbone(get_backbone(name), "random", seed=5)
    expected = {key: value for key, value in theirs.state_dict().items() if not key.startswith("classifier")}
    assert list(own.state_dict()) == list(expected)
    assert all(torch.equal(value, expected[key]) for key, value in own.state_dict().items())
    if name != "densenet121":
        return
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    theirs.classifier = torch.nn.Identity()
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        wanted = theirs.eval()(images)
        assert torch.equal(own(images), wanted)
        assert torch.equal(load_backbone(get_backbone(name), str(tmp_path / "w.pth"))(images), wanted)


@pytest.mark.slow
def test_a_densenet_needs_no_import_of_torchvision():
    code = (
        "import sys\nfrom ball_features.extraction.backbones import get_backbone\n"
        "from ball_features.extraction.weights import load_backbone\n"
        "load_backbone(get_backbone('densenet121'), 'random')\n"
        "print('torchvision' in sys.modules, 'torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["False", "False"], done.stderr
