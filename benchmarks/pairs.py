"""How many of the pairs that are there `ball audit` reports, held against two references that know nothing of it.

    python benchmarks/pairs.py IMAGES --neighbours 600

Near-duplicates: every pair of images is compared at 64 x 64 in all eight positions; a correlation above 0.9 counts.
Shared fields: images at most three apart in file order, within a class, are matched by ORB features and RANSAC on a
shift (scikit-image); ten agreeing features count. Overlays are masked for both.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from skimage.feature import ORB, match_descriptors
from skimage.measure import ransac
from skimage.transform import resize

from ball_features.audit.findings import Audit, audit
from ball_features.audit.orientation import orient
from ball_features.audit.traits import grey, load_square
from ball_features.dataset.manifest import scan

_SIDE = 64
_LEAST = 0.9
_INLIERS = 10
_APART = 3


class Shift:
    """A shift, as RANSAC wants a model: by `from_estimate` since scikit-image 0.26, by `estimate` before."""

    def __init__(self) -> None:
        self.shift = np.zeros(2)

    @classmethod
    def from_estimate(cls, source: np.ndarray, target: np.ndarray) -> Shift:
        """Fit a new one."""
        model = cls()
        model.estimate(source, target)
        return model

    def estimate(self, source: np.ndarray, target: np.ndarray) -> bool:
        """Fit."""
        self.shift = (target - source).mean(0)
        return True

    def residuals(self, source: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Distance of each feature from where the shift puts it."""
        return np.linalg.norm(source + self.shift - target, axis=1)


def near_duplicates(pictures: np.ndarray, seen: np.ndarray) -> set[tuple[int, int]]:
    """Pairs by brute force: float (images, side, side), bool (side, side)."""

    def unit(images: np.ndarray, mask: np.ndarray) -> np.ndarray:
        flat = images.reshape(len(images), -1)[:, mask.ravel()]
        flat = flat - flat.mean(1, keepdims=True)
        return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)

    found = set()
    for position in range(8):
        both = seen & orient(seen, position)
        one = unit(pictures, both)
        two = unit(np.stack([orient(image, position) for image in pictures]), both)
        for start in range(0, len(one), 500):
            rows, others = np.nonzero(one[start : start + 500] @ two.T > _LEAST)
            found |= {(int(a + start), int(b)) for a, b in zip(rows, others, strict=True) if a + start < b}
    return found


def features(picture: np.ndarray, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places (y, x) in pixels and descriptors, off the overlay."""
    orb = ORB(n_keypoints=400, fast_threshold=0.03)
    try:
        orb.detect_and_extract(resize(picture / 255.0, (2 * len(picture), 2 * len(picture)), order=1))
    except RuntimeError:  # no features at all
        return np.zeros((0, 2)), np.zeros((0, 256), dtype=bool)
    place = orb.keypoints / 2
    inside = seen[place[:, 0].astype(int), place[:, 1].astype(int)]
    return place[inside], orb.descriptors[inside]


def shares(one: tuple[np.ndarray, np.ndarray], two: tuple[np.ndarray, np.ndarray]) -> np.ndarray | None:
    """The shift (y, x) of two fields, if enough features agree on one."""
    if min(len(one[0]), len(two[0])) < _INLIERS:
        return None
    match = match_descriptors(one[1], two[1], cross_check=True, max_ratio=0.9)
    if len(match) < _INLIERS:
        return None
    places = (two[0][match[:, 1]], one[0][match[:, 0]])
    model, inlier = ransac(places, Shift, min_samples=2, residual_threshold=2, max_trials=500, rng=0)
    return model.shift if model is not None and inlier.sum() >= _INLIERS else None


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("--neighbours", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    manifest = scan(arguments.images)
    found: Audit = audit(manifest)
    mask = found.overlays.mask()
    reported = {(pair.first, pair.second): pair for pair in found.pairs}
    together = {(a, b) for rows in found.exact for a in rows for b in rows if a < b}
    pictures = [grey(load_square(manifest.root / name)) for name in found.path.tolist()]
    small = np.stack([resize(image.astype(np.float32), (_SIDE, _SIDE), anti_aliasing=True) for image in pictures])
    seen = resize(mask.astype(float), (_SIDE, _SIDE)) < 1e-3
    wanted = near_duplicates(small, seen)
    kept = [pair for pair in wanted if pair in reported or pair in together]
    print(f"near-duplicates: {len(kept)} of {len(wanted)} ({len(together)} of identical pixels among all)")
    rng = np.random.default_rng(arguments.seed)
    every = [
        (row, row + step)
        for step in range(1, _APART + 1)
        for row in range(len(pictures) - step)
        if found.label[row] == found.label[row + step]
    ]
    chosen = [every[place] for place in rng.permutation(len(every))[: arguments.neighbours]]
    rows = sorted({row for pair in chosen for row in pair})
    described = {row: features(pictures[row], ~mask) for row in rows}
    by_reference = missed = differ = 0
    for pair in chosen:
        shift = shares(described[pair[0]], described[pair[1]])
        if shift is None:
            continue
        by_reference += 1
        if pair not in reported and pair not in together:
            missed += 1
            share = float(np.prod(1 - np.abs(shift) / len(mask)))
            print(f"  missed: {found.path[pair[0]]} {found.path[pair[1]]}, {100 * share:.0f} % in common")
        elif pair in reported:
            own = reported[pair]
            differ += bool(np.abs(shift - (own.shift_y_px, own.shift_x_px)).max() > 3)
    only_here = sum(pair in reported and shares(described[pair[0]], described[pair[1]]) is None for pair in chosen)
    print(
        f"shared fields: {by_reference - missed} of {by_reference} among {len(chosen)} neighbours, {differ} with "
        f"another shift; {only_here} more that the reference does not see"
    )


if __name__ == "__main__":
    main()
