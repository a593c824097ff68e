"""Tensors of the head's layers, looked up once, and Adam in one call: what a step of the training works on."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Adam", "Hidden", "Linear", "Norm"]

Named = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Linear:
    """A Linear: parameters (out, in) and (out,), and their gradients."""

    weight: Tensor
    transposed: Tensor
    bias: Tensor
    weight_grad: Tensor
    bias_grad: Tensor

    @classmethod
    def of(cls, name: str, value: Named, grad: Named) -> Linear:
        """Look up a Linear by its name in all parameters and all gradients."""
        weight, bias = f"{name}.weight", f"{name}.bias"
        return cls(value[weight], value[weight].t(), value[bias], grad[weight], grad[bias])


@dataclass(frozen=True, eq=False)
class Norm:
    """A batch norm: parameters, their gradients and running statistics, each (columns,)."""

    gain: Tensor
    shift: Tensor
    gain_grad: Tensor
    shift_grad: Tensor
    mean: Tensor
    variance: Tensor

    @classmethod
    def of(cls, name: str, value: Named, grad: Named, running: Named) -> Norm:
        """Look up a batch norm by its name in all parameters, all gradients and all running statistics."""
        gain, shift, stats = f"{name}.weight", f"{name}.bias", f"{name}.running"
        own = value[gain], value[shift], grad[gain], grad[shift]
        return cls(*own, running[f"{stats}_mean"], running[f"{stats}_var"])


@dataclass(frozen=True, eq=False)
class Hidden:
    """A hidden layer: Linear, batch norm, and an activation with this slope below 0."""

    linear: Linear
    norm: Norm
    slope: float


class Adam:
    """Adam on one flat vector: the call that `torch.optim.Adam(..., fused=True).step` ends in, with its defaults.

    Args:
        flat: parameters, changed in place.
        grad: their gradient.
        learning_rate: learning rate.
        l2: weight decay, added to the gradient.
    """

    def __init__(self, flat: Tensor, grad: Tensor, learning_rate: float, l2: float):
        self.count = torch.zeros(())
        self.move = functools.partial(
            torch.ops.aten._fused_adam_.default,
            *([flat], [grad], [torch.zeros_like(flat)], [torch.zeros_like(flat)], [], [self.count]),
            lr=learning_rate,
            beta1=0.9,
            beta2=0.999,
            weight_decay=l2,
            eps=1e-8,
            amsgrad=False,
            maximize=False,
        )

    def step(self) -> None:
        """Move the parameters."""
        self.count.add_(1)
        self.move()
