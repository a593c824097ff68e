"""Settings of the two stages, as frozen dataclasses that refuse what they do not know."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import math
import numbers
import os
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self, cast

from ball_features.errors import ConfigError

__all__ = ["PROTOCOLS", "ExtractConfig", "FitConfig", "HeadConfig", "split_names"]

PROTOCOLS = ("holdout", "cv", "group-cv", "block-cv", "leave-group-out")


def _require(valid: bool, name: str, got: Any, expected: str) -> None:
    if not valid:
        raise ConfigError(f"Got {name}={got!r}, expected {expected}.")


_TYPES: dict[type, tuple[Any, str]] = {
    str: ((str, os.PathLike), "a text"),
    int: (numbers.Integral, "a whole number"),
    float: (numbers.Real, "a number"),
    bool: (bool, "True or False"),
}


def _typed(name: str, got: Any, kind: Any) -> Any:
    """A value as the plain type that is declared for it; what JSON, numpy and paths have for it is taken too."""
    if typing.get_origin(kind) is tuple:
        own = typing.get_args(kind)[0]
        like = "names in a tuple or list, such as ('a',)" if own is str else "numbers in a tuple or list, such as (64,)"
        _require(isinstance(got, Iterable) and not isinstance(got, str | bytes | Mapping), name, got, like)
        return tuple(_typed(name, item, own) for item in got)
    kinds = typing.get_args(kind) or (kind,)
    if got is None and types.NoneType in kinds:
        return None
    plain = getattr(got, "item", lambda: got)()  # of numpy's scalars
    accepted, words = _TYPES.get(kinds[0], (kinds[0], f"a {kinds[0].__name__}, or a mapping of its keys"))
    # To Python a truth value is a number.
    fits = isinstance(plain, accepted) and (kinds[0] is bool or not isinstance(plain, bool))
    _require(fits, name, got, words)
    if kinds[0] is str:
        return os.fspath(cast("str", plain))
    return kinds[0](plain) if kinds[0] in _TYPES else plain  # 1 for 1.0 is the same setting, and the same fingerprint


def split_names(text: str) -> tuple[str, ...]:
    """Names with commas between, as options take them; spaces around them and empty ones are left out."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


