"""The flag for unusual images: sets of images against each other, for each kind of model.

    python benchmarks/unusual.py embed SET=FOLDER ... --out FOLDER --weights FILE
    python benchmarks/unusual.py pairs FOLDER --own SET[+SET][:VIEWS] ... [--splits N]
    python benchmarks/unusual.py left-out FOLDER --own SET[:VIEWS] ... --groups FILE --column NAME

`embed` embeds a sample of each folder with every view of the recipe `robust`, also of images that the recipe would be
refused for, into FOLDER/SET.npz. `pairs` takes a set, or several together, as the user's own: 80 % of its images train
and calibrate (five folds), 20 % are held out, and all other sets are foreign; KIND@SET, altered own images, are
foreign to SET alone, and turned@SET are held-out own images. VIEWS is plain, fields or cells: what the model reads.
Methods are compared, and chosen without what they are tested on: for each own set by the own sets that share no image
with it, for each family of foreign kinds by the other families. `left-out` holds a fifth of the groups out, such as
patients. `benchmarks/foreign.py` draws foreign sets.
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
from ball_features.bundles.class_gaussians import fit_gaussians
from ball_features.bundles.novelty import fit_measures
from ball_features.bundles.score_scale import Scale, fit_scale

VIEWS = {"plain": [], "fields": [1, 2, 3, 4], "cells": [5, 6, 7, 8, 9, 10]}
FOLDS = 5
# Sets that are not foreign to another: of the same slides.
SAME = {
    "all": ("erased-all", "masked"),
    "malaria": ("mosaic", "grey@malaria"),  # its cells are grey
    "augmented": ("erased-augmented", "erased-bccd"),
    "pbc": ("erased-pbc",),
    "bccd": ("erased-bccd", "erased-augmented"),
    "zheng1": ("erased-zheng1",),
}
TURNED = "turned"
LATER = "late-"  # kinds that were drawn after the method was settled
FAMILIES = {
    "fields without cells": ("field-", "phone", "mosaic", "erased-", "masked"),
    "pictures": ("photos", "tissue", "scenes"),
    "drawn": ("blank", "black-white", "odd", "drawn", "text", "page@"),
    "altered": ("stain@", "inverted@", "grey@", "blurred@", "noisy@", "nearer@", "farther@", "rimmed@"),
    "later": (LATER,),
    "other smears": ("",),
}


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


def measure(train: Images, codes: np.ndarray, new: Images) -> dict[str, np.ndarray]:
    """Scores by name, float (images, scores), of images by training images and their class numbers."""
    measures = fit_measures(train.X, codes, train.histogram)
    scores, count = measures.score(new.X, new.histogram), new.X.shape[1]
    pooled = np.maximum(fit_gaussians(train.X, np.zeros(len(train), dtype=int)).score(new.X), 1)
    return {
        "views": scores[:, :count],
        "model's views": scores[:, 1 if count > 1 else 0 : count],
        "relative": scores[:, :count] - pooled,
        "colours": scores[:, count : count + 1],
        "near": scores[:, count + 1 :],
        # In the mean of the model's views: the flag of version 0.1.
        "neighbours": neighbour_distance(new.own, unit_mean(train.own))[0][:, None],
    }


def linear_scale(scores: np.ndarray, predicted: np.ndarray) -> Scale:
    """The first scale: of the scores themselves, from their median to their 95th percentile; the largest counts."""
    empty = Scale(np.median(scores, 0), np.quantile(scores, 0.95, axis=0), np.empty(0), predicted)
    return replace(empty, values=empty(scores))


def largest(scores: np.ndarray, predicted: np.ndarray) -> Scale:
    """The scale of the product with the largest score in place of the norm."""
    found = replace(fit_scale(scores, predicted), order=None)
    return replace(found, values=found(scores))


METHODS: dict[str, tuple[tuple[str, ...], Callable[[np.ndarray, np.ndarray], Scale]]] = {
    "neighbours": (("neighbours",), linear_scale),
    "relative Mahalanobis": (("relative",), linear_scale),
    "Mahalanobis, model's views": (("model's views",), linear_scale),
    "Mahalanobis, neighbours, linear": (("views", "neighbours"), linear_scale),
    "colours": (("colours",), largest),
    "near": (("near",), largest),
    "Mahalanobis, neighbours, colours, largest": (("views", "colours", "neighbours"), largest),
    "Mahalanobis, neighbours, colours, joined": (("views", "colours", "neighbours"), fit_scale),
    "Mahalanobis, near, colours, largest": (("views", "colours", "near"), largest),
    "Mahalanobis, near, colours, joined": (("views", "colours", "near"), fit_scale),
}
BEFORE, NOW = "Mahalanobis, neighbours, colours, largest", "Mahalanobis, near, colours, joined"


def flagged(
    own: tuple[Images, np.ndarray], foreign: dict[str, Images], parts: tuple[np.ndarray, np.ndarray]
) -> dict[str, dict[str, float]]:
    """Share of images that each method flags, of the held-out own ones ("own") and of each foreign set.

    Args:
        own: images and class numbers.
        foreign: images of other sets, by name.
        parts: number of the part of each own image, of which part 0 is held out, and of the fold, of which the model of
            the others scores it, int (images,).
    """
    (images, codes), (part, fold) = own, parts
    held, rest = images.rows(part == 0), part != 0
    images, codes, fold = images.rows(rest), codes[rest], fold[rest]
    seen: dict[str, np.ndarray] = {}
    # Without a classifier the class is that of the nearest class mean, as a classifier's mostly is.
    called = np.zeros(len(codes), dtype=int)
    for k in np.unique(fold):
        train, new = images.rows(fold != k), images.rows(fold == k)
        called[fold == k] = _nearest(train, codes[fold != k], new)
        for name, scores in measure(train, codes[fold != k], new).items():
            seen.setdefault(name, np.empty((len(codes), scores.shape[1])))[fold == k] = scores
    names = {"own": held} | {name: Z for name, Z in foreign.items() if len(Z)}
    together = Images(*(np.concatenate([getattr(Z, key) for Z in names.values()]) for key in ("X", "histogram")))
    found, predicted = measure(images, codes, together), _nearest(images, codes, together)
    ends = np.cumsum([len(Z) for Z in names.values()])[:-1]
    shares = {}
    for method, (columns, scaled) in METHODS.items():
        scale = scaled(np.column_stack([seen[name] for name in columns]), called)
        if scale.order is not None:
            groups = [0, *[1] * (images.X.shape[1] - 1), 2, 3]  # as `Measures.groups`
            scale = fit_scale(np.column_stack([seen[name] for name in columns]), called, np.array(groups))
        scores = np.column_stack([found[name] for name in columns])
        flags = scale.flags(scores, predicted, int(codes.max()) + 1, UNUSUAL_SHARE)
        shares[method] = {key: float(own.mean()) for key, own in zip(names, np.split(flags, ends), strict=True)}
    return shares


def random_parts(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A fifth held out at random, and random folds."""
    rngs = (np.random.default_rng(own) for own in (2 * seed, 2 * seed + 1))
    return tuple(rng.permutation(count) % FOLDS for rng in rngs)  # type: ignore[return-value]


