"""Counts that sum up an audit, for tables, pages and JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ball_features.audit.findings import Audit
from ball_features.audit.overlays import NO_OVERLAY
from ball_features.audit.series import Trust

__all__ = ["AuditSummary", "OverlaySummary"]


@dataclass(frozen=True)
class OverlaySummary:
    """One kind of burned-in overlay.

    Attributes:
        images: number of images that carry it.
        classes: number of these images by class.
        box_px: left, top, right and bottom in pixels of the image at 224 px; None for images without an overlay.
    """

    images: int
    classes: dict[str, int]
    box_px: tuple[int, int, int, int] | None


@dataclass(frozen=True)
class AuditSummary:
    """An audit in numbers, with paths in place of rows.

    Attributes:
        images: number of images that could be decoded.
        classes: number of images by class.
        exact_duplicate_pairs: pairs with identical decoded pixels.
        near_duplicate_pairs: pairs that are copies of one picture.
        shared_field_pairs: pairs that show part of one field.
        images_in_pairs: images in a near-duplicate or a shared field.
        groups: number of groups that a split must keep whole.
        largest_group: images in the largest group.
        overlays: burned-in overlays by name, "none" for images without one.
        overlay_class_mutual_information_bits: mutual information of overlay and class, in bits.
        encodings: number of images by class, by kind of file.
        series: evidence for each likely series.
        batches: evidence for each likely batch.
        shortcut_accuracy: cross-validated accuracy of colour, overlay or kind of file alone, by name.
        label_conflicts: pairs of paths that show the same under different labels.
        outliers: reason why an image is unlike the others, by path.
        rejected: reason why a file could not be decoded, by path.
        exact: paths of identical pictures, a list for each picture.
        pairs: near-duplicates and shared fields with their evidence.
    """

    images: int
    classes: dict[str, int]
    exact_duplicate_pairs: int
    near_duplicate_pairs: int
    shared_field_pairs: int
    images_in_pairs: int
    groups: int
    largest_group: int
    overlays: dict[str, OverlaySummary]
    overlay_class_mutual_information_bits: float
    encodings: dict[str, dict[str, int]]
    series: dict[str, dict[str, float]]
    batches: dict[str, dict[str, float]]
    shortcut_accuracy: dict[str, float]
    label_conflicts: list[list[str]]
    outliers: dict[str, str]
    rejected: dict[str, str]
    exact: list[list[str]]
    pairs: list[dict[str, object]]

    @classmethod
    def of(cls, found: Audit) -> AuditSummary:
        """Sum up an audit."""
        names = found.path.tolist()
        counted = Counter(pair.kind for pair in found.pairs)
        return cls(
            images=len(names),
            classes=_by_class(found.label),
            exact_duplicate_pairs=sum(len(rows) * (len(rows) - 1) // 2 for rows in found.exact),
            near_duplicate_pairs=counted["near-duplicate"],
            shared_field_pairs=counted["shared-field"],
            images_in_pairs=len({row for pair in found.pairs for row in (pair.first, pair.second)}),
            groups=len(np.unique(found.group)),
            largest_group=max(Counter(found.group.tolist()).values()),
            overlays=_overlays(found),
            overlay_class_mutual_information_bits=found.association_bits,
            encodings={str(name): _by_class(found.label[found.encoding == name]) for name in np.unique(found.encoding)},
            series={name: _evidence(trust) for name, trust in found.series.series_trust.items()},
            batches={name: _evidence(trust) for name, trust in found.series.batch_trust.items()},
            shortcut_accuracy=found.shortcuts,
            label_conflicts=[[names[a], names[b]] for a, b in found.conflicts],
            outliers={names[row]: reason for row, reason in found.outlier.items()},
            rejected=dict(found.rejected),
            exact=[[names[row] for row in rows] for rows in found.exact],
            pairs=[asdict(pair) | {"first": names[pair.first], "second": names[pair.second]} for pair in found.pairs],
        )

    def to_dict(self) -> dict[str, object]:
        """Return the summary as plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> AuditSummary:
        """Read a summary back from what `to_dict` returned.

        Raises:
            KeyError, TypeError, AttributeError: the values are not a summary's.
        """
        overlays = {name: OverlaySummary(**own) for name, own in values["overlays"].items()}
        return cls(**{**values, "overlays": overlays})


def _by_class(label: np.ndarray) -> dict[str, int]:
    return dict(sorted(Counter(label.tolist()).items()))


def _overlays(found: Audit) -> dict[str, OverlaySummary]:
    overlays = {}
    for index, name in enumerate([*found.overlays.names, NO_OVERLAY]):
        rows = found.overlay == name
        box = found.overlays.box(index) if name != NO_OVERLAY else None
        overlays[name] = OverlaySummary(int(rows.sum()), _by_class(found.label[rows]), box)
    return overlays


def _evidence(trust: Trust) -> dict[str, float]:
    return {
        "images": trust.images,
        "confidence": round(trust.confidence, 4),
        "stain_agreement": round(trust.stain, 4),
        "order_agreement": round(trust.order, 4),
        "by_chance": round(trust.chance, 4),
    }
