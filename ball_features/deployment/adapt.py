"""Adapting a site-adapted bundle to a new site, by images of it without labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ball_features.bundles.bundle import read_bundle
from ball_features.bundles.predictor import Predictor
from ball_features.bundles.site_use import far_note, keep_site, require_new, require_site_name, require_word
from ball_features.config.paths import own_name
from ball_features.dataset.listing import Rejected
from ball_features.deployment.inputs import find_images, require_images
from ball_features.errors import DataError

__all__ = ["AdaptedBundle", "BundleSettings", "adapt"]


# Share of a batch that is called one class, from which its offset is not kept. The three sites' own mixtures reach 83 %
# in batches of 12 and 68 % in batches of 60; batches of one class 97 % (median).
MOST_OF_ONE = 0.85


@dataclass(frozen=True)
class BundleSettings:
    """How a bundle is loaded and run; fields as the arguments of `Predictor` and `read_bundle`."""

    weights: str | None = None
    device: str = "auto"
    precision: str = "auto"
    trust: bool = False


@dataclass(frozen=True)
class AdaptedBundle:
    """What `adapt` wrote.

    Attributes:
        folder: folder of the new bundle.
        site: name of the site.
        images: number of its images that were used.
        shares: predicted share of each class among them, class -> share.
        unusual: number of them that are unlike the training images even so.
        rejected: files that were not used, with reasons.
        note: what the user must know of a site that is far from those of training, or "".
    """

    folder: Path
    site: str
    images: int
    shares: dict[str, float]
    unusual: int
    rejected: list[Rejected]
    note: str = ""


def adapt(
    bundle: Path | str,
    images: Path | str | Sequence[Path | str],
    site: str,
    *,
    mixed: bool = False,
    out: Path | None = None,
    settings: BundleSettings | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> AdaptedBundle:
    """Write a copy of a site-adapted bundle that knows one more site, and answers for it.

    Args:
        bundle: folder of the bundle, which is left as it is.
        images: folders, patterns or files of that site, as they come: of mixed classes. Labels are not used.
        site: name of the site.
        mixed: whether the images are known to be of several classes, without which a model that cannot tell is not
            adapted.
        out: folder of the copy; BUNDLE-SITE beside the bundle if None.
        settings: weights, device and precision; the defaults if None.
        progress: function that takes (images done, images in all).

    Raises:
        ConfigError: The bundle is not site-adapted, or cannot tell images of one class; or the site has no name.
        DataError: There are too few images or they look like one class, the site is one of training, or the copy
            exists or cannot be written.
        WeightsError: The weights are missing, or not those of the bundle.
    """
    settings = settings or BundleSettings()
    folder = Path(bundle)
    loaded = read_bundle(folder, trust=settings.trust)
    loaded.require_sites()
    require_site_name(site)
    copy = out or _beside(folder, site)
    require_new(loaded, site, copy)
    if not mixed:
        require_word(loaded, site)
    names = [str(name) for name in ([images] if isinstance(images, Path | str) else images)]
    inputs = find_images(names)
    files = inputs.files
    require_images(names, inputs)
    predictor = Predictor(loaded, weights=settings.weights, device=settings.device, precision=settings.precision)
    found = predictor.embed_all(files, progress)
    X = found.X
    shift = loaded.adapt(X)
    adapted = replace(loaded, offset=shift.offset)
    probability = adapted.probability(X)
    shares = np.bincount(probability.argmax(1), minlength=len(loaded.classes)) / max(len(X), 1)
    if shift.adapted and shares.max() > MOST_OF_ONE:
        raise DataError(
            f"Not adapted to {site}: once adapted, {100 * shares.max():.0f} % of {len(X)} images are called "
            f"{loaded.classes[int(shares.argmax())]}, so they say little of the site's other classes. Nothing was "
            "written. Give images of mixed classes. If they are mixed, the site is too far from those of training: "
            "label images of it and fit with them."
        )
    keep_site(loaded, folder, copy, site, shift)
    by_class = dict(zip(loaded.classes, shares.tolist(), strict=True))
    unusual = int(adapted.unusual(X, probability).sum())
    rejected = [*inputs.rejected, *found.rejected]
    return AdaptedBundle(copy, site, shift.images, by_class, unusual, rejected, far_note(adapted))


def _beside(folder: Path, site: str) -> Path:
    """Folder of the copy where none is named: beside the bundle, also where `.` or `..` leads to it."""
    folder = folder if own_name(folder) == folder.name else folder.resolve()
    if not folder.name:
        raise DataError(f"{folder} has no folder beside it for the copy. Name one.")
    return folder.with_name(f"{folder.name}-{site}")
