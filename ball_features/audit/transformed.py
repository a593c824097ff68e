"""Pairs of images of which one is a turned, zoomed, flipped or shifted copy of the other, by any angle.

SIFT features (Lowe 2004, doi 10.1023/B:VISI.0000029664.99615.94, as RootSIFT, Arandjelovic and Zisserman 2012) do not
change when a picture is turned or zoomed. One index over the features of all images proposes pairs: features vote for a
pair of images together with an angle and a scale, so that chance matches do not add up (weak geometric consistency,
Jegou, Douze and Schmid 2008, section 4). Each proposal is confirmed twice: an affine map that several features agree on
(RANSAC), and the correlation of fine detail over the whole common area once the second picture is laid on the first.
Copies of copies are found by trying all pairs of a connected set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

import numpy as np

from ball_features.audit.confirmation import Pair
from ball_features.audit.sift import Features, describe, mirrored_order, root_vectors
from ball_features.audit.sift_matches import matches
from ball_features.audit.symmetry import agrees_in_one_position
from ball_features.audit.thread_pool import thread_pool

__all__ = ["find_transformed"]

ANGLE_BINS, SCALE_BINS = 12, 7  # 30 degrees, a factor of 2
LEAST_VOTES = 5
PROPOSALS_PER_IMAGE = 40  # those with the most votes
RATIO = 0.9  # of the distances to the best and the second-best match (Lowe 2004, section 7.1, uses 0.8)
LEAST_INLIERS = 5  # an affine map is fixed by three
SURE_INLIERS = 7
TOLERANCE_PX = 4.0
LEAST_SCALE, MOST_SCALE, MOST_STRETCH = 0.5, 2.0, 1.6  # of the affine map; another one is no copy
SMOOTH_PX, DETAIL_PX = 1.5, 8.0  # what is finer is noise, what is coarser is not detail
LEAST_CORRELATION = 0.6  # with few features
SURE_CORRELATION = 0.3  # with SURE_INLIERS; what tells copies is that they agree in one position alone (`symmetry`)
LEAST_PIXELS = 2000  # of the common area
COPY_OVERLAP = 0.5  # share of one of the pictures that the other shows, from which it is a copy and not a neighbour
_PART = 1 << 20  # matches whose owners are compared at a time
LARGEST_SET = 200  # images of a connected set whose pairs are all tried


Proposal = tuple[int, int, bool]  # rows of two images, and whether the second is mirrored


def find_transformed(
    picture: Callable[[int], tuple[np.ndarray, np.ndarray]],
    count: int,
    *,
    known: Iterable[tuple[int, int]] = (),
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[Pair]:
    """Find transformed copies and, by the way, overlapping fields that are turned or zoomed.

    Args:
        picture: row -> grey picture uint8 (height, width), and bool (height, width), True where it counts (no overlay,
            no frame).
        count: number of images.
        known: pairs of rows that were confirmed by other means and are left out.
        seed: seed of the index.
        progress: called with (steps done, steps in all).

    Returns:
        Confirmed pairs in the order of rows, "near-duplicate" or "shared-field".
    """
    report = progress or (lambda done, total: None)
    features = describe(picture, count, lambda done: report(done, 2 * count))
    if len(features.owner) < 2:
        return []
    done = {(min(pair), max(pair)) for pair in known}
    proposed = [item for item in _propose(features, count, seed) if item[:2] not in done]
    pairs = _confirm_all(picture, features, proposed, lambda part: report(count + int(part * count), 2 * count))
    copies = [(pair.first, pair.second) for pair in pairs if pair.kind == "near-duplicate"]
    found = done | {(pair.first, pair.second) for pair in pairs}
    rest = [pair for pair in _within_sets([*copies, *done], copies, count) if pair not in found]
    more = _confirm_all(
        picture, features, [(*pair, flip) for pair in rest for flip in (False, True)], lambda part: None
    )
    pairs += {(pair.first, pair.second): pair for pair in more}.values()
    report(2 * count, 2 * count)
    return sorted(pairs, key=lambda pair: (pair.first, pair.second))


def _propose(features: Features, count: int, seed: int) -> list[Proposal]:
    """Pairs of images whose features agree on an angle and a scale, as they are or mirrored."""
    votes: dict[int, tuple[int, bool]] = {}
    for flip, (query, found) in zip((False, True), matches(features, seed), strict=True):
        for key, number in _votes(features, query, found, count, flip):
            votes[key] = max(votes.get(key, (0, False)), (number, flip))
    return _strongest(votes, count)


def _votes(
    features: Features, query: np.ndarray, other: np.ndarray, count: int, flip: bool
) -> Iterable[tuple[int, int]]:
    """(first * count + second, votes) of each pair with enough matches of one angle and one scale."""
    pair = np.empty(len(query), dtype=np.int64)
    for start in range(0, len(query), _PART):
        a, b = (features.owner[own[start : start + _PART]] for own in (query, other))
        pair[start : start + _PART] = np.minimum(a, b) * count + np.maximum(a, b)
    enough = _frequent(pair, LEAST_VOTES)
    pair, query, other = pair[enough], query[enough], other[enough]
    swap = features.owner[query] > features.owner[other]
    # The turn that takes one to the other; in a mirrored picture angles run the other way, and the two angles add up.
    turn = (features.angle_deg[other] + (1 if flip else -1) * features.angle_deg[query]) % 360
    octaves = np.log2(features.size[other] / features.size[query])
    turn = turn if flip else np.where(swap, -turn, turn) % 360
    octaves = np.where(swap, -octaves, octaves)
    for shift_deg in (0.0, 180 / ANGLE_BINS):  # overlapping bins, so that no match lies at the edge of all
        for shift in (0.0, 0.5):
            angle = ((turn + shift_deg) // (360 / ANGLE_BINS)).astype(np.int64) % ANGLE_BINS
            scale = np.clip(np.floor(octaves + shift).astype(np.int64) + SCALE_BINS // 2, 0, SCALE_BINS - 1)
            key, number = np.unique((pair * ANGLE_BINS + angle) * SCALE_BINS + scale, return_counts=True)
            enough = number >= LEAST_VOTES
            yield from zip((key[enough] // (ANGLE_BINS * SCALE_BINS)).tolist(), number[enough].tolist(), strict=True)


def _frequent(keys: np.ndarray, least: int) -> np.ndarray:
    """Mask of the keys that occur so often, bool (keys,). Most pairs of images match once or twice, by chance."""
    ordered = np.sort(keys)
    often = np.unique(ordered[least - 1 :][ordered[least - 1 :] == ordered[: len(ordered) - least + 1]])
    del ordered
    mask = np.zeros(len(keys), dtype=bool)
    for start in range(0, len(keys) if len(often) else 0, _PART):
        own = keys[start : start + _PART]
        mask[start : start + _PART] = often[np.minimum(np.searchsorted(often, own), len(often) - 1)] == own
    return mask


def _strongest(votes: dict[int, tuple[int, bool]], count: int) -> list[Proposal]:
    """Pairs by votes; of each image those with the most, so that the work grows with the number of images."""
    used = np.zeros(count, dtype=np.int64)
    chosen = []
    for key, (_, flip) in sorted(votes.items(), key=lambda item: (-item[1][0], item[0])):
        first, second = divmod(key, count)
        if min(used[first], used[second]) < PROPOSALS_PER_IMAGE:
            used[[first, second]] += 1
            chosen.append((first, second, flip))
    return sorted(chosen)


def _within_sets(
    links: Sequence[tuple[int, int]], copies: Sequence[tuple[int, int]], count: int
) -> list[tuple[int, int]]:
    """All pairs of images that copies connect, of sets that are not too large."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not copies:
        return []
    ends = np.array(links)
    graph = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(count, count))
    _, component = connected_components(graph, directed=False)
    touched = np.unique(component[np.array(copies)])
    order = np.argsort(component, kind="stable")
    pairs = []
    for code in touched:
        start, stop = np.searchsorted(component[order], [code, code + 1])
        rows = np.sort(order[start:stop]).tolist()
        if len(rows) <= LARGEST_SET:
            pairs += [(a, b) for number, a in enumerate(rows) for b in rows[number + 1 :]]
    return pairs


