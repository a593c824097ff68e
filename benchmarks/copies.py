"""Copies of single images with known truth, and how many of them `ball audit` finds.

    python benchmarks/copies.py make IMAGES OUT [--like 'zheng1_*' 'bccd_*'] [--count 160] [--seed 1]
    ball audit OUT/images --json > audit.json
    python benchmarks/copies.py score OUT audit.json

Half of a sample of images gets one copy each: turned by any angle, turned and zoomed by 0.7 to 1.4, mirrored, of
another brightness, encoded again, or all of these. Corners that a turn uncovers are mirrored, black or the border's.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

import cv2
import numpy as np

KINDS = ("turn", "turn and zoom", "mirror", "brightness", "encoding", "all")
_TURNED, _ZOOMED = ("turn", "turn and zoom", "all"), ("turn and zoom", "all")
_BRIGHT, _ENCODED = ("brightness", "all"), ("encoding", "all")
_FILLS = (cv2.BORDER_REFLECT, cv2.BORDER_CONSTANT, cv2.BORDER_REPLICATE)


def altered(image: np.ndarray, kind: str, rng: np.random.Generator) -> np.ndarray:
    """A copy of an image, uint8 (height, width, 3)."""
    height, width = image.shape[:2]
    angle_deg = rng.uniform(0, 360) if kind in _TURNED else 0
    zoom = float(np.exp(rng.uniform(np.log(0.7), np.log(1.4)))) if kind in _ZOOMED else 1
    affine = cv2.getRotationMatrix2D((width / 2, height / 2), angle_deg, zoom)
    copy = cv2.warpAffine(image, affine, (width, height), borderMode=_FILLS[rng.integers(3)])
    if kind == "mirror" or (kind == "all" and rng.random() < 0.5):
        copy = copy[:, ::-1]
    if kind in _BRIGHT:
        copy = np.clip(copy.astype(np.float32) * rng.uniform(0.75, 1.2) + rng.uniform(-15, 15), 0, 255)
    return np.ascontiguousarray(copy.astype(np.uint8))


def make(images: Path, out: Path, like: list[str], count: int, seed: int) -> None:
    """Write originals, copies and truth.json, a list of (original, copy, kind)."""
    rng = np.random.default_rng(seed)
    files = sorted({file for pattern in like for file in images.glob(f"*/{pattern}")})
    truth = []
    for number, row in enumerate(rng.permutation(len(files))[:count]):
        image, label = cv2.imread(str(files[row])), files[row].parent.name
        folder = out / "images" / label
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f"{files[row].stem}.png"), image)
        if number >= count // 2 or image is None:
            continue
        kind = KINDS[number % len(KINDS)]
        name = f"copy{number:03d}.jpg"
        quality = int(rng.integers(60, 95)) if kind in _ENCODED else 95
        cv2.imwrite(str(folder / name), altered(image, kind, rng), [cv2.IMWRITE_JPEG_QUALITY, quality])
        truth.append((f"{label}/{files[row].stem}.png", f"{label}/{name}", kind))
    (out / "truth.json").write_text(json.dumps(truth), encoding="utf-8")


def score(out: Path, audit: Path) -> None:
    """Print how many copies of each kind were found, and the other pairs."""
    found = json.loads(audit.read_text(encoding="utf-8"))
    pairs = {frozenset((pair["first"], pair["second"])) for pair in found["pairs"]}
    truth = {frozenset(row[:2]): row[2] for row in json.loads((out / "truth.json").read_text(encoding="utf-8"))}
    there, hit = Counter(truth.values()), Counter(kind for pair, kind in truth.items() if pair in pairs)
    print("| change | copies found | of |\n| --- | ---: | ---: |")
    for kind in KINDS:
        print(f"| {kind} | {hit[kind]} | {there[kind]} |")
    print(f"\n{len(pairs - set(truth))} other pairs:")
    for pair in sorted(map(sorted, pairs - set(truth))):
        print(f"  {' '.join(pair)}")


def main() -> None:
    """Make copies, or score an audit of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make")
    making.add_argument("images", type=Path)
    making.add_argument("out", type=Path)
    making.add_argument("--like", nargs="+", default=["*"])
    making.add_argument("--count", type=int, default=160)
    making.add_argument("--seed", type=int, default=1)
    scoring = commands.add_parser("score")
    scoring.add_argument("out", type=Path)
    scoring.add_argument("audit", type=Path)
    asked = parser.parse_args()
    if asked.command == "make":
        make(asked.images, asked.out, asked.like, asked.count, asked.seed)
    else:
        score(asked.out, asked.audit)


if __name__ == "__main__":
    main()
