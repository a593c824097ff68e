"""Weights: both namings, both precisions, wrong files, the download."""

import hashlib
import re
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
import torchvision

from ball_features.errors import ConfigError, WeightsError
from ball_features.extraction import backbones
from ball_features.extraction.backbones import BACKBONES, Backbone, get_backbone, load_backbone, weights_digest

NAME = "densenet121"


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(3)
    return torchvision.models.densenet121(weights=None).state_dict()


def old_naming(state):
    return {re.sub(r"\.(norm|conv)([12])\.", r".\1.\2.", name): value for name, value in state.items()}


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


def test_random_weights_follow_their_seed_and_leave_the_global_generator():
    before = torch.random.get_rng_state()
    a, b = (load_backbone(get_backbone(NAME), "random", seed).state_dict() for seed in (0, 0))
    c = load_backbone(get_backbone(NAME), "random", 1).state_dict()
    key = "features.conv0.weight"
    assert torch.equal(a[key], b[key])
    assert not torch.equal(a[key], c[key])
    assert torch.equal(torch.random.get_rng_state(), before)


def test_registry():
    assert {name: record.dim for name, record in BACKBONES.items()} == {
        "densenet121": 1024,
        "densenet169": 1664,
        "densenet201": 1920,
    }
    with pytest.raises(ConfigError, match="densenet121, densenet169, densenet201"):
        get_backbone("resnet")
    for name, record in BACKBONES.items():
        assert (
            record.url == torchvision.models.get_weight(f"{name.replace('densenet', 'DenseNet')}_Weights.DEFAULT").url
        )


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
    assert backbones.checkpoint_path(published).is_file()
    load_backbone(published, "imagenet")

    (folder / f"{NAME}-00000000.pth").write_bytes(good.read_bytes())
    wrong = Backbone(NAME, 1024, 224, f"{address}/{NAME}-00000000.pth")
    with pytest.raises(WeightsError, match="hash"):
        weights_digest(wrong, "imagenet")
    assert not backbones.checkpoint_path(wrong).exists()


def test_without_network_the_message_names_file_and_option(tmp_path, monkeypatch):
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    closed = Backbone(NAME, 1024, 224, "http://127.0.0.1:9/densenet121-a639ec97.pth")
    with pytest.raises(WeightsError, match=r"densenet121-a639ec97\.pth.*--weights"):
        weights_digest(closed, "imagenet")


def test_checkpoint_path_is_where_torch_hub_looks(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    expected = f"{torch.hub.get_dir()}/checkpoints/densenet201-c1103571.pth"
    assert str(backbones.checkpoint_path(get_backbone("densenet201"))) == expected
