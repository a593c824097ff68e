"""Search of the head's settings by successive halving: many short trainings, few long ones, compared on validation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ball_features.config import HeadConfig
from ball_features.dataset.splits import Split
from ball_features.errors import ConfigError
from ball_features.evaluation.processes import run_tasks
from ball_features.evaluation.views import Views, view_rows
from ball_features.threads import core_count

__all__ = ["Trial", "draw_trials", "search"]

# Each rung trains the best third of the rung before three times as long (Jamieson and Talwalkar 2016; Li et al. 2018,
# "Hyperband", section 3, use the same factor). A longer training starts from scratch, and repeats the shorter exactly.
FACTOR = 3
LEAST_EPOCHS = 4


@dataclass(frozen=True)
class Trial:
    """A set of settings, and its longest training.

    Attributes:
        head: settings of the head.
        views: "all" or "plain" for training, and the same for validation and test.
        epochs: number of epochs of the longest training; 0 before the first.
        val_loss: lowest validation log loss of that training.
        val_accuracy: validation accuracy at the epoch of the lowest loss.
        best_epoch: epoch of the lowest loss, from 1.
    """

    head: HeadConfig
    views: tuple[str, str] = ("all", "plain")
    epochs: int = 0
    val_loss: float = math.inf
    val_accuracy: float = float("nan")
    best_epoch: int = 0


def draw_trials(count: int, seed: int, epochs: int, views: int) -> list[Trial]:
    """Draw settings at random; the first trial has those of the student report.

    Args:
        count: number of trials.
        seed: seed of the draws.
        epochs: number of epochs of a full training.
        views: number of views of the cache; with one view, the use of views is not searched.

    Raises:
        ConfigError: `count` or `epochs` is below 1.
    """
    from scipy.stats import loguniform
    from sklearn.model_selection import ParameterSampler

    if count < 1 or epochs < 1:
        raise ConfigError(f"Got trials={count} and epochs={epochs}, expected at least 1 of each.")
    orders = [("all", "plain"), ("all", "all"), ("plain", "plain")] if views > 1 else [("plain", "plain")]
    space = {
        "width": [32, 64, 128, 256],
        "depth": [1, 2, 3],
        "dropout": [0.0, 0.1, 0.2, 0.3, 0.5],
        "learning_rate": loguniform(3e-5, 1e-2),
        "l2": loguniform(1e-6, 1e-2),
        "batch_size": [16, 32, 64],
        "class_weight": [None, "balanced"],
        "clip_norm": [0.01, 0.1, 1.0],
        "views": orders,
    }
    trials = [Trial(HeadConfig(epochs=epochs), orders[0])]
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
    """Train all trials, keep the best third, train those three times as long, and so on.

    Test images play no part.

    Args:
        embeddings: embeddings, float (images, views, dim).
        codes: class indices, int (images,).
        split: split whose `train` images train and whose `val` images compare.
        trials: the trials, from `draw_trials`.
        seed: seed of every training.
        jobs: number of parallel processes; 0 uses every core.
        progress: called with (trainings done, all trainings, "").

    Returns:
        The trials, those with the longest training first, then by validation loss.
    """
    full = max(trial.head.epochs for trial in trials)
    rungs = [full]
    while rungs[0] // FACTOR >= LEAST_EPOCHS and len(trials) > FACTOR ** len(rungs):
        rungs.insert(0, rungs[0] // FACTOR)
    sizes = [len(trials)]
    for _ in rungs[1:]:
        sizes.append(max(1, math.ceil(sizes[-1] / FACTOR)))
    count = min(jobs or core_count(), len(trials))
    alive, out, done = list(trials), [], 0
    for rung, size in zip(rungs, sizes, strict=True):
        out += alive[size:]
        alive = alive[:size]
        # Long trainings go first, so that no core is left alone with one at the end.
        order = sorted(range(size), key=lambda place: -_cost(alive[place]))
        tasks = {place: (alive[place], rung, embeddings, codes, split, seed) for place in order}
        trained: dict[int, Trial] = {}
        for place, trial, _ in run_tasks(_train, tasks, count):
            trained[place] = trial
            done += 1
            if progress:
                progress(done, sum(sizes), "")
        alive = sorted((trained[place] for place in order), key=_loss)
    return alive + sorted(out, key=lambda trial: (-trial.epochs, _loss(trial)))


def _loss(trial: Trial) -> float:
    """Validation loss to sort by: a training that diverged (NaN) comes last."""
    return math.inf if math.isnan(trial.val_loss) else trial.val_loss


def _cost(trial: Trial) -> float:
    return trial.head.hidden[0] * (trial.views[0] == "all") / trial.head.batch_size + 1 / trial.head.batch_size


def _train(task: tuple[Trial, int, np.ndarray, np.ndarray, Split, int]) -> Trial:
    from ball_features.models.mlp import MLPHead

    trial, epochs, embeddings, codes, split, seed = task

    def indices(chosen: str) -> tuple[int, ...]:
        return tuple(range(embeddings.shape[1])) if chosen == "all" else (0,)

    views = Views(indices(trial.views[0]), indices(trial.views[1]))
    X, y = view_rows(embeddings, split.train, codes, views.train)
    X_val, y_val = view_rows(embeddings, split.val, codes, views.test)
    settings = replace(trial.head, epochs=epochs)
    head = MLPHead(**settings.to_dict(), random_state=seed).fit(X, y, X_val=X_val, y_val=y_val)
    best = head.best_epoch_
    loss, accuracy = (float(head.history_[name][best]) for name in ("val_loss", "val_accuracy"))
    return Trial(trial.head, trial.views, epochs, loss, accuracy, best + 1)
