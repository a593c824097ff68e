"""Fits of rows that exceed the memory: which they are, and how each model is fitted then."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from ball_features.errors import ConfigError
from ball_features.evaluation.tasks import FitTask
from ball_features.models.group_effects import group_weights
from ball_features.models.row_stream import RowStream, stratified

__all__ = ["HELD_BYTES", "Share", "held_bytes", "sampled", "share_memory", "streams_of"]

HELD_BYTES = 16  # for each number while a model is fitted in memory: the row in float32, scaled, and two more copies
WORKER_BYTES = 2_000_000_000  # of the memory for each process, where rows are read from the file


@dataclass(frozen=True)
class Share:
    """How the memory is shared out.

    Attributes:
        jobs: number of processes.
        memory: bytes for each; 0 where every fit can hold its rows.
    """

    jobs: int
    memory: int


def held_bytes(task: FitTask) -> int:
    """Bytes that a fit holds which reads all its rows at once."""
    if task.model.features != "embedding":
        return 0
    split, views = task.split, task.views
    rows = len(split.train) * len(views.train) + (len(split.val) + len(split.test)) * len(views.test)
    return rows * task.images.numbers.shape[2] * HELD_BYTES


def share_memory(tasks: Iterable[FitTask], jobs: int, memory: int) -> Share:
    """Choose the number of processes by memory: fewer where that makes every fit hold its rows.

    Args:
        tasks: the fits.
        jobs: number of processes by cores.
        memory: bytes in all; 0 for no limit.

    Raises:
        ConfigError: Rows exceed the memory, and models are to be adapted to sites or centred, which needs all of them.
    """
    tasks = list(tasks)
    largest = max((held_bytes(task) for task in tasks), default=0)
    if not memory or not largest:
        return Share(jobs, 0)
    if largest <= memory:
        return Share(max(1, min(jobs, memory // largest)), 0)
    if any(task.images.site is not None for task in tasks):
        raise ConfigError(
            f"Got adapt with memory={memory:,} bytes, which rows of {largest:,} bytes exceed: the adaptation holds all "
            "rows. Leave out adapt, or give more memory.",
            option="memory",
        )
    if any(task.model.groups and task.images.center is not None for task in tasks):
        raise ConfigError(
            f"Got center with memory={memory:,} bytes, which rows of {largest:,} bytes exceed: a mean of the images "
            "tested is that of all of them. Leave out center, or give more memory.",
            option="memory",
        )
    jobs = max(1, min(jobs, memory // WORKER_BYTES))
    return Share(jobs, memory // jobs)


def streams_of(task: FitTask) -> tuple[RowStream, RowStream | None] | None:
    """Return training and validation rows as streams, or None where the model cannot read them so.

    A head that is trained against groups by their loss in each step, or aligns embeddings, needs its rows at hand.
    """
    model, images, split = task.model, task.images, task.split
    head = task.head
    aligned = model.groups and (images.center is not None or head.per_image)
    if not model.streams or aligned or (model.groups and head.group_loss == "dro" and images.series is not None):
        return None
    weight = None
    if model.groups and head.group_loss == "balanced" and images.series is not None:
        group = np.unique(images.series[split.train], return_inverse=True)[1]
        weight = np.ones(len(images.codes), dtype=np.float32)
        weight[split.train] = group_weights(images.codes[split.train], group)
    rows = RowStream(images.numbers, np.sort(split.train), images.codes, task.views.train, task.memory, weight)
    if not model.validates or not len(split.val):
        return rows, None
    return rows, RowStream(images.numbers, np.sort(split.val), images.codes, task.views.test, task.memory)


def sampled(task: FitTask) -> tuple[FitTask, str]:
    """Return the task with a stratified sample of its training images, and words for it."""
    views = len(task.views.train)
    row = views * task.images.numbers.shape[2] * HELD_BYTES
    count = max(2 * task.images.classes, min(task.model.most_rows // views, task.memory // row))
    train = stratified(task.split.train, task.images.codes, count, task.seed)
    val = stratified(task.split.val, task.images.codes, count, task.seed)
    words = f"stratified sample of {len(train):,} of {len(task.split.train):,} images"
    return replace(task, split=replace(task.split, train=train, val=val)), words
