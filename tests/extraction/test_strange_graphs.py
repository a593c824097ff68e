"""Networks in ONNX that were edited: read with the numbers of the graph, or refused in words; none is waited for."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from ball_features import ExtractConfig, extract, read_cache  # noqa: E402
from ball_features.dataset.synthetic import draw_smears  # noqa: E402
from ball_features.errors import WeightsError  # noqa: E402
from ball_features.extraction import onnx_graph  # noqa: E402
from ball_features.extraction.backbones import get_backbone  # noqa: E402
from ball_features.extraction.network_files import read_network  # noqa: E402

FLOAT = TensorProto.FLOAT
WEIGHT = np.random.default_rng(0).normal(size=(7, 3, 3, 3)).astype(np.float32)
CONV = helper.make_node("Conv", ["x", "w"], ["c"], strides=[2, 2])
POOL = helper.make_node("ReduceMean", ["c"], ["p"], axes=[2, 3], keepdims=0)
PLACE = {"PYTHONPATH": str(Path(__file__).parents[2])}
TYPES = ("DOUBLE", "FLOAT16", "BFLOAT16", "UINT8", "INT64", "BOOL", "STRING")


def value(name, kind=FLOAT, shape=None):
    return helper.make_tensor_value_info(name, kind, shape)


def graph(*nodes, inputs=None, outputs=None, constants=None, opset=17, functions=()):
    """A convolution that is averaged, and these nodes after it, of which the last gives y."""
    nodes = nodes or (helper.make_node("Identity", ["p"], ["y"]),)
    named = [numpy_helper.from_array(np.asarray(own), name) for name, own in (constants or {}).items()]
    made = helper.make_graph(
        [CONV, POOL, *nodes],
        "g",
        [value("x", shape=["N", 3, 32, 32])] if inputs is None else inputs,
        [value("y")] if outputs is None else outputs,
        [numpy_helper.from_array(WEIGHT, "w"), *named],
    )
    sets = [helper.make_opsetid("", opset), *([helper.make_opsetid("own", 1)] if functions else [])]
    return helper.make_model(made, opset_imports=sets, ir_version=8, functions=list(functions))


def loop(*body, start="p"):
    """A loop with these nodes, which make `more` of `now`, that goes on for ever."""
    going = helper.make_node("Identity", ["on"], ["still"])
    inner = helper.make_graph(
        [going, *body],
        "body",
        [value("i", TensorProto.INT64, []), value("on", TensorProto.BOOL, []), value("now")],
        [value("still", TensorProto.BOOL, []), value("more")],
    )
    return helper.make_node("Loop", ["", "yes", start], ["l"], body=inner)


def save(folder: Path, made) -> str:
    (folder / "net.onnx").write_bytes(made.SerializeToString())
    return f"file:{folder / 'net.onnx'}"


def edited(made, change):
    change(made)
    return made


SAME = {
    "as it was": graph(),
    **{f"opset {number}": graph(opset=number) for number in (13, 15)},
    "any shape": graph(inputs=[value("x", shape=["a", "b", "c", "d"])]),
    "two at once": graph(inputs=[value("x", shape=[2, 3, 32, 32])]),
    "a thousand at once": graph(inputs=[value("x", shape=[1024, 3, 32, 32])]),
    **{
        f"output of {kind}": graph(
            helper.make_node("Cast", ["p"], ["y"], to=getattr(TensorProto, kind)),
            outputs=[value("y", getattr(TensorProto, kind))],
        )
        for kind in ("DOUBLE", "FLOAT16")
    },
    "a second output": graph(outputs=[value("y"), value("c")]),
    "long metadata": edited(graph(), lambda own: own.metadata_props.add(key="classes", value="[" * 1_000_000)),
    "no metadata": edited(graph(), lambda own: own.ClearField("metadata_props")),
}
_STEPS = {
    "one row for all": [
        helper.make_node("ReduceMean", ["p"], ["y"], axes=[0], keepdims=1),
    ],
    "twice the rows": [helper.make_node("Concat", ["p", "p"], ["y"], axis=0)],
    "a scalar": [helper.make_node("ReduceMean", ["p"], ["y"], keepdims=0)],
    "no number": [helper.make_node("Slice", ["p", "zero", "zero", "one"], ["y"])],
    "a number each": [helper.make_node("ReduceMean", ["p"], ["y"], axes=[1], keepdims=0)],
    "an unknown operation": [helper.make_node("Nope", ["p"], ["y"])],
    "an unknown domain": [helper.make_node("Nope", ["p"], ["y"], domain="strange")],
    "a circle": [helper.make_node("Add", ["p", "q"], ["y"]), helper.make_node("Identity", ["y"], ["q"])],
}
_SELF = helper.make_function(
    *("own", "Self", ["a"], ["b"], [helper.make_node("Self", ["a"], ["b"], domain="own")]),
    [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)],
)
REFUSED = {
    **{f"opset {number}": graph(opset=number) for number in (0, -3, 99)},
    **{f"input of {kind}": graph(inputs=[value("x", getattr(TensorProto, kind), ["N", 3, 32, 32])]) for kind in TYPES},
    **{
        f"input {shape}": graph(inputs=[value("x", shape=shape)])
        for shape in (
            [],
            ["N"],
            ["N", 3, 32],
            ["N", 3, 32, 32, 1],
            ["N", 32, 32, 3],
            ["N", 1, 32, 32],
            [5000, 3, 32, 32],
        )
    },
    "no input": edited(graph(inputs=[], constants={"x": np.zeros((1, 3, 32, 32), np.float32)}), lambda own: None),
    "two inputs": graph(inputs=[value("x", shape=["N", 3, 32, 32]), value("z", shape=[1])]),
    "no output": graph(outputs=[]),
    **{
        f"output of {kind}": graph(
            helper.make_node("Cast", ["p"], ["y"], to=getattr(TensorProto, kind)),
            outputs=[value("y", getattr(TensorProto, kind))],
        )
        for kind in TYPES[2:]
    },
    "output of a list": graph(
        helper.make_node("SequenceConstruct", ["p"], ["y"]),
        outputs=[helper.make_tensor_sequence_value_info("y", FLOAT, None)],
    ),
    **{
        f"output of {name}": graph(*nodes, constants={"zero": np.array([0]), "one": np.array([1])})
        for name, nodes in _STEPS.items()
    },
    "a function of itself": graph(helper.make_node("Self", ["p"], ["y"], domain="own"), functions=[_SELF]),
    "10 TB": graph(
        helper.make_node("ConstantOfShape", ["many"], ["h"]),
        helper.make_node("ReduceMean", ["h"], ["m"], keepdims=0),
        helper.make_node("Add", ["p", "m"], ["y"]),
        constants={"many": np.array([10**13])},
    ),
    "no weights": edited(graph(), lambda own: own.graph.initializer.pop(0)),
    "weights of -7 rows": edited(graph(), lambda own: own.graph.initializer[0].dims.__setitem__(0, -7)),
    "weights of 10^15 rows": edited(graph(), lambda own: own.graph.initializer[0].dims.__setitem__(0, 10**15)),
    "half of the weights": edited(
        graph(), lambda own: setattr(own.graph.initializer[0], "raw_data", own.graph.initializer[0].raw_data[:50])
    ),
    "weights of no type": edited(graph(), lambda own: setattr(own.graph.initializer[0], "data_type", 77)),
}
_PRODUCTS = [helper.make_node("MatMul", [f"q{n}", f"q{n}"], [f"q{n + 1}"]) for n in range(500)]
ENDLESS = {
    "products of constants": [
        helper.make_node("ConstantOfShape", ["s"], ["q0"]),
        *_PRODUCTS,
        helper.make_node("Identity", ["q500"], ["l"]),
    ],
    "a loop": [loop(helper.make_node("Add", ["now", "now"], ["more"]))],
    "a loop over constants": [loop(helper.make_node("Add", ["now", "now"], ["more"]), start="k")],
}


def embed(name, smears, tmp_path):
    config = ExtractConfig(
        *(name, "plain", 1), input_px=32, normalize="half", limit=6, dtype="float32", precision="fp32", batch_size=4
    )
    return np.asarray(read_cache(extract(smears, tmp_path / "c.h5", config).cache).embeddings)


@pytest.mark.parametrize("kind", SAME)
def test_a_graph_that_computes_the_same_gives_the_same(tmp_path, smears, kind):
    images = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    expected = torch.nn.functional.conv2d(images, torch.from_numpy(WEIGHT), stride=2).mean((2, 3)).numpy()
    name = save(tmp_path, SAME[kind])
    found = read_network(tmp_path / "net.onnx")(images).numpy()
    assert found.shape == (5, 7)
    assert np.allclose(found, expected, atol=2e-3 if kind == "output of FLOAT16" else 1e-5)
    assert found.dtype == np.float32
    assert get_backbone(name, 32).dim == 7


@pytest.mark.slow
@pytest.mark.parametrize("kind", REFUSED)
def test_any_other_is_refused_in_words(tmp_path, smears, kind):
    name = save(tmp_path, REFUSED[kind])
    with pytest.raises(WeightsError, match=r"net\.onnx ") as said:
        embed(name, smears, tmp_path)
    assert len(str(said.value)) < 1000
    assert not (tmp_path / "c.h5").exists()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ENDLESS)
def test_a_graph_without_an_end_is_stopped(tmp_path, smears, monkeypatch, kind):
    monkeypatch.setattr(onnx_graph, "SECONDS_OF_AN_IMAGE", 2.0)
    after = [helper.make_node("ReduceMean", ["l"], ["m"], keepdims=0), helper.make_node("Add", ["p", "m"], ["y"])]
    made = graph(
        *ENDLESS[kind],
        *after,
        constants={"yes": np.array(True), "k": np.ones(3, np.float32), "s": np.array([2048, 2048])},
    )
    start = time.perf_counter()
    with pytest.raises(WeightsError, match=r"did not end within 2 s on \(1, 3, 32, 32\), and was stopped"):
        embed(save(tmp_path, made), smears, tmp_path)
    assert time.perf_counter() - start < 30


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_graph_without_an_end_can_be_left(tmp_path, number):
    after = [helper.make_node("ReduceMean", ["l"], ["m"], keepdims=0), helper.make_node("Add", ["p", "m"], ["y"])]
    name = save(tmp_path, graph(*ENDLESS["a loop"], *after, constants={"yes": np.array(True)}))
    draw_smears(tmp_path / "images", per_class=2, size_px=64)
    words = ["extract", str(tmp_path / "images"), "--out", str(tmp_path / "c.h5"), "--backbone", name]
    command = [sys.executable, "-m", "ball_features", *words, "--input-px", "32", "--normalize", "half"]
    with (
        (tmp_path / "said").open("w") as said,
        subprocess.Popen(command, env=os.environ | PLACE, stdout=said, stderr=said) as running,
    ):
        try:
            maps = Path(f"/proc/{running.pid}/maps")
            while running.poll() is None and "onnxruntime" not in (
                maps.read_text() if maps.exists() else "onnxruntime"
            ):
                time.sleep(0.2)
            with pytest.raises(subprocess.TimeoutExpired):
                running.wait(5 if maps.exists() else 25)  # from then on it runs the graph
            running.send_signal(number)
            assert running.wait(40) in (128 + number, -number), (tmp_path / "said").read_text()
        finally:
            running.kill()
    assert "Traceback" not in (tmp_path / "said").read_text()


@pytest.mark.parametrize("location", ["../net.data", "/dev/zero", "pipe"])
def test_weights_elsewhere_are_not_opened(tmp_path, smears, location):
    """Also where the graph is run before its hash is asked for; a pipe is not waited for."""
    folder = tmp_path / "own"
    folder.mkdir()
    os.mkfifo(folder / "pipe")
    made = graph()
    tensor = made.graph.initializer[0]
    (tmp_path / "net.data").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = tensor.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    with pytest.raises(WeightsError, match="expected a file in its folder"):
        embed(save(folder, made), smears, tmp_path)
