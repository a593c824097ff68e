"""Bundles whose network is a program of a stranger: nothing of it runs before the user says so."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from ball_features.bundles.bundle import read_bundle
from ball_features.bundles.predictor import Predictor
from ball_features.bundles.sums import write_checksums
from ball_features.errors import WeightsError
from ball_features.extraction.known_networks import file_sha256, know_network

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit")
OLD = Path(__file__).parents[1] / "data" / "v0.1.0"


class Writes(torch.nn.Module):
    def forward(self, images):
        torch.save(images.mean(), "written.bin")
        return torch.nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)[:, :8]


@pytest.fixture
def strange(tmp_path, monkeypatch) -> Path:
    """A bundle with a network of its own that writes a file whenever it is called; the working folder is another."""
    folder = tmp_path / "bundle"
    shutil.copytree(OLD / "bundles" / "logistic", folder)
    torch.jit.script(Writes()).save(str(folder / "net.pt"))
    change(
        folder,
        backbone="file:net.pt",
        recipe="plain",
        weights="./net.pt",
        weights_sha256=file_sha256(folder / "net.pt"),
    )
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


def change(folder, **values):
    content = json.loads((folder / "bundle.json").read_text())
    (folder / "bundle.json").write_text(json.dumps({**content, **values}))
    write_checksums(folder)


def test_the_network_of_a_stranger_needs_trust(strange):
    with pytest.raises(WeightsError, match="trust its maker"):
        Predictor(read_bundle(strange), device="cpu", precision="fp32")
    assert not Path("written.bin").exists()
    Predictor(read_bundle(strange, trust=True), device="cpu", precision="fp32")
    assert Path("written.bin").exists()


def test_another_file_is_refused_before_it_runs(strange):
    change(strange, weights_sha256="0" * 64)
    for trust in (False, True):
        with pytest.raises(WeightsError, match="not the weights"):
            Predictor(read_bundle(strange, trust=trust), device="cpu")
    assert not Path("written.bin").exists()


def test_a_network_that_the_user_has_named_needs_no_trust(strange):
    know_network(file_sha256(strange / "net.pt"))
    Predictor(read_bundle(strange), device="cpu", precision="fp32")


def test_a_file_that_is_named_as_weights_needs_no_trust(strange):
    Predictor(read_bundle(strange), weights=str(strange / "net.pt"), device="cpu", precision="fp32")
