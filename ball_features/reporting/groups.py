"""What a run says beyond its table: recall of each group left out, and the student report's own arithmetic."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ball_features.cache import Cache
from ball_features.evaluation.metrics import batch_averaged
from ball_features.evaluation.protocols import ModelResult
from ball_features.evaluation.uncertainty import share_interval

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["LEAST_IMAGES", "compat_rows", "group_rows", "over_groups", "render_compat", "render_groups"]

LEAST_IMAGES = 20  # a smaller group says too little to be the worst one
COMPAT_BATCH = 16  # images a batch, as in the report
_BENIGN = "benign"  # the class that is not malignant, by the name that this disease's data sets give it


def group_rows(cache: Cache, results: Sequence[ModelResult], units: np.ndarray) -> list[dict[str, Any]]:
    """A row a model and group left out.

    Args:
        cache: Its labels are the truth.
        results: Of the models.
        units: (images,), what shows the same and counts as little more than one image in intervals.

    Returns:
        model, group, images, recall with its 95 % interval, what errors were taken for ("Pre 12, Pro 3"), and
        `benign_malignant`, the share on the right side of that line (None where no class is called benign), and
        `flip_rate`, the share of images whose views are given different classes (None where there is one view).
    """
    classes, codes = np.unique(cache.label, return_inverse=True)
    benign = [code for code, name in enumerate(classes) if str(name).lower() == _BENIGN]
    rows = []
    for result in results:
        named: dict[str, list[Any]] = {}
        for item in result.fitted:
            if item.split.name:
                named.setdefault(item.split.name, []).append(item)
        for name, items in named.items():
            where = np.concatenate([item.split.test for item in items])
            truth, predicted = codes[where], np.concatenate([item.probability.argmax(1) for item in items])
            hit = truth == predicted
            low, high = share_interval(hit, units[where], images=len(np.unique(where)))
            wrong = Counter(str(classes[code]) for code in predicted[~hit]).most_common()
            flips = [item.flips for item in items if item.flips is not None]
            same_side = np.isin(truth, benign) == np.isin(predicted, benign)
            rows.append(
                {
                    "model": result.spec.name,
                    "group": name,
                    "images": len(np.unique(where)),
                    "recall": float(hit.mean()),
                    "recall_low": low,
                    "recall_high": high,
                    "taken_for": ", ".join(f"{key} {count}" for key, count in wrong),
                    "benign_malignant": float(same_side.mean()) if benign else None,
                    "flip_rate": float(np.concatenate(flips).mean()) if flips else None,
                }
            )
    return rows


def over_groups(rows: Sequence[dict[str, Any]], model: str) -> list[dict[str, Any]]:
    """Rows of a model that mean and worst recall are taken over: groups of 20 images and more, if there are any."""
    own = [row for row in rows if row["model"] == model]
    return [row for row in own if row["images"] >= LEAST_IMAGES] or own


def render_groups(rows: Sequence[dict[str, Any]], order: Sequence[str]) -> list[RenderableType]:
    """Mean and worst recall over groups of every model, and each group of the best one.

    Args:
        rows: From `group_rows`.
        order: Names of the models to show.
    """
    from rich import box
    from rich.table import Table

    def mean(model: str, key: str) -> float:
        return float(np.mean([row[key] for row in over_groups(rows, model)]))

    models = sorted((name for name in order if over_groups(rows, name)), key=lambda name: -mean(name, "recall"))
    if not models:
        return []
    sided = rows[0]["benign_malignant"] is not None
    overall = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        title=f"Over groups of {LEAST_IMAGES} images and more that were left out, in %",
        title_justify="left",
    )
    overall.add_column("model")
    flipped = any(row["flip_rate"] is not None for row in rows)
    headings = (
        "mean recall",
        "worst group",
        *(["benign or not"] if sided else []),
        *(["views differ"] if flipped else []),
    )
    for heading in headings:
        overall.add_column(heading, justify="right")
    for name in models:
        cells = [100 * mean(name, "recall"), 100 * min(row["recall"] for row in over_groups(rows, name))]
        cells += [100 * mean(name, "benign_malignant")] if sided else []
        shown = [f"{value:.1f}" for value in cells]
        if flipped:
            known = all(row["flip_rate"] is not None for row in over_groups(rows, name))
            shown.append(f"{100 * mean(name, 'flip_rate'):.1f}" if known else "")
        overall.add_row(name, *shown)
    own = sorted((row for row in rows if row["model"] == models[0]), key=lambda row: row["recall"])
    differ = all(row["flip_rate"] is not None for row in own)
    each = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=f"{models[0]}, group by group", title_justify="left")
    more = [*(["benign or not"] if sided else []), *(["views differ"] if differ else [])]
    for heading in ("group", "images", "recall", "95 %", *more, "errors were taken for"):
        each.add_column(heading, justify="left" if heading in ("group", "errors were taken for") else "right")
    for row in own:
        cells = [f"{100 * row['recall']:.1f}", f"{100 * row['recall_low']:.0f} - {100 * row['recall_high']:.0f}"]
        cells += [f"{100 * row['benign_malignant']:.1f}"] if sided else []
        cells += [f"{100 * row['flip_rate']:.1f}"] if differ else []
        each.add_row(row["group"], str(row["images"]), *cells, row["taken_for"])
    return [overall, each]


def compat_rows(cache: Cache, results: Sequence[ModelResult]) -> list[dict[str, Any]]:
    """A row a model: macro figures averaged over batches of 16 test images, as the student report does."""
    classes, codes = np.unique(cache.label, return_inverse=True)
    rows = []
    for result in results:
        if result.fitted:
            truth = np.concatenate([codes[item.split.test] for item in result.fitted])
            predicted = np.concatenate([item.probability.argmax(1) for item in result.fitted])
            # The student report's test set is shuffled; in file order a batch would hold one class.
            order = np.random.default_rng(0).permutation(len(truth))
            numbers = batch_averaged(truth[order], predicted[order], len(classes), COMPAT_BATCH)
            rows.append({"model": result.spec.name, **numbers})
    return rows


def render_compat(rows: Sequence[dict[str, Any]]) -> RenderableType:
    """The student report's arithmetic as a table, with a warning."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    title = f"As the student report averages: over batches of {COMPAT_BATCH} images, absent classes as 0, in %"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
    names = [name for name in rows[0] if name != "model"] if rows else []
    table.add_column("model")
    for name in names:
        table.add_column(name, justify="right")
    for row in sorted(rows, key=lambda row: -row["accuracy"]):
        table.add_row(row["model"], *(f"{100 * row[name]:.2f}" for name in names))
    return Group(
        table,
        Text("For comparison with the student report only; the pooled figures are the ones to quote.", style="dim"),
    )
