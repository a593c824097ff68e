"""Rows of result tables as records whose fields are the columns, written to and read back from CSV by one pair."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ball_features.files import read_csv, write_csv

__all__ = [
    "CompareRow",
    "CompatRow",
    "GroupRow",
    "LadderRow",
    "Row",
    "TrialRow",
    "read_rows",
    "write_rows",
]

R = TypeVar("R", bound="Row")


@dataclass(frozen=True)
class Row:
    """A row of a table; a subclass declares its columns as fields of type str, int, float, bool or an optional one."""

    @classmethod
    def columns(cls) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(item.name for item in dataclasses.fields(cls))

    def to_dict(self) -> dict[str, object]:
        """Column -> value, ready for JSON."""
        return dataclasses.asdict(self)


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write a CSV table with full precision; None becomes an empty cell.

    Args:
        path: file to write.
        rows: at least one row, all of one class.
    """
    names = rows[0].columns()
    write_csv(path, names, ([getattr(row, name) for name in names] for row in rows))


def read_rows(path: Path, kind: type[R]) -> list[R]:
    """Read a table that `write_rows` wrote; columns that the class lacks are left out.

    Args:
        path: CSV file; an absent one has no rows.
        kind: class of the rows.

    Raises:
        ValueError: a cell does not hold its column's type.
        KeyError: a column without a default is missing.
    """
    if not path.exists():
        return []
    hints = typing.get_type_hints(kind)
    optional = {item.name for item in dataclasses.fields(kind) if item.default is not dataclasses.MISSING}
    rows = []
    for line in read_csv(path):
        names = [name for name in kind.columns() if name in line or name not in optional]
        rows.append(kind(**{name: _parse(line[name], hints[name]) for name in names}))
    return rows


def _parse(text: str, hint: type | types.UnionType) -> str | int | float | bool | None:
    if isinstance(hint, types.UnionType):
        if text == "":
            return None
        hint = next(kind for kind in typing.get_args(hint) if kind is not types.NoneType)
    if hint is bool:
        if text not in ("True", "False"):
            raise ValueError(f"Got {text!r}, expected True or False.")
        return text == "True"
    return typing.cast(type, hint)(text)


@dataclass(frozen=True)
class GroupRow(Row):
    """A model on a group left out.

    Attributes:
        model: name of the model.
        group: name of the group.
        images: number of distinct images that were tested.
        recall: share of correct predictions.
        recall_low: lower end of its 95 % interval.
        recall_high: upper end.
        taken_for: predicted classes of the errors with their counts, such as "Pre 12, Pro 3".
        benign_malignant: share of predictions on the right side of benign and malignant; None where no class is called
            benign.
        flip_rate: share of images whose views get different classes; None for one view.
        balanced_recall: mean over the classes of the group of the share of correct predictions; None in earlier runs.
    """

    model: str
    group: str
    images: int
    recall: float
    recall_low: float
    recall_high: float
    taken_for: str
    benign_malignant: float | None = None
    flip_rate: float | None = None
    balanced_recall: float | None = None


@dataclass(frozen=True)
class CompatRow(Row):
    """A model in the student report's arithmetic: macro figures averaged over batches.

    Attributes:
        model: name of the model.
        accuracy: share of correct predictions.
        specificity: macro average, absent classes counted as 0, like the following.
        precision: macro average.
        recall: macro average.
        f1: macro average.
    """

    model: str
    accuracy: float
    specificity: float
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class LadderRow(Row):
    """A model on a rung of the optimism ladder.

    Attributes:
        rung: name of the rung.
        model: name of the model.
        kind: "head", "baseline" or "shortcut".
        accuracy: share of correct predictions.
        accuracy_low: lower end of its 95 % interval, by the scatter of the groups that the rung keeps together.
        accuracy_high: upper end.
        mean_recall: mean recall over the groups left out; None on other rungs.
        worst_recall: recall of the worst of them.
        mean_balanced_recall: mean over them of the mean recall of the classes of a group.
        balanced_recall: mean over the classes of the recall of all test images.
    """

    rung: str
    model: str
    kind: str
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    mean_recall: float | None = None
    worst_recall: float | None = None
    mean_balanced_recall: float | None = None
    balanced_recall: float | None = None


@dataclass(frozen=True)
class CompareRow(Row):
    """A model on one of several caches.

    Attributes:
        cache: name of the cache; "" for a shortcut, which sees no embedding.
        backbone: network of the cache.
        channels: channels that the model saw.
        recipe: views of the cache.
        views: views that the model was trained and tested on.
        dim: width of an embedding; 0 for a shortcut.
        images_per_s: images embedded a second; NaN where that was not measured.
        model: name of the model.
        kind: "head", "baseline" or "shortcut".
        accuracy: share of correct predictions.
        accuracy_low: lower end of its 95 % interval.
        accuracy_high: upper end.
        recall: macro average.
        f1: macro average.
        log_loss: mean log loss.
        behind_low: lower end of the 95 % interval of the accuracy that the best has more; not corrected.
        behind_high: upper end.
        p_against_best: p-value of the difference from the best, Holm-corrected.
        ties_best: True where the difference from the best is not significant at 5 %.
    """

    cache: str
    backbone: str
    channels: str
    recipe: str
    views: str
    dim: int
    images_per_s: float
    model: str
    kind: str
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    recall: float
    f1: float
    log_loss: float
    behind_low: float
    behind_high: float
    p_against_best: float
    ties_best: bool


@dataclass(frozen=True)
class TrialRow(Row):
    """A set of the head's settings that `ball tune` tried.

    Attributes:
        rank: place by training length, then by validation loss.
        val_loss: lowest validation log loss.
        val_accuracy: validation accuracy at that epoch.
        epochs: number of epochs of the training.
        best_epoch: epoch of the lowest validation loss, from 1.
        hidden: widths of the hidden layers, with commas between.
        learning_rate: learning rate of Adam.
        l2: weight decay.
        dropout: share of units dropped in training.
        batch_size: embeddings a training step.
        clip_norm: greatest norm of the gradient; None for no limit.
        class_weight: "none" or "balanced".
        train_views: views that trained.
        test_views: views that validated and tested.
    """

    rank: int
    val_loss: float
    val_accuracy: float
    epochs: int
    best_epoch: int
    hidden: str
    learning_rate: float
    l2: float
    dropout: float
    batch_size: int
    clip_norm: float | None
    class_weight: str
    train_views: str
    test_views: str
