"""The flag for unusual images: sets of images against each other, for each kind of model.

    python benchmarks/unusual.py embed SET=FOLDER ... --out FOLDER --weights FILE
    python benchmarks/unusual.py pairs FOLDER --own SET[+SET][:VIEWS] ...
    python benchmarks/unusual.py left-out FOLDER --own SET[:VIEWS] ... --groups FILE --column NAME

`embed` embeds a sample of each folder with every view of the recipe `robust`, also of images that the recipe would be
refused for, into FOLDER/SET.npz. `pairs` takes a set, or several together, as the user's own: 80 % of its images train
and calibrate (five folds), 20 % are held out, and every other set is foreign. VIEWS is plain, fields or cells: what the
model reads. Methods are compared; "chosen" is the method that did best on all other own sets, so that no set chooses
for itself. `left-out` holds a fifth of the groups out, such as patients. `benchmarks/foreign.py` draws foreign sets.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ball_features.bundles.bundle import UNUSUAL_SHARE
from ball_features.bundles.calibration import neighbour_distance, unit_mean
from ball_features.bundles.novelty import Scale, colour_shares, fit_colours, fit_gaussians, fit_scale, score_parts

VIEWS = {"plain": [], "fields": [1, 2, 3, 4], "cells": [5, 6, 7, 8, 9, 10]}
FOLDS = 5
# Sets that are not foreign to another: of the same slides.
SAME = {
    "all": ("erased-all", "masked"),
    "malaria": ("mosaic",),
    "augmented": ("erased-augmented", "erased-bccd"),
    "pbc": ("erased-pbc",),
    "bccd": ("erased-bccd", "erased-augmented"),
    "zheng1": ("erased-zheng1",),
}

Scores = Callable[["Images", np.ndarray, "Images"], np.ndarray]  # (training images, classes, images) -> scores


@dataclass(frozen=True, eq=False)
class Images:
    """Images of a set.

    Attributes:
        X: embeddings, plain view first, float32 (images, views, dim).
        histogram: share of the pixels in each bin of colour, float32 (images, bins).
    """

    X: np.ndarray
    histogram: np.ndarray

    def __len__(self) -> int:
        """Number of images."""
        return len(self.X)

    def rows(self, rows: np.ndarray) -> Images:
        """These images alone."""
        return Images(self.X[rows], self.histogram[rows])

    @property
    def own(self) -> np.ndarray:
        """The model's views."""
        return self.X[:, slice(1, None) if self.X.shape[1] > 1 else slice(None)]


def _neighbours_of_mean(train: Images, codes: np.ndarray, new: Images) -> np.ndarray:
    """Distance to the nearest training images in the mean of the model's views: the flag of version 0.1."""
    return neighbour_distance(new.own, unit_mean(train.own))[0][:, None]


def _mahalanobis(train: Images, codes: np.ndarray, new: Images) -> np.ndarray:
    return score_parts(fit_gaussians(train.X, codes), None, new.X, None)


def _mahalanobis_of_model(train: Images, codes: np.ndarray, new: Images) -> np.ndarray:
    return score_parts(fit_gaussians(train.own, codes), None, new.own, None)


def _relative(train: Images, codes: np.ndarray, new: Images) -> np.ndarray:
    return _mahalanobis(train, codes, new) - _mahalanobis(train, np.zeros(len(train), dtype=int), new)


def _views(train: Images, codes: np.ndarray, new: Images) -> np.ndarray:
    return np.column_stack([_mahalanobis(train, codes, new), _neighbours_of_mean(train, codes, new)])


def _colours(train: Images, codes: np.ndarray, new: Images) -> np.ndarray:
    return np.maximum(fit_colours(train.histogram, codes).score(colour_shares(new.histogram)), 1)


def _product(train: Images, codes: np.ndarray, new: Images) -> np.ndarray:
    return np.column_stack([_views(train, codes, new), _colours(train, codes, new)])


def linear_scale(scores: np.ndarray, predicted: np.ndarray) -> Scale:
    """The scale before: of the scores themselves, from their median to their 95th percentile."""
    empty = Scale(np.median(scores, 0), np.quantile(scores, 0.95, axis=0), np.empty(0), predicted)
    return replace(empty, values=empty(scores))


METHODS: dict[str, tuple[Scores, Callable[[np.ndarray, np.ndarray], Scale]]] = {
    "neighbours, mean of views": (_neighbours_of_mean, linear_scale),
    "relative Mahalanobis": (_relative, linear_scale),
    "Mahalanobis, model's views": (_mahalanobis_of_model, linear_scale),
    "Mahalanobis and neighbours": (_views, linear_scale),
    "colours": (_colours, fit_scale),
    "Mahalanobis, neighbours, colours, one scale": (_product, linear_scale),
    "Mahalanobis, neighbours, colours": (_product, fit_scale),
}


