"""Which pass computes a collection: chosen by what the device can, held against float32 on a sample of its images."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ball_features.cache import Cache
from ball_features.dataset.decode import decode
from ball_features.dataset.manifest import Manifest, spread_rows
from ball_features.errors import CacheError
from ball_features.extraction.backbones import Backbone
from ball_features.extraction.batch import batch_size
from ball_features.extraction.cells import find_nuclei
from ball_features.extraction.decoding import ON_DEVICE, decode_on, device_decoding_pays, forward_rate
from ball_features.extraction.engine.cpu import NO_COMPILER, kernel_is_missing
from ball_features.extraction.engine.densenet import Deviation, Engine, best_precision, deviation
from ball_features.extraction.engine.modules import EmbeddingEngine, ModuleEngine, OnnxNetwork, build_engine
from ball_features.extraction.engine.passes import gpu_kernels
from ball_features.extraction.loading import load_image, resize
from ball_features.extraction.normalization import normalize
from ball_features.extraction.preprocessing import Preprocessing, pad
from ball_features.extraction.readouts import reader
from ball_features.threads import one_thread

__all__ = ["COMPILE_FROM", "COSINE_BOUND", "Choice", "Chooser"]

# Below this cosine to float32, on any image of the sample, `--precision auto` falls back to float32.
COSINE_BOUND = 0.9995
SAMPLE_IMAGES = 16
RESUMED_IMAGES = 4
# Compiling the element-wise passes for CUDA takes some seconds, which fewer images than this do not pay back.
COMPILE_FROM = 500


@dataclass(frozen=True, eq=False)
class Choice:
    """What computes a collection.

    Attributes:
        engine: The network.
        precision: Key of `engine.PRECISIONS`.
        measured: How far from float32 on the sample; None where none of it could be decoded.
        attributes: Of the cache: what is not as usual, "pass" and "decoder".
    """

    engine: EmbeddingEngine
    precision: str
    measured: Deviation | None
    attributes: dict[str, str]


@dataclass(frozen=True, eq=False)
class Chooser:
    """Builds engines for one collection.

    Attributes:
        module: The network.
        backbone: Which it is.
        preprocessing: how an image becomes an embedding; its precision may be "auto".
        manifest: The images.
        device: Where to compute.
        batch: images in a forward pass; 0 for the default of the device.
        workers: Threads that decode.
        log: Called with one line for each decision.
    """

    module: nn.Module
    backbone: Backbone
    preprocessing: Preprocessing
    manifest: Manifest
    device: torch.device
    batch: int
    workers: int
    log: Callable[[str], None]

    def build(self, precision: str, *, plain: bool = False) -> EmbeddingEngine:
        """The engine in a precision; `plain` for torchvision's own pass."""
        if plain:
            return ModuleEngine(self.module, self.device, precision)
        with self._alone():
            return build_engine(self.backbone, self.module, self.device, precision, self._large)

    def choose(self) -> Choice:
        """The engine in the precision asked for, or in the best one that holds on the sample."""
        auto = self.preprocessing.precision == "auto"
        precision = best_precision(self.device) if auto else self.preprocessing.precision
        if auto and isinstance(self.module, OnnxNetwork):
            precision = "fp32"
        engine = self.build(precision)
        if self.device.type == "cpu" and isinstance(engine, Engine) and kernel_is_missing():
            self.log(NO_COMPILER)
        if self.device.type == "cuda" and self._large and isinstance(engine, Engine):
            if gpu_kernels(self.device) is None:
                self.log("Triton does not work here; the passes between products are torch's own, which is slower.")
        sample = self._sample(SAMPLE_IMAGES)
        if not sample:
            return Choice(engine, precision, None, {})
        held = functools.partial(self._deviation, pixels=torch.stack(list(sample.values())))
        measured, attributes = held(engine), {}
        if auto and precision != "fp32" and not measured.cosine >= COSINE_BOUND:
            self.log(
                f"{precision} strays from float32 on these images (cosine {measured.cosine:.5f}, "
                f"bound {COSINE_BOUND}); computing in float32."
            )
            precision = "fp32"
            engine = self.build(precision)
            measured = held(engine)
        if not auto and precision != "fp32" and not measured.cosine >= COSINE_BOUND:
            self.log(
                f"{precision}, as asked for, strays from float32 on these images (cosine {measured.cosine:.5f}, bound "
                f"{COSINE_BOUND}); --precision auto would compute in float32."
            )
        if precision == "fp32" and isinstance(engine, Engine) and not measured.cosine >= COSINE_BOUND:
            self.log(f"The fast pass is wrong here (cosine {measured.cosine:.5f}); computing by torchvision's own.")
            engine, attributes = self.build(precision, plain=True), {"pass": "torchvision"}
            measured = held(engine)
        if self.device.type == "cuda" and self._large and not self.manifest.twin:
            files = [self.manifest.root / self.manifest.path[row] for row in sample]
            on_device = self.decoding_deviation(engine, files, held)
            if on_device is not None:
                measured, attributes = on_device, attributes | {"decoder": ON_DEVICE}
        self.log(
            f"Computing in {precision} on {self.device.type}: cosine to float32 {measured.cosine:.6f} (1: the same), "
            f"largest relative error {measured.relative:.1e}, on {measured.images} of these images."
        )
        return Choice(engine, precision, measured, attributes)

    def decoding_deviation(
        self, engine: EmbeddingEngine, files: Sequence[Path], held: Callable[..., Deviation]
    ) -> Deviation | None:
        """How far embeddings of what the device decodes are from float32, where it shall decode.

        Args:
            engine: The engine.
            files: A sample of the images.
            held: (engine, taken=what the device decoded, uint8 (images, 3, side, side)) -> deviation.

        Returns:
            The deviation; None where the cores decode.
        """
        side_px = self.backbone.input_px
        batch = self.batch or batch_size(self.device.type, engine.precision, side_px)
        images = torch.zeros(batch, 3, side_px, side_px, device=self.device)
        rate = forward_rate(lambda: engine(images), batch, self.device) / self.preprocessing.passes
        why = device_decoding_pays(files, lambda file: resize(decode(file), side_px), rate, self.workers, self.device)
        if not why:
            return None
        taken = torch.stack([resize(decode_on(file, self.device), side_px).cpu() for file in files])
        measured = held(engine, taken=taken)
        if not measured.cosine >= COSINE_BOUND:
            self.log(f"The GPU decodes these files too differently (cosine {measured.cosine:.5f}); the cores do it.")
            return None
        self.log(f"JPEG files are decoded on the GPU: {why}.")
        return measured

    def resume(self, cache: Cache) -> EmbeddingEngine:
        """The engine that a cache was begun with.

        Args:
            cache: the cache.

        Raises:
            CacheError: On this machine it strays from float32 much further than when the cache was begun.
        """
        engine = self.build(cache.precision, plain=cache.forward_pass == "torchvision")
        sample = self._sample(RESUMED_IMAGES)
        if not sample:
            return engine
        measured = self._deviation(engine, torch.stack(list(sample.values())))
        then = cache.deviation_cosine
        allowed = 1 - COSINE_BOUND + (3 * (1 - then) if np.isfinite(then) else 0)
        if not 1 - measured.cosine <= allowed:
            raise CacheError(
                f"Computing in {cache.precision} on {self.device.type} strays from float32 further than when the cache "
                f"was begun: cosine {measured.cosine:.5f}, then {then:.5f} on {cache.device}. Compute on "
                f"{cache.device}, or replace the cache with overwrite=True."
            )
        return engine

    def _sample(self, count: int) -> dict[int, Tensor]:
        """Row -> uint8 (3, side, side), of images spread over the collection that can be decoded."""
        rows = spread_rows(len(self.manifest.path), count).tolist()
        loaded = {row: load_image(self.manifest, row, self.backbone.input_px) for row in rows}
        return {row: item[:3] for row, item in loaded.items() if isinstance(item, Tensor)}

    @property
    def _large(self) -> bool:
        return len(self.manifest.path) * len(self.preprocessing.plan) >= COMPILE_FROM

    def _alone(self) -> Any:
        """As the engine will run: on a core of its own."""
        return one_thread() if self.device.type == "cpu" else contextlib.nullcontext()

    def _deviation(self, engine: EmbeddingEngine, pixels: Tensor, taken: Tensor | None = None) -> Deviation:
        """How far the engine is from the module in float32, over all readouts in use.

        Args:
            engine: The engine.
            pixels: uint8 (images, 3, side, side).
            taken: The same images as the engine will get them, where another decoder reads them.
        """
        readouts = self.preprocessing.plan.readouts

        def read(network: Any, images: Tensor, nuclei: Tensor | None) -> Tensor:
            """A row an image and readout, filled up to one width; in batches as the run's, which warms them up."""
            size = self.batch or batch_size(self.device.type, engine.precision, self.backbone.input_px)
            parts = [None] * len(images.split(size)) if nuclei is None else nuclei.split(size)
            return torch.cat(
                [
                    pad(vector, self.backbone.dim)
                    for some, own in zip(images.split(size), parts, strict=True)
                    for vector in reader(network)(some, readouts, own)
                ]
            )

        def prepared(images: Tensor) -> tuple[Tensor, Tensor | None]:
            scaled = images.to(self.device).float() / 255
            nuclei = find_nuclei(scaled) if any(readout.nuclei for readout in readouts) else None
            return normalize(scaled, self.preprocessing.normalization), nuclei

        images, nuclei = prepared(pixels)
        own, own_nuclei = (images, nuclei) if taken is None else prepared(taken)
        module = self.module.to(self.device)

        def embed(_: Tensor) -> Tensor:
            with self._alone():
                return read(engine, own, own_nuclei)

        def reference(images: Tensor) -> Tensor:
            # Convolutions on CUDA round their input to TF32 unless told not to.
            with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
                return read(module, images, nuclei)

        return deviation(embed, reference, images)
