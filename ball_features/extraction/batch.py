"""One batch from files to embeddings: decoding, views, forward passes and the pixel statistics of the shortcuts."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ball_features.dataset.decode import plain_jpeg, read_file
from ball_features.dataset.manifest import Manifest
from ball_features.errors import CacheError, ImageError
from ball_features.extraction.decoding import decode_together
from ball_features.extraction.loading import load_image, resize
from ball_features.extraction.memory import within_memory
from ball_features.extraction.preprocessing import Preprocessing
from ball_features.extraction.readouts import Readout, reader

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ball_features.extraction.engine.modules import EmbeddingEngine

__all__ = ["EmbeddedBatch", "Pipeline"]


@dataclass(frozen=True, eq=False)
class EmbeddedBatch:
    """Results of a batch.

    Attributes:
        rows: rows of the images that could be decoded, int (images,).
        embeddings: embeddings in the dtype of the cache, (images, views, dim).
        shortcuts: pixel statistics by name, float32 (images, statistics).
        bad: reason why a row could not be decoded, by row.
    """

    rows: np.ndarray
    embeddings: np.ndarray
    shortcuts: dict[str, np.ndarray]
    bad: dict[int, str]


@dataclass(frozen=True, eq=False)
class Pipeline:
    """Embeds batches of rows, each row from the pixels of its own image alone.

    A row keeps its position in its batch whatever is missing around it, so that a resumed run computes exactly what an
    uninterrupted one does.

    Attributes:
        manifest: images.
        preprocessing: how an image becomes an embedding.
        engine: network.
        device: device of the network.
        batch: number of images in a forward pass.
        shortcuts: names of the pixel statistics to compute.
        decodes: whether the device decodes plain JPEG files.
        stop: event that is set when the rest of a batch is no longer wanted, as after an interrupt.
    """

    manifest: Manifest
    preprocessing: Preprocessing
    engine: EmbeddingEngine
    device: torch.device
    batch: int
    shortcuts: Sequence[str]
    decodes: bool = False
    stop: threading.Event = field(default_factory=threading.Event)

    def load(self, row: int) -> Tensor | bytes | str:
        """Load the image of a row.

        Returns:
            Pixels or a reason, as `load_image` gives them; the content of a file that the device decodes.
        """
        if self.decodes:
            try:
                data = read_file(self.manifest.root / self.manifest.path[row], self.manifest.sha256[row])
                if (content := plain_jpeg(data)) is not None:
                    return content
            except ImageError as error:
                return str(error)
        return load_image(self.manifest, row, self.preprocessing.backbone.input_px)

    def compute(self, rows: np.ndarray, loaded: Sequence[Tensor | bytes | str]) -> EmbeddedBatch:
        """Embed the images of one batch.

        Args:
            rows: rows that lie in the same batch, int (images,).
            loaded: result of `load` for each row.

        Raises:
            CacheError: An embedding is not finite in the dtype in which it is stored.
            CancelledError: `stop` is set.
        """
        import torch

        from ball_features.extraction.pixels import shortcut_numbers

        manifest, batch, input_px = self.manifest, self.batch, self.preprocessing.backbone.input_px
        planes = 6 if manifest.twin else 3
        pinned = self.device.type == "cuda" and not self.decodes
        images = torch.zeros(
            batch,
            planes,
            input_px,
            input_px,
            dtype=torch.uint8,
            device=self.device if self.decodes else "cpu",
            pin_memory=pinned,
        )
        digests = ["0"] * batch
        good: list[int] = []
        bad: dict[int, str] = {}
        for row, image in zip(rows.tolist(), self._decoded(loaded), strict=True):
            if isinstance(image, str):
                bad[row] = image
                continue
            images[row % batch] = image
            digests[row % batch] = manifest.sha256[row]
            good.append(row)
        if not good:
            empty = np.zeros((0, self.preprocessing.passes, 0), self.preprocessing.dtype)
            return EmbeddedBatch(np.array(good, dtype=np.int64), empty, {}, bad)
        decoded = images.to(self.device, non_blocking=True).float().div_(255)
        embeddings = self.preprocessing.embed(decoded, digests, self._read)  # (batch, views, dim)
        slots = [row % batch for row in good]
        embeddings = embeddings[slots]
        statistics = shortcut_numbers(decoded[:, :3], list(self.shortcuts))
        return EmbeddedBatch(
            rows=np.array(good, dtype=np.int64),
            embeddings=self._stored(embeddings.cpu().numpy(), good),
            shortcuts={name: value[slots].cpu().numpy() for name, value in statistics.items()},
            bad=bad,
        )

    def _decoded(self, loaded: Sequence[Tensor | bytes | str]) -> Iterator[Tensor | str]:
        """Pixels or reasons in order; the device decodes what came as content."""
        decoded = iter(decode_together([item for item in loaded if isinstance(item, bytes)], self.device))
        for item in loaded:
            image = next(decoded) if isinstance(item, bytes) else item
            yield image if isinstance(image, str) else resize(image, self.preprocessing.backbone.input_px)

    def _read(self, images: Tensor, readouts: Sequence[Readout], nuclei: Tensor | None) -> list[Tensor]:
        if self.stop.is_set():
            raise CancelledError
        return within_memory(reader(self.engine))(images, readouts, nuclei)

    def _stored(self, embeddings: np.ndarray, rows: list[int]) -> np.ndarray:
        """Embeddings in the dtype in which they are stored."""
        dtype = self.preprocessing.dtype
        with np.errstate(over="ignore"):
            stored: Any = embeddings.astype(dtype)
        finite = np.isfinite(stored).all((1, 2))
        if not finite.all():
            path = self.manifest.path[rows[int(np.argmin(finite))]]
            raise CacheError(
                f"The embedding of {path} is not finite in {dtype}. Check the weights, or use precision='fp32' with "
                "dtype='float32'."
            )
        return stored
