"""int8 against bf16: speed of the engines alone in turn, distance to float32, and a cache of int8 embeddings.

    pip install openvino nncf
    python benchmarks/int8.py quantise IMAGES --weights FILE --model int8.xml [--backbone densenet121] [--preset mixed]
    python benchmarks/int8.py speed IMAGES --weights FILE --model int8.xml [--turns 7]
    python benchmarks/int8.py cache IMAGES --weights FILE --model int8.xml --out int8.h5

int8 is OpenVINO's, quantised after training by NNCF (weights by channel, activations by tensor) and
calibrated on images of the collection; OpenVINO and ball in bf16 stand beside it. Each engine embeds the same images in
each turn; seconds are those of the clock and of all threads of the process. cache makes a cache as `ball extract` does,
of the plain view, with int8 embeddings in place of its own, to fit models on.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from extraction import Pooled
from machine import describe

from ball_features.config import ExtractConfig
from ball_features.dataset.manifest import scan, spread_rows
from ball_features.extraction.backbones import get_backbone
from ball_features.extraction.engine.choose import Chooser
from ball_features.extraction.engine.densenet import Engine
from ball_features.extraction.extract import extract
from ball_features.extraction.loading import load_image
from ball_features.extraction.normalization import normalize
from ball_features.extraction.weights import load_backbone
from ball_features.threads import one_thread

Forward = Callable[[torch.Tensor], torch.Tensor]
PART = 8  # images in a request of OpenVINO


def load(images: Path, count: int, offset: int = 0) -> torch.Tensor:
    """Normalised images from all over a collection, float32 (count, 3, 224, 224); offset moves to their neighbours."""
    found = scan(images)
    rows = np.minimum(spread_rows(len(found.path), count) + offset, len(found.path) - 1)
    loaded = [load_image(found, row, 224) for row in rows.tolist()]
    pixels = torch.stack([item[:3] for item in loaded if isinstance(item, torch.Tensor)])
    return normalize(pixels.float() / 255, "imagenet")


def openvino_model(module: Any) -> Any:
    """The network as OpenVINO's model in float32."""
    import openvino

    example = torch.zeros(PART, 3, 224, 224)
    return openvino.convert_model(Pooled(module).eval(), example_input=example, input=[example.shape])


def quantise(arguments: argparse.Namespace) -> None:
    """Write the model with int8 products, calibrated on images of the collection that `speed` does not measure."""
    import nncf
    import openvino

    module = load_backbone(get_backbone(arguments.backbone), arguments.weights)
    images = load(arguments.images, arguments.calibrate, offset=1)
    parts = [part.numpy() for part in images.split(PART) if len(part) == PART]
    settings = {"preset": nncf.QuantizationPreset(arguments.preset), "subset_size": len(parts)}
    start = time.perf_counter()
    small = nncf.quantize(openvino_model(module), nncf.Dataset(parts), **settings)
    openvino.save_model(small, arguments.model, compress_to_fp16=False)
    print(f"Calibrated on {len(images)} images in {time.perf_counter() - start:.0f} s.")


def run(model: Any, precision: str) -> Forward:
    """A forward pass of OpenVINO with its throughput hint."""
    import openvino

    hints = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": precision}
    queue = openvino.AsyncInferQueue(openvino.Core().compile_model(model, "CPU", hints))
    parts: dict[int, np.ndarray] = {}
    queue.set_callback(lambda request, place: parts.__setitem__(place, request.get_output_tensor().data.copy()))

    def forward(x: torch.Tensor) -> torch.Tensor:
        parts.clear()
        whole = torch.nn.functional.pad(x, (0, 0, 0, 0, 0, 0, 0, -len(x) % PART)).numpy()
        for place in range(0, len(whole), PART):
            queue.start_async([whole[place : place + PART]], place)
        queue.wait_all()
        return torch.from_numpy(np.concatenate([parts[place] for place in sorted(parts)])[: len(x)])

    return forward


def threaded(engine: Engine, threads: int) -> Forward:
    """Engine of ball as an extraction runs it: a thread for each core, each with its own batches."""
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(threads)

    def forward(x: torch.Tensor) -> torch.Tensor:
        with one_thread():
            return torch.cat(list(pool.map(engine, x.split(PART))))

    return forward


