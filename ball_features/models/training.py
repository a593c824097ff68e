"""Training of the head's network, with the step written out by hand instead of going through autograd.

On batches of 16 rows an ordinary step spends almost all of its time on bookkeeping. Three facts make it short, none of
which changes a result beyond rounding:

1. The input's batch statistics depend on the data alone, so several batches are normalised in one pass.
2. A batch norm follows each hidden Linear and removes every constant; the gradient of that Linear's bias, and of
   the input norm's shift, is therefore zero. Only the L2 term moves them.
3. With G = dz'x of the normalised input x, the input norm's gain has the gradient sum_k W_kj G_kj and the first
   Linear has G_kj gain_j: one matrix product gives both.

All parameters lie in one flat vector, so that clipping is one norm and Adam one fused call, which goes past
`torch.optim.Adam.step`: that takes as long as the call itself. A test compares the result with a loop over
`build_module(...)` with autograd, `clip_grad_norm_` and `torch.optim.Adam`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from itertools import groupby
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from ball_features.models.layers import Adam, Hidden, Linear, Norm
from ball_features.models.network import (
    BN_EPS,
    BN_MOMENTUM,
    absorb_norms,
    build_module,
    forward,
    layer_names,
    negative_slope,
)

__all__ = ["Rows", "Training", "TrainingSettings", "batch_sizes"]

BATCHES_A_CHUNK = 8  # batches normalised together: 8 x 16 x 1920 float32 is 1 MB, which a core's cache holds


@dataclass(frozen=True)
class TrainingSettings:
    """Hyperparameters of one training run; `MLPHead` documents each."""

    hidden: tuple[int, ...]
    learning_rate: float
    l2: float
    batch_size: int
    dropout: float
    clip_norm: float | None
    group_step: float = 0.01
    consistency: float = 0.0

    @classmethod
    def of(cls, head: Any) -> TrainingSettings:
        """Take the settings that an `MLPHead` has."""
        own: Any = {item.name: getattr(head, item.name) for item in fields(cls)}
        own["hidden"] = tuple(own["hidden"])
        return cls(**own)


@dataclass(frozen=True, eq=False)
class Rows:
    """Training rows.

    Attributes:
        X: float16 or float32 (N, D), N at least 2; cast to float32 a few batches at a time.
        codes: class of each row, int64 (N,).
        weight: weight of each row in the training loss besides its class's, float32 (N,), or None.
        group: group of each row for group DRO (Sagawa et al. 2020, algorithm 1), int64 (N,), or None.
        views: number of consecutive rows that are views of one image. They stay in one batch if `consistency` is
            above 0.
    """

    X: Tensor
    codes: Tensor
    weight: Tensor | None = None
    group: Tensor | None = None
    views: int = 1


def batch_sizes(rows: int, batch_size: int) -> list[int]:
    """Return the rows of each batch of an epoch. Batch norm cannot take one row: a last one joins the batch before."""
    sizes = [batch_size] * (rows // batch_size)
    rest = rows % batch_size
    if rest == 1 and sizes:
        sizes[-1] += 1
    elif rest:
        sizes.append(rest)
    return sizes


class Training:
    """One training run: parameters, gradient, Adam's state and the data, advanced epoch by epoch.

    Run it under `torch.inference_mode()`. Nothing global is seeded: weights, order and dropout come from one generator.

    Args:
        settings: hyperparameters.
        rows: training rows.
        class_weight: weight of each class in the loss, float32 (C,).
        seed: seed of the initial weights, the order of rows and dropout.
    """

    def __init__(self, settings: TrainingSettings, rows: Rows, class_weight: Tensor, seed: int):
        self.settings, self.class_weight, self.consistency = settings, class_weight, settings.consistency
        self.load(rows)
        self.group_step = settings.group_step
        if self.group is not None:
            self.group_weight = torch.full((int(self.group.max()) + 1,), 1 / (int(self.group.max()) + 1))
        self.generator = torch.Generator().manual_seed(seed)
        self.names = layer_names(len(settings.hidden))
        self.steps = 0
        # Meta tensors: names and shapes of the parameters without torch's own, globally seeded, initialisation.
        with torch.device("meta"):
            shapes = build_module(self.X.shape[1], settings.hidden, len(class_weight), settings.dropout).state_dict()
        shapes = {name: tensor.shape for name, tensor in shapes.items() if not name.endswith("tracked")}
        parameters = {name: shape for name, shape in shapes.items() if "running" not in name}
        sizes = [shape.numel() for shape in parameters.values()]
        flat, flat_grad = torch.zeros(sum(sizes)), torch.zeros(sum(sizes))
        self.flat_grad = flat_grad
        self.value = {n: v.view(parameters[n]) for n, v in zip(parameters, flat.split(sizes), strict=True)}
        self.grad = {n: v.view(parameters[n]) for n, v in zip(parameters, flat_grad.split(sizes), strict=True)}
        self.running = {n: torch.full(s, float("var" in n)) for n, s in shapes.items() if "running" in n}
        self._initialise()
        self.adam = Adam(flat, flat_grad, settings.learning_rate, settings.l2)
        self.hidden = [
            Hidden(
                Linear.of(linear, self.value, self.grad),
                Norm.of(norm, self.value, self.grad, self.running),
                negative_slope(layer),
            )
            for layer, (linear, norm) in enumerate(self.names)
            if norm is not None
        ]
        self.output = Linear.of(self.names[-1][0], self.value, self.grad)
        self.product = torch.empty_like(self.value["1.weight"])

    def load(self, rows: Rows) -> None:
        """Take other rows of the same width, such as the next window of rows that are read from a file."""
        codes = rows.codes
        self.views = rows.views if self.consistency else 1
        self.X, self.codes, self.group = rows.X, codes, rows.group
        self.row_weight = self.class_weight[codes] if rows.weight is None else self.class_weight[codes] * rows.weight
        self.onehot = F.one_hot(codes, len(self.class_weight)).float()  # (N, C)

    def draw_order(self) -> Int[Tensor, " rows"]:
        """Return the next epoch's order of rows, int64 (N,)."""
        images = torch.randperm(len(self.X) // self.views, generator=self.generator)
        return (images[:, None] * self.views + torch.arange(self.views)).flatten()

    def run_epoch(self, order: Int[Tensor, " rows"]) -> tuple[float, float]:
        """Pass over the rows in this order; return mean loss and accuracy, each batch's before its own step."""
        whole = self.views * max(1, round(self.settings.batch_size / self.views))  # the views of an image stay together
        sizes = batch_sizes(len(order), whole if self.views > 1 else self.settings.batch_size)
        targets = self.onehot[order].split(sizes)  # each (B, C)
        weight = self.row_weight[order].split(sizes)
        scale = [(part / part.sum())[:, None] for part in weight]  # each (B, 1): the loss is a weighted mean
        keep = 1 - self.settings.dropout
        drop = torch.empty(len(order), self.settings.hidden[0]).bernoulli_(keep, generator=self.generator).div_(keep)
        groups = [None] * len(sizes) if self.group is None else self.group[order].split(sizes)
        batches = zip(self._inputs(order, sizes), targets, scale, drop.split(sizes), groups, strict=True)
        logits = torch.cat([self._step(*batch) for batch in batches])
        return self._score(logits, self.codes[order])

    def evaluate(self, X: Float[Tensor, "rows dim"], codes: Int[Tensor, " rows"]) -> tuple[float, float]:
        """Return loss and accuracy in eval mode on rows X (M, D) with classes codes (M,)."""
        return self._score(forward(absorb_norms(self.state(), len(self.settings.hidden), torch.float32), X), codes)

    def state(self) -> dict[str, np.ndarray]:
        """Copy parameters and running statistics, in the names and order of `build_module(...).state_dict()`."""
        state: dict[str, np.ndarray] = {}
        for name, tensor in self.value.items():
            state[name] = tensor.numpy().copy()
            norm = name.removesuffix(".bias")
            if f"{norm}.running_mean" in self.running:
                state[f"{norm}.running_mean"] = self.running[f"{norm}.running_mean"].numpy().copy()
                state[f"{norm}.running_var"] = self.running[f"{norm}.running_var"].numpy().copy()
                state[f"{norm}.num_batches_tracked"] = np.asarray(self.steps, dtype=np.int64)
        return state

    def _initialise(self) -> None:
        """Set batch norms to gain 1 and shift 0, Linears to uniform within 1 / sqrt(inputs), as torch does."""
        for name, tensor in self.value.items():
            if name.removesuffix(".weight") + ".running_mean" in self.running:
                tensor.fill_(1.0)
        for linear, _ in self.names:
            weight, bias = self.value[f"{linear}.weight"], self.value[f"{linear}.bias"]
            bound = 1 / math.sqrt(weight.shape[1])
            weight.uniform_(-bound, bound, generator=self.generator)
            bias.uniform_(-bound, bound, generator=self.generator)

    def _score(self, logits: Float[Tensor, "rows classes"], codes: Int[Tensor, " rows"]) -> tuple[float, float]:
        loss = F.cross_entropy(logits, codes, self.class_weight)
        return loss.item(), (logits.argmax(1) == codes).float().mean().item()

    def _inputs(self, order: Tensor, sizes: list[int]) -> Iterator[Tensor]:
        """Yield normalised batches (B, D) in order, made several at a time, and update the running statistics."""
        start = 0
        for size, group in groupby(sizes):
            left = len(list(group))
            while left:
                count = min(BATCHES_A_CHUNK, left)
                rows = self.X.index_select(0, order[start : start + count * size]).float().view(count, size, -1)
                mean = rows.mean(1, keepdim=True)  # (batch, 1, D)
                rows -= mean
                variance = rows.square().mean(1, keepdim=True)
                rows *= (variance + BN_EPS).rsqrt_()
                fade = BN_MOMENTUM * (1 - BN_MOMENTUM) ** torch.arange(count - 1.0, -1.0, -1.0)  # (batch,)
                for name, batch in (("mean", mean), ("var", variance * (size / (size - 1)))):
                    self.running[f"0.running_{name}"].mul_((1 - BN_MOMENTUM) ** count).add_(fade @ batch.squeeze(1))
                yield from rows.unbind(0)
                start, left = start + count * size, left - count

    def _step(self, x: Tensor, target: Tensor, scale: Tensor, drop: Tensor, group: Tensor | None) -> Tensor:
        """Do forward, backward, clip and Adam on one normalised batch x (B, D); return the logits (B, C)."""
        hidden, output = self.hidden, self.output
        a = torch.addcmul(self.value["0.bias"], x, self.value["0.weight"])  # (B, D)
        tape = []
        for layer in hidden:
            linear, norm = layer.linear, layer.norm
            z = torch.addmm(linear.bias, a, linear.transposed)  # (B, H)
            y, mean, rstd = torch.native_batch_norm(
                z, norm.gain, norm.shift, norm.mean, norm.variance, True, BN_MOMENTUM, BN_EPS
            )
            saved = (z, norm.gain, norm.mean, norm.variance, mean, rstd, True, BN_EPS, [True, True, True])
            tape.append((layer, a, y, saved))
            a = F.leaky_relu(y, layer.slope)
            if layer is hidden[0]:
                a *= drop
        logits = torch.addmm(output.bias, a, output.transposed)  # (B, C)

        if group is not None:
            scale = self._worst_groups(logits, target, group)
        dz = torch.softmax(logits, 1).sub_(target).mul_(scale)  # (B, C)
        if self.consistency:
            views = logits.view(-1, self.views, logits.shape[1])  # (images, views, C)
            dz += (views - views.mean(1, keepdim=True)).flatten(0, 1).mul_(self.consistency / len(logits))
        torch.sum(dz, 0, out=output.bias_grad)
        torch.mm(dz.t(), a, out=output.weight_grad)
        da = dz @ output.weight
        for layer, a, y, saved in reversed(tape):
            if layer is hidden[0]:
                da *= drop
            dy = torch.ops.aten.leaky_relu_backward(da, y, layer.slope, False)
            dz, dgain, dshift = torch.ops.aten.native_batch_norm_backward(dy, *saved)
            layer.norm.gain_grad.copy_(dgain)
            layer.norm.shift_grad.copy_(dshift)
            if layer is hidden[0]:
                self._first_layer(dz, x)
            else:
                torch.mm(dz.t(), a, out=layer.linear.weight_grad)
                da = dz @ layer.linear.weight
        self._advance()
        return logits

    def _first_layer(self, dz: Tensor, x: Tensor) -> None:
        """Fill the gradients of the first Linear and of the input norm's gain; see the module's third fact."""
        G = self.grad["1.weight"]  # (H, D), in the memory of the gradient that it becomes
        torch.mm(dz.t(), x, out=G)
        torch.mul(G, self.value["1.weight"], out=self.product)
        torch.sum(self.product, 0, out=self.grad["0.weight"])
        G.mul_(self.value["0.weight"])

    def _worst_groups(self, logits: Tensor, target: Tensor, group: Tensor) -> Tensor:
        """Return weights (B, 1): the group's, which grows with its loss, shared among its rows in the batch."""
        loss = torch.logsumexp(logits, 1) - (logits * target).sum(1)
        count = torch.bincount(group, minlength=len(self.group_weight))
        mean = torch.zeros_like(self.group_weight).index_add_(0, group, loss) / count.clamp(min=1)
        self.group_weight.mul_(torch.exp(self.group_step * mean))
        self.group_weight.div_(self.group_weight.sum())
        return (self.group_weight[group] / count[group])[:, None]

    def _advance(self) -> None:
        if self.settings.clip_norm is not None:
            norm = torch.linalg.vector_norm(self.flat_grad)
            self.flat_grad.mul_((self.settings.clip_norm / (norm + 1e-6)).clamp_(max=1.0))
        # Adam adds l2 * value to its own copy of the gradient; biases without a gradient move by that alone.
        self.adam.step()
        self.steps += 1
