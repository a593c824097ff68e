"""The published nucleus thresholds, as OpenCV's units can be read, and other methods against the published masks.

    python benchmarks/segmentation.py FOLDER     # that holds Original/ and Segmented/

Prints the median intersection over union and the share of images above 0.8, over all and by class. A published mask is
where the twin is brighter than 40 of 255 in some channel: twins are JPEG files, whose black is not all 0.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ball_features.dataset.manifest import scan
from ball_features.dataset.twins import twin_folder, with_twins
from ball_features.extraction.segmentation import clean_masks, nucleus_mask

BLACK = 40


def read(path: Path) -> np.ndarray:
    """RGB uint8 (height, width, 3)."""
    with Image.open(path) as image:
        return np.array(image.convert("RGB"))


def half_degrees(pixels: torch.Tensor, exchanged: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Hue in half degrees, saturation and value of 255, each (batch, height, width), of the true or exchanged order."""
    first, second, third = (pixels.flip(1) if exchanged else pixels).unbind(1)
    top, low = pixels.amax(1), pixels.amin(1)
    spread = (top - low).clamp_min(1)
    hue = torch.where(
        top == first,
        30 * (second - third) / spread,
        torch.where(top == second, 60 + 30 * (third - first) / spread, 120 + 30 * (first - second) / spread),
    )
    return hue.round() % 180, (255 * (top - low) / top.clamp_min(1)).round(), top


def published(exchanged: bool, wraps: bool) -> Callable[[torch.Tensor], torch.Tensor]:
    """168, 50, 50 to 182, 255, 255."""

    def method(images: torch.Tensor) -> torch.Tensor:
        hue, saturation, value = half_degrees((images * 255).round(), exchanged)
        purple = (hue >= 168) | (hue < 2) if wraps else hue >= 168
        return purple & (saturation >= 50) & (value >= 50)

    return method


METHODS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "hsv, true order": published(False, False),
    "hsv, exchanged, hue to 179": published(True, False),
    "hsv, exchanged, hue round to 2": published(True, True),
    "ball hsv": nucleus_mask,
    "ball hsv, cleaned": lambda images: clean_masks(nucleus_mask(images)),
    "ball otsu": lambda images: nucleus_mask(images, "otsu"),
    "ball otsu, cleaned": lambda images: clean_masks(nucleus_mask(images, "otsu")),
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--limit", type=int, default=0, help="use so many images, spread over the classes")
    arguments = parser.parse_args()
    manifest = scan(arguments.folder, limit=arguments.limit)
    folder = twin_folder(manifest)
    if folder is None:
        raise SystemExit(f"No Segmented/ beside {manifest.root}.")
    manifest = with_twins(manifest, folder)
    label = np.array(manifest.label)
    found: dict[str, list[float]] = {name: [] for name in METHODS}
    pale = []  # share of the pixels of a published mask that are paler than its own threshold of saturation
    for path, twin in zip(manifest.path, manifest.twin, strict=True):
        image, theirs = read(manifest.root / path), torch.from_numpy(read(twin).max(-1) > BLACK)
        pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
        _, saturation, _ = half_degrees((pixels * 255).round(), True)
        pale.append(float(((saturation[0] < 45) & theirs).sum() / theirs.sum().clamp_min(1)))
        for name, method in METHODS.items():
            mask = method(pixels)[0]
            union = int((mask | theirs).sum())
            found[name].append(int((mask & theirs).sum()) / union if union else 1.0)
    classes = sorted(set(label))
    print(f"{len(label)} images\n\n| method | median | above 0.8 |", *(f" {name} |" for name in classes))
    print("| --- |" + " ---: |" * (2 + len(classes)))
    for name, values in found.items():
        overlap = np.array(values)
        own = (f" {np.median(overlap[label == item]):.3f} |" for item in classes)
        print(f"| {name} | {np.median(overlap):.3f} | {100 * (overlap > 0.8).mean():.1f} % |", *own)
    own = (f"{item} {100 * np.median(np.array(pale)[label == item]):.1f} %" for item in classes)
    print("\nPixels of the published masks paler than a saturation of 45 (median share): " + ", ".join(own))


if __name__ == "__main__":
    main()
