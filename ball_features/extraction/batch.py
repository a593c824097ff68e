"""One batch from files to embeddings: decoding, views, the network, the pixel numbers of the shortcuts."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ball_features.config import ExtractConfig
from ball_features.dataset.decode import decode, read_plain_jpeg
from ball_features.dataset.manifest import Manifest
from ball_features.errors import CacheError, ImageError
from ball_features.extraction.cells import Pictures
from ball_features.extraction.decoding import decode_together
from ball_features.extraction.readouts import READOUTS, Read, reader
from ball_features.extraction.segmentation import segmented
from ball_features.extraction.views import make_guided_view, normalize, picture_of, readout_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ball_features.extraction.engine.modules import EmbeddingEngine

__all__ = [
    "Computed",
    "Pipeline",
    "batch_size",
    "embed_views",
    "fill",
    "load_image",
    "pack_mask",
    "resize",
    "unpack_mask",
]

# (device, precision) -> images a forward pass.
BATCH_SIZE = {("mps", "fp16"): 64, ("cuda", "bf16"): 256}
_OTHER_BATCH_SIZE = {"cpu": 8, "mps": 32, "cuda": 128}


# Bytes of an image of 224 pixels on CUDA, with those of the batches that are put together meanwhile.
_IMAGE_BYTES = {"fp32": 60e6, "bf16": 30e6, "fp16": 30e6}


def batch_size(device: str, precision: str, side_px: int = 224) -> int:
    """Images of `side_px` a forward pass, where the user names none; on CUDA no more than there is memory for."""
    most = BATCH_SIZE.get((device, precision), _OTHER_BATCH_SIZE[device])
    import torch

    if device != "cuda" or not torch.cuda.is_available():
        return most
    free, _ = torch.cuda.mem_get_info()
    images = free / (_IMAGE_BYTES[precision] * (side_px / 224) ** 2)
    return min(most, 2 ** max(2, int(images).bit_length() - 1))


def pack_mask(mask: np.ndarray) -> str:
    """A square bool mask as text, for an attribute."""
    return f"{len(mask)}:{base64.b64encode(np.packbits(mask).tobytes()).decode()}"


def unpack_mask(text: str) -> np.ndarray | None:
    """The mask again, bool (side, side), or None where it covers nothing."""
    side, _, packed = text.partition(":")
    bits = np.unpackbits(np.frombuffer(base64.b64decode(packed), dtype=np.uint8), count=int(side) ** 2)
    return bits.astype(bool).reshape(int(side), int(side)) if bits.any() else None


def resize(image: Tensor, side_px: int) -> Tensor:
    """Resize uint8 (3, height, width) to uint8 (3, side_px, side_px), bilinear with antialiasing."""
    if tuple(image.shape[1:]) == (side_px, side_px):
        return image
    import torch
    import torch.nn.functional as F

    resized = F.interpolate(image[None].float(), (side_px, side_px), mode="bilinear", antialias=True)[0]
    return resized.round_().clamp_(0, 255).to(torch.uint8)


def load_image(manifest: Manifest, row: int, side_px: int) -> Tensor | str:
    """The image of a row, uint8 (3, side_px, side_px), or the reason why there is none; a twin lies behind it."""
    import torch

    try:
        image = resize(decode(manifest.root / manifest.path[row]), side_px)
    except ImageError as error:
        return str(error)
    if not manifest.twin:
        return image
    try:
        return torch.cat([image, resize(decode(manifest.twin[row]), side_px)])
    except ImageError as error:
        return f"its segmented twin {error}"


def fill(vectors: Tensor, dim: int) -> Tensor:
    """Embeddings (batch, width) filled up with zeros to (batch, dim); as they are where they are not shorter."""
    import torch.nn.functional as F

    short = dim - vectors.shape[1]
    return F.pad(vectors, (0, short)) if short > 0 else vectors


def embed_views(
    channels: Sequence[Tensor],
    sha256: Sequence[str],
    indices: Sequence[int],
    read: Read,
    *,
    recipe: str,
    seed: int,
    mask: Tensor | None,
    normalization: str,
    dim: int,
) -> list[list[Tensor]]:
    """Views of a batch, embedded; views of one picture in one forward pass.

    Args:
        channels: Pictures of each image, float32 (batch, 3, side, side) in [0, 1]; nuclei are those of each channel.
        sha256: Content hash of each image, which seeds views that vary.
        indices: Numbers of the views.
        read: See `reader`.
        recipe: Of the views after the first.
        seed: Of the recipe.
        mask: bool (side, side), where the collection has overlays, or None.
        normalization: See `extraction.views.mean_std`.
        dim: Of the cache: shorter embeddings are filled up with zeros; 0 where none is.

    Returns:
        float32 (batch, dim) for each view, for each channel.
    """
    passes: dict[object, list[int]] = {}
    for index in indices:
        passes.setdefault(picture_of(recipe, index), []).append(index)
    rows: dict[int, list[Tensor]] = {index: [] for index in indices}
    for channel in channels:
        pictures = Pictures(channel, mask)
        for together in passes.values():
            readouts = [readout_of(recipe, index) for index in together]
            guided = any(READOUTS[name].nuclei for name in readouts)
            view, nuclei = make_guided_view(pictures, sha256, together[0], recipe, seed, guided=guided)
            for index, vector in zip(together, read(normalize(view, normalization), readouts, nuclei), strict=True):
                rows[index].append(fill(vector, dim))
    return [rows[index] for index in indices]


@dataclass(frozen=True, eq=False)
class Computed:
    """What became of a batch.

    Attributes:
        rows: int (good,), those that could be decoded.
        embeddings: float16 or float32 (good, views, dim).
        shortcuts: Name -> float32 (good, numbers).
        bad: Row -> why it could not be decoded.
    """

    rows: np.ndarray
    embeddings: np.ndarray
    shortcuts: dict[str, np.ndarray]
    bad: dict[int, str]


@dataclass(frozen=True, eq=False)
class Pipeline:
    """Computes batches of rows, each from nothing but the pixels of its own images.

    A row keeps its place in its batch whatever is missing around it, so that a resumed run computes exactly what an
    uninterrupted one does.

    Attributes:
        manifest: The images.
        config: Views, recipe, normalisation, dtype.
        engine: The network.
        device: Where it computes.
        dim: Length of an embedding.
        side_px: Of its input.
        batch: Images a forward pass.
        shortcuts: Names of the pixel numbers to take.
        mask: bool (side_px, side_px) on the device, where the collection has overlays, or None.
        decodes: The device decodes plain JPEG files.
        stop: Set where the rest of a batch is not wanted any more: after an interrupt.
    """

    manifest: Manifest
    config: ExtractConfig
    engine: EmbeddingEngine
    device: torch.device
    dim: int
    side_px: int
    batch: int
    shortcuts: Sequence[str]
    mask: Tensor | None
    decodes: bool = False
    stop: threading.Event = field(default_factory=threading.Event)

    def load(self, row: int) -> Tensor | bytes | str:
        """See `load_image`; a file that the device decodes comes as it is."""
        if self.decodes:
            try:
                if (content := read_plain_jpeg(self.manifest.root / self.manifest.path[row])) is not None:
                    return content
            except ImageError as error:
                return str(error)
        return load_image(self.manifest, row, self.side_px)

    def compute(self, slots: np.ndarray, loaded: Sequence[Tensor | bytes | str]) -> Computed:
        """Embed the images of rows that lie in one batch.

        Args:
            slots: int (images,), their rows.
            loaded: What `load` gave of each.

        Raises:
            CacheError: An embedding is not finite in the dtype it is stored in.
        """
        import torch

        from ball_features.extraction.pixels import shortcut_numbers

        manifest, config, batch = self.manifest, self.config, self.batch
        planes = 6 if manifest.twin else 3
        where: dict[str, Any] = {"pin_memory": self.device.type == "cuda"}
        if self.decodes:
            where = {"device": self.device}
        images = torch.zeros(batch, planes, self.side_px, self.side_px, dtype=torch.uint8, **where)
        digests = ["0"] * batch
        good: list[int] = []
        bad: dict[int, str] = {}
        for row, image in zip(slots.tolist(), self._decoded(loaded), strict=True):
            if isinstance(image, str):
                bad[row] = image
                continue
            images[row % batch] = image
            digests[row % batch] = manifest.sha256[row]
            good.append(row)
        rows = np.array(good, dtype=np.int64)
        if not good:
            return Computed(rows, np.zeros((0, config.view_count, 0), config.dtype), {}, bad)
        decoded = images.to(self.device, non_blocking=True).float().div_(255)
        pixels = decoded[:, :3]
        channels = [pixels]
        if len(config.channels) > 1:
            channels.append(decoded[:, 3:] if manifest.twin else segmented(pixels, pixels))
        views = embed_views(
            channels,
            digests,
            range(config.view_count),
            self._read,
            recipe=config.recipe,
            seed=config.seed,
            mask=self.mask,
            normalization=config.normalize,
            dim=self.dim,
        )
        flat = [vector for channel in views for vector in channel]
        places = [row % batch for row in good]
        stacked = torch.stack(flat, 1)[places]  # (good, views, dim)
        statistics = shortcut_numbers(pixels, list(self.shortcuts))
        numbers = {name: value[places].cpu().numpy() for name, value in statistics.items()}
        return Computed(rows, self._checked(stacked.cpu().numpy(), good), numbers, bad)

    def _decoded(self, loaded: Sequence[Tensor | bytes | str]) -> Iterator[Tensor | str]:
        """What was loaded, in order, with files decoded on the device in between."""
        decoded = iter(decode_together([item for item in loaded if isinstance(item, bytes)], self.device))
        for item in loaded:
            image = next(decoded) if isinstance(item, bytes) else item
            yield image if isinstance(image, str) else resize(image, self.side_px)

    def _read(self, images: Tensor, readouts: Sequence[str], nuclei: Tensor | None) -> list[Tensor]:
        if self.stop.is_set():
            raise CancelledError
        return reader(self.engine)(images, readouts, nuclei)

    def _checked(self, embeddings: np.ndarray, rows: list[int]) -> np.ndarray:
        with np.errstate(over="ignore"):
            stored: Any = embeddings.astype(self.config.dtype)
        finite = np.isfinite(stored).all((1, 2))
        if not finite.all():
            path = self.manifest.path[rows[int(np.argmin(finite))]]
            raise CacheError(
                f"The embedding of {path} is not finite in {self.config.dtype}. "
                "Check the weights, or use --precision fp32 --dtype float32."
            )
        return stored
