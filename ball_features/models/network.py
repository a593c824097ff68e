"""The head's network: its layers, its names of parameters, and its forward pass once it is fitted.

BatchNorm(D) - [Linear - BatchNorm - LeakyReLU - Dropout] - [Linear - BatchNorm - ReLU] ... - Linear(C)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["BN_EPS", "BN_MOMENTUM", "absorb_norms", "build_module", "forward", "layer_names", "negative_slope"]

BN_EPS = 1e-5
BN_MOMENTUM = 0.1
LEAKY_SLOPE = 0.01  # torch's default, which the student report keeps

Layer = tuple[Tensor, Tensor, float | None]


def build_module(width: int, hidden: Sequence[int], classes: int, dropout: float) -> nn.Sequential:
    """Return the network as a plain torch module, from (N, width) to (N, classes) logits."""
    modules: list[nn.Module] = [nn.BatchNorm1d(width)]
    for index, units in enumerate(hidden):
        modules += [nn.Linear(width, units), nn.BatchNorm1d(units)]
        modules += [nn.LeakyReLU(LEAKY_SLOPE), nn.Dropout(dropout)] if index == 0 else [nn.ReLU()]
        width = units
    return nn.Sequential(*modules, nn.Linear(width, classes))


def layer_names(depth: int) -> list[tuple[str, str | None]]:
    """Return (name of the Linear, name of the batch norm after it) of each Linear in `build_module`'s Sequential.

    Args:
        depth: number of hidden layers.
    """
    hidden: list[tuple[str, str | None]] = [("1", "2")]
    hidden += [(str(5 + 3 * layer), str(6 + 3 * layer)) for layer in range(depth - 1)]
    return [*hidden, (str(2 + 3 * depth), None)]


def negative_slope(layer: int) -> float:
    """Return the slope below 0 of a hidden layer's activation: LeakyReLU in the first, ReLU in the others."""
    return LEAKY_SLOPE if layer == 0 else 0.0


def absorb_norms(state: Mapping[str, np.ndarray], depth: int, dtype: torch.dtype) -> list[Layer]:
    """Return the network in eval mode with every batch norm folded into its Linear.

    Args:
        state: parameters and running statistics, as `Training.state` returns them.
        depth: number of hidden layers.
        dtype: dtype of the result; it is computed in float64.

    Returns:
        (weight (out, in), bias (out,), slope below 0 or None) of each Linear.
    """
    value = {name: np.asarray(array, dtype=np.float64) for name, array in state.items()}

    def affine(norm: str) -> tuple[np.ndarray, np.ndarray]:  # a batch norm in eval mode is gain * x + shift
        gain = value[f"{norm}.weight"] / np.sqrt(value[f"{norm}.running_var"] + BN_EPS)
        return gain, value[f"{norm}.bias"] - gain * value[f"{norm}.running_mean"]

    layers: list[Layer] = []
    for layer, (linear, norm) in enumerate(layer_names(depth)):
        weight, bias = value[f"{linear}.weight"], value[f"{linear}.bias"]
        if layer == 0:
            gain, shift = affine("0")
            weight, bias = weight * gain, bias + weight @ shift
        slope = None
        if norm is not None:
            gain, shift = affine(norm)
            weight, bias, slope = weight * gain[:, None], bias * gain + shift, negative_slope(layer)
        layers.append((torch.from_numpy(weight).to(dtype), torch.from_numpy(bias).to(dtype), slope))
    return layers


def forward(layers: Sequence[Layer], x: Float[Tensor, "rows dim"]) -> Float[Tensor, "rows classes"]:
    """Return logits (N, C) of rows x (N, D), in the dtype of the layers."""
    x = x.to(layers[0][0].dtype)
    for weight, bias, slope in layers:
        x = F.linear(x, weight, bias)
        if slope is not None:
            x = F.leaky_relu(x, slope)
    return x
