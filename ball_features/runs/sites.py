"""The sites that models are adapted to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ball_features.config import FitConfig
from ball_features.dataset.grouping import Grouping
from ball_features.dataset.splits import Split
from ball_features.errors import ConfigError
from ball_features.evaluation.site_shift import sites_of_one_class

__all__ = ["centred_note", "choose_sites"]


def choose_sites(
    config: FitConfig, grouping: Grouping | None, splits: Sequence[Split], label: np.ndarray
) -> tuple[np.ndarray | None, list[str]]:
    """Choose the sites that models are adapted to.

    Args:
        config: settings of the run.
        grouping: columns of the groups file, if there is one.
        splits: the splits.
        label: class of each image, str (images,).

    Returns:
        The site of each image, or None for no adaptation, and notes for the user.

    Raises:
        ConfigError: Adaptation is asked for by name, and there are no sites, or one holds one class in training.
    """
    if config.adapt == "none":
        return None, []
    site = None if grouping is None else grouping.site
    reason = ""
    if site is None:
        reason = "there is no groups file with a column site"
    elif single := sites_of_one_class(site, label, splits):
        reason = f"training images of {', '.join(single[:3])} are of one class, which would be lost with their mean"
    if reason and config.adapt != "auto":
        raise ConfigError(f"Got adapt={config.adapt!r}, but {reason}. Take adapt='none'.", option="adapt")
    if reason:
        return None, [f"Not adapted to sites: {reason}."]
    return site, [
        "Site-adapted: the images of a site that is tested give its statistics, without their labels. The figures hold "
        "for a site whose images come together, not for a single image of a site never seen."
    ]


def centred_note(config: FitConfig, grouping: Grouping | None, splits: Sequence[Split]) -> list[str]:
    """Say where embeddings are centred with the mean of the images tested, because training lacks their value.

    Args:
        config: settings of the run.
        grouping: columns of the groups file, if there is one.
        splits: the splits.
    """
    if grouping is None or grouping.center is None:
        return []
    own = grouping.center
    new = sum(not np.isin(own[split.test], own[split.train]).all() for split in splits)
    if not new:
        return []
    return [
        f"Centred by {config.center}: {new} of {len(splits)} test sets have values that training lacks. Their mean is "
        "that of the images tested, without their labels. Such figures hold for images that come together, not for a "
        "single image."
    ]
