"""The sites that models are adapted to, and what batches of one class of them would do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

import numpy as np

from ball_features.config import FitConfig
from ball_features.dataset.grouping import Grouping
from ball_features.dataset.splits import Split
from ball_features.errors import ConfigError
from ball_features.evaluation.protocols import ModelResult
from ball_features.evaluation.site_shift import sites_of_one_class
from ball_features.evaluation.tasks import Evaluation
from ball_features.models.adaptation import ADAPTATIONS, MIN_IMAGES
from ball_features.models.one_class import MOST_COST, OneClassRecord

__all__ = ["centred_note", "choose_sites", "one_class_details", "one_class_note", "one_class_records"]


def choose_sites(
    config: FitConfig, grouping: Grouping | None, splits: Sequence[Split], label: np.ndarray
) -> tuple[Grouping | None, list[str]]:
    """Choose whether models are adapted to the sites.

    Args:
        config: settings of the run.
        grouping: columns of the groups file, if there is one.
        splits: the splits.
        label: class of each image, str (images,).

    Returns:
        The grouping, with sites to adapt to or without, and notes for the user.

    Raises:
        ConfigError: Adaptation is asked for by name, and there are no sites, or one holds one class in training.
    """
    if config.adapt == "none":
        return grouping, []
    reason = ""
    if grouping is None or grouping.adapted_site is None:
        reason = "there is no groups file with a column site"
    elif single := sites_of_one_class(grouping.adapted_site, label, splits):
        reason = f"training images of {', '.join(single[:3])} are of one class, which would be lost with their mean"
    if reason and config.adapt != "auto":
        raise ConfigError(f"Got adapt={config.adapt!r}, but {reason}. Take adapt='none'.", option="adapt")
    if reason:
        unadapted = None if grouping is None else replace(grouping, adapted_site=None)
        return unadapted, [f"Not adapted to sites: {reason}."]
    return grouping, [
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


def one_class_records(results: Sequence[ModelResult]) -> dict[str, OneClassRecord]:
    """What batches of one class of the sites left out did to each model that was tried, by name."""
    joined = {item.spec.name: OneClassRecord.joined([own.one_class for own in item.fitted]) for item in results}
    return {name: record for name, record in joined.items() if record is not None}


def one_class_details(results: Sequence[ModelResult]) -> dict[str, object]:
    """The same for `run.json`, with the record of each split."""
    return {
        item.spec.name: asdict(records[item.spec.name])
        | {
            "splits": [
                {"repeat": own.split.repeat, "fold": own.split.fold, "left_out": own.split.name} | asdict(own.one_class)
                for own in item.fitted
                if own.one_class is not None
            ]
        }
        for records in [one_class_records(results)]
        for item in results
        if item.spec.name in records
    }


def one_class_note(evaluation: Evaluation, records: Mapping[str, OneClassRecord]) -> list[str]:
    """Say which models can tell a batch of one class, where they are adapted and their method has a guard.

    Args:
        evaluation: evaluation of the run.
        records: result of `one_class_records`.
    """
    adapt = evaluation.config.adapt
    if evaluation.adapted_site is None or adapt == "none" or not ADAPTATIONS[adapt].guarded:
        return []
    if not records:
        return [
            f"No site with {MIN_IMAGES} images of a class was left out, so that this run does not say what images of "
            "one class do to these models. A model that is saved is tried on its largest sites, each left out in turn."
        ]
    told = ", ".join(
        f"{name} {100 * own.without:.0f} and {100 * own.auto:.0f} % (adapted to {own.adapted} of {own.batches})"
        for name, own in records.items()
    )
    note = f"Batches of one class of sites left out, accuracy without and with the offset of their own: {told}."
    blind = [name for name, own in records.items() if not own.tells]
    if not blind:
        return [note]
    cannot = "It cannot" if len(blind) == 1 else "They cannot"
    return [
        f"{note} {', '.join(blind)} {'loses' if len(blind) == 1 else 'lose'} more than {100 * MOST_COST:.0f} points. "
        f"{cannot} tell such a batch from a mixed one: site-adapted figures hold for batches of several classes, and "
        "bundles are adapted to a new site where its images are said to be such (mixed)."
    ]
