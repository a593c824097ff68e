"""Settings of stage 2, one field a setting, with its default, range and help."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ball_features.config.fields import COMMON, LAST_SEED, Config, option, require
from ball_features.config.plain_values import digest
from ball_features.config.sizes import LEAST_MEMORY, read_bytes
from ball_features.config.splitting import LADDER, LEARNING_CURVE, PROTOCOLS, protocol_help

__all__ = ["EVERY_MODEL", "FitConfig", "HeadConfig"]

_REPEATS = 5  # where none are asked for, but on a ladder
EVERY_MODEL = "all"  # stands for every model of the registry


@dataclass(frozen=True)
class HeadConfig(Config):
    """Settings of the head, a multilayer perceptron; the defaults are those of the student report.

    `models.mlp.MLPHead` documents the method behind each.
    """

    hidden: tuple[int, ...] = option(
        (64, 64),
        "Widths of the head's hidden layers, with commas between.",
        panel="Head",
        low=1,
        filled=True,
        unit="widths of",
    )
    learning_rate: float = option(
        1e-4, "Learning rate of Adam, which trains the head.", panel="Head", above=0, unit="a number"
    )
    l2: float = option(1e-5, "Weight decay (L2) of the head.", panel="Head", low=0, unit="a number of")
    epochs: int = option(
        40,
        "Number of epochs of the head's training; the epoch with the lowest validation loss is kept.",
        panel="Head",
        low=1,
    )
    batch_size: int = option(
        16,
        "Number of embeddings in a training step of the head.",
        panel="Head",
        low=2,
        note="since batch norm needs a batch",
        alias="head_batch_size",
    )
    dropout: float = option(
        0.2,
        "Share of the units after the first hidden layer that are dropped in training.",
        panel="Head",
        low=0,
        below=1,
        unit="a probability of",
    )
    clip_norm: float | None = option(
        0.01,
        "Greatest norm of the gradient, which is clipped to it; 0 does not clip.",
        panel="Head",
        above=0,
        unit="a number",
        words={0: None},
    )
    class_weight: str | None = option(
        None,
        "Weights of the classes in the head's loss: none (all images weigh the same) or balanced (all classes do).",
        panel="Head",
        choices=("balanced",),
        words={"none": None},
    )
    group_loss: str | None = option(
        None,
        "Weights of the series in the head's loss: none, balanced (small series weigh more), or dro (series with a "
        "high loss weigh more: distributionally robust optimisation). Needs a groups file.",
        panel="Head",
        choices=("balanced", "dro"),
        words={"none": None},
    )
    consistency: float = option(
        0.0,
        "Weight of a second loss, which pulls the head's outputs (logits) for all views of an image together.",
        panel="Head",
        low=0,
        unit="a finite number of",
    )
    per_image: bool = option(
        False, "Standardise each embedding to mean 0 and spread 1, for the head and the robust models.", panel="Models"
    )

    def __post_init__(self) -> None:
        """Check types, ranges and what excludes each other."""
        super().__post_init__()
        require(
            self.class_weight is None or self.group_loss != "dro",
            "class_weight",
            self.class_weight,
            "none beside the group loss dro, which weighs every row by its group",
        )


@dataclass(frozen=True)
class FitConfig(Config):
    """Settings of stage 2: which models are compared, and how."""

    protocol: str = option(
        "holdout",
        f"How images are divided: {protocol_help()}, {LADDER} (from random draws to series and sites left out, one "
        f"after the other), or {LEARNING_CURVE} (ever more training images, patients or sites).",
        panel=COMMON,
        choices=(*PROTOCOLS, LADDER, LEARNING_CURVE),
    )
    models: tuple[str, ...] = option(
        (),
        f"Models of the table, with commas between, of: {{names}}; or {EVERY_MODEL}. If left out: {EVERY_MODEL}, on a "
        "ladder the head, logistic regression and the shortcuts, on a learning curve the first two.",
        panel=COMMON,
        registry="models",
    )
    repeats: int = option(
        0,
        "Number of repeats of the protocol, each with another random seed; 0 is five, on a ladder two to five, as many "
        "as test a thousand images.",
        panel=COMMON,
        low=1,
        special={0: "five, on a ladder two to five"},
    )
    groups: str | None = option(
        None,
        "Groups file, such as `ball audit` writes: a CSV with the columns path,group. No split cuts a group.",
        panel=COMMON,
        path=True,
    )
    jobs: int = option(
        0,
        "Number of models fitted at the same time; 0 uses every core.",
        panel=COMMON,
        low=1,
        special={0: "all cores"},
    )
    memory: str = option(
        "",
        "Memory that the fits may hold, such as 4GB, beside the program and the texts of the cache. Where the rows "
        "exceed it, models read them from the file block by block, or are fitted on a sample; the table says which.",
        panel="Models",
    )
    backend: str = option(
        "loky",
        "Where fits run, by joblib: loky, processes of this machine; dask or ray, a cluster whose nodes see the cache "
        "under the same path (dask needs the package distributed, ray the extra ray).",
        panel="Models",
        choices=("loky", "dask", "ray"),
    )
    cluster: str = option(
        "", "Address of the running cluster of the backend; one is started on this machine if left out.", panel="Models"
    )
    group_column: str = option(
        "auto",
        "Column of the groups file that the protocol is by; several joined with +, such as class+overlay. auto: the "
        "protocol's own (block, patient, series, site or split), else group.",
        panel="Protocol",
    )
    folds: int = option(5, "Number of folds of a cross-validation (cv, group-cv, block-cv).", panel="Protocol", low=2)
    test_size: float = option(
        0.20, "Share of images in the test set of a hold-out.", panel="Protocol", above=0, below=1, unit="a share"
    )
    val_size: float = option(
        0.16,
        "Share of images in the validation set, which chooses the head's epoch.",
        panel="Protocol",
        above=0,
        below=1,
        unit="a share",
    )
    seed: int = option(0, "Random seed of the splits and the models.", panel="Protocol", low=0, high=LAST_SEED)
    center: str | None = option(
        None,
        "Column of the groups file, such as overlay: the mean embedding of all images with the same value there is "
        "subtracted from each, for the head and the robust models. Where training lacks a value, the mean is that of "
        "the images tested.",
        panel="Models",
        words={"": None},
    )
    adapt: str = option(
        "none",
        "Adaptation to the site of the images tested, by all its images without their labels; it needs a column site. "
        "none, auto (balanced, or none for few images or a batch of one class), balanced (mean of the class means, "
        "with predictions in place of labels), or mean (mean of the images).",
        panel="Models",
        choices=("none", "auto", "balanced", "mean"),
    )
    compat_batch_metrics: bool = option(
        False, "Add a table of the student report's figures, averaged over batches.", panel="Models"
    )
    tta: bool = option(
        False, "Test-time augmentation: test on the mean over all views instead of the plain view.", panel="Views"
    )
    train_views: str = option(
        "auto",
        "Views that models are trained on: auto (the views that they are tested on, with all random views), all, or "
        "names or numbers with commas between. robust-views trains a model for each view that it is tested on.",
        panel="Views",
    )
    test_views: str = option(
        "auto",
        "Views that models are validated and tested on, by their mean probability: auto (the plain view; for "
        "robust-views all others that are not random), all, or names or numbers with commas between.",
        panel="Views",
    )
    channels: tuple[str, ...] = option(
        (), "Channels of the cache to use, such as original,segmented; all if left out.", panel="Views"
    )
    combine: str = option(
        "concat",
        "How several channels are joined: concat (one behind the other) or mean.",
        panel="Views",
        choices=("concat", "mean"),
    )
    head: HeadConfig = field(default_factory=HeadConfig)

    def __post_init__(self) -> None:
        """Check types, ranges and what excludes each other; model names are checked by the registry."""
        super().__post_init__()
        if not self.repeats and self.protocol != LADDER:  # a ladder's are by the number of images
            object.__setattr__(self, "repeats", _REPEATS)
        require(
            not self.memory or (read_bytes(self.memory) or 0) >= LEAST_MEMORY,
            "memory",
            self.memory,
            "a number of bytes with a unit, such as 4GB or 500MB, at least 10MB",
        )
        require(
            not self.cluster or self.backend != "loky", "cluster", self.cluster, "a backend too, such as backend='dask'"
        )
        require(not self.tta or self.test_views in ("auto", "all"), "test_views", self.test_views, "none beside tta")
        require(self.adapt == "none" or not self.center, "adapt", self.adapt, "none beside center, which does the same")
        require(
            self.test_size + self.val_size < 1,
            "test_size + val_size",
            self.test_size + self.val_size,
            "less than 1, so that something is left to train on",
        )

    @property
    def names_models(self) -> bool:
        """True where the user named the models one by one, and so waits for each however long it takes."""
        return bool(self.models) and EVERY_MODEL not in self.models

    @property
    def memory_bytes(self) -> int:
        """Memory that the fits may hold, in bytes; 0 for no limit."""
        return read_bytes(self.memory) or 0

    def fingerprint(self, **resolved: Any) -> str:
        """SHA-256 of everything that changes a number.

        The number of processes, the path of the groups file and more tables change none.

        Args:
            resolved: what settings became: `groups_sha256`, the digest of that file's content.
        """
        values = self.to_dict()
        for name in ("jobs", "groups", "compat_batch_metrics", "backend", "cluster"):
            del values[name]
        if not self.memory:
            del values["memory"]
        return digest(values | resolved)
