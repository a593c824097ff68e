"""Networks in files of the user's, TorchScript or ONNX, run as they are."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ball_features.errors import WeightsError, is_of_the_machine
from ball_features.extraction.onnx_graph import Graph

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["FileNetwork", "OnnxNetwork", "read_network"]


def read_network(path: Path) -> FileNetwork:
    """Read a network: ONNX if the name ends in .onnx, else TorchScript.

    Raises:
        WeightsError: The file holds no such network.
    """
    return OnnxNetwork(path) if path.suffix == ".onnx" else TorchScriptNetwork(path)


class FileNetwork(nn.Module):
    """Network in a file of the user's."""

    def probe(self, input_px: int) -> int:
        """Run the network on a blank image and return the length of its embedding.

        Raises:
            WeightsError: The network refuses an image of this size, or does not return one vector for it.
        """
        blank = torch.zeros(1, 3, input_px, input_px)
        try:
            with torch.inference_mode():
                out = self(blank)
        except WeightsError:  # of a graph, which says it all
            raise
        except Exception as error:  # runtimes raise their own kinds
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise WeightsError(
                f"The network does not take images of shape (1, 3, {input_px}, {input_px}): {first}. "
                "Set input_px to the size that it takes."
            ) from error
        if not isinstance(out, torch.Tensor) or out.ndim != 2:
            shape = tuple(out.shape) if isinstance(out, torch.Tensor) else type(out).__name__
            raise WeightsError(
                f"The network returns {shape} for one image, expected (1, dim), or (1, dim, height, width), which is "
                "averaged. Export it with its pooling and without its classifier."
            )
        return out.shape[1]


def _pooled(out: Any) -> Any:
    """Average a feature map over its pixels; return anything else unchanged."""
    return out.float().mean((2, 3)) if isinstance(out, torch.Tensor) and out.ndim == 4 else out


class TorchScriptNetwork(FileNetwork):
    """Network from a TorchScript file."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # loading is deprecated, but such files are in use
                self.module = torch.jit.load(path, map_location="cpu").eval()
        except Exception as error:
            if is_of_the_machine(error):
                raise
            raise WeightsError(
                f"{path} is not TorchScript ({type(error).__name__}). A state dict has no architecture: give it as the "
                "weights of the backbone that it belongs to."
            ) from error

    def forward(self, images: Tensor) -> Tensor:
        """Embed a batch."""
        return _pooled(self.module(images))


class OnnxNetwork(FileNetwork):
    """Network from an ONNX file, run by ONNX Runtime."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.graph = Graph(path)

    def forward(self, images: Tensor) -> Tensor:
        """Embed a batch."""
        out = self.graph(images.cpu().contiguous().numpy())
        return _pooled(torch.from_numpy(out)).to(images.device)