def flagged(
    own: tuple[Images, np.ndarray], foreign: dict[str, Images], name: str, parts: tuple[np.ndarray, np.ndarray]
) -> dict[str, float]:
    """Share of images that are flagged, of the held-out own ones ("own") and of each foreign set.

    Args:
        own: images and class numbers.
        foreign: images of other sets, by name.
        name: key of `METHODS`.
        parts: number of the part of each own image, of which part 0 is held out, and of the fold, of which the model of
            the others scores it, int (images,).
    """
    (call, scaled), (images, codes), (part, fold) = METHODS[name], own, parts
    held, rest = images.rows(part == 0), part != 0
    images, codes, fold = images.rows(rest), codes[rest], fold[rest]
    scores: list[np.ndarray] = [np.empty(0)] * len(codes)
    # Without a classifier the class is that of the nearest class mean, as a classifier's mostly is.
    called = np.zeros(len(codes), dtype=int)
    for k in np.unique(fold):
        seen, new = fold != k, np.flatnonzero(fold == k)
        train = images.rows(seen)
        called[new] = _nearest(train, codes[seen], images.rows(new))
        for row, score in zip(new, call(train, codes[seen], images.rows(new)), strict=True):
            scores[row] = score
    scale = scaled(np.stack(scores), called)
    count = int(codes.max()) + 1
    return {
        key: float(scale.flags(call(images, codes, Z), _nearest(images, codes, Z), count, UNUSUAL_SHARE).mean())
        for key, Z in ({"own": held} | foreign).items()
    }


def random_parts(count: int) -> tuple[np.ndarray, np.ndarray]:
    """A fifth held out at random, and random folds."""
    return tuple(np.random.default_rng(seed).permutation(count) % FOLDS for seed in (0, 1))  # type: ignore[return-value]


def group_parts(group: np.ndarray, whole: bool) -> tuple[np.ndarray, np.ndarray]:
    """A fifth of the groups held out; folds of whole groups, or random ones as where the groups are not known."""
    code = np.unique(group, return_inverse=True)[1]
    part = (np.random.default_rng(0).permutation(code.max() + 1) % FOLDS)[code]
    return part, part if whole else random_parts(len(group))[1]


def _nearest(train: Images, codes: np.ndarray, new: Images) -> np.ndarray:
    flat, X = train.own.reshape(len(train), -1), new.own.reshape(len(new), -1)
    names = np.unique(codes)
    means = np.stack([flat[codes == name].mean(0) for name in names])
    return names[np.stack([((X - mean) ** 2).sum(1) for mean in means], 1).argmin(1)]


def embed(folder: Path, out: Path, weights: str, most: int) -> None:
    """Embed a sample of a folder with every view, and write it with the classes that its folders name."""
    import torch

    from ball_features.config import ExtractConfig
    from ball_features.dataset.decode import decode
    from ball_features.dataset.manifest import scan, spread_rows
    from ball_features.extraction.backbones import get_backbone
    from ball_features.extraction.engine.devices import best_precision, resolve_device
    from ball_features.extraction.engine.modules import build_engine
    from ball_features.extraction.loading import resize
    from ball_features.extraction.pixels import shortcut_numbers
    from ball_features.extraction.preprocessing import Preprocessing
    from ball_features.extraction.readouts import reader
    from ball_features.extraction.weights import load_backbone

    backbone, device = get_backbone("densenet121"), resolve_device("auto")
    config = ExtractConfig(backbone="densenet121", weights=weights, recipe="robust")
    wanted = replace(Preprocessing.from_config(config, backbone), dim=backbone.dim)
    read = reader(build_engine(backbone, load_backbone(backbone, weights, 0), device, best_precision(device), False))
    manifest = scan(folder, least_classes=0)
    rows = spread_rows(len(manifest.path), most)
    files = [manifest.root / manifest.path[row] for row in rows]
    parts, colours = [], []
    for start in range(0, len(files), 16):
        block = files[start : start + 16]
        pixels = torch.stack([resize(decode(file), backbone.input_px) for file in block]).float().div_(255)
        digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in block]
        parts.append(wanted.embed(pixels.to(device), digests, read).cpu().numpy().astype(np.float16))
        colours.append(shortcut_numbers(pixels, ("histogram",))["histogram"].numpy())
    path, label = (np.array([column[row] for row in rows]) for column in (manifest.path, manifest.label))
    np.savez(out, X=np.concatenate(parts), histogram=np.concatenate(colours), label=label, path=path)


