"""Forward passes within the memory that there is: the size of batches, and halves of one that does not fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ball_features.errors import CacheError, ConfigError
from ball_features.threads import is_out_of_memory, memory_bytes

if TYPE_CHECKING:
    from torch import Tensor

    from ball_features.extraction.preprocessing import Preprocessing
    from ball_features.extraction.readouts import Readout

__all__ = ["batch_size", "require_memory", "within_memory"]

Read = Callable[..., "list[Tensor]"]

# (device, precision) -> images in a forward pass.
_BATCH_SIZE = {("mps", "fp16"): 64, ("cuda", "bf16"): 256}
_OTHER_BATCH_SIZE = {"cpu": 8, "mps": 32, "cuda": 128}
# Bytes that an image of 224 px takes on CUDA, with the batches that are assembled meanwhile.
_CUDA_IMAGE_BYTES = {"fp32": 60e6, "bf16": 30e6, "fp16": 30e6}
_CPU_IMAGE_BYTES = 45e6  # of an image of 224 px in a DenseNet-201, in float32


def batch_size(device: str, precision: str, input_px: int = 224) -> int:
    """Default number of images in a forward pass.

    Args:
        device: type of the device: "cpu", "cuda" or "mps". On CUDA the number is limited by free memory.
        precision: number format of the forward pass.
        input_px: side of the network's input in pixels.
    """
    most = _BATCH_SIZE.get((device, precision), _OTHER_BATCH_SIZE[device])
    import torch

    if device != "cuda" or not torch.cuda.is_available():
        return most
    free, _ = torch.cuda.mem_get_info()
    images = free / (_CUDA_IMAGE_BYTES[precision] * (input_px / 224) ** 2)
    return min(most, 2 ** max(2, int(images).bit_length() - 1))


def require_memory(device: str, own: Preprocessing) -> None:
    """Check that one image can pass the network in the memory of this machine; a killed process says nothing.

    Args:
        device: type of the device; on others than "cpu" memory that is short is an error, and is told as one.
        own: how images are embedded.

    Raises:
        ConfigError: The memory does not suffice by far.
    """
    side_px = max(view.side_px(own.backbone.input_px) for view in own.plan.views)
    needed, there = _CPU_IMAGE_BYTES * (side_px / 224) ** 2, memory_bytes()
    if device == "cpu" and needed > there:
        raise ConfigError(
            f"Got images of {side_px} px, each of which takes the network about {needed / 1e9:.0f} GB of memory, and "
            f"there are {there / 1e9:.0f}. Give a smaller input_px, or use a machine with more memory."
        )


def within_memory(read: Read) -> Read:
    """A function as `read` that computes a batch in halves where memory is short.

    Args:
        read: function (images, readouts, nuclei) -> a tensor for each readout, a row for each image.

    Raises:
        CacheError: The memory does not suffice for one image.
    """

    def halving(images: Tensor, readouts: Sequence[Readout], nuclei: Tensor | None) -> list[Tensor]:
        try:
            return read(images, readouts, nuclei)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            if len(images) == 1:
                raise CacheError(
                    f"The memory does not suffice for one image ({str(error).splitlines()[0]}). Close other programs, "
                    "or give a smaller input_px or another device."
                ) from error
        _free(images)
        half = len(images) // 2
        masks: Any = (None, None) if nuclei is None else (nuclei[:half], nuclei[half:])
        parts = [
            halving(part, readouts, mask) for part, mask in zip((images[:half], images[half:]), masks, strict=True)
        ]
        import torch

        return [torch.cat(own) for own in zip(*parts, strict=True)]

    return halving


def _free(images: Tensor) -> None:
    """Return memory that a failed pass has left to the device."""
    if images.device.type == "cuda":
        import torch

        torch.cuda.empty_cache()