def _confirm_all(
    picture: Callable[[int], tuple[np.ndarray, np.ndarray]],
    features: Features,
    proposed: Sequence[Proposal],
    progress: Callable[[float], None],
) -> list[Pair]:
    """The proposals that features and pixels confirm."""
    prepared = lru_cache(256)(lambda row: _prepared(*picture(row)))
    rooted = lru_cache(1024)(lambda row: root_vectors(features.vector[features.of(row)]))

    def confirm(proposal: Proposal) -> Pair | None:
        first, second, mirror = proposal
        place = (features.place[features.of(first)], features.place[features.of(second)])
        found = _affine(rooted(first), rooted(second), place, mirror)
        if found is None:
            return None
        pair = _correlate(prepared(first), prepared(second), found[0], (first, second))
        if pair is None or pair.score < found[1]:
            return None
        return pair if _in_one_position(picture(first), picture(second), found[0]) else None

    pairs = []
    with thread_pool() as pool:
        confirmed = pool.map(confirm, proposed)
        for number, pair in enumerate(confirmed, 1):
            if pair is not None:
                pairs.append(pair)
            if not number % 500:
                progress(number / len(proposed))
    return pairs


def _prepared(grey: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The smoothed picture, float32, and where it counts, uint8 0 or 255."""
    import cv2

    smooth = cv2.GaussianBlur(grey.astype(np.float32), (0, 0), SMOOTH_PX)
    return smooth, np.where(counts, 255, 0).astype(np.uint8)


def _affine(
    a: np.ndarray, b: np.ndarray, place: tuple[np.ndarray, np.ndarray], mirror: bool
) -> tuple[np.ndarray, float] | None:
    """The map (2, 3) from the second picture to the first that features agree on, and the correlation that it needs.

    Args:
        a: float32 (features, 128), RootSIFT vectors of the first picture.
        b: float32 (features, 128), those of the second.
        place: float32 (features, 2) of both, x and y in pixels.
        mirror: whether the second picture is mirrored.
    """
    import cv2

    if len(a) < LEAST_INLIERS or len(b) < LEAST_INLIERS:
        return None
    cosine = a @ (b[:, mirrored_order()] if mirror else b).T
    match, back = cosine.argmax(1), cosine.argmax(0)
    rows = np.arange(len(a))
    best = cosine[rows, match]
    cosine[rows, match] = -1
    nearest_to, second_to = (np.sqrt(np.maximum(2 - 2 * own, 1e-9)) for own in (best, cosine.max(1)))
    good = (nearest_to < RATIO * second_to) & (back[match] == rows)
    if good.sum() < LEAST_INLIERS:
        return None
    source, target = place[1][match[good]], place[0][good]
    cv2.setRNGSeed(0)
    affine, inside = cv2.estimateAffine2D(
        source, target, method=cv2.RANSAC, ransacReprojThreshold=TOLERANCE_PX, maxIters=1000, confidence=0.99
    )
    if affine is None or inside.sum() < LEAST_INLIERS or (np.linalg.det(affine[:, :2]) < 0) != mirror:
        return None
    large, small = np.linalg.svd(affine[:, :2], compute_uv=False)
    fits = LEAST_SCALE < small and large < MOST_SCALE and large / small < MOST_STRETCH
    needed = SURE_CORRELATION if inside.sum() >= SURE_INLIERS else LEAST_CORRELATION
    return (affine, needed) if fits else None


def _correlate(
    one: tuple[np.ndarray, np.ndarray],
    two: tuple[np.ndarray, np.ndarray],
    affine: np.ndarray,
    rows: tuple[int, int],
) -> Pair | None:
    """The pair, scored by the correlation of fine detail over the common area; None where that area is too small."""
    import cv2

    (a, counts_a), (b, counts_b) = one, two
    height, width = a.shape
    moved = cv2.warpAffine(b, affine, (width, height))
    common = cv2.warpAffine(counts_b, affine, (width, height)) & counts_a
    inside = cv2.erode(np.asarray(common, np.uint8), np.ones((9, 9), np.uint8)) > 250
    pixels = int(inside.sum())
    if pixels < LEAST_PIXELS:
        return None
    x, y = ((image - cv2.GaussianBlur(image, (0, 0), DETAIL_PX))[inside] for image in (a, moved))
    x, y = x - x.mean(), y - y.mean()
    score = float(x @ y / np.sqrt((x @ x) * (y @ y) + 1e-6))
    area = (common > 250).sum()
    share = max(area / max(int((counts_a > 0).sum()), 1), area / _area_of(counts_b, affine))
    kind = "near-duplicate" if share >= COPY_OVERLAP else "shared-field"
    centre = np.array([b.shape[1] / 2, b.shape[0] / 2, 1.0])
    x_px, y_px = (affine @ centre - [width / 2, height / 2]).round().astype(int).tolist()
    return Pair(*rows, kind, x_px, y_px, 0, round(score, 4))


def _in_one_position(
    one: tuple[np.ndarray, np.ndarray], two: tuple[np.ndarray, np.ndarray], affine: np.ndarray
) -> bool:
    """Whether the second picture, laid on the first by the map, agrees there and not in other positions as well."""
    import cv2

    (a, counts_a), (b, counts_b) = one, two
    height, width = a.shape
    seen = cv2.warpAffine(counts_b.astype(np.uint8), affine, (width, height), flags=cv2.INTER_NEAREST)
    valid = (cv2.erode(np.asarray(seen, np.uint8), np.ones((9, 9), np.uint8), borderValue=0) > 0) & counts_a
    return agrees_in_one_position(a, np.asarray(cv2.warpAffine(b, affine, (width, height))), valid)


def _area_of(counts: np.ndarray, affine: np.ndarray) -> float:
    """Area of the second picture once it is laid on the first, in pixels."""
    return max(float((counts > 0).sum() * abs(np.linalg.det(affine[:, :2]))), 1.0)
