"""No command opens a connection, and the same command twice writes the same predictions."""

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ball_features.cache import CacheWriter, create_cache
from tests import tiny
from tests.cache.test_checksums import COUNT, contents, numbers
from tests.commands import FEW_TREES, TINY_DENSENET, ball

SHIM = """
import socket
def refuse(self, address, *rest):
    if self.family in (socket.AF_INET, socket.AF_INET6):
        open({log!r}, "a").write(f"{{address}}\\n")
        raise OSError("no connection is allowed here")
    return connect(self, address, *rest)
connect, socket.socket.connect, socket.socket.connect_ex = socket.socket.connect, refuse, refuse
def lookup(*names, **options):
    open({log!r}, "a").write(f"{{names}}\\n")
    raise OSError("no name is looked up here")
socket.getaddrinfo = lookup
"""


def forbid_connections(folder, log):
    """Code that forbids connections in a process, and the variables that forbid them in those that it starts."""
    shim = SHIM.format(log=str(log))
    (folder / "shim").mkdir()
    (folder / "shim" / "sitecustomize.py").write_text(shim)
    return shim, {"PYTHONPATH": os.pathsep.join([str(folder / "shim"), *sys.path])}


@pytest.mark.slow
def test_no_socket_and_equal_predictions(tmp_path):
    log, cache = tmp_path / "log", tmp_path / "a.h5"
    shim, environment = forbid_connections(tmp_path, log)
    create_cache(cache, contents(view=["plain"]))
    embeddings, shortcuts = numbers(np.arange(COUNT))
    with CacheWriter(cache) as writer:
        writer.write(np.arange(COUNT), embeddings[:, :1], shortcuts)
    fit = ["fit", str(cache), "--models", "mlp,logistic,xgboost", "--repeats", "1", "--out", str(tmp_path / "runs")]
    commands = [
        ["inspect", str(cache), "--verify"],
        ["export", str(cache), "--csv", str(tmp_path / "a.csv")],
        [*fit, "--name", "first"],
        [*fit, "--name", "second"],
        ["report", str(tmp_path / "runs" / "first")],
    ]
    for command in commands:
        done = ball(*command, env=environment, before=shim)
        assert done.returncode == 0, (command, done.stderr)
    assert not log.exists()
    first, second = ((tmp_path / "runs" / name / "predictions.csv").read_bytes() for name in ("first", "second"))
    assert first == second


@pytest.mark.slow
def test_the_way_of_an_image_opens_no_socket(tmp_path, few_smears):
    log = tmp_path / "log"
    shim, environment = forbid_connections(tmp_path, log)
    shim += f"{TINY_DENSENET}\n{FEW_TREES}\n"
    network = ["--backbone", tiny.TINY, "--weights", "random", "--input-px", "64", "--precision", "fp32"]
    bundle = "runs/run/models/logistic"
    commands = [
        ["extract", str(few_smears), "--out", "c.h5", *network],
        ["audit", str(few_smears), "--out", "groups.csv"],
        "fit c.h5 --models logistic --repeats 1 --out runs --name run --save logistic".split(),
        ["predict", bundle, str(few_smears), "--out", "p.csv"],
        ["evaluate", bundle, str(few_smears), "--out", "external"],
        ["export", bundle, "--onnx", "m.onnx", "--card", "card.md"],
        ["inspect", bundle, "--verify"],
        ["labels", "c.h5", "--out", "labels.csv"],
        ["runs", "runs"],
    ]
    for command in commands:
        done = ball(*command, env=environment, before=shim, cwd=tmp_path)
        assert done.returncode == 0, (command, done.stderr)
        assert not log.exists(), (command, log.read_text())


@pytest.mark.slow
@pytest.mark.parametrize(
    "backbone", ["timm:hf-hub:stranger/net", "timm:hf_hub:stranger/net", "timm:local-dir:/tmp/net"]
)
def test_a_bundle_that_names_a_network_of_a_hub_opens_no_connection(tmp_path, backbone):
    pytest.importorskip("timm")
    log, bundle = tmp_path / "log", tmp_path / "bundle"
    shim, environment = forbid_connections(tmp_path, log)
    shutil.copytree(Path(__file__).parent / "data" / "v0.1.0" / "bundles" / "mlp", bundle)
    details = json.loads((bundle / "bundle.json").read_text())
    (bundle / "bundle.json").write_text(json.dumps(details | {"backbone": backbone, "weights": "imagenet"}))
    image = tmp_path / "images" / "Benign" / "1.png"
    image.parent.mkdir(parents=True)
    Image.fromarray(np.full((64, 64, 3), 200, np.uint8)).save(image)
    for command in (
        ["predict", bundle, image],
        ["evaluate", bundle, tmp_path / "images", "--out", tmp_path / "out"],
        ["serve", bundle, "--port", "0"],
    ):
        done = ball(*command, env=environment, before=shim)
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stderr
        assert "hub" in done.stderr or "local" in done.stderr, "refused for another reason"
    assert not log.exists()
