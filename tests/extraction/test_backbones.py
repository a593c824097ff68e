"""Weights: both namings, both precisions, wrong files, the download."""

import argparse
import hashlib
import os
import re
import shutil
import threading
import warnings
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import onnx
import pytest
import torch
import torchvision

from ball_features import ExtractConfig, extract, read_cache
from ball_features.errors import CacheError, ConfigError, MissingExtraError, WeightsError
from ball_features.extraction.backbones import BACKBONES, Backbone, get_backbone
from ball_features.extraction.known_networks import file_sha256, network_sha256
from ball_features.extraction.weights import checkpoint_path, load_backbone, weights_digest

NAME = "densenet121"


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(3)
    return torchvision.models.densenet121(weights=None).state_dict()


def old_naming(state):
    return {re.sub(r"\.(norm|conv)([12])\.", r".\1.\2.", name): value for name, value in state.items()}


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        lambda state: state,
        old_naming,
        lambda state: {k: v.half() if v.is_floating_point() else v for k, v in state.items()},
        lambda state: {k: v for k, v in state.items() if not k.startswith("classifier")},
        lambda state: {"state_dict": {f"module.{k}": v for k, v in state.items()}},
    ],
    ids=["torchvision", "published", "float16", "headless", "wrapped"],
)
def test_state_dicts_that_fit(tmp_path, state, change):
    path = tmp_path / "w.pth"
    torch.save(change(state), path)
    module = load_backbone(get_backbone(NAME), str(path))
    for name, value in module.state_dict().items():
        if name.startswith("features") and value.is_floating_point():
            assert value.dtype == torch.float32
            assert torch.allclose(value, state[name], atol=1e-3)
    assert weights_digest(get_backbone(NAME), str(path)) == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("prefix", "key"),
    [("_orig_mod.", ""), ("module._orig_mod.", "state_dict"), ("backbone.", "model"), ("", "model_state_dict")],
)
def test_a_prefix_that_all_tensors_share_is_taken_off(tmp_path, state, prefix, key):
    path = tmp_path / "w.pth"
    own = {prefix + name: value for name, value in state.items()} | {"head.weight": torch.zeros(3, 3)}
    torch.save({key: own, "args": argparse.Namespace(lr=0.1), "epoch": 3} if key else own, path)
    loaded = load_backbone(get_backbone(NAME), str(path)).state_dict()
    assert torch.equal(loaded["features.conv0.weight"], state["features.conv0.weight"].float())


