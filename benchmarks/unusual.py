"""The flag for unusual images: sets of images against each other, for each kind of model.

    python benchmarks/unusual.py embed SET=FOLDER ... --out FOLDER --weights FILE
    python benchmarks/unusual.py pairs FOLDER --own NAME[:VIEWS] ... --methods all

`embed` embeds a sample of each folder with every view of the recipe `robust`, also of images that the recipe would be
refused for, into FOLDER/SET.npz. `pairs` takes a set as the user's own: 80 % of its images train and calibrate (five
folds), 20 % are held out, and every other set is foreign; SET-sample stands for SET where that lacks views. VIEWS is
plain, fields or cells: what the model reads. Methods are compared; "chosen" is the method that did best on all other
own sets, so that no set chooses for itself.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from ball_features.bundles.bundle import UNUSUAL_SHARE
from ball_features.bundles.calibration import neighbour_distance, unit_mean
from ball_features.bundles.novelty import fit_gaussians, fit_scale

VIEWS = {"plain": [], "fields": [1, 2, 3, 4], "cells": [5, 6, 7, 8, 9, 10]}
FOLDS = 5
SAME = {"hospitals": ("pbc", "bccd", "zheng1")}  # foreign to none of its parts

Scores = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]  # (training X, classes, X) -> (images, scores)


def _neighbours_of_mean(train: np.ndarray, codes: np.ndarray, X: np.ndarray) -> np.ndarray:
    """Distance to the nearest training images in the mean of the model's views: the flag before."""
    own = slice(1, None) if X.shape[1] > 1 else slice(None)
    return neighbour_distance(X[:, own], unit_mean(train[:, own]))[0][:, None]


def _neighbours(train: np.ndarray, codes: np.ndarray, X: np.ndarray) -> np.ndarray:
    """The same in each view."""
    views = range(X.shape[1])
    return np.stack([neighbour_distance(X[:, [v]], unit_mean(train[:, [v]]))[0] for v in views], 1)


def _mahalanobis(train: np.ndarray, codes: np.ndarray, X: np.ndarray) -> np.ndarray:
    return fit_gaussians(train, codes).score(X)


def _relative(train: np.ndarray, codes: np.ndarray, X: np.ndarray) -> np.ndarray:
    return _mahalanobis(train, codes, X) - _mahalanobis(train, np.zeros(len(train), dtype=int), X)


def _product(train: np.ndarray, codes: np.ndarray, X: np.ndarray) -> np.ndarray:
    return np.column_stack([_mahalanobis(train, codes, X), _neighbours_of_mean(train, codes, X)])


def _of_model(method: Scores) -> Scores:
    """A method on the model's views alone."""

    def scores(train: np.ndarray, codes: np.ndarray, X: np.ndarray) -> np.ndarray:
        own = slice(1, None) if X.shape[1] > 1 else slice(None)
        return method(train[:, own], codes, X[:, own])

    return scores


METHODS: dict[str, Scores] = {
    "neighbours, mean of views": _neighbours_of_mean,
    "neighbours, largest view": _neighbours,
    "Mahalanobis, model's views": _of_model(_mahalanobis),
    "Mahalanobis, plain too": _mahalanobis,
    "relative Mahalanobis, plain too": _relative,
    "Mahalanobis, plain too, and neighbours": _product,
}


