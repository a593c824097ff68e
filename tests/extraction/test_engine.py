"""The fast forward pass against torchvision's own module."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import torchvision

from ball_features.errors import ConfigError
from ball_features.extraction.backbones import BACKBONES, get_backbone
from ball_features.extraction.engine import passes
from ball_features.extraction.engine.cuda import gpu_kernels
from ball_features.extraction.engine.densenet import Engine
from ball_features.extraction.engine.deviation import deviation
from ball_features.extraction.engine.devices import best_precision, resolve_device
from ball_features.extraction.weights import load_backbone

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def images():
    return torch.randn(3, 3, 96, 96, generator=torch.Generator().manual_seed(0))


def lively(module):
    """Random weights with batch norms that do something, so that a folding error shows."""
    generator = torch.Generator().manual_seed(1)
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.weight.data.uniform_(0.5, 1.5, generator=generator)
            part.bias.data.uniform_(-0.3, 0.3, generator=generator)
            part.running_mean.uniform_(-0.3, 0.3, generator=generator)
            part.running_var.uniform_(0.5, 1.5, generator=generator)
    module.classifier = torch.nn.Identity()
    return module.eval()


def reference(module, images):
    """Nothing but torchvision: ReLU of the last feature map, averaged over its places."""
    with torch.no_grad():
        return torch.relu(module.features(images)).mean((2, 3))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(name for name in BACKBONES if name.startswith("densenet")))
@pytest.mark.parametrize("kernel", [True, False])
def test_float32_agrees_with_torchvision(name, kernel, images, monkeypatch):
    if not kernel and name != "densenet121":
        return  # torch's passes are the same for all widths
    if not kernel:
        monkeypatch.setattr(passes, "affine_relu_kernel", lambda: None)
    module = lively(torchvision.models.get_model(name, weights=None))
    expected = reference(module, images)
    got = Engine(module, CPU, "fp32")(images)
    assert got.shape == (3, BACKBONES[name].dim)
    assert got.dtype == torch.float32
    assert (got - expected).norm() / expected.norm() < 1e-4
    assert torch.allclose(got, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


@pytest.mark.slow
@pytest.mark.parametrize("packed", [True, False], ids=["packed", "emulated"])
def test_bfloat16_stays_close(images, packed, monkeypatch):
    if not packed:  # a processor without AVX-512, on which a cache from another one is continued
        monkeypatch.setattr("ball_features.extraction.engine.densenet.packs", lambda dtype: dtype == torch.float32)
    module = lively(torchvision.models.get_model("densenet121", weights=None))
    engine = Engine(module, CPU, "bf16")
    measured = deviation(engine, module, images)
    cosine = torch.nn.functional.cosine_similarity(engine(images), reference(module, images)).min()
    assert measured.images == 3
    assert measured.cosine == pytest.approx(cosine.item(), abs=1e-6)
    assert measured.cosine > 0.999
    assert 0 < measured.relative < 0.05


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "gain", "error"), [("fp32", 1e-7, 1e-5), ("bf16", 2e-3, 2e-2)])
def test_channels_without_a_gain_are_left_out_and_their_constants_kept(images, precision, gain, error):
    module = lively(torchvision.models.densenet121(weights=None))
    generator = torch.Generator().manual_seed(2)
    for name, part in module.named_modules():
        if name.endswith("norm1"):
            part.weight.data[torch.rand(len(part.weight), generator=generator) < 0.3] = gain
    engine = Engine(module, CPU, precision)
    if passes.affine_relu_kernel() is not None:
        kept = [layer.norm.kept / len(layer.norm.scale) for block in engine._blocks for layer in block.layers]
        assert 0.6 < np.mean(kept) < 0.8
    expected = reference(module, images)
    assert (engine(images) - expected).norm() / expected.norm() < error


@pytest.mark.slow
def test_frozen_means_frozen(images):
    module = load_backbone(get_backbone("densenet121"), "random")
    before = {name: value.clone() for name, value in module.state_dict().items()}
    Engine(module, CPU, "fp32")(images)
    assert not module.training
    assert not any(parameter.requires_grad for parameter in module.parameters())
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.slow
def test_a_row_does_not_depend_on_its_companions(images):
    engine = Engine(lively(torchvision.models.get_model("densenet121", weights=None)), CPU, "fp32")
    alone = torch.zeros_like(images)
    alone[1] = images[1]
    assert torch.equal(engine(images)[1], engine(alone)[1])


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_is_kept_between_calls_never_shows(images, precision):
    engine = Engine(lively(torchvision.models.densenet121(weights=None)), CPU, precision)
    alone = [engine.maps(image[None], (1, 2, 3, 4)) for image in images]
    before = [{block: values.clone() for block, values in maps.items()} for maps in alone]
    engine(images.flip(3))  # a larger batch of other pictures
    for maps, same in zip(alone, before, strict=True):
        assert all(torch.equal(maps[block], same[block]) for block in same)
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda image: engine.maps(image[None], (1, 2, 3, 4)), images.repeat(3, 1, 1, 1)))
    for place, maps in enumerate(together):
        assert all(torch.equal(maps[block], before[place % 3][block]) for block in maps)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize(("precision", "error"), [("fp32", 2e-3), ("bf16", 3e-2), ("fp16", 1e-2)])
def test_a_graph_on_cuda_says_what_the_pass_says(images, precision, error):
    module = lively(torchvision.models.densenet121(weights=None))
    expected = reference(module, images)
    assert gpu_kernels(torch.device("cuda")) is not None
    engine = Engine(module, torch.device("cuda"), precision)
    found = [engine(images).cpu() for _ in range(5)]  # the third call records, the others after it replay
    assert engine._graphs is not None
    assert any(graph is not None for graph in engine._graphs._graphs.values())
    for got in found:
        assert (got - expected).norm() / expected.norm() < error
    other = engine(images.flip(0)).cpu()
    assert torch.allclose(other.flip(0), found[-1], rtol=1e-2, atol=1e-2)
    assert (engine(images[:2]).cpu() - expected[:2]).norm() / expected.norm() < error


def test_devices_and_precisions():
    assert resolve_device("cpu") == CPU
    assert best_precision(CPU) in ("fp32", "bf16")
    assert resolve_device("cpu:0") == torch.device("cpu:0")
    for name in ("tpu", "meta", "cpu:foo", "cpu:1", "cpu:", "cuda:99", "cuda:-1", ""):
        with pytest.raises(ConfigError, match=r"not available here\. Present: cpu"):
            resolve_device(name)


@pytest.mark.slow
@pytest.mark.real_data
def test_densenet121_names_a_cat_and_an_espresso(real_weights):
    """The classifier on our embedding, on pictures of scikit-image: weights, preprocessing and pooling are right."""
    from skimage import data

    from ball_features.extraction.loading import resize
    from ball_features.extraction.normalization import normalize

    weights = real_weights / "densenet121.pth"
    module = load_backbone(get_backbone("densenet121"), str(weights))
    pictures = [data.chelsea(), data.coffee()]
    batch = torch.stack([resize(torch.from_numpy(np.ascontiguousarray(p.transpose(2, 0, 1))), 224) for p in pictures])
    embeddings = Engine(module, CPU, "fp32")(normalize(batch.float() / 255, "imagenet"))
    state = torch.load(weights, weights_only=True)
    scores = embeddings @ state["classifier.weight"].float().T + state["classifier.bias"].float()
    categories = torchvision.models.DenseNet121_Weights.IMAGENET1K_V1.meta["categories"]
    named = [categories[int(row.argmax())] for row in scores]
    assert named[0] in ("tabby", "tiger cat", "Egyptian cat")
    assert named[1] == "espresso"