@pytest.mark.slow
@pytest.mark.parametrize(
    "wrap",
    [
        lambda own: {"net": own, "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}}},
        lambda own: {"epoch": 3, "checkpoint": {"encoder": {f"module.{name}": value for name, value in own.items()}}},
        lambda own: {"student": {"x": torch.zeros(1)}, "teacher": {f"backbone.{k}": v for k, v in own.items()}},
        lambda own: own | {"epoch": 3, "lr": 0.1},
        lambda own: {f"{where}.{name}": value for name, value in own.items() for where in ("a", "b")},
    ],
    ids=["net", "deeper", "teacher", "beside", "equal"],
)
def test_a_network_is_found_wherever_it_lies(tmp_path, state, wrap):
    torch.save(wrap(dict(state)), tmp_path / "w.pth")
    loaded = load_backbone(get_backbone(NAME), str(tmp_path / "w.pth")).state_dict()
    for name in ("features.conv0.weight", "features.norm5.running_var"):
        assert torch.equal(loaded[name], state[name].float())


@pytest.mark.slow
def test_two_networks_in_one_file_are_refused(tmp_path, state):
    other = {name: value + 1 for name, value in state.items()}
    both = {f"{where}.{k}": v for where, own in (("encoder_q", state), ("encoder_k", other)) for k, v in own.items()}
    torch.save({"state_dict": both}, tmp_path / "w.pth")
    with pytest.raises(
        WeightsError, match=r"2 times, with different weights, under encoder_q\. and encoder_k\.\. Save"
    ):
        load_backbone(get_backbone(NAME), str(tmp_path / "w.pth"))


def test_a_file_that_holds_itself_ends(tmp_path):
    own = {"epoch": 1}
    own["own"] = own
    torch.save(own, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="expected a state dict"):
        load_backbone(get_backbone(NAME), str(tmp_path / "w.pth"))


@pytest.mark.slow
def test_what_would_run_code_is_named(tmp_path, state):
    torch.save({"state_dict": state, "extra": torch.nn.Linear(1, 1)}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"holds torch\.nn\.modules\.linear\.Linear, which could run code"):
        load_backbone(get_backbone(NAME), str(tmp_path / "w.pth"))


@pytest.mark.slow
def test_files_that_do_not_fit(tmp_path, state):
    path = tmp_path / "w.pth"
    with pytest.raises(WeightsError, match="No weights file"):
        weights_digest(get_backbone(NAME), str(path))
    path.write_bytes(b"garbage")
    with pytest.raises(WeightsError, match="not a PyTorch state dict"):
        load_backbone(get_backbone(NAME), str(path))
    torch.save([1, 2], path)
    with pytest.raises(WeightsError, match="expected a state dict"):
        load_backbone(get_backbone(NAME), str(path))
    torch.save(state, path)
    with pytest.raises(WeightsError, match="does not fit densenet169"):
        load_backbone(get_backbone("densenet169"), str(path))


@pytest.mark.slow
def test_random_weights_follow_their_seed_and_leave_the_global_generator():
    before = torch.random.get_rng_state()
    a, b = (load_backbone(get_backbone(NAME), "random", seed).state_dict() for seed in (0, 0))
    c = load_backbone(get_backbone(NAME), "random", 1).state_dict()
    key = "features.conv0.weight"
    assert torch.equal(a[key], b[key])
    assert not torch.equal(a[key], c[key])
    assert torch.equal(torch.random.get_rng_state(), before)


# As the authors, or torchvision and timm after them, state the width of the last feature map.
WIDTHS = {
    "densenet121": 1024,
    "densenet169": 1664,
    "densenet201": 1920,
    "efficientnet_b0": 1280,
    "mobilenet_v3_large": 960,
    "vgg16": 512,
    "vgg19": 512,
    "inception_v3": 2048,
    "xception": 2048,
    "resnet50_v2": 2048,
    "nasnet_large": 4032,
    "inception_resnet_v2": 1536,
    "dinobloom-s": 384,
    "dinobloom-b": 768,
    "dinobloom-l": 1024,
}


def test_registry():
    assert {name: record.dim for name, record in BACKBONES.items()} == WIDTHS
    assert all(name == record.name for name, record in BACKBONES.items())
    with pytest.raises(ConfigError, match="densenet121, densenet169, densenet201"):
        get_backbone("resnet")
    published = {
        weight.url
        for name in torchvision.models.list_models(torchvision.models)
        for weight in torchvision.models.get_model_weights(name)
    }
    assert all(record.url in published for record in BACKBONES.values() if record.source == "torchvision")


@pytest.mark.parametrize(
    "name",
    [
        "EfficientNet",
        "MobileNetV3",
        "VGG-19",
        "Xception",
        "Inception-V3",
        "ResNet50-V2",
        "VGG-16",
        "NASNet-Large",
        "Inception-ResNet-V2",
        "DenseNet-201",
    ],
)
def test_the_papers_names_are_known(name):
    assert get_backbone(name).title == name


@pytest.fixture(scope="module")
def two(tmp_path_factory, smears):
    """A folder of two images, since large networks take a second for each."""
    folder = tmp_path_factory.mktemp("two")
    for name in ("Pre", "Pro"):
        (folder / name).mkdir()
        shutil.copy(min((smears / name).iterdir()), folder / name)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in WIDTHS if name not in ("densenet201", "dinobloom-b", "dinobloom-l")])
def test_every_backbone_extracts(tmp_path, two, name):
    config = ExtractConfig(backbone=name, weights="random", views=1, batch_size=1, precision="fp32", dtype="float32")
    result = extract(two, tmp_path / "cache.h5", config)
    cache = read_cache(result.cache)
    assert cache.embeddings.shape == (2, 1, WIDTHS[name])
    assert np.isfinite(cache.embeddings).all()
    assert cache.embeddings.std(0).max() > 0
    assert cache.attributes["backbone"] == name
    assert f"{BACKBONES[name].input_px} px" in cache.attributes["resize"]


@pytest.mark.slow
def test_embedding_is_the_pooled_feature_map():
    module = load_backbone(get_backbone("vgg16"), "random")
    x = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.allclose(module(x), module.features(x).mean((2, 3)), atol=1e-5)


@pytest.mark.slow
def test_any_network_of_timm_by_name(tmp_path, smears):
    found = get_backbone("timm:vit_tiny_patch16_224")
    assert (found.dim, found.input_px, found.normalization) == (192, 224, "0.5,0.5,0.5/0.5,0.5,0.5")
    result = extract(smears, tmp_path / "c.h5", ExtractConfig(backbone=found.name, weights="random", limit=4))
    assert result.dim == 192
    with pytest.raises(ConfigError, match="vit_tiny_patch16_224"):
        get_backbone("timm:vit_tiny_patch16_22")


