"""Checks before a run: whether the cache and the models can answer what the settings ask."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from ball_features.cache import Cache, choose_channels, equal_remark, labelled_rows, read_cache
from ball_features.config import LADDER, LEARNING_CURVE, PROTOCOLS, FitConfig, HeadConfig
from ball_features.config.paths import shown_path
from ball_features.dataset.grouping import Grouping
from ball_features.dataset.splits import ImageTable, Split, make_splits
from ball_features.errors import CacheError, ConfigError, DataError
from ball_features.evaluation.views import fixed_views, model_views
from ball_features.files import is_plain_name
from ball_features.models.registry import Model

__all__ = [
    "check_name",
    "check_options",
    "check_protocol",
    "chosen_cache",
    "complete_cache",
    "image_table",
    "require_classes",
    "require_savable",
    "require_unadapted",
    "split_by",
    "with_numbers",
]


def check_name(name: str | None) -> None:
    """Raise `ConfigError` for a run's name that leads out of the folder of the runs, or does not fit on a line."""
    if name is not None and not is_plain_name(name):
        raise ConfigError(
            f"Got the run name {name[:100]!r}, expected a name of at most 100 bytes without slashes, line breaks and "
            "control characters.",
            option="name",
        )


def with_numbers(specs: Sequence[Model], cache: Cache, *, named: bool) -> tuple[list[Model], list[str]]:
    """Leave out models whose numbers or views the cache lacks, unless the user named the models.

    Args:
        specs: models in question.
        cache: cache with the views and pixel numbers.
        named: True where the user named the models.

    Returns:
        The models that are left, and notes on the others.
    """
    if not named:  # on random views, or on one view, it equals robust-logistic
        specs = [spec for spec in specs if not spec.by_view or fixed_views(cache)]
    lacking = [
        spec for spec in specs if spec.features not in ("embedding", "none") and spec.features not in cache.shortcuts
    ]
    if named or not lacking:
        return list(specs), []
    names = ", ".join(spec.name for spec in lacking)
    note = f"The cache has no {names} numbers, since an older version made it. Make the cache again to have that row."
    return [spec for spec in specs if spec not in lacking], [note]


def check_protocol(config: FitConfig) -> None:
    """Refuse a setting that the protocol does not heed.

    Raises:
        ConfigError: folds of a protocol without folds, a test size where folds or groups are the test sets, or the
            ladder, which is no single protocol.
    """
    usual = FitConfig()
    if config.protocol == LADDER:
        raise ConfigError(
            f"Got the protocol {LADDER}, which is several; `runs.ladder.ladder` climbs it. Expected one of "
            f"{', '.join(PROTOCOLS)}.",
            option="protocol",
        )
    if config.protocol == LEARNING_CURVE:
        raise ConfigError(
            f"Got the protocol {LEARNING_CURVE}, which `runs.learning_curve.learning_curve` carries out. Expected one "
            f"of {', '.join(PROTOCOLS)}.",
            option="protocol",
        )
    scheme = PROTOCOLS[config.protocol].scheme
    if config.folds != usual.folds and scheme != "folds":
        named = ", ".join(own.name for own in PROTOCOLS.values() if own.scheme == "folds")
        which = "whose folds the table gives" if scheme == "given" else "which has none"
        raise ConfigError(
            f"Got folds={config.folds} with the protocol {config.protocol}, {which}. Name one of {named}, or leave it "
            "out.",
            option="folds",
        )
    if config.repeats != usual.repeats and scheme == "given" and config.repeats != 1:
        raise ConfigError(
            f"Got repeats={config.repeats} with the protocol {config.protocol}, which has one repeat. Leave it out.",
            option="repeats",
        )
    if config.test_size != usual.test_size and scheme not in ("holdout", "given"):
        raise ConfigError(
            f"Got test_size={config.test_size:g} with the protocol {config.protocol}, whose test sets are its folds "
            "or groups. Name holdout, or leave it out.",
            option="test_size",
        )


def require_unadapted(config: FitConfig, command: str) -> None:
    """Raise `ConfigError` for an adaptation to sites that a command would not make.

    Args:
        config: settings of the run.
        command: what the user asked for, such as "a ladder".
    """
    if config.adapt != "none":
        raise ConfigError(
            f"Got adapt={config.adapt!r} with {command}, which adapts no model. Leave it out, or name one protocol, "
            "such as leave-site-out.",
            option="adapt",
        )