def flagged(own: tuple[np.ndarray, np.ndarray], foreign: dict[str, np.ndarray], method: Scores) -> dict[str, float]:
    """Share of images that are flagged, of the held-out own ones ("own") and of each foreign set.

    Args:
        own: embeddings, plain view first, (images, views, dim), and class numbers.
        foreign: embeddings of other sets, by name.
        method: key of `METHODS`.
    """
    X, codes = own
    part = np.random.default_rng(0).permutation(len(X)) % FOLDS
    held, rest = X[part == 0], part != 0
    X, codes = X[rest], codes[rest]
    fold = np.random.default_rng(1).permutation(len(X)) % FOLDS
    parts = [(fold == k, method(X[fold != k], codes[fold != k], X[fold == k])) for k in range(FOLDS)]
    scores = np.zeros((len(X), parts[0][1].shape[1]))
    for rows, found in parts:
        scores[rows] = found
    # Without a classifier the class is that of the nearest class mean, as a classifier's mostly is.
    called = np.zeros(len(X), dtype=int)
    for k in range(FOLDS):
        called[fold == k] = _nearest(X[fold != k], codes[fold != k], X[fold == k])
    scale = fit_scale(scores, called)
    limits = scale.limits(int(codes.max()) + 1, UNUSUAL_SHARE)
    return {
        name: float((scale(method(X, codes, Z)) > limits[_nearest(X, codes, Z)]).mean())
        for name, Z in ({"own": held} | foreign).items()
    }


def _nearest(train: np.ndarray, codes: np.ndarray, X: np.ndarray) -> np.ndarray:
    own = slice(1, None) if X.shape[1] > 1 else slice(None)
    train, X = train[:, own].reshape(len(train), -1), X[:, own].reshape(len(X), -1)
    names = np.unique(codes)
    means = np.stack([train[codes == name].mean(0) for name in names])
    return names[((X[:, None] - means) ** 2).sum(2).argmin(1)]


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
    parts = []
    for start in range(0, len(files), 16):
        block = files[start : start + 16]
        pixels = torch.stack([resize(decode(file), backbone.input_px) for file in block]).float().div_(255)
        digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in block]
        parts.append(wanted.embed(pixels.to(device), digests, read).cpu().numpy().astype(np.float16))
    path = np.array([manifest.path[row] for row in rows])
    np.savez(out, X=np.concatenate(parts), label=np.array([manifest.label[row] for row in rows]), path=path)


def pairs(folder: Path, own: list[str], most: int) -> None:
    """Print every own set against every other set."""
    sets = {file.stem: np.load(file) for file in sorted(folder.glob("*.npz"))}
    found: dict[str, dict[str, dict[str, float]]] = {}
    for item in own:
        name, _, kind = item.partition(":")
        views = [0, *VIEWS[kind or "plain"]]
        usable = [other for other, data in sets.items() if data["X"].shape[1] > max(views)]
        skip = {name, f"{name}-sample", *SAME.get(name, ()), *SAME, *(f"{other}-sample" for other in usable)}
        foreign = {
            other: _spread(sets[other]["X"], most)[:, views].astype(np.float32) for other in usable if other not in skip
        }
        codes = np.unique(sets[name]["label"], return_inverse=True)[1]
        mine = sets[name]["X"][:, views].astype(np.float32)
        found[item] = {method: flagged((mine, codes), foreign, call) for method, call in METHODS.items()}
        for method, shares in found[item].items():
            print(_row(item, method, shares), flush=True)
    if len(own) > 1:
        print("\nThe method of each set chosen by all others:\n")
        for item in own:
            others = [shares for other, shares in found.items() if other.split(":")[0] != item.split(":")[0]]
            means = {method: np.mean([_foreign(shares[method]) for shares in others]) for method in METHODS}
            best = max(means, key=lambda method: float(means[method]))
            print(_row(item, f"chosen: {best}", found[item][best]), flush=True)


def _spread(X: np.ndarray, most: int) -> np.ndarray:
    """At most so many images, from all over the set."""
    return X[np.unique(np.linspace(0, len(X) - 1, min(most, len(X))).astype(int))]


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
    given = parser.parse_args()
    if given.command == "pairs":
        pairs(given.folder, given.own, given.foreign_images)
        return
    given.out.mkdir(parents=True, exist_ok=True)
    for item in given.sets:
        name, _, folder = item.partition("=")
        embed(Path(folder), given.out / f"{name}.npz", given.weights, given.images)


if __name__ == "__main__":
    main()