def pairs(folder: Path, own: list[str], most: int) -> None:
    """Print every own set against every other set, and each kind of foreign image over the own sets."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for item in own:
        names, views = _parse(item)
        images, codes, _ = _load(folder, names, views)
        skip = {
            *names,
            *(f"{name}-sample" for name in names),
            *(other for name in names for other in SAME.get(name, ())),
        }
        sets = {file.stem for file in folder.glob("*.npz") if np.load(file)["X"].shape[1] > max(views)} - skip
        foreign = {
            name: _load(folder, [name], views)[0]
            for name in sorted(sets)
            if not (name.endswith("-sample") and name.removesuffix("-sample") in sets)
        }
        foreign = {name: _spread(Z, most) for name, Z in foreign.items()}
        parts = random_parts(len(codes))
        found[item] = {name: flagged((images, codes), foreign, name, parts) for name in METHODS}
        for name, shares in found[item].items():
            print(_row(item, name, shares), flush=True)
    print("\nKinds of foreign images, mean and lowest over the own sets:\n")
    for name in METHODS:
        kinds: dict[str, list[float]] = {}
        for shares in (rows[name] for rows in found.values()):
            for kind, share in shares.items():
                kinds.setdefault(kind, []).append(share)
        cells = [f"{kind} {100 * np.mean(own):.0f} ({100 * min(own):.0f})" for kind, own in sorted(kinds.items())]
        print(f"- {name}: {', '.join(cells)}")
    if len(own) > 1:
        print("\nThe method of each set chosen by all others that share no image with it:\n")
        for item in own:
            apart = [rows for other, rows in found.items() if not {*_parse(other)[0]} & {*_parse(item)[0]}]
            means = {name: np.mean([_foreign(rows[name]) for rows in apart]) for name in METHODS}
            best = max(means, key=lambda name: float(means[name]))
            print(_row(item, f"chosen: {best}", found[item][best]), flush=True)


def left_out(folder: Path, own: list[str], groups: Path, column: str) -> None:
    """Print the share of own images that are flagged where their group is not among the training images."""
    with groups.open(newline="", encoding="utf-8") as file:
        group_of = {row["path"]: row[column] for row in csv.DictReader(file)}
    for item in own:
        names, views = _parse(item)
        images, codes, path = _load(folder, names, views)
        group = np.array([group_of[name] for name in path])
        for method in METHODS:
            known, unknown = (
                flagged((images, codes), {}, method, group_parts(group, whole))["own"] for whole in (True, False)
            )
            print(f"| {item} | {column} | {method} | {100 * known:.1f} | {100 * unknown:.1f} |", flush=True)


def _parse(item: str) -> tuple[list[str], list[int]]:
    name, _, kind = item.partition(":")
    return name.split("+"), [0, *VIEWS[kind or "plain"]]


def _load(folder: Path, names: list[str], views: list[int]) -> tuple[Images, np.ndarray, list[str]]:
    """Images of several sets, their class numbers and paths."""
    parts = [np.load(folder / f"{name}.npz") for name in names]
    X, histogram, label, path = (
        np.concatenate([part[key][:, views] if key == "X" else part[key] for part in parts])
        for key in ("X", "histogram", "label", "path")
    )
    codes = np.unique(label, return_inverse=True)[1]
    return Images(X.astype(np.float32), histogram.astype(np.float32)), codes, path.tolist()


def _spread(images: Images, most: int) -> Images:
    """At most so many images, from all over the set."""
    return images.rows(np.unique(np.linspace(0, len(images) - 1, min(most, len(images))).astype(int)))


def _foreign(shares: dict[str, float]) -> float:
    return float(np.mean([share for name, share in shares.items() if name != "own"]))


def _row(item: str, method: str, shares: dict[str, float]) -> str:
    rest = sorted(((name, share) for name, share in shares.items() if name != "own"), key=lambda pair: pair[1])
    lowest = ", ".join(f"{name} {100 * share:.0f}" for name, share in rest[:3])
    return f"| {item} | {method} | {100 * shares['own']:.1f} | {100 * _foreign(shares):.1f} | {lowest} |"


def main() -> None:
    """Embed sets, or compare them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, dest="command")
    first = commands.add_parser("embed")
    first.add_argument("sets", nargs="+", metavar="SET=FOLDER")
    first.add_argument("--out", type=Path, required=True)
    first.add_argument("--weights", default="imagenet")
    first.add_argument("--images", type=int, default=300)
    second = commands.add_parser("pairs")
    second.add_argument("folder", type=Path)
    second.add_argument("--own", nargs="+", required=True)
    second.add_argument("--foreign-images", type=int, default=300)
    third = commands.add_parser("left-out")
    third.add_argument("folder", type=Path)
    third.add_argument("--own", nargs="+", required=True)
    third.add_argument("--groups", type=Path, required=True)
    third.add_argument("--column", default="group")
    given = parser.parse_args()
    if given.command == "pairs":
        pairs(given.folder, given.own, given.foreign_images)
        return
    if given.command == "left-out":
        left_out(given.folder, given.own, given.groups, given.column)
        return
    given.out.mkdir(parents=True, exist_ok=True)
    for item in given.sets:
        name, _, folder = item.partition("=")
        embed(Path(folder), given.out / f"{name}.npz", given.weights, given.images)


if __name__ == "__main__":
    main()
