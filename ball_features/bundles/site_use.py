"""Use of site-adapted bundles: answers for a site by its images without labels, and copies that keep its offset."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ball_features.bundles.bundle import Bundle
from ball_features.bundles.formats import model_files
from ball_features.bundles.known_sites import FAR, Sites
from ball_features.bundles.prediction import Prediction, describe
from ball_features.bundles.sums import copy_files, write_checksums
from ball_features.cache.places import to_stored
from ball_features.errors import ConfigError, DataError
from ball_features.files import clear_partial, free_name, is_plain_name, partial_of, settle
from ball_features.outputs import require_folder

if TYPE_CHECKING:
    from ball_features.models.adaptation import SiteShift

__all__ = [
    "answer_for",
    "describe_sites",
    "far_note",
    "keep_site",
    "require_new",
    "require_site_name",
    "require_word",
]

_SAY = "If the images are known to be of several classes, say so by the option mixed"


def answer_for(bundle: Bundle, name: str, X: np.ndarray, *, mixed: bool = False) -> tuple[Bundle, str]:
    """The bundle that answers for a site.

    Args:
        bundle: site-adapted bundle.
        name: name of the site.
        X: embeddings of its images, float (images, views, dim), for a site that the bundle does not know.
        mixed: whether the images are known to be of several classes, for a model that cannot tell.

    Returns:
        The bundle, and what the user must know: which offset it takes, and why.

    Raises:
        ConfigError: The bundle is not site-adapted.
    """
    known = bundle.at_site(name)
    if known is not None:
        kind = "a site that the bundle was adapted to" if name in bundle.facts.kept_sites else "a training site"
        return known, f"Site-adapted to {name}, {kind}."
    alike = bundle.require_sites().alike(name)
    if alike:
        answering, told = _answer_for_new(bundle, name, X, mixed=mixed)
        return answering, f"{told} The bundle knows {alike!r}: if that is the site, write its name so."
    return _answer_for_new(bundle, name, X, mixed=mixed)


def _answer_for_new(bundle: Bundle, name: str, X: np.ndarray, *, mixed: bool) -> tuple[Bundle, str]:
    """See `answer_for`, for a site that the bundle does not know."""
    shift = bundle.adapt(X)
    untold = "" if mixed or not shift.adapted else bundle.facts.needs_word
    if untold:
        told = (
            f"Not adapted to {name}: {untold}. Its images are taken as those of a site of which nothing is known "
            f"(setting A). {_SAY}."
        )
        return replace(bundle, offset=bundle.require_sites().adapter.average), told
    if shift.adapted:
        told = (
            f"Site-adapted to {name} by {shift.images} of its images, without labels. The flag for unusual images "
            "tells which of them differ from the others, not whether all are of another kind than those of training."
        )
        told = f"{told} {far_note(replace(bundle, offset=shift.offset))}".rstrip()
    else:
        told = (
            f"Not adapted to {name}: {shift.reason}. Its images are taken as those of a site of which nothing is known "
            "(setting A)."
        )
    return replace(bundle, offset=shift.offset), told


def far_note(bundle: Bundle) -> str:
    """What a user must know where a bundle was adapted to images far from those of training, or ""."""
    far = 0.0 if bundle.sites is None or bundle.offset is None else bundle.sites.adapter.farness(bundle.offset)
    if not far >= FAR:
        return ""
    return (
        f"The images lie {far:.1f} times as far from the average training site as the farthest of these, and may be of "
        "another kind. Look at some of them."
    )


def describe_sites(
    bundle: Bundle,
    paths: Sequence[str],
    X: np.ndarray,
    coverage: float,
    site: Sequence[str],
    *,
    mixed: Collection[str] = (),
) -> tuple[list[Prediction], list[str]]:
    """Predict from embeddings of several sites, each by its own offset.

    Args:
        bundle: site-adapted bundle.
        paths: name of each image.
        X: embeddings, float32 (images, views, dim).
        coverage: coverage of the prediction sets.
        site: site of each image; "" for one of which nothing is known.
        mixed: sites whose images are known to be of several classes.

    Returns:
        Predictions in the order of the images, and what the user must know of each site.
    """
    names = np.asarray(site)
    found: dict[int, Prediction] = {}
    notes = []
    for name in np.unique(names).tolist():
        rows = np.flatnonzero(names == name).tolist()
        own, told = answer_for(bundle, name, X[rows], mixed=name in mixed) if name else (bundle, "")
        found |= dict(zip(rows, describe(own, [paths[row] for row in rows], X[rows], coverage), strict=True))
        notes += [told] if told else []
    unknown = int((names == "").sum())
    if notes and unknown:
        which = "1 image names no site and is" if unknown == 1 else f"{unknown} images name no site and are"
        notes.append(f"{which} taken as of a site of which nothing is known (setting A).")
    return [found[row] for row in range(len(paths))], notes


def require_site_name(name: str) -> None:
    """Raise `ConfigError` for a name of a site that cannot be part of the name of a folder."""
    if not is_plain_name(name):
        raise ConfigError(
            f"Got the site {name[:100]!r}, expected a name of at most 100 bytes without slashes and control "
            "characters.",
            option="site",
        )


def require_word(bundle: Bundle, name: str) -> None:
    """Raise `ConfigError` where a model is adapted only to images that are said to be of several classes."""
    reason = bundle.facts.needs_word
    if reason:
        raise ConfigError(
            f"Not adapted to {name}: {reason}. Nothing was written. {_SAY}, or take a model that bears "
            "batches of one class: a run that adapts models to sites left out names those that do.",
            option="mixed",
        )


def require_new(bundle: Bundle, name: str, out: Path) -> Sites:
    """Check a new site and the folder of its bundle before the work; the sites that the bundle knows.

    Raises:
        ConfigError: The bundle is not site-adapted, or the name is empty or no name.
        DataError: The site is one of training, or the folder exists, cannot be made, or lies in a bundle.
    """
    sites = bundle.require_sites()
    require_site_name(name)
    if name in sites.training:
        raise DataError(f"{name} is a training site, which the bundle knows. Name another site, or predict with it.")
    if alike := sites.alike(name):
        raise DataError(
            f"Got the site {name!r}; the bundle knows {alike!r}, whose name differs in case, blanks or the form of "
            "signs alone. Predict with that site if it is the same, else give another name."
        )
    if out.exists():
        raise DataError(f"{out} exists, expected a new folder. Give another folder for the copy.")
    require_folder(out.parent, "folder for the copy")
    return sites


def keep_site(bundle: Bundle, folder: Path, out: Path, name: str, shift: SiteShift) -> None:
    """Write a copy of a bundle that knows a site, and answers for it where no other is named.

    It has the files that a bundle has; what else lies in the folder, such as a note of the user's, is not copied.

    Args:
        bundle: bundle of the folder.
        folder: its folder, which is left as it is.
        out: folder of the copy, which `require_new` has found free; what has come there since stays.
        name: name of the site.
        shift: result of `Bundle.adapt` on its images.

    Raises:
        ConfigError, DataError: The site could not be adapted to, or the copy cannot be written, or not to `out`.
    """
    from safetensors.numpy import load, save

    if not shift.adapted:
        from ball_features.models.adaptation import MIN_IMAGES

        far = " If they are mixed, the site is too far from those of training: label images of it and fit with them."
        raise DataError(
            f"Not adapted to {name}: {shift.reason}. Nothing was written. Give more images of the site, of mixed "
            f"classes, as they come.{far if shift.images >= MIN_IMAGES else ''}"
        )
    sites = bundle.require_sites()
    sites = Sites(sites.adapter, {**sites.kept, name: shift.offset})
    note = f"The bundle was adapted to {name} by {shift.images} of its images, without labels, and answers for it."
    notes = (*(text for text in bundle.facts.notes if text != note), note)
    facts = replace(bundle.facts, kept_sites=tuple(sites.kept), site=name, notes=notes)
    clear_partial(out.parent, out.name)
    partial = partial_of(out)
    try:
        partial.mkdir(parents=True)
        copy_files(folder, ("reference.safetensors", *model_files(bundle.facts.model_file)), partial)
        arrays = load((partial / "reference.safetensors").read_bytes())
        (partial / "reference.safetensors").write_bytes(save(arrays | sites.to_arrays()))
        stored = to_stored(facts.to_json(), partial)  # whose paths are those of its neighbour `out`
        (partial / "bundle.json").write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
        write_checksums(partial)
        place = free_name(out) if os.path.lexists(out) else out
        settle(partial, place)
    except OSError as error:
        raise DataError(
            f"{out} cannot be written ({error.strerror or error}). Give another folder for the copy."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    if place != out:
        raise DataError(f"{out} was made by another program while the command ran, and is left. The copy is {place}.")