@pytest.mark.slow
def test_a_state_dict_of_timm(tmp_path):
    import timm

    backbone = get_backbone("timm:resnet10t")
    module = timm.create_model("resnet10t", num_classes=5)
    torch.save(module.state_dict(), tmp_path / "w.pth")
    loaded = load_backbone(backbone, str(tmp_path / "w.pth"))
    assert torch.equal(loaded.state_dict()["conv1.0.weight"], module.state_dict()["conv1.0.weight"])
    with pytest.raises(WeightsError, match="does not fit vgg16"):
        load_backbone(get_backbone("vgg16"), str(tmp_path / "w.pth"))


def test_missing_extra(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"ball-features\[timm\]"):
        get_backbone("timm:resnet10t")
    with pytest.raises(MissingExtraError, match=r"ball-features\[timm\]"):
        load_backbone(get_backbone("xception"), "random")


def test_timm_weights_without_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", refuse)
    with pytest.raises(WeightsError, match=r"resnetv2_50.*as weights"):
        weights_digest(get_backbone("resnet50_v2"), "imagenet")


@pytest.mark.slow
def test_timm_weights_from_the_hub(tmp_path, monkeypatch):
    import timm
    from safetensors.torch import save_file

    module = timm.create_model("resnetv2_50")
    save_file(module.state_dict(), tmp_path / "model.safetensors")
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda repo, name: str(tmp_path / name))
    backbone = get_backbone("resnet50_v2")
    assert (
        weights_digest(backbone, "imagenet")
        == hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest()
    )
    x = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.allclose(
            load_backbone(backbone, "imagenet")(x),
            module.eval().forward_head(module.forward_features(x), pre_logits=True),
            atol=1e-5,
        )


class _Encoder(torch.nn.Module):
    def __init__(self, pooled=True):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 7, 3, stride=2)
        self.pooled = pooled

    def forward(self, x):
        x = self.conv(x)
        return x.mean((2, 3)) if self.pooled else x


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoders")
    torch.manual_seed(0)
    module = _Encoder().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, and labs have files of it
        torch.jit.trace(module, torch.zeros(2, 3, 32, 32)).save(folder / "encoder.ts")
    weight, bias = (value.detach().numpy() for value in (module.conv.weight, module.conv.bias))
    onnx.save(_graph(weight, bias, "N"), folder / "encoder.onnx")
    onnx.save(_graph(weight, bias, 1), folder / "one.onnx")
    return folder, module


