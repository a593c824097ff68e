"""A bundle with its network, which predicts the classes of image files."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ball_features.bundles.bundle import Bundle
from ball_features.bundles.prediction import Prediction, describe
from ball_features.config import COVERAGE, BundleUse, Coverage
from ball_features.dataset.decode import decode_bytes, read_file
from ball_features.dataset.listing import Rejected
from ball_features.errors import ImageError, WeightsError
from ball_features.extraction.engine.cpu import compile_early
from ball_features.extraction.known_networks import is_program, knows_network, network_sha256

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["EmbeddedFiles", "Predictor"]


@dataclasses.dataclass(frozen=True, eq=False)
class EmbeddedFiles:
    """Image files, as far as they could be decoded.

    Attributes:
        paths: names of these files.
        X: their embeddings, float32 (images, views, dim).
        histogram: their colours, as `Bundle.unusual` takes them; None where the bundle knows no colours.
        rejected: the other files with reasons.
    """

    paths: list[str]
    X: np.ndarray
    histogram: np.ndarray | None
    rejected: list[Rejected]


def _require_network(path: Path, sha256: str, *, trusted: bool) -> None:
    """Require the file of a bundle's own network, before anything of it is read.

    Raises:
        WeightsError: It is not there, is another file, or is a program of somebody whom the user has not named.
    """
    if not path.is_file():
        raise WeightsError(f"The network of this bundle is not at {path}. Give its file as weights.")
    if network_sha256(path) != sha256:
        raise _other_weights(str(path), sha256)
    if is_program(path) and not trusted and not knows_network(sha256):
        raise WeightsError(
            f"The network of this bundle, {path}, is TorchScript: a program, which can read and write files when it is "
            "loaded. If you made it, or trust its maker with your account, read the bundle with trust=True."
        )


def _other_weights(path: str, sha256: str) -> WeightsError:
    return WeightsError(
        f"{path} are not the weights that this bundle was made with (SHA-256 {sha256[:12]}...). Give the file with "
        "that hash as weights."
    )


class Predictor:
    """A bundle with its network, loaded once.

    Args:
        bundle: bundle from `read_bundle`.
        weights: weights of the backbone; None for those that the bundle was made with.
        device: "auto", "cpu", "cuda" or "mps".
        precision: "auto" for that of the bundle if the device supports it, "fp32", "bf16" or "fp16".
        compiled: compile kernels for CUDA, which takes seconds and pays for hundreds of images.

    Raises:
        WeightsError: The weights are missing, or not those of the bundle.
        ConfigError: The device is not available, or the precision unknown.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        weights: str | None = None,
        device: str = "auto",
        precision: str = "auto",
        compiled: bool = False,
    ) -> None:
        from ball_features.extraction.backbones import get_backbone

        BundleUse(weights=weights, device=device, precision=precision)  # checked before a network is loaded
        own = bundle.facts.preprocessing
        wanted, name = weights or own.weights, own.backbone.name
        if name.startswith("file:"):
            _require_network(Path(wanted), own.weights_sha256, trusted=bundle.trusted or weights is not None)
            name = f"file:{wanted}"
        self.backbone = get_backbone(name, own.backbone.input_px)
        if self.backbone.engine == "densenet" and device in ("auto", "cpu"):
            compile_early()
        from ball_features.extraction.engine.confirm import confirm
        from ball_features.extraction.engine.devices import best_precision, resolve_device
        from ball_features.extraction.engine.modules import ModuleEngine
        from ball_features.extraction.memory import require_memory
        from ball_features.extraction.weights import load_backbone, weights_digest

        if weights_digest(self.backbone, wanted, own.seed) != own.weights_sha256:
            raise _other_weights(wanted, own.weights_sha256)
        self.bundle, self.device = bundle, resolve_device(device)
        require_memory(self.device.type, own)
        self.preprocessing = dataclasses.replace(own, backbone=self.backbone)
        self.preprocessing.mask(self.device)  # unpacked once
        if precision == "auto":
            # If the device would emulate the bundle's precision, float32 is faster and more exact.
            precision = own.precision if own.precision == best_precision(self.device) else "fp32"
        self.module = load_backbone(self.backbone, wanted, own.seed)
        self._remark = ""
        if bundle.facts.forward_pass == "torchvision":  # the fast pass was wrong when the cache was made
            self.engine = ModuleEngine(self.module, self.device, precision)
        else:
            wanted_here = dataclasses.replace(self.preprocessing, precision=precision)
            found = confirm(self.module, wanted_here, self.device, compiled=compiled)
            self.engine, self._remark = found.engine, found.remark

    @property
    def caveat(self) -> str:
        """How these embeddings differ from those that the model was fitted on, or ""."""
        own = self.preprocessing
        if own.segmentation != "twins" or "segmented" not in own.channels:
            return self._remark
        own = (
            "The model was fitted on segmented pictures from files; those of new images are computed by the published "
            "thresholds, which differ from them. Extract with twins='none' to fit on computed ones."
        )
        return f"{own} {self._remark}".strip()

    def about(self, coverage: float) -> dict[str, Any]:
        """What made the predictions, and what their sets and flags mean, ready for JSON."""
        bundle, facts = self.bundle, self.bundle.facts
        return {
            "model": facts.model,
            "backbone": self.backbone.name,
            "weights_sha256": self.preprocessing.weights_sha256,
            "cache_fingerprint": facts.cache_fingerprint,
            "ball_version": facts.ball_version,
            "coverage": coverage,
            "set_threshold": bundle.threshold(coverage),
            "unusual_from": bundle.unusual_from,
            "unusual_share": bundle.unusual_share,
        }

    def warm_up(self) -> None:
        """Compile kernels and allocate memory before the first image."""
        import torch

        side = self.backbone.input_px
        self.embed(torch.zeros(1, 3, side, side, dtype=torch.uint8), [""])

    def embed(self, images: Tensor, sha256: Sequence[str]) -> np.ndarray:
        """Embed the views that the bundle tests on.

        Args:
            images: pixels, uint8 (images, 3, input_px, input_px).
            sha256: content hash of each image, which seeds random views.

        Returns:
            Embeddings, float32 (images, views, dim).
        """
        from ball_features.extraction.memory import within_memory
        from ball_features.extraction.readouts import reader

        pixels = images.to(self.device).float().div_(255)
        return self.preprocessing.embed(pixels, sha256, within_memory(reader(self.engine))).cpu().numpy()

    def __call__(
        self,
        files: Sequence[Path],
        *,
        coverage: float = COVERAGE,
        progress: Callable[[int, int], None] | None = None,
    ) -> tuple[list[Prediction], list[Rejected]]:
        """Predict the classes of images.

        Args:
            files: image files.
            coverage: coverage of the prediction sets.
            progress: function that takes (images done, images in all).

        Returns:
            Predictions of the images that could be decoded, in order, and the other files with reasons.

        Raises:
            ConfigError: The coverage is not between 0 and 1.
        """
        Coverage(coverage)
        predictions: list[Prediction] = []
        rejected: list[Rejected] = []
        done = 0
        for part in self.embed_files(files):
            rejected += part.rejected
            predictions += self.describe(part.paths, part.X, coverage, part.histogram) if part.paths else []
            done += len(part.paths) + len(part.rejected)
            if progress:
                progress(done, len(files))
        return predictions, rejected

    def embed_all(self, files: Sequence[Path], progress: Callable[[int, int], None] | None = None) -> EmbeddedFiles:
        """Decode and embed image files.

        Args:
            files: image files.
            progress: function that takes (images done, images in all).
        """
        names: list[str] = []
        rejected: list[Rejected] = []
        parts = []
        for part in self.embed_files(files):
            names += part.paths
            rejected += part.rejected
            parts += [part] if part.paths else []
            if progress:
                progress(len(names) + len(rejected), len(files))
        if not parts:
            return EmbeddedFiles([], self._nothing, None, rejected)
        colours = [part.histogram for part in parts if part.histogram is not None]
        X = np.concatenate([part.X for part in parts])
        return EmbeddedFiles(names, X, np.concatenate(colours) if colours else None, rejected)

    @property
    def _nothing(self) -> np.ndarray:
        return np.empty((0, len(self.preprocessing.plan), self.backbone.dim), dtype=np.float32)

    def histogram(self, images: Tensor) -> np.ndarray | None:
        """Colours of images, as `Bundle.unusual` takes them; None where the bundle knows no colours.

        Args:
            images: pixels, uint8 (images, 3, input_px, input_px).
        """
        from ball_features.extraction.pixels import shortcut_numbers

        if self.bundle.novelty is None or self.bundle.novelty.measures.colours is None:
            return None
        return shortcut_numbers(images.float().div(255), ("histogram",))["histogram"].numpy()

    def embed_files(self, files: Sequence[Path]) -> Iterator[EmbeddedFiles]:
        """Decode and embed image files, block by block.

        Args:
            files: image files.

        Yields:
            The files of a block.
        """
        from ball_features.extraction.engine.modules import runs_on_all_cores
        from ball_features.extraction.memory import batch_size
        from ball_features.extraction.stream import Workers, stream

        size = batch_size(self.device.type, self.engine.precision, self.backbone.input_px)
        workers = Workers.for_device(self.device.type, one_call=runs_on_all_cores(self.engine))

        def load(row: int) -> tuple[Tensor, str] | str:
            return self._load(files[row])

        def compute(rows: np.ndarray, loaded: list[tuple[Tensor, str] | str]) -> EmbeddedFiles:
            import torch

            named = [(str(files[row]), item) for row, item in zip(rows, loaded, strict=True)]
            bad = [Rejected(name, item) for name, item in named if isinstance(item, str)]
            good = [(name, *item) for name, item in named if not isinstance(item, str)]
            if not good:
                return EmbeddedFiles([], self._nothing, None, bad)
            paths, images, digests = zip(*good, strict=True)
            pixels = torch.stack(images)
            return EmbeddedFiles(list(paths), self.embed(pixels, digests), self.histogram(pixels), bad)

        yield from stream(np.arange(len(files)), size, load, compute, workers=workers)

    def _load(self, file: Path) -> tuple[Tensor, str] | str:
        """Pixels, uint8 (3, input_px, input_px), and content hash of a file, or the reason why there are none."""
        from ball_features.extraction.loading import resize

        try:
            data = read_file(file)
            return resize(decode_bytes(data), self.backbone.input_px), hashlib.sha256(data).hexdigest()
        except ImageError as error:
            return str(error)

    def describe(
        self, paths: Sequence[str], X: np.ndarray, coverage: float, histogram: np.ndarray | None = None
    ) -> list[Prediction]:
        """Predict from embeddings; arguments as `bundles.prediction.describe`."""
        return describe(self.bundle, paths, X, coverage, histogram)
