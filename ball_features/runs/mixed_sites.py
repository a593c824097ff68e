"""Sites whose labels show images of several classes, for models that cannot tell from the images alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ball_features.bundles.bundle import Bundle
from ball_features.dataset.remarks import some

__all__ = ["mixed_note", "mixed_sites"]

LEAST_SHARE = 0.1  # of the images of a site, that a class needs to be one of several
_LEAST_CLASSES = 2


def mixed_sites(site: Sequence[str], label: Sequence[str]) -> list[str]:
    """Names of the sites that hold at least two classes with a tenth of the labelled images each.

    Args:
        site: site of each image, "" where it is not known.
        label: class of each image, "" where it is not known.
    """
    names, classes = np.asarray(site), np.asarray(label)
    found = []
    for name in np.unique(names[names != ""]).tolist():
        counts = np.unique(classes[(names == name) & (classes != "")], return_counts=True)[1]
        if (counts >= LEAST_SHARE * counts.sum()).sum() >= _LEAST_CLASSES:
            found.append(name)
    return found


def mixed_note(bundle: Bundle, mixed: Sequence[str]) -> list[str]:
    """Say where labels have allowed an adaptation that the model alone could not decide on."""
    new = [name for name in mixed if bundle.at_site(name) is None]
    if not new or not bundle.facts.needs_word:
        return []
    return [
        f"{some(new)}: taken to hold several classes, since labels name at least two with a tenth of the images each. "
        "The model could not tell from the images, and by `ball predict` it is adapted only where that is said (mixed)."
    ]
