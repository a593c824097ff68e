"""Settings of the head by successive halving: many short trainings, few long ones, judged by validation alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ball_features.config import HeadConfig
from ball_features.dataset.splits import Split
from ball_features.errors import ConfigError
from ball_features.evaluation.views import Views, view_rows
from ball_features.threads import core_count

__all__ = ["Trial", "draw_trials", "search"]

# Each rung trains the best third of the one before three times as long (Jamieson and Talwalkar 2016; Li et al. 2018,
# "Hyperband", section 3, use the same factor). A longer training begins anew and repeats the shorter one exactly.
FACTOR = 3
LEAST_EPOCHS = 4


@dataclass(frozen=True)
class Trial:
    """One set of settings and how far it got.

    Attributes:
        head: The settings.
        views: "all" or "plain" for training, and for validating and testing.
        epochs: Epochs that it was trained for, 0 before its first.
        val_loss: Lowest validation log loss of these epochs.
        val_accuracy: At that epoch.
        best_epoch: That epoch, from 1.
    """

    head: HeadConfig
    views: tuple[str, str] = ("all", "plain")
    epochs: int = 0
    val_loss: float = math.inf
    val_accuracy: float = float("nan")
    best_epoch: int = 0


def draw_trials(count: int, seed: int, epochs: int, views: int) -> list[Trial]:
    """The student report's settings, then others at random.

    Args:
        count: Trials in all.
        seed: Of the draws.
        epochs: Of a full training.
        views: Of the cache; where there is one, views are not searched.
    """
    from scipy.stats import loguniform
    from sklearn.model_selection import ParameterSampler

    if count < 1 or epochs < 1:
        raise ConfigError(f"Got --trials {count} and --epochs {epochs}, expected at least 1 of each.")
    space: dict[str, Any] = {
        "width": [32, 64, 128, 256],
        "depth": [1, 2, 3],
        "dropout": [0.0, 0.1, 0.2, 0.3, 0.5],
        "learning_rate": loguniform(3e-5, 1e-2),
        "l2": loguniform(1e-6, 1e-2),
        "batch_size": [16, 32, 64],
        "class_weight": [None, "balanced"],
        "clip_norm": [0.01, 0.1, 1.0],
        "views": [("all", "plain"), ("all", "all"), ("plain", "plain")] if views > 1 else [("plain", "plain")],
    }
    trials = [Trial(HeadConfig(epochs=epochs), space["views"][0])]
    for own in ParameterSampler(space, max(count - 1, 1), random_state=seed):
        chosen, hidden = own.pop("views"), (own.pop("width"),) * own.pop("depth")
        rounded = {key: float(f"{own[key]:.3g}") for key in ("learning_rate", "l2")}
        trials.append(Trial(HeadConfig.from_mapping(own | rounded | {"hidden": hidden, "epochs": epochs}), chosen))
    return trials[:count]


def search(
    embeddings: np.ndarray,
    codes: np.ndarray,
    split: Split,
    trials: Sequence[Trial],
    *,
    seed: int = 0,
    jobs: int = 0,
    progress: Callable[[int, int, str], None] | None = None,
) -> list[Trial]:
    """Train, keep the better third, train those longer, and so on.

    Test rows are not looked at.

    Args:
        embeddings: (images, views, dim).
        codes: int (images,), classes.
        split: Its `train` trains, its `val` judges.
        trials: From `draw_trials`.
        seed: Of every training.
        jobs: Processes at once; 0 takes all cores.
        progress: Called with (trainings done, trainings in all, "").

    Returns:
        The trials, best first: those that were trained longest, by validation loss.
    """
    from joblib import Parallel, delayed, parallel_config

    full = max(trial.head.epochs for trial in trials)
    rungs = [full]
    while rungs[0] // FACTOR >= LEAST_EPOCHS and len(trials) > FACTOR ** len(rungs):
        rungs.insert(0, rungs[0] // FACTOR)
    sizes = [len(trials)]
    for _ in rungs[1:]:
        sizes.append(max(1, math.ceil(sizes[-1] / FACTOR)))
    count = min(jobs or core_count(), len(trials))
    alive, out, done = list(trials), [], 0
    with parallel_config("loky", n_jobs=count, inner_max_num_threads=1):
        for rung, size in zip(rungs, sizes, strict=True):
            out += alive[size:]
            alive = alive[:size]
            # Large trainings first, so that no core is left with one at the end.
            order = sorted(range(size), key=lambda place: -_cost(alive[place]))
            work = (delayed(_train)(alive[place], rung, embeddings, codes, split, seed) for place in order)
            results: Any = Parallel(return_as="generator", mmap_mode="r")(work)
            trained = []
            for trial in results:
                trained.append(trial)
                done += 1
                if progress:
                    progress(done, sum(sizes), "")
            alive = sorted(trained, key=lambda trial: trial.val_loss)
    return alive + sorted(out, key=lambda trial: (-trial.epochs, trial.val_loss))


def _cost(trial: Trial) -> float:
    return trial.head.hidden[0] * (trial.views[0] == "all") / trial.head.batch_size + 1 / trial.head.batch_size


def _train(trial: Trial, epochs: int, embeddings: np.ndarray, codes: np.ndarray, split: Split, seed: int) -> Trial:
    from ball_features.models.mlp import MLPHead

    def numbers(kind: str) -> tuple[int, ...]:
        return tuple(range(embeddings.shape[1])) if kind == "all" else (0,)

    views = Views(numbers(trial.views[0]), numbers(trial.views[1]))
    X, y = view_rows(embeddings, split.train, codes, views.train)
    X_val, y_val = view_rows(embeddings, split.val, codes, views.test)
    settings: dict[str, Any] = trial.head.to_dict() | {"epochs": epochs}
    head = MLPHead(**settings, random_state=seed).fit(X, y, X_val=X_val, y_val=y_val)
    best = head.best_epoch_
    loss, accuracy = (float(head.history_[name][best]) for name in ("val_loss", "val_accuracy"))
    return Trial(trial.head, trial.views, epochs, loss, accuracy, best + 1)
