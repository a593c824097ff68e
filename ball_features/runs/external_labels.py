"""Labels of images of elsewhere as classes of a bundle."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from ball_features.dataset.remarks import read_as
from ball_features.errors import DataError
from ball_features.reporting.external_record import LabelCounts
from ball_features.runs.external_images import ExternalImages

__all__ = ["known_labels"]


def _plain(label: str) -> str:
    """A label without case, separators and forms of Unicode, for comparison."""
    return " ".join(read_as(label).replace("-", " ").split())


def known_labels(found: ExternalImages, classes: Sequence[str]) -> tuple[np.ndarray, LabelCounts]:
    """The class index of each image, int (images,), -1 for none, and the account of labels.

    Raises:
        DataError: No label is a class of the bundle.
    """
    exact = {name: code for code, name in enumerate(classes)}
    alike: dict[str, list[int]] = {}
    for name, code in exact.items():
        alike.setdefault(_plain(name), []).append(code)
    matched: dict[str, str] = {}
    unknown: Counter[str] = Counter()
    true = np.full(len(found.label), -1)
    for row, label in enumerate(found.label):
        if not label:
            continue
        codes = [exact[label]] if label in exact else alike.get(_plain(label), [])
        if len(codes) == 1:
            true[row] = codes[0]
            if label not in exact:
                matched[label] = classes[codes[0]]
        else:
            unknown[label] += 1
    if not (true >= 0).any():
        raise DataError(
            f"None of {len(found.label)} images in {found.source} has a label that the bundle knows: its classes are "
            f"{', '.join(classes)}, the labels {', '.join(sorted(unknown)[:20])}. Name the labels as the bundle "
            "does, for example in a sheet."
        )
    absent = tuple(name for code, name in enumerate(classes) if not (true == code).any())
    unlabelled = sum(not label for label in found.label)
    return true, LabelCounts(int((true >= 0).sum()), unlabelled, dict(sorted(unknown.items())), absent, matched)
