"""Extraction against what users would write instead, on the same images and weights, in turn.

    python benchmarks/extraction.py IMAGES --weights FILE --images 256 --turns 3
    python benchmarks/extraction.py IMAGES --weights FILE --images 3256 --device cuda --forward 64,256,512

Every peer goes from JPEG files to embeddings; decoding, resizing and normalising are part of the time, loading the
weights and compiling are not. Ours is `ball extract`, which also counts pixels for the shortcuts and writes the cache.
--forward adds the forward pass alone, on batches that lie on the device. The figures are medians over the turns; the
deviation is the worst image's cosine to float32 embeddings of torchvision's module.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib.util
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from machine import describe
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from ball_features.cache import read_cache
from ball_features.config import ExtractConfig
from ball_features.dataset.decode import decode
from ball_features.dataset.jpeg import decode_jpegs
from ball_features.dataset.manifest import scan
from ball_features.extraction.backbones import get_backbone
from ball_features.extraction.engine.densenet import Engine
from ball_features.extraction.engine.devices import best_precision, resolve_device
from ball_features.extraction.extract import extract
from ball_features.extraction.weights import load_backbone
from ball_features.threads import one_thread

BATCH = 32


class Files(Dataset):
    """The usual data set: PIL and torchvision transforms."""

    def __init__(self, files: list[Path]) -> None:
        self.files = files
        self.transform = transforms.Compose(
            [
                transforms.Resize((224, 224)),
                transforms.ToTensor(),
                transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
            ]
        )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.transform(Image.open(self.files[index]).convert("RGB"))


def loop(
    files: list[Path], forward: Callable[[torch.Tensor], torch.Tensor], device: torch.device
) -> tuple[np.ndarray, float]:
    """A DataLoader and a forward pass a batch: embeddings, and seconds."""
    start, rows = time.perf_counter(), []
    with torch.no_grad():
        for batch in DataLoader(Files(files), BATCH):
            rows.append(forward(batch.to(device)).float().cpu())
    return torch.cat(rows).numpy(), time.perf_counter() - start


def ours(images: Path, arguments: argparse.Namespace, precision: str, folder: str) -> tuple[np.ndarray, float]:
    """`ball extract`, shortcuts' numbers and cache included: embeddings, and seconds from the first image to the last.

    As of the peers, what comes once before that is left out: reading the folder, loading and compiling, and the look
    at how far the precision strays. `benchmarks/commands.py` times it all.
    """
    config = ExtractConfig(
        backbone=arguments.backbone,
        weights=arguments.weights,
        views=1,
        precision=precision,
        device=arguments.device,
        dtype="float32",
        limit=arguments.count,
    )
    done = extract(images, Path(folder) / f"{precision}.h5", config, overwrite=True)
    return read_cache(done.cache).embeddings[:, 0], done.forward_s


class Pooled(torch.nn.Module):
    """The embedding of a DenseNet as a module of its own, for other engines."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.features = network.features

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Embeddings, float32 (batch, dim)."""
        return F.adaptive_avg_pool2d(F.relu(self.features(x)), 1).flatten(1)


def onnx_forward(module: Any, folder: str) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """ONNX Runtime in float32, where it is installed."""
    if importlib.util.find_spec("onnxruntime") is None or importlib.util.find_spec("onnx") is None:
        return None
    import onnxruntime

    path = str(Path(folder) / "network.onnx")
    example = torch.zeros(BATCH, 3, 224, 224)
    names = {"input_names": ["x"], "output_names": ["y"], "dynamic_axes": {"x": {0: "n"}, "y": {0: "n"}}}
    torch.onnx.export(Pooled(module).eval(), (example,), path, dynamo=False, **names)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(None, {"x": x.numpy()})[0])


def openvino_forward(module: Any, precision: str) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """OpenVINO with its throughput hint, where it is installed: requests of 8 images, as many at once as it asks."""
    if importlib.util.find_spec("openvino") is None:
        return None
    import openvino

    size = 8
    example = torch.zeros(size, 3, 224, 224)
    model = openvino.convert_model(Pooled(module).eval(), example_input=example, input=[example.shape])
    hints = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": precision}
    queue = openvino.AsyncInferQueue(openvino.Core().compile_model(model, "CPU", hints))
    parts: dict[int, np.ndarray] = {}
    queue.set_callback(lambda request, place: parts.__setitem__(place, request.get_output_tensor().data.copy()))

    def call(x: torch.Tensor) -> torch.Tensor:
        whole = F.pad(x, (0, 0, 0, 0, 0, 0, 0, -len(x) % size)).numpy()
        for place in range(0, len(whole), size):
            queue.start_async([whole[place : place + size]], place)
        queue.wait_all()
        return torch.from_numpy(np.concatenate([parts[place] for place in sorted(parts)])[: len(x)])

    def forward(x: torch.Tensor) -> torch.Tensor:
        parts.clear()
        return call(x)

    return forward


def decode_rates(files: list[Path], device: torch.device, turns: int) -> dict[str, float]:
    """Images a second of decoding alone, by Pillow and by ours on one core, and on the device."""
    contents = [file.read_bytes() for file in files[:256]]
    ways: dict[str, Callable[[], object]] = {
        "Pillow, one core": lambda: [np.asarray(Image.open(file).convert("RGB")) for file in files[:256]],
        "ball, one core": lambda: [decode(file) for file in files[:256]],
    }
    if device.type == "cuda":
        ways["the GPU"] = lambda: (decode_jpegs(contents, device), torch.cuda.synchronize(device))
    rates: dict[str, list[float]] = {name: [] for name in ways}
    with one_thread():
        for turn in range(turns + 1):
            for name, way in ways.items():
                start = time.perf_counter()
                way()
                if turn:
                    rates[name].append(len(contents) / (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in rates.items()}


def forward_rate(forward: Callable[[torch.Tensor], torch.Tensor], size: int, device: torch.device, turns: int) -> float:
    """Images a second of batches on the device: the median over turns of a second or ten batches."""
    batch = torch.randn(size, 3, 224, 224, device=device)

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    rates = []
    with torch.inference_mode():
        for _ in range(4):  # compiles, and records what is recorded
            forward(batch)
        for _ in range(turns):
            wait()
            start, done = time.perf_counter(), 0
            while done < 10 or time.perf_counter() - start < 1:
                forward(batch)
                done += 1
                if done % 10 == 0:
                    wait()
            wait()
            rates.append(done * size / (time.perf_counter() - start))
    return statistics.median(rates)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--backbone", default="densenet201")
    parser.add_argument("--images", dest="count", type=int, default=256)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--forward", default="", help="sizes of batches with commas between")
    parser.add_argument("--only", default="", help="names with commas between")
    arguments = parser.parse_args()

    device = resolve_device(arguments.device)
    manifest = scan(arguments.images, limit=arguments.count)
    files = [manifest.root / path for path in manifest.path]
    module = load_backbone(get_backbone(arguments.backbone), arguments.weights).to(device)
    half = best_precision(device)
    reference = module
    last = load_backbone(get_backbone(arguments.backbone), arguments.weights).to(device)
    last = last.to(memory_format=torch.channels_last)

    def autocast(forward: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
        def call(x: torch.Tensor) -> torch.Tensor:
            kind = torch.float16 if half == "fp16" else torch.bfloat16
            with torch.autocast(device.type, kind):
                return forward(x.contiguous(memory_format=torch.channels_last))

        return call

    def frozen() -> Callable[[torch.Tensor], torch.Tensor]:
        import torch._inductor.config as inductor

        inductor.freezing = True
        return autocast(torch.compile(last, dynamic=False))

    def timm_forward() -> Callable[[torch.Tensor], torch.Tensor] | None:
        if importlib.util.find_spec("timm") is None:
            return None
        import timm

        network = timm.create_model("densenet201", pretrained=False, num_classes=0).eval().to(device)
        own = {name: value for name, value in module.state_dict().items() if name.startswith("features")}
        network.load_state_dict(own, strict=False)
        return network

    def built(precision: str) -> Engine:
        with one_thread() if device.type == "cpu" else contextlib.nullcontext():
            return Engine(module, device, precision)

    folder = tempfile.mkdtemp()
    makers: dict[str, Callable[[], Any]] = {
        "plain loop, float32": lambda: reference,
        "ONNX Runtime, float32": lambda: onnx_forward(module, folder) if device.type == "cpu" else None,
        "OpenVINO, float32": lambda: openvino_forward(module, "f32") if device.type == "cpu" else None,
        "OpenVINO, bf16": lambda: openvino_forward(module, "bf16") if device.type == "cpu" else None,
        "timm densenet201, float32": timm_forward,
        "autocast, channels_last": lambda: autocast(last),
        "compile, freezing, autocast": frozen,
        "ball, float32": lambda: built("fp32"),
        f"ball, {half}": lambda: built(half),
    }
    wanted = [name for name in makers if not arguments.only or any(key in name for key in arguments.only.split(","))]
    runs: dict[str, Callable[[], tuple[np.ndarray, float]]] = {}
    forwards: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {}
    for name in wanted:
        forward = makers[name]()
        if forward is None:
            print(f"{name}: not installed, left out", file=sys.stderr)
            continue
        forwards[name] = forward
        if name.startswith("ball"):
            runs[name] = functools.partial(ours, arguments.images, arguments, forward.precision, folder)
        else:
            runs[name] = functools.partial(loop, files, forward, device)
    expected, _ = loop(files, reference, device)
    rates: dict[str, list[float]] = {name: [] for name in runs}
    cosine: dict[str, float] = {}
    for turn in range(arguments.turns + 1):  # the first turn warms up and compiles
        for name, run in runs.items():
            got, seconds = run()
            if turn:
                rates[name].append(len(files) / seconds)
            dots = (got * expected).sum(1)
            cosine[name] = float((dots / np.linalg.norm(got, axis=1) / np.linalg.norm(expected, axis=1)).min())
    ran = describe("torch", "torchvision", "onnxruntime", "openvino", "timm")
    print(f"{ran}, {torch.get_num_threads()} threads, {len(files)} images, median of {arguments.turns} turns")
    first = statistics.median(next(iter(rates.values())))
    print("| | images/s | ratio | worst cosine |\n| --- | ---: | ---: | ---: |")
    for name, values in rates.items():
        median = statistics.median(values)
        print(f"| {name} | {median:.1f} | {median / first:.2f} | {cosine[name]:.6f} |")
    decoding = decode_rates(files, device, arguments.turns)
    print(f"decoding alone, images/s: {', '.join(f'{name} {rate:.0f}' for name, rate in decoding.items())}")
    sizes = [int(part) for part in arguments.forward.split(",") if part]
    if sizes:
        print(f"| forward pass alone, images/s, batches of | {' | '.join(map(str, sizes))} |")
        print(f"| --- |{' ---: |' * len(sizes)}")
    for name, forward in forwards.items() if sizes else ():
        alone = one_thread() if device.type == "cpu" and name.startswith("ball") else contextlib.nullcontext()
        with alone:
            cells = [f"{forward_rate(forward, size, device, arguments.turns):.0f}" for size in sizes]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
