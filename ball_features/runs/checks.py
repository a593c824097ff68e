"""What is asked of a run: whether the cache and the models can answer it, before anything is computed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from ball_features.cache import Cache, read_cache
from ball_features.config import FitConfig, HeadConfig
from ball_features.dataset.splits import Grouping, Split, make_splits
from ball_features.errors import CacheError, ConfigError
from ball_features.evaluation.views import fixed_views, model_views
from ball_features.models.registry import Model

__all__ = [
    "check_name",
    "check_options",
    "check_protocol",
    "complete_cache",
    "require_savable",
    "split_by",
    "with_numbers",
]


def check_name(name: str | None) -> None:
    """Raise `ConfigError` for the name of a run that would lead elsewhere."""
    if name is not None and (not name or Path(name).name != name):
        raise ConfigError(f"Got the run name {name!r}, expected one without slashes; --out sets the folder.")


def with_numbers(specs: Sequence[Model], cache: Cache, *, named: bool) -> tuple[list[Model], list[str]]:
    """The models that a cache has numbers and views for, and a note on the others; all where they were named."""
    if not named:  # on random views, or one, it is robust-logistic over again
        specs = [spec for spec in specs if not spec.by_view or fixed_views(cache)]
    lacking = [
        spec for spec in specs if spec.features not in ("embedding", "none") and spec.features not in cache.shortcuts
    ]
    if named or not lacking:
        return list(specs), []
    names = ", ".join(spec.name for spec in lacking)
    note = f"The cache was made before there were {names} numbers; extract again with --overwrite to have that row."
    return [spec for spec in specs if spec not in lacking], [note]


def check_protocol(config: FitConfig) -> None:
    """Raise `ConfigError` for folds of a protocol that has none, or the size of test sets that are folds or groups."""
    usual = FitConfig()
    if config.folds != usual.folds and config.protocol in ("holdout", "leave-group-out"):
        raise ConfigError(
            f"Got --folds {config.folds} with the protocol {config.protocol}, which has none. Name cv, group-cv or "
            "block-cv, or leave it out."
        )
    if config.test_size != usual.test_size and config.protocol != "holdout":
        raise ConfigError(
            f"Got --test-size {config.test_size:g} with the protocol {config.protocol}, whose test sets are its folds "
            "or groups. Name holdout, or leave it out."
        )


def check_options(config: FitConfig, specs: Sequence[Model], cache: Cache, save: str = "") -> None:
    """Refuse options that no chosen model would heed, or that lack what they work by.

    Raises:
        ConfigError: There is such an option.
    """
    head, names = config.head, ", ".join(spec.name for spec in specs)
    given = [
        item.name for item in dataclasses.fields(head) if getattr(head, item.name) != getattr(HeadConfig(), item.name)
    ]
    own = ["head_batch_size" if name == "batch_size" else name for name in given if name != "per_image"]
    shared = [*(["per_image"] if head.per_image else []), *(["center"] if config.center else [])]
    training = ["train_views"] if config.train_views != "auto" else []
    testing = ["tta"] if config.tta else ["test_views"] if config.test_views != "auto" else []
    heads, robust = [spec for spec in specs if spec.kind == "head"], [spec for spec in specs if spec.groups]
    seeing = [spec for spec in specs if spec.features == "embedding"]
    mixing = [spec for spec in seeing if not spec.by_view]  # the others train on each view that they test on
    for options, heeding, expected in (
        (own, heads, "mlp"),
        (shared, robust, "mlp or one of the robust models"),
        (training, mixing, "a model on embeddings other than robust-views"),
        (testing, seeing, "a model on embeddings"),
    ):
        if options and not heeding:
            shown = " and ".join(f"--{name.replace('_', '-')}" for name in options)
            raise ConfigError(
                f"Got {shown} with the models {names}, none of which heeds it. Name {expected} too, or leave it out."
            )
    for wanted, option in ((head.group_loss, f"the group loss {head.group_loss!r}"), (config.center, "--center")):
        if wanted and config.groups is None:
            raise ConfigError(f"Got {option} without groups, expected --groups FILE.csv, made by `ball audit`.")
    if config.tta and len(cache.view) == 1:
        raise ConfigError("Got --tta on a cache of one view, expected several. Extract with --views N.")
    if head.consistency and any(
        spec.kind == "head" and len(model_views(spec, cache, config).train) == 1 for spec in specs
    ):
        raise ConfigError(
            f"Got the consistency {head.consistency} with one view to train on, expected several. Name them: "
            "--train-views all."
        )
    saved = [spec.name for spec in robust if save in ("all", "best", spec.name)]
    if saved and shared:
        raise ConfigError(
            f"Got --save {save} with --{' and --'.join(name.replace('_', '-') for name in shared)}, which no bundle of "
            f"{', '.join(saved)} holds. Leave out one or the other."
        )


def require_savable(save: str, names: Sequence[str]) -> Sequence[str]:
    """Names of the models to keep; raises `ConfigError` for one that cannot be saved."""
    if not save:
        return ()
    if save in ("best", "all"):
        return names
    if save not in names:
        raise ConfigError(
            f"Got --save {save}, expected best, all, or one of: {', '.join(names)}. Shortcuts see no network and "
            "are not meant for use."
        )
    return (save,)


def complete_cache(path: Path) -> Cache:
    """Read a cache; raise `CacheError` where images are still missing in it."""
    cache = read_cache(path)
    if not cache.complete:
        raise CacheError(
            f"{path} is incomplete: {int(cache.committed.sum())} of {len(cache.path)} images are in it. "
            "Run the same `ball extract` again; it goes on from there."
        )
    return cache


def split_by(config: FitConfig, cache: Cache, grouping: Grouping | None) -> tuple[list[Split], list[str]]:
    """`make_splits` of a cache, with what its groups file says."""
    group, together = (None, None) if grouping is None else (grouping.group, grouping.together)
    return make_splits(config, cache.path, cache.label, cache.sha256, group, together)
