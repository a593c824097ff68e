"""What a folder of images hides: copies, shared fields, overlays, likely series, and how far shortcuts alone go."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ball_features.audit.overlays import NO_OVERLAY, OverlayModel, learn_overlays
from ball_features.audit.pairs import Pair, find_pairs
from ball_features.audit.series import Series, Trust, find_series
from ball_features.audit.traits import Traits, collect, encodings, grey, images, load_square
from ball_features.dataset.manifest import Manifest, scan, spread_rows
from ball_features.dataset.units import merge_units
from ball_features.errors import DataError

__all__ = ["Audit", "audit", "write_groups"]

BLOCK_IMAGES = 20
_FOLDS = 5
_SAMPLE = 4000  # images that overlays are learnt on

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Audit:
    """Findings about a folder.

    Attributes:
        path: Ids of the images that could be decoded.
        label: Class of each.
        exact: Lists of rows whose decoded pixels are identical.
        pairs: Near-duplicates and shared fields.
        overlay: Kind of burned-in overlay of each image, "none" where there is none.
        overlays: What the kinds look like.
        encoding: Kind of file of each image (format, size, JPEG tables, resolution), "encoding-1" the most frequent,
            "other" for those of fewer than 20 images.
        series: Likely series and batches of acquisition: inferred, not known.
        block: Runs of consecutive images within class and series; what belongs together is in one block of its class.
        group: What a split must keep together: copies and shared fields, connected.
        outlier: Row -> why it is unlike the others.
        rejected: Files that could not be decoded, with the reason.
        shortcuts: Name -> accuracy by cross-validation: colour and overlay alone, on random and on grouped folds.
        association_bits: Mutual information of overlay kind and class.
    """

    path: np.ndarray
    label: np.ndarray
    exact: list[list[int]]
    pairs: list[Pair]
    overlay: np.ndarray
    overlays: OverlayModel
    encoding: np.ndarray
    series: Series
    block: np.ndarray
    group: np.ndarray
    outlier: dict[int, str]
    rejected: list[tuple[str, str]]
    shortcuts: dict[str, float]
    association_bits: float

    @property
    def conflicts(self) -> list[tuple[int, int]]:
        """Pairs of rows that show the same thing under different labels."""
        linked = [(rows[0], row) for rows in self.exact for row in rows[1:]]
        linked += [(pair.first, pair.second) for pair in self.pairs]
        return [(a, b) for a, b in linked if self.label[a] != self.label[b]]

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values, ready for JSON; rows become paths."""
        names = self.path.tolist()
        by_kind: dict[str, Any] = {}
        for number, kind in enumerate([*self.overlays.names, NO_OVERLAY]):
            rows = self.overlay == kind
            box = self.overlays.box(number) if kind != NO_OVERLAY else None
            classes = dict(sorted(Counter(self.label[rows].tolist()).items()))
            by_kind[kind] = {"images": int(rows.sum()), "classes": classes, "box_px": box}
        counted = Counter(pair.kind for pair in self.pairs)
        shared = {row for pair in self.pairs for row in (pair.first, pair.second)}
        return {
            "images": len(names),
            "classes": dict(sorted(Counter(self.label.tolist()).items())),
            "exact_duplicate_pairs": sum(len(rows) * (len(rows) - 1) // 2 for rows in self.exact),
            "near_duplicate_pairs": counted["near-duplicate"],
            "shared_field_pairs": counted["shared-field"],
            "images_in_pairs": len(shared),
            "groups": len(np.unique(self.group)),
            "largest_group": max(Counter(self.group.tolist()).values()),
            "overlays": by_kind,
            "overlay_class_mutual_information_bits": self.association_bits,
            "encodings": {
                str(kind): dict(sorted(Counter(self.label[self.encoding == kind].tolist()).items()))
                for kind in np.unique(self.encoding)
            },
            "series": {name: _as_dict(trust) for name, trust in self.series.series_trust.items()},
            "batches": {name: _as_dict(trust) for name, trust in self.series.batch_trust.items()},
            "shortcut_accuracy": self.shortcuts,
            "label_conflicts": [[names[a], names[b]] for a, b in self.conflicts],
            "outliers": {names[row]: why for row, why in self.outlier.items()},
            "rejected": dict(self.rejected),
            "exact": [[names[row] for row in rows] for rows in self.exact],
            "pairs": [asdict(p) | {"first": names[p.first], "second": names[p.second]} for p in self.pairs],
        }


def audit(
    manifest: Manifest | Path | str, *, embeddings: np.ndarray | None = None, progress: Progress | None = None
) -> Audit:
    """Look for everything that makes a random split of these images lie.

    Args:
        manifest: From `scan`, or the folder with one folder a class.
        embeddings: float (images, dim) in the manifest's order, to find images far from all others with; NaN where
            there is none.
        progress: Called with (steps done, steps in all).

    Raises:
        DataError: Fewer than two classes can be decoded.
    """
    if not isinstance(manifest, Manifest):
        manifest = scan(manifest)
    report = progress or (lambda done, total: None)
    total = 4 * len(manifest.path)
    rejected: dict[str, str] = {item.path: item.reason for item in manifest.rejected}
    count = len(manifest.path)
    sample = spread_rows(count, _SAMPLE).tolist()
    model = learn_overlays(lambda: (image for _, image in images(manifest, sample, rejected)))
    report(count, total)
    seen = collect(manifest, model, rejected, lambda done: report(count + done, total))
    path, label = np.array(manifest.path)[seen.rows], np.array(manifest.label)[seen.rows]
    if len(np.unique(label)) < 2:
        raise DataError(
            f"{len(path)} images of {len(np.unique(label))} classes in {manifest.root} can be decoded, expected at "
            "least two classes. Give the folder that holds one folder a class."
        )
    root = manifest.root
    pairs = find_pairs(
        seen.small,
        model.mask(),
        lambda row: grey(load_square(root / path[row])),
        progress=lambda done, all_: report(2 * count + 2 * count * done // all_, total),
    )
    group, exact = _groups(seen.digest, pairs, path)
    encoding = encodings([root / name for name in path.tolist()])
    found = find_series(seen.stain, label, seen.overlay, encoding, group)
    report(total, total)
    return Audit(
        path=path,
        label=label,
        exact=exact,
        pairs=[pair for pair in pairs if seen.digest[pair.first] != seen.digest[pair.second]],
        overlay=seen.overlay,
        overlays=model,
        encoding=encoding,
        series=found,
        block=_blocks(found.series, label, group),
        group=group,
        outlier=_outliers(seen, embeddings[seen.rows] if embeddings is not None else None),
        rejected=sorted(rejected.items()),
        shortcuts=_shortcuts(seen.moments, seen.overlay, encoding, label, group),
        association_bits=_mutual_information_bits(seen.overlay, label),
    )


def _as_dict(trust: Trust) -> dict[str, float]:
    return {
        "images": trust.images,
        "confidence": round(trust.confidence, 4),
        "stain_agreement": round(trust.stain, 4),
        "order_agreement": round(trust.order, 4),
        "by_chance": round(trust.chance, 4),
    }


def _groups(digest: list[str], pairs: list[Pair], path: np.ndarray) -> tuple[np.ndarray, list[list[int]]]:
    """Connected components, named by number in order of appearance; and the sets of identical pixels."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ends = np.array([(pair.first, pair.second) for pair in pairs], dtype=np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(len(path), len(path)))
    _, component = connected_components(graph, directed=False)
    sets: dict[str, list[int]] = {}
    for row, value in enumerate(digest):
        sets.setdefault(value, []).append(row)
    return merge_units(component, digest), [rows for rows in sets.values() if len(rows) > 1]


def _blocks(series: np.ndarray, label: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Runs of `BLOCK_IMAGES` in file order within a series; a group belongs to the block of its first image.

    A group with several labels has a block in each class: a class has no image in another's block.
    """
    block = np.empty(len(series), dtype=np.int64)
    first: dict[tuple[str, int], int] = {}
    number = 0
    for name in np.unique(series):
        rows = np.flatnonzero(series == name)
        for place, row in enumerate(rows):
            own = (str(label[row]), int(group[row]))
            block[row] = first.setdefault(own, number + place // BLOCK_IMAGES)
        number += -(-len(rows) // BLOCK_IMAGES)
    return block


def _outliers(seen: Traits, embeddings: np.ndarray | None) -> dict[int, str]:
    """Blank, blurred or oddly coloured images, and embeddings far from all others, by robust z-scores (median, MAD)."""

    def robust(value: np.ndarray) -> np.ndarray:
        middle = np.median(value)
        return (value - middle) / max(1.4826 * float(np.median(np.abs(value - middle))), 1e-6)

    root = np.sqrt(seen.colour)
    far = robust(np.log(np.linalg.norm(root - np.median(root, axis=0), axis=1) + 1e-6))
    alone = np.zeros(len(root))
    if embeddings is not None:
        known = ~np.isnan(embeddings).any(1)
        alone[known] = robust(np.log(_neighbour_distance(embeddings[known]) + 1e-6))
    blurred = robust(np.log(seen.sharp + 1e-3)) < -3.5
    found: dict[int, str] = {}
    for row in range(len(root)):
        if seen.spread[row] < 4:
            found[row] = "blank"
        elif blurred[row]:
            found[row] = "blurred"
        elif far[row] > 4:
            found[row] = "unusual colour"
        elif alone[row] > 4:
            found[row] = "its embedding is far from all others"
    return found


def _neighbour_distance(embeddings: np.ndarray) -> np.ndarray:
    """Mean cosine distance to the five nearest others, float32 (images,)."""
    from sklearn.neighbors import NearestNeighbors

    unit = embeddings.astype(np.float32)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    count = min(5, len(unit) - 1)
    distance, _ = NearestNeighbors(n_neighbors=count, metric="cosine", algorithm="brute").fit(unit).kneighbors()
    return distance.mean(1)


def _mutual_information_bits(a: np.ndarray, b: np.ndarray) -> float:
    from sklearn.metrics import mutual_info_score

    return float(mutual_info_score(a, b) / np.log(2))


def _shortcuts(
    moments: np.ndarray, overlay: np.ndarray, encoding: np.ndarray, label: np.ndarray, group: np.ndarray
) -> dict[str, float]:
    """Accuracy of colour, of overlay and of the kind of file alone by cross-validation, random and grouped.

    What cannot be computed, for want of images or groups, is left out.
    """
    from sklearn.ensemble import ExtraTreesClassifier
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, cross_val_score
    from sklearn.tree import DecisionTreeClassifier

    kinds, files = ((own[:, None] == np.unique(own)).astype(np.float32) for own in (overlay, encoding))
    result = {"majority": float(max(Counter(label.tolist()).values()) / len(label))}
    # The class with the fewest images, or groups, must have one for each fold; with one there are no folds.
    images = min(_FOLDS, *Counter(label.tolist()).values())
    groups = min(_FOLDS, *(len(np.unique(group[label == name])) for name in np.unique(label)))
    for name, X, model in (
        ("colour", moments, ExtraTreesClassifier(200, random_state=0, n_jobs=-1)),
        ("overlay", kinds, DecisionTreeClassifier(random_state=0)),
        ("kind of file", files, DecisionTreeClassifier(random_state=0)),
    ):
        if X.shape[1] == 1:
            continue
        for way, folds, kind, units in (
            ("random", images, StratifiedKFold, None),
            ("grouped", groups, StratifiedGroupKFold, group),
        ):
            if folds > 1:
                splitter = kind(folds, shuffle=True, random_state=0)
                score = cross_val_score(model, X, label, groups=units, cv=splitter)
                result[f"{name}, {way} folds"] = float(score.mean())
    return result


def write_groups(found: Audit, path: Path | str) -> None:
    """Write `groups.csv`: path,group,series,batch,overlay,block,duplicate_of.

    Raises:
        DataError: It cannot be written.
    """
    of = {row: rows[0] for rows in found.exact for row in rows[1:]}
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("path", "group", "series", "batch", "overlay", "block", "duplicate_of"))
            for row, name in enumerate(found.path):
                copy = found.path[of[row]] if row in of else ""
                inferred = (found.series.series[row], found.series.batch[row], found.overlay[row], found.block[row])
                writer.writerow((name, found.group[row], *inferred, copy))
    except OSError as error:
        raise DataError(f"{path} cannot be written ({error.strerror}). Name another file.") from error
