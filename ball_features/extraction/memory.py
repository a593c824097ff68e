"""Forward passes within the memory that there is: a batch that does not fit is computed in halves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ball_features.errors import CacheError, ConfigError
from ball_features.threads import memory_bytes

if TYPE_CHECKING:
    from torch import Tensor

    from ball_features.extraction.preprocessing import Preprocessing
    from ball_features.extraction.readouts import Readout

__all__ = ["is_out_of_memory", "require_memory", "within_memory"]

Read = Callable[..., "list[Tensor]"]
_WORDS = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed", "bad_alloc")


_IMAGE_BYTES = 45e6  # of an image of 224 px in a DenseNet-201 on a CPU, in float32


def require_memory(device: str, own: Preprocessing) -> None:
    """Check that one image can pass the network in the memory of this machine; a killed process says nothing.

    Args:
        device: type of the device; on others than "cpu" memory that is short is an error, and is told as one.
        own: how images are embedded.

    Raises:
        ConfigError: The memory does not suffice by far.
    """
    side_px = max(view.side_px(own.input_px) for view in own.plan.views)
    needed, there = _IMAGE_BYTES * (side_px / 224) ** 2, memory_bytes()
    if device == "cpu" and needed > there:
        raise ConfigError(
            f"Got images of {side_px} px, each of which takes the network about {needed / 1e9:.0f} GB of memory, and "
            f"there are {there / 1e9:.0f}. Give a smaller input_px, or use a machine with more memory."
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is short, on a device or in this process."""
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in _WORDS)


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
