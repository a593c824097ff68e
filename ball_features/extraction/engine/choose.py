"""Choice of the engine for a collection: by what the device can do, checked against float32 on a sample of images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ball_features.cache import Cache
from ball_features.dataset.decode import decode
from ball_features.dataset.manifest import Manifest, spread_rows
from ball_features.errors import CacheError
from ball_features.extraction.decoding import ON_DEVICE, decode_on, device_decoding_pays, forward_rate
from ball_features.extraction.engine.cpu import NO_COMPILER, kernel_is_missing
from ball_features.extraction.engine.cuda import gpu_kernels
from ball_features.extraction.engine.densenet import Engine
from ball_features.extraction.engine.deviation import Deviation, Reference, single_thread
from ball_features.extraction.engine.devices import best_precision
from ball_features.extraction.engine.modules import EmbeddingEngine, ModuleEngine, build_engine
from ball_features.extraction.engine.remembered import check_key, recall, remember
from ball_features.extraction.loading import load_image, resize
from ball_features.extraction.memory import batch_size
from ball_features.extraction.network_files import OnnxNetwork
from ball_features.extraction.preprocessing import Preprocessing

__all__ = ["COMPILE_FROM", "COSINE_BOUND", "Choice", "Chooser"]

# Smallest cosine to float32, on any image of the sample, with which precision="auto" accepts a faster format.
COSINE_BOUND = 0.9995
SAMPLE_IMAGES = 16
RESUMED_IMAGES = 4
# Compiling the element-wise passes for CUDA takes some seconds, which fewer images than this do not pay back.
COMPILE_FROM = 500


@dataclass(frozen=True, eq=False)
class Choice:
    """Engine that computes a collection.

    Attributes:
        engine: network, ready to embed.
        precision: key of `devices.PRECISIONS`.
        measured: deviation from float32 on the sample; None if no image of it could be decoded.
        attributes: attributes of the cache for what differs from the default, "pass" and "decoder".
    """

    engine: EmbeddingEngine
    precision: str
    measured: Deviation | None
    attributes: dict[str, str]


@dataclass(frozen=True, eq=False)
class Chooser:
    """Builds engines for one collection.

    Attributes:
        module: network.
        preprocessing: how an image becomes an embedding; its precision may be "auto".
        manifest: images.
        device: device that computes.
        batch: images in a forward pass; 0 for the default of the device.
        workers: number of threads that decode.
        log: called with one line for each decision.
    """

    module: nn.Module
    preprocessing: Preprocessing
    manifest: Manifest
    device: torch.device
    batch: int
    workers: int
    log: Callable[[str], None]

    def build(self, precision: str, *, plain: bool = False) -> EmbeddingEngine:
        """Build the engine in a precision; with `plain` torchvision's own forward pass."""
        if plain:
            return ModuleEngine(self.module, self.device, precision)
        with single_thread(self.device):
            return build_engine(self.preprocessing.backbone, self.module, self.device, precision, self._large)

    def choose(self) -> Choice:
        """Choose the engine in the precision asked for, or in the best one that holds on the sample."""
        sample = self._sample(SAMPLE_IMAGES)
        choice = self._choose_as_before(sample)
        if choice.measured is None:
            return choice
        if self.device.type == "cuda" and self._large and not self.manifest.twin:
            choice = self._choose_decoder(choice, sample)
        measured = choice.measured
        assert measured is not None
        self.log(
            f"Computing in {choice.precision} on {self.device.type}: cosine to float32 {measured.cosine:.6f} (1: the "
            f"same), largest relative error {measured.relative:.1e}, on {measured.images} of these images."
        )
        return choice

    def _choose_as_before(self, sample: dict[int, Tensor]) -> Choice:
        """Take what was chosen for the same sample on the same processor before; else choose, and remember it."""
        if self.device.type != "cpu" or not sample:
            return self._choose_pass(sample)
        key = check_key(self.preprocessing, self.batch, torch.stack(list(sample.values())))
        known = recall(key)
        if known is not None:
            precision, plain, measured = known
            engine = self.build(precision, plain=plain)
            self._log_what_is_slow(engine)
            return Choice(engine, precision, measured, {"pass": "torchvision"} if plain else {})
        choice = self._choose_pass(sample)
        if choice.measured is not None and choice.measured.cosine >= COSINE_BOUND:  # a remark is made each time
            remember(key, choice.precision, bool(choice.attributes.get("pass")), choice.measured)
        return choice

    def _choose_pass(self, sample: dict[int, Tensor]) -> Choice:
        """Take the first candidate that holds on the sample; the last one in any case."""
        candidates = self._candidates()
        precision, plain = next(candidates)
        engine = self.build(precision)
        self._log_what_is_slow(engine)
        if not sample:
            return Choice(engine, precision, None, {})
        reference = self._reference(sample)
        measured = reference.measure(engine)
        for next_precision, next_plain in candidates:
            if measured.cosine >= COSINE_BOUND or (next_plain and not isinstance(engine, Engine)):
                break
            if next_plain:
                said = f"The fast pass is wrong here (cosine {measured.cosine:.5f}); computing by torchvision's own."
            else:
                said = (
                    f"{precision} strays from float32 on these images (cosine {measured.cosine:.5f}, bound "
                    f"{COSINE_BOUND}); computing in float32."
                )
            self.log(said)
            precision, plain = next_precision, next_plain
            engine = self.build(precision, plain=plain)
            measured = reference.measure(engine)
        if precision != "fp32" and not measured.cosine >= COSINE_BOUND:
            self.log(
                f"{precision}, as asked for, strays from float32 on these images (cosine {measured.cosine:.5f}, bound "
                f'{COSINE_BOUND}); precision="auto" would compute in float32.'
            )
        return Choice(engine, precision, measured, {"pass": "torchvision"} if plain else {})

    def _candidates(self) -> Iterator[tuple[str, bool]]:
        """Precisions to try in order, each with whether torchvision's own pass computes it."""
        auto = self.preprocessing.precision == "auto"
        first = best_precision(self.device) if auto else self.preprocessing.precision
        if auto and isinstance(self.module, OnnxNetwork):
            first = "fp32"
        yield first, False
        if first != "fp32" and not auto:
            return
        if first != "fp32":
            yield "fp32", False
        yield "fp32", True

    def _log_what_is_slow(self, engine: EmbeddingEngine) -> None:
        if not isinstance(engine, Engine):
            return
        if self.device.type == "cpu" and kernel_is_missing():
            self.log(NO_COMPILER)
        if self.device.type == "cuda" and self._large and gpu_kernels(self.device) is None:
            self.log("Triton does not work here; the passes between products are torch's own, which is slower.")

    def _choose_decoder(self, choice: Choice, sample: dict[int, Tensor]) -> Choice:
        """Decode on the device where that is faster and close enough."""
        files = [self.manifest.root / self.manifest.path[row] for row in sample]
        measured = self.decoding_deviation(choice.engine, files, self._reference(sample).measure)
        if measured is None:
            return choice
        return Choice(choice.engine, choice.precision, measured, choice.attributes | {"decoder": ON_DEVICE})

    def decoding_deviation(
        self, engine: EmbeddingEngine, files: Sequence[Path], measure: Callable[..., Deviation]
    ) -> Deviation | None:
        """Compare embeddings of what the device decodes with float32.

        Args:
            engine: engine of the collection.
            files: a sample of the images.
            measure: `Reference.measure`: (engine, uint8 (images, 3, side, side)) -> deviation.

        Returns:
            The deviation; None where the cores decode.
        """
        input_px = self.preprocessing.backbone.input_px
        batch = self.batch or batch_size(self.device.type, engine.precision, input_px)
        images = torch.zeros(batch, 3, input_px, input_px, device=self.device)
        rate = forward_rate(lambda: engine(images), batch, self.device) / self.preprocessing.passes
        reason = device_decoding_pays(
            files, lambda file: resize(decode(file), input_px), rate, self.workers, self.device
        )
        if not reason:
            return None
        decoded = torch.stack([resize(decode_on(file, self.device), input_px).cpu() for file in files])
        measured = measure(engine, decoded)
        if not measured.cosine >= COSINE_BOUND:
            self.log(f"The GPU decodes these files too differently (cosine {measured.cosine:.5f}); the cores do it.")
            return None
        self.log(f"JPEG files are decoded on the GPU: {reason}.")
        return measured

    def resume(self, cache: Cache) -> EmbeddingEngine:
        """Build the engine that a cache was begun with.

        Args:
            cache: cache to go on with.

        Raises:
            CacheError: The engine strays from float32 much further here than it did then.
        """
        engine = self.build(cache.precision, plain=cache.forward_pass == "torchvision")
        sample = self._sample(RESUMED_IMAGES)
        if sample:
            measured = self._reference(sample).measure(engine)
            then = cache.deviation_cosine
            allowed = 1 - COSINE_BOUND + (3 * (1 - then) if np.isfinite(then) else 0)
            if not 1 - measured.cosine <= allowed:
                raise CacheError(
                    f"Computing in {cache.precision} on {self.device.type} strays from float32 further than when the "
                    f"cache was begun: cosine {measured.cosine:.5f}, then {then:.5f} on {cache.device}. Use "
                    f"device={cache.device!r}, or begin anew with overwrite=True."
                )
        return engine

    def _reference(self, sample: dict[int, Tensor]) -> Reference:
        pixels = torch.stack(list(sample.values()))
        return Reference(self.module, self.preprocessing, self.device, self.batch, pixels)

    def _sample(self, count: int) -> dict[int, Tensor]:
        """Row -> uint8 (3, side, side) of images spread over the collection, without those that cannot be decoded."""
        rows, input_px = spread_rows(len(self.manifest.path), count).tolist(), self.preprocessing.backbone.input_px
        loaded = {row: load_image(self.manifest, row, input_px) for row in rows}
        return {row: item[:3] for row, item in loaded.items() if isinstance(item, Tensor)}

    @property
    def _large(self) -> bool:
        return len(self.manifest.path) * len(self.preprocessing.plan) >= COMPILE_FROM