def check_options(config: FitConfig, specs: Sequence[Model], cache: Cache, save: str = "") -> None:
    """Refuse settings that no chosen model heeds, or that lack what they need.

    Args:
        config: settings of the run.
        specs: chosen models.
        cache: cache with the views.
        save: models to keep, as `require_savable` takes them.

    Raises:
        ConfigError: there is such a setting.
    """
    _check_heeded(config, specs)
    if config.groups is None and not any(cache.columns):
        for name, value in (("group_loss", config.head.group_loss), ("center", config.center)):
            if value:
                raise ConfigError(
                    f"Got {name}={value!r} without groups, expected a groups file such as `ball audit` makes.",
                    option=name,
                )
    if config.tta and len(cache.view) == 1:
        raise ConfigError("Got tta with a cache of one view, expected several views.", option="tta")
    if config.head.consistency and any(
        spec.kind == "head" and len(model_views(spec, cache, config).train) == 1 for spec in specs
    ):
        raise ConfigError(
            f"Got consistency={config.head.consistency} with one view to train on, expected several. Set "
            "train_views='all'.",
            option="consistency",
        )
    shared = _shared(config)
    saved = [spec.name for spec in specs if spec.groups and save in ("all", "best", spec.name)]
    if saved and shared:
        raise ConfigError(
            f"Got save={save!r} with {' and '.join(shared)}, which no bundle of {', '.join(saved)} holds. Leave out "
            "one or the other.",
            option="save",
        )


def _shared(config: FitConfig) -> list[str]:
    """Settings other than the default that the head and the robust models share."""
    return [*(["per_image"] if config.head.per_image else []), *(["center"] if config.center else [])]


def _check_heeded(config: FitConfig, specs: Sequence[Model]) -> None:
    """Raise `ConfigError` for a setting that none of the models heeds."""
    head, usual = config.head, HeadConfig()
    own = [
        item.name
        for item in dataclasses.fields(head)
        if item.name != "per_image" and getattr(head, item.name) != getattr(usual, item.name)
    ]
    training = ["train_views"] if config.train_views != "auto" else []
    testing = ["tta"] if config.tta else ["test_views"] if config.test_views != "auto" else []
    seeing = [spec for spec in specs if spec.features == "embedding"]
    for settings, heeding, expected in (
        (own, any(spec.kind == "head" for spec in specs), "mlp"),
        (_shared(config), any(spec.groups for spec in specs), "mlp or one of the robust models"),
        # Models that tell views apart train on each view that they test on.
        (training, any(not spec.by_view for spec in seeing), "a model on embeddings other than robust-views"),
        (testing, bool(seeing), "a model on embeddings"),
    ):
        if settings and not heeding:
            raise ConfigError(
                f"Got {' and '.join(settings)} with the models {', '.join(spec.name for spec in specs)}, none of which "
                f"heeds it. Name {expected} too, or leave it out.",
                option=settings[0],
            )


def require_savable(save: str, names: Sequence[str]) -> Sequence[str]:
    """Choose the models to keep.

    Args:
        save: "best", "all", the name of a model, or "" for none.
        names: names of the models that can be kept.

    Raises:
        ConfigError: the name is not among them.
    """
    if not save:
        return ()
    if save in ("best", "all"):
        return names
    if save not in names:
        raise ConfigError(
            f"Got save={save!r}, expected best, all, or one of: {', '.join(names)}. Shortcuts see no network and are "
            "not meant for use.",
            option="save",
        )
    return (save,)


def complete_cache(path: Path) -> Cache:
    """Read a cache; images without a class are left out.

    Raises:
        CacheError: the cache cannot be read, or images are still missing in it.
        DataError: the images are of one class.
    """
    cache = read_cache(path)
    if not cache.complete:
        raise CacheError(
            f"{shown_path(path)} is incomplete: {int(cache.committed.sum())} of {len(cache.path)} images are in it. "
            "Run the same `ball extract` again; it goes on from there."
        )
    cache = labelled_rows(cache)
    require_classes(cache.label.tolist(), str(path))
    return cache


def chosen_cache(path: Path | str, config: FitConfig) -> Cache:
    """Read a cache as models see it: with the channels that the settings name, joined.

    Raises:
        CacheError: as `complete_cache`.
        ConfigError: the cache has no such channel.
        DataError: the images are of one class.
    """
    return choose_channels(complete_cache(Path(path)), config.channels, config.combine)


def require_classes(label: Sequence[str], source: str) -> None:
    """Raise `DataError` where there is nothing to tell apart.

    Args:
        label: class of each image, "" where it is not known.
        source: cache or folder, for the message.
    """
    classes = {name for name in label if name}
    if len(classes) == 1:
        raise DataError(
            f"All {len(label)} images of {source} are of the class {classes.pop()!r}, expected at least two. Give "
            "the folder that holds one folder for each class, or a sheet that names classes."
        )


def image_table(cache: Cache, grouping: Grouping | None) -> ImageTable:
    """What protocols know of the images of a cache."""
    table = ImageTable(cache.path, cache.label, cache.sha256)
    if grouping is None:
        return table
    return dataclasses.replace(table, group=grouping.group, together=grouping.together, patient=grouping.patient)


def split_by(config: FitConfig, cache: Cache, grouping: Grouping | None) -> tuple[list[Split], list[str]]:
    """Split the images of a cache as `make_splits` does, by the groups of the groups file."""
    splits, notes = make_splits(config, image_table(cache, grouping))
    equal = equal_remark(cache)
    unlabelled = [f"{cache.unlabelled} images without a class are left out."] if cache.unlabelled else []
    return splits, [*unlabelled, *([equal] if equal else []), *(() if grouping is None else grouping.notes), *notes]
