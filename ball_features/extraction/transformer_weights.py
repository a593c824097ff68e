"""Weights of vision transformers: the authors' names of tensors become timm's."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["to_timm"]

# Heads of self-distillation (Oquab et al. 2023, "DINOv2"), which only training needs.
_TRAINING_ONLY = re.compile(r"^(dino_head|ibot_head)\.|^mask_token$")


def to_timm(state: dict[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """Rename the tensors of a vision transformer as timm names them; other networks keep theirs.

    Args:
        state: tensors by name, as timm or as the authors of DINOv2 write them: `backbone.blocks.0.norm1.weight`, with
            heads and a mask token that only training needs. Position embeddings may be of another input size, for which
            they are interpolated.
        module: network of timm that takes the tensors.

    Returns:
        Tensors by timm's names, at the size of the module's input.
    """
    from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn

    if not isinstance(module, VisionTransformer):
        return state
    own = {name.removeprefix("backbone."): value for name, value in state.items()}
    own = {name: value for name, value in own.items() if not _TRAINING_ONLY.match(name)}
    convert: Any = checkpoint_filter_fn
    return convert(own, module)
