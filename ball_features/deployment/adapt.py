"""Adapting a site-adapted bundle to a new site, by images of it without labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ball_features.bundles.bundle import read_bundle
from ball_features.bundles.predictor import Predictor
from ball_features.bundles.site_use import keep_site, require_new
from ball_features.dataset.listing import Rejected, printable
from ball_features.deployment.inputs import find_images
from ball_features.errors import DataError

__all__ = ["AdaptedBundle", "BundleSettings", "adapt"]


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
        rejected: files that were not used, with reasons.
    """

    folder: Path
    site: str
    images: int
    shares: dict[str, float]
    rejected: list[Rejected]


def adapt(
    bundle: Path | str,
    images: Path | str | Sequence[Path | str],
    site: str,
    *,
    out: Path | None = None,
    settings: BundleSettings | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> AdaptedBundle:
    """Write a copy of a site-adapted bundle that knows one more site, and answers for it.

    Args:
        bundle: folder of the bundle, which is left as it is.
        images: folders, patterns or files of that site, as they come: of mixed classes. Labels are not used.
        site: name of the site.
        out: folder of the copy; BUNDLE-SITE beside the bundle if None.
        settings: weights, device and precision; the defaults if None.
        progress: function that takes (images done, images in all).

    Raises:
        ConfigError: The bundle is not site-adapted, or the site has no name.
        DataError: There are too few images or they look like one class, the site is one of training, or the copy
            exists or cannot be written.
        WeightsError: The weights are missing, or not those of the bundle.
    """
    settings = settings or BundleSettings()
    folder = Path(bundle)
    loaded = read_bundle(folder, trust=settings.trust)
    loaded.require_sites()
    copy = out or folder.with_name(f"{folder.name}-{site}")
    require_new(loaded, site, copy)
    names = [str(name) for name in ([images] if isinstance(images, Path | str) else images)]
    files, missing = find_images(names)
    if not files:
        raise DataError(
            f"Found no image in {', '.join(map(printable, names[:3]))}, expected folders, patterns or files."
        )
    predictor = Predictor(loaded, weights=settings.weights, device=settings.device, precision=settings.precision)
    _, X, rejected = predictor.embed_all(files, progress)
    shift = loaded.adapt(X)
    keep_site(loaded, folder, copy, site, shift)
    called = read_bundle(copy, trust=settings.trust).probability(X).argmax(1)
    shares = np.bincount(called, minlength=len(loaded.classes)) / len(called)
    by_class = dict(zip(loaded.classes, shares.tolist(), strict=True))
    return AdaptedBundle(copy, site, shift.images, by_class, [*missing, *rejected])