def speed(arguments: argparse.Namespace) -> None:
    """Print milliseconds an image of each engine, by clock and processor, and cosines to float32."""
    module = load_backbone(get_backbone(arguments.backbone), arguments.weights)
    model = openvino_model(module)
    images = load(arguments.images, arguments.count)
    with torch.inference_mode():
        expected = torch.cat([Pooled(module).eval()(part) for part in images.split(PART)]).double()
    forwards: dict[str, Forward] = {}
    with one_thread():
        for name in ("fp32", "bf16"):
            forwards[f"ball, {name}"] = threaded(Engine(module, torch.device("cpu"), name), arguments.threads)
    forwards["OpenVINO, float32"] = run(model, "f32")
    forwards["OpenVINO, bf16"] = run(model, "bf16")
    forwards["OpenVINO, int8, rest in bf16"] = run(arguments.model, "bf16")
    forwards["OpenVINO, int8, rest in float32"] = run(arguments.model, "f32")
    clock: dict[str, list[float]] = {name: [] for name in forwards}
    processor: dict[str, list[float]] = {name: [] for name in forwards}
    cosine: dict[str, torch.Tensor] = {}
    for turn in range(arguments.turns + 1):  # the first turn warms up
        for name, forward in forwards.items():
            start, cpu = time.perf_counter(), time.process_time()
            got = forward(images).double()
            if turn:
                clock[name].append(1000 * (time.perf_counter() - start) / len(images))
                processor[name].append(1000 * (time.process_time() - cpu) / len(images))
            cosine[name] = torch.nn.functional.cosine_similarity(got, expected, dim=1)
        print(f"turn {turn}", file=sys.stderr, flush=True)
    ran = describe("torch", "openvino", "nncf")
    print(f"{ran}, {arguments.backbone}, {len(images)} images, median of {arguments.turns} turns\n")
    print("| | clock ms | CPU ms | of ball bf16 | worst cosine | median cosine |\n| --- |" + " ---: |" * 5)
    for name in forwards:
        wall, cpu = statistics.median(clock[name]), statistics.median(processor[name])
        ratio = statistics.median(
            ours / own for ours, own in zip(processor["ball, bf16"], processor[name], strict=True)
        )
        near = f"{float(cosine[name].min()):.6f} | {float(cosine[name].median()):.6f}"
        print(f"| {name} | {wall:.1f} | {cpu:.1f} | {ratio:.2f} | {near} |")


class _Int8:
    """An int8 network in the place of ball's engine."""

    precision = "fp32"  # what the cache says; the file is for this comparison alone

    def __init__(self, forward: Forward) -> None:
        self.forward, self.lock = forward, threading.Lock()

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Embed a batch."""
        with self.lock:  # its requests run on all cores
            return self.forward(images)


def cache(arguments: argparse.Namespace) -> None:
    """Make a cache of the plain view with int8 embeddings."""
    own = run(arguments.model, "bf16")
    settings = {"backbone": arguments.backbone, "weights": arguments.weights, "limit": arguments.limit}
    config = ExtractConfig(views=1, recipe="plain", precision="fp32", **settings)
    with mock.patch.object(Chooser, "build", lambda *_, **__: _Int8(own)):
        extract(arguments.images, arguments.out, config, overwrite=True, log=print)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for name, function in (("quantise", quantise), ("speed", speed), ("cache", cache)):
        own = commands.add_parser(name)
        own.add_argument("images", type=Path)
        own.add_argument("--weights", default="imagenet")
        own.add_argument("--backbone", default="densenet201")
        own.add_argument("--model", type=Path, required=True, help="quantised model, an .xml file")
        own.set_defaults(run=function)
        if name == "quantise":
            own.add_argument("--calibrate", type=int, default=64, help="images to calibrate on")
            own.add_argument("--preset", default="mixed", help="mixed (signed activations where needed) or performance")
        elif name == "speed":
            own.add_argument("--count", type=int, default=64)
            own.add_argument("--turns", type=int, default=7)
            own.add_argument("--threads", type=int, default=2)
        else:
            own.add_argument("--out", type=Path, required=True)
            own.add_argument("--limit", type=int, default=0)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