def _graph(weight, bias, batch):
    """The same encoder by hand; it gives its feature map, which is pooled for it."""
    helper = onnx.helper
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w", "b"], ["y"], strides=[2, 2])],
        "encoder",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [batch, 3, 32, 32])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [batch, 7, 15, 15])],
        [onnx.numpy_helper.from_array(weight, "w"), onnx.numpy_helper.from_array(bias, "b")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.slow
def test_encoders_in_files_agree(tmp_path, smears, encoders):
    folder, _ = encoders
    found = []
    for name in ("encoder.ts", "encoder.onnx", "one.onnx"):
        config = ExtractConfig(
            backbone=f"file:{folder / name}",
            input_px=32,
            normalize="half",
            limit=6,
            dtype="float32",
            precision="fp32",
            batch_size=4,
        )
        result = extract(smears, tmp_path / f"{name}.h5", config)
        cache = read_cache(result.cache)
        assert cache.attributes["backbone"] == f"file:{name}"
        assert cache.attributes["weights"] == str(folder / name)
        found.append(cache.embeddings)
    assert found[0].shape == (6, 1, 7)
    assert np.allclose(found[0], found[1], atol=1e-5)
    assert np.allclose(found[0], found[2], atol=1e-5)


def test_encoders_in_files_that_cannot_be_used(tmp_path, smears, encoders):
    folder, _ = encoders
    name = f"file:{folder / 'encoder.onnx'}"
    with pytest.raises(ConfigError, match="input_px"):
        get_backbone(name)
    with pytest.raises(ConfigError, match="normalize"):
        extract(smears, tmp_path / "c.h5", ExtractConfig(backbone=name, input_px=32))
    with pytest.raises(WeightsError, match=r"\(1, 3, 64, 64\)"):
        get_backbone(name, 64)
    with pytest.raises(ConfigError, match="precision"):
        config = ExtractConfig(backbone=name, input_px=32, normalize="half", precision="bf16", limit=4)
        extract(smears, tmp_path / "c.h5", config)
    with pytest.raises(WeightsError, match="No network at"):
        get_backbone(f"file:{tmp_path / 'none.onnx'}", 32)
    with pytest.raises(ConfigError, match="expected TorchScript"):
        get_backbone(f"file:{tmp_path / 'w.pth'}", 32)
    for ending, message in (("pt", "not TorchScript"), ("onnx", "not an ONNX")):
        (tmp_path / f"w.{ending}").write_bytes(b"garbage")
        with pytest.raises(WeightsError, match=message):
            get_backbone(f"file:{tmp_path / f'w.{ending}'}", 32)


@pytest.mark.slow
def test_weights_beside_a_graph_belong_to_its_hash(tmp_path, smears, encoders):
    """As `torch.onnx.export` writes them: the graph alone does not change with them."""
    model = onnx.load(encoders[0] / "encoder.onnx")
    file = tmp_path / "net.onnx"
    onnx.save(model, file, save_as_external_data=True, location="net.data", size_threshold=0)
    config = ExtractConfig(backbone=f"file:{file}", input_px=32, normalize="half", limit=4, precision="fp32")
    cache = extract(smears, tmp_path / "c.h5", config).cache
    graph = file.read_bytes()
    weights = np.fromfile(tmp_path / "net.data", np.float32)
    (2 * weights).tofile(tmp_path / "net.data")
    assert file.read_bytes() == graph
    with pytest.raises(CacheError, match="weights_sha256"):
        extract(smears, cache, config)
    weights.tofile(tmp_path / "net.data")
    assert extract(smears, cache, config).computed == 0
    assert network_sha256(encoders[0] / "encoder.onnx") == file_sha256(encoders[0] / "encoder.onnx")


@pytest.mark.parametrize("location", ["../net.data", "/net.data", "none", "", "pipe", "link", "."])
def test_weights_elsewhere_than_beside_a_graph_are_refused(tmp_path, encoders, location):
    folder = tmp_path / "own"
    folder.mkdir()
    os.mkfifo(folder / "pipe")
    np.zeros(1000, np.float32).tofile(tmp_path / "net.data")
    (folder / "link").symlink_to(tmp_path / "net.data")
    model = onnx.load(encoders[0] / "encoder.onnx")
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = tensor.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    (folder / "net.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(WeightsError, match="expected a file in its folder"):
        network_sha256(folder / "net.onnx")


def test_a_graph_that_demands_thousands_of_images_is_refused(tmp_path, encoders):
    weight, bias = (onnx.numpy_helper.to_array(own) for own in onnx.load(encoders[0] / "one.onnx").graph.initializer)
    onnx.save(_graph(weight, bias, 60_000), tmp_path / "big.onnx")
    with pytest.raises(WeightsError, match="takes 60000 images at once and no other number"):
        get_backbone(f"file:{tmp_path / 'big.onnx'}", 32)


def test_onnx_runtime_prints_no_names_of_a_graph(tmp_path, capfd):
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["x", "shape"], ["y"], name="\x1b]0;title\x07\x1b[31m")],
        "g",
        [helper.make_tensor_value_info("x", kind, ["n", 3, 32, 32])],
        [helper.make_tensor_value_info("y", kind, None)],
        [onnx.numpy_helper.from_array(np.array([7, 11]), "shape")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(WeightsError, match="does not take images"):
        get_backbone(f"file:{tmp_path / 'net.onnx'}", 32)
    assert "\x1b" not in "".join(capfd.readouterr())


def test_an_unknown_tag_of_timm_is_refused():
    with pytest.raises(ConfigError, match=r"timm cannot build 'resnet18\.foo' \(Invalid pretrained tag"):
        get_backbone("timm:resnet18.foo")


@pytest.fixture
def server(tmp_path):
    """A stand-in for torchvision's server."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
        thread.join()


@pytest.mark.slow
def test_download_checks_the_hash(tmp_path, state, server, monkeypatch):
    folder, address = server
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    torch.save(old_naming(state), folder / "w.pth")
    digest = hashlib.sha256((folder / "w.pth").read_bytes()).hexdigest()
    good = folder / f"{NAME}-{digest[:8]}.pth"
    (folder / "w.pth").rename(good)
    published = Backbone(NAME, 1024, 224, f"{address}/{good.name}")
    assert weights_digest(published, "imagenet") == digest
    assert checkpoint_path(published).is_file()
    load_backbone(published, "imagenet")

    (folder / f"{NAME}-00000000.pth").write_bytes(good.read_bytes())
    wrong = Backbone(NAME, 1024, 224, f"{address}/{NAME}-00000000.pth")
    with pytest.raises(WeightsError, match="hash"):
        weights_digest(wrong, "imagenet")
    assert not checkpoint_path(wrong).exists()


def test_without_network_the_message_names_file_and_option(tmp_path, monkeypatch):
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    closed = Backbone(NAME, 1024, 224, "http://127.0.0.1:9/densenet121-a639ec97.pth")
    with pytest.raises(WeightsError, match=r"densenet121-a639ec97\.pth.*as weights"):
        weights_digest(closed, "imagenet")


def test_checkpoint_path_is_where_torch_hub_looks(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    expected = f"{torch.hub.get_dir()}/checkpoints/densenet201-c1103571.pth"
    assert str(checkpoint_path(get_backbone("densenet201"))) == expected