def group_parts(group: np.ndarray, whole: bool, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A fifth of the groups held out; folds of whole groups, or random ones as where the groups are not known."""
    code = np.unique(group, return_inverse=True)[1]
    part = (np.random.default_rng(2 * seed).permutation(code.max() + 1) % FOLDS)[code]
    return part, part if whole else random_parts(len(group), seed)[1]


def _nearest(train: Images, codes: np.ndarray, new: Images) -> np.ndarray:
    flat, X = train.own.reshape(len(train), -1), new.own.reshape(len(new), -1)
    names = np.unique(codes)
    means = np.stack([flat[codes == name].mean(0) for name in names])
    return names[np.stack([((X - mean) ** 2).sum(1) for mean in means], 1).argmin(1)]


def embed(folder: Path, out: Path, weights: str, most: int, recipe: str) -> None:
    """Embed a sample of a folder with every view, and write it with the classes that its folders name."""
    import torch

    from ball_features.config import ExtractConfig
    from ball_features.dataset.decode import decode
    from ball_features.dataset.listing import list_images
    from ball_features.dataset.manifest import spread_rows
    from ball_features.extraction.engine.devices import best_precision, resolve_device
    from ball_features.extraction.engine.modules import build_engine
    from ball_features.extraction.loading import resize
    from ball_features.extraction.pixels import shortcut_numbers
    from ball_features.extraction.preprocessing import Preprocessing
    from ball_features.extraction.readouts import reader
    from ball_features.extraction.weights import load_backbone

    device = resolve_device("auto")
    config = ExtractConfig(backbone="densenet121", weights=weights, recipe=recipe)
    wanted = Preprocessing.from_config(config)
    backbone = wanted.backbone
    read = reader(build_engine(backbone, load_backbone(backbone, weights, 0), device, best_precision(device), False))
    paths = list_images(folder).images
    path = np.array([paths[row] for row in spread_rows(len(paths), most)])
    label = np.array([name.split("/")[0] if "/" in name else "?" for name in path])
    files = [folder / name for name in path]
    parts, colours = [], []
    for start in range(0, len(files), 16):
        block = files[start : start + 16]
        pixels = torch.stack([resize(decode(file), backbone.input_px) for file in block]).float().div_(255)
        digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in block]
        parts.append(wanted.embed(pixels.to(device), digests, read).cpu().numpy().astype(np.float16))
        colours.append(shortcut_numbers(pixels, ("histogram",))["histogram"].numpy())
    np.savez(out, X=np.concatenate(parts), histogram=np.concatenate(colours), label=label, path=path)


def pairs(folder: Path, own: list[str], most: int, splits: int) -> None:
    """Print every own set against every other set, and each kind of foreign image over the own sets."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for item in own:
        each = [_one_pair(folder, item, most, seed) for seed in range(splits)]
        found[item] = {
            name: {kind: float(np.nanmean([one[name].get(kind, np.nan) for one in each])) for kind in each[0][name]}
            for name in METHODS
        }
        for name, shares in found[item].items():
            print(_row(item, name, shares), flush=True)
    print("\nKinds of foreign images, mean and lowest over the own sets:\n")
    for name in METHODS:
        kinds: dict[str, list[float]] = {}
        for shares in (rows[name] for rows in found.values()):
            for kind, share in shares.items():
                kinds.setdefault(kind.split("@")[0], []).append(share)
        cells = [f"{kind} {100 * np.mean(own):.1f} ({100 * min(own):.0f})" for kind, own in sorted(kinds.items())]
        print(f"- {name}: {', '.join(cells)}")
    print("\nMethods: own mean (most), turned, foreign mean (least), pairs below 85 %, lowest pair:\n")
    for name in METHODS:
        rows = [one[name] for one in found.values()]
        shares, foreign = [row["own"] for row in rows], [_foreign(row) for row in rows]
        turned = [share for row in rows for kind, share in row.items() if kind.startswith(TURNED)]
        counted = [share for row in rows for kind, share in row.items() if family(kind) not in ("", "later")]
        pairs = (
            f"{100 * np.mean(shares):.2f} ({100 * max(shares):.1f})",
            f"{100 * np.mean(foreign):.1f} ({100 * min(foreign):.1f})",
        )
        turns = f"{100 * np.mean(turned):.1f}" if turned else "-"
        low = sum(share < 0.85 for share in counted)  # type: ignore[misc]
        print(f"| {name} | {pairs[0]} | {turns} | {pairs[1]} | {low} of {len(counted)} | {100 * min(counted):.0f} |")
    if len(own) > 1:
        print("\nThe method of each set chosen by all others that share no image with it:\n")
        for item in own:
            apart = [rows for other, rows in found.items() if not {*_parse(other)[0]} & {*_parse(item)[0]}]
            if not apart:
                continue
            best = max(METHODS, key=lambda name: float(np.mean([_foreign(rows[name]) for rows in apart])))
            print(_row(item, f"chosen: {best}", found[item][best]), flush=True)
    print("\nThe method of each family of foreign kinds chosen by the other families:\n")
    for name in FAMILIES:
        means = {
            method: [
                np.mean(
                    [share for rows in found.values() for kind, share in rows[method].items() if choose(family(kind))]
                )
                for choose in (lambda own: own not in ("", "later", name), lambda own: own == name)  # noqa: B023
            ]
            for method in METHODS
        }
        best = max(means, key=lambda method: means[method][0])
        shares = [s for rows in found.values() for kind, s in rows[best].items() if family(kind) == name]
        if shares:
            print(f"| {name} | {best} | {100 * means[best][1]:.1f} | {100 * min(shares):.0f} |")


def family(kind: str) -> str:
    """Family of a foreign kind; "" for own images."""
    if kind == "own" or kind.startswith(TURNED):
        return ""
    return next(name for name, starts in FAMILIES.items() if kind.startswith(starts))


def _one_pair(folder: Path, item: str, most: int, seed: int) -> dict[str, dict[str, float]]:
    names, views = _parse(item)
    images, codes, path = load_sets(folder, names, views)
    skip = {*names, *(f"{name}-sample" for name in names), *(other for name in names for other in SAME.get(name, ()))}
    sets = {file.stem for file in folder.glob("*.npz") if np.load(file)["X"].shape[1] > max(views)} - skip
    sets = {name for name in sets if not (name.endswith("-sample") and name.removesuffix("-sample") in sets)}
    sets = {name for name in sets if "@" not in name or name.split("@")[1] in names}
    parts = random_parts(len(codes), seed)
    foreign = {}
    for name in sorted(sets):
        foreign[name], _, files = load_sets(folder, [name], views)
        if name.startswith(TURNED):
            held = {path[row] for row in np.flatnonzero(parts[0] == 0)}
            rows = [row for row, file in enumerate(files) if file.replace("=", "/").removesuffix(".png") in held]
            foreign[name] = foreign[name].rows(np.array(rows, dtype=int))
        foreign[name] = spread(foreign[name], most)
    return flagged((images, codes), foreign, parts)


def left_out(folder: Path, own: list[str], groups: Path, column: str, splits: int) -> None:
    """Print the share of own images that are flagged where their group is not among the training images."""
    with groups.open(newline="", encoding="utf-8") as file:
        group_of = {row["path"]: row[column] for row in csv.DictReader(file)}
    for item in own:
        names, views = _parse(item)
        images, codes, path = load_sets(folder, names, views)
        group = np.array([group_of[name] for name in path])
        known, unknown = (
            [flagged((images, codes), {}, group_parts(group, whole, seed)) for seed in range(splits)]
            for whole in (True, False)
        )
        for method in METHODS:
            cells = [100 * float(np.mean([one[method]["own"] for one in each])) for each in (known, unknown)]
            print(f"| {item} | {column} | {method} | {cells[0]:.1f} | {cells[1]:.1f} |", flush=True)


def _parse(item: str) -> tuple[list[str], list[int]]:
    name, _, kind = item.partition(":")
    return name.split("+"), [0, *VIEWS[kind or "plain"]]


def load_sets(folder: Path, names: list[str], views: list[int]) -> tuple[Images, np.ndarray, list[str]]:
    """Images of several sets, their class numbers and paths."""
    parts = [np.load(folder / f"{name}.npz") for name in names]
    X, histogram, label, path = (
        np.concatenate([part[key][:, views] if key == "X" else part[key] for part in parts])
        for key in ("X", "histogram", "label", "path")
    )
    codes = np.unique(label, return_inverse=True)[1]
    return Images(X.astype(np.float32), histogram.astype(np.float32)), codes, path.tolist()


def spread(images: Images, most: int) -> Images:
    """At most so many images, from all over the set."""
    return images.rows(np.unique(np.linspace(0, len(images) - 1, min(most, len(images))).astype(int)))


def _foreign(shares: dict[str, float], later: bool = False) -> float:
    kinds = [share for name, share in shares.items() if family(name) and name.startswith(LATER) == later]
    return float(np.mean(kinds or [np.nan]))


def _row(item: str, method: str, shares: dict[str, float]) -> str:
    lowest = []
    for later in (False, True):
        rest = sorted(
            (share, name) for name, share in shares.items() if family(name) and name.startswith(LATER) == later
        )
        lowest.append(", ".join(f"{name} {100 * share:.0f}" for share, name in rest[:3] if share < 0.95) or "-")
    means = [f"{100 * _foreign(shares, later):.1f}" for later in (False, True)]
    return f"| {item} | {method} | {100 * shares['own']:.1f} | {means[0]} | {lowest[0]} | {means[1]} | {lowest[1]} |"


def main() -> None:
    """Embed sets, or compare them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, dest="command")
    first = commands.add_parser("embed")
    first.add_argument("sets", nargs="+", metavar="SET=FOLDER")
    first.add_argument("--out", type=Path, required=True)
    first.add_argument("--weights", default="imagenet")
    first.add_argument("--images", type=int, default=300)
    first.add_argument("--recipe", default="robust", choices=("robust", "fields", "plain"), help="robust: all")
    second = commands.add_parser("pairs")
    second.add_argument("folder", type=Path)
    second.add_argument("--own", nargs="+", required=True)
    second.add_argument("--foreign-images", type=int, default=300)
    second.add_argument("--splits", type=int, default=1)
    third = commands.add_parser("left-out")
    third.add_argument("folder", type=Path)
    third.add_argument("--own", nargs="+", required=True)
    third.add_argument("--groups", type=Path, required=True)
    third.add_argument("--column", default="group")
    third.add_argument("--splits", type=int, default=1)
    given = parser.parse_args()
    if given.command == "pairs":
        pairs(given.folder, given.own, given.foreign_images, given.splits)
        return
    if given.command == "left-out":
        left_out(given.folder, given.own, given.groups, given.column, given.splits)
        return
    given.out.mkdir(parents=True, exist_ok=True)
    for item in given.sets:
        name, _, folder = item.partition("=")
        embed(Path(folder), given.out / f"{name}.npz", given.weights, given.images, given.recipe)


if __name__ == "__main__":
    main()