@dataclass(frozen=True)
class _Config:
    def _check_types(self) -> None:
        for name, kind in typing.get_type_hints(type(self)).items():
            object.__setattr__(self, name, _typed(name, getattr(self, name), kind))

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """Build from a mapping, such as parsed JSON.

        Raises:
            ConfigError: A key is unknown, or a value is of another type or out of range.
        """
        known = {item.name for item in dataclasses.fields(cls)}
        for key in values:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise ConfigError(f"{cls.__name__} has no key {key!r}.{hint} Valid: {', '.join(sorted(known))}.")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain values, ready for JSON."""
        return dataclasses.asdict(self)


def _digest(values: Mapping[str, Any]) -> str:
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class ExtractConfig(_Config):
    """Stage 1.

    Attributes:
        backbone: Key of `extraction.backbones.BACKBONES`, `timm:NAME` or `file:PATH`.
        weights: "imagenet", "random", or the path of a state dict.
        views: Views of each image, the plain one included; 1 is the plain image alone. None takes as many as the
            recipe has.
        recipe: Of `extraction.views.RECIPES` and `RECIPE_SETS`, composed; makes the views after the first. "auto" is
            robust, five views, where the backbone is a DenseNet and nothing is said of views; see
            `extraction.views.plan_views`.
        normalize: "auto" (the backbone's own), or as `extraction.views.mean_std` takes it.
        input_px: Side of the network's input; 0 takes the backbone's own.
        channels: "original", and "segmented" for the picture with its nuclei alone beside it.
        twins: Where segmented pictures come from: "auto" (the folder Segmented/ beside the images, else computed),
            "none" (computed), or a folder.
        precision: "auto", "fp32", "bf16" or "fp16", of the forward pass.
        dtype: "float16" or "float32", of the stored embeddings.
        device: "auto", "cpu", "cuda" or "mps".
        batch_size: Images a forward pass; 0 chooses by device.
        seed: Of the views, and of random weights.
        limit: Use only so many images, spread evenly over the folder; 0 uses all.
    """

    backbone: str = "densenet201"
    weights: str = "imagenet"
    views: int | None = None
    recipe: str = "auto"
    normalize: str = "auto"
    input_px: int = 0
    channels: tuple[str, ...] = ("original",)
    twins: str = "auto"
    precision: str = "auto"
    dtype: str = "float16"
    device: str = "auto"
    batch_size: int = 0
    seed: int = 0
    limit: int = 0

    def __post_init__(self) -> None:
        """Check types and ranges; names that belong to a registry are checked where the registry is."""
        self._check_types()
        known = self.views is None or 1 <= self.views <= 1000
        _require(known, "views", self.views, "1 to 1000 (view 0 is the plain image)")
        _require(
            self.precision in ("auto", "fp32", "bf16", "fp16"), "precision", self.precision, "auto, fp32, bf16 or fp16"
        )
        _require(self.dtype in ("float16", "float32"), "dtype", self.dtype, "float16 or float32")
        _require(
            self.channels in (("original",), ("original", "segmented")),
            "channels",
            ",".join(self.channels),
            "original, or original,segmented",
        )
        _require(
            self.input_px == 0 or 32 <= self.input_px <= 4096, "input_px", self.input_px, "32 to 4096, or 0 (its own)"
        )
        _require(0 <= self.batch_size <= 4096, "batch_size", self.batch_size, "1 to 4096, or 0 (auto)")
        _require(0 <= self.seed < 2**32, "seed", self.seed, "an integer from 0 to 4294967295")
        _require(self.limit >= 0, "limit", self.limit, "at least 2, or 0 (all images)")

    @property
    def view_count(self) -> int:
        """Views of each image, where they are said; `extract` says them before it makes any."""
        assert self.views is not None
        return self.views

    def fingerprint(self, **resolved: Any) -> str:
        """SHA-256 of everything that changes a stored number, where views are said.

        Args:
            resolved: What the settings became: the weights' digest, the precision in use, the recipe's version ...
        """
        several = self.view_count > 1
        own = {
            "backbone": self.backbone,
            "dtype": self.dtype,
            "normalize": self.normalize,
            "recipe": self.recipe if several else "plain",
            "seed": self.seed if several or self.weights == "random" else 0,
            "views": self.views,
        }
        return _digest(own | resolved)


@dataclass(frozen=True)
class HeadConfig(_Config):
    """The MLP head; the defaults are the student report's recipe. `models.mlp.MLPHead` documents each.

    `per_image` goes for the robust models too.
    """

    hidden: tuple[int, ...] = (64, 64)
    learning_rate: float = 1e-4
    l2: float = 1e-5
    epochs: int = 40
    batch_size: int = 16
    dropout: float = 0.2
    clip_norm: float | None = 0.01
    class_weight: str | None = None
    group_loss: str | None = None
    consistency: float = 0.0
    per_image: bool = False

    def __post_init__(self) -> None:
        """Check types and ranges."""
        self._check_types()
        _require(bool(self.hidden) and min(self.hidden) >= 1, "hidden", self.hidden, "widths of at least 1")
        _require(self.learning_rate > 0, "learning_rate", self.learning_rate, "a number above 0")
        _require(self.l2 >= 0, "l2", self.l2, "a number of at least 0")
        _require(self.epochs >= 1, "epochs", self.epochs, "at least 1")
        _require(self.batch_size >= 2, "batch_size", self.batch_size, "at least 2, since batch norm needs a batch")
        _require(0 <= self.dropout < 1, "dropout", self.dropout, "a probability in [0, 1)")
        _require(self.clip_norm is None or self.clip_norm > 0, "clip_norm", self.clip_norm, "a number above 0")
        _require(self.group_loss in (None, "balanced", "dro"), "group_loss", self.group_loss, "none, balanced or dro")
        _require(0 <= self.consistency < math.inf, "consistency", self.consistency, "a finite number of at least 0")
        _require(self.class_weight in (None, "balanced"), "class_weight", self.class_weight, "none or balanced")
        _require(
            self.class_weight is None or self.group_loss != "dro",
            "class_weight",
            self.class_weight,
            "none beside the group loss dro, which weighs every row by its group",
        )


@dataclass(frozen=True)
class FitConfig(_Config):
    """Stage 2.

    Attributes:
        protocol: One of `PROTOCOLS`.
        models: Keys of `models.registry.MODELS`; empty for all.
        repeats: Repeats of the protocol with another seed.
        folds: Folds of cv, group-cv and block-cv.
        test_size: Share of images in a hold-out test set.
        val_size: Share of images in validation; the head's epoch is chosen there.
        seed: Of splits and models.
        groups: Path of a groups file, or None.
        group_column: Its column that a split must keep together; several joined with +, such as class+overlay. "auto":
            block for block-cv, series for leave-group-out, else group.
        center: Column of the groups file whose mean is taken from each embedding before the head and the robust models,
            or None; several joined with +.
        tta: Test on the mean probability over all views; short for test_views="all".
        train_views: Views that train: "auto" (the plain one, random ones, those that test), "all", or names
            or numbers with commas between.
        test_views: Views that validate and test, by their mean probability: "auto" (the plain one; of a model that
            tells views apart those that are not random), or as train_views.
        compat_batch_metrics: Add the student report's arithmetic as one more table.
        head: The head's settings.
        channels: Channels of the cache that models see, such as ("original", "segmented"); empty for all.
        combine: What becomes of several channels: "concat" (one long embedding) or "mean".
        jobs: Processes at once; 0 takes all cores.
    """

    protocol: str = "holdout"
    models: tuple[str, ...] = ()
    repeats: int = 5
    folds: int = 5
    test_size: float = 0.20
    val_size: float = 0.16
    seed: int = 0
    groups: str | None = None
    group_column: str = "auto"
    center: str | None = None
    tta: bool = False
    train_views: str = "auto"
    test_views: str = "auto"
    channels: tuple[str, ...] = ()
    combine: str = "concat"
    compat_batch_metrics: bool = False
    head: HeadConfig = field(default_factory=HeadConfig)
    jobs: int = 0

    def __post_init__(self) -> None:
        """Check types and ranges; model names are checked by the registry."""
        if isinstance(self.head, Mapping):
            object.__setattr__(self, "head", HeadConfig.from_mapping(self.head))
        self._check_types()
        _require(self.combine in ("concat", "mean"), "combine", self.combine, "concat or mean")
        _require(self.protocol in PROTOCOLS, "protocol", self.protocol, f"one of {', '.join(PROTOCOLS)}")
        _require(not self.tta or self.test_views in ("auto", "all"), "test_views", self.test_views, "none beside tta")
        _require(self.repeats >= 1, "repeats", self.repeats, "at least 1")
        _require(self.folds >= 2, "folds", self.folds, "at least 2")
        _require(0 < self.test_size < 1, "test_size", self.test_size, "a share between 0 and 1")
        _require(0 < self.val_size < 1, "val_size", self.val_size, "a share between 0 and 1")
        _require(
            self.test_size + self.val_size < 1,
            "test_size + val_size",
            self.test_size + self.val_size,
            "less than 1, so that something is left to train on",
        )
        _require(0 <= self.seed < 2**32, "seed", self.seed, "an integer from 0 to 4294967295")
        _require(self.jobs >= 0, "jobs", self.jobs, "at least 1, or 0 (all cores)")

    def fingerprint(self, **resolved: Any) -> str:
        """SHA-256 of everything that changes a number; `jobs` and more tables do not, nor where the groups file lies.

        Args:
            resolved: What the settings became: `groups_sha256`, the digest of that file's content.
        """
        values = self.to_dict()
        del values["jobs"], values["groups"], values["compat_batch_metrics"]
        return _digest(values | resolved)
