"""`ball tune`: settings of the head chosen on validation images, then tested once beside the student report's."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ball_features.cache import Cache
from ball_features.config import FitConfig, HeadConfig
from ball_features.config.toml import Repeat
from ball_features.dataset.grouping import read_grouping
from ball_features.errors import ConfigError
from ball_features.evaluation.paired_tests import paired_bootstrap
from ball_features.evaluation.protocols import ModelResult, Progress, evaluate
from ball_features.evaluation.rows import TrialRow, write_rows
from ball_features.evaluation.search import Trial, draw_trials, search
from ball_features.evaluation.tasks import Evaluation
from ball_features.evaluation.views import fixed_views
from ball_features.files import write_json
from ball_features.models.registry import Model, select
from ball_features.outputs import require_folder
from ball_features.reporting.words import describe_cache
from ball_features.runs.checks import check_name, chosen_cache, split_by
from ball_features.runs.contents import Comparison, measure_comparison
from ball_features.runs.new_folder import NewFolder, reserved_folder, stamped
from ball_features.runs.store import Run, finish

__all__ = ["tune"]

_LEVEL = 0.05  # of the paired test
_BEST = "best.toml"  # settings of `ball fit` with the chosen head


def tune(
    cache_path: Path | str,
    config: FitConfig,
    *,
    trials: int = 27,
    out_root: Path | str = "artifacts/runs",
    name: str | None = None,
    notes: Sequence[str] = (),
    progress: Progress | None = None,
) -> tuple[Run, list[TrialRow]]:
    """Search the head's settings on one hold-out split.

    Training images train and validation images choose. The test images see two heads, the chosen one ("mlp-tuned") and
    the student report's ("mlp"), beside a linear model and shortcuts. There is one split only, because the validation
    images of one split are test images of another.

    Args:
        cache_path: a complete cache, made by `extract`.
        config: sizes of the split, seed, groups, channels, number of epochs of a full training (in `head`), and number
            of processes.
        trials: number of settings to try.
        out_root: folder of the runs.
        name: name of the run's folder in it.
        notes: notes that stand before the run's own.
        progress: called with (trainings done, all trainings, "").

    Returns:
        The run, and the rows of `trials.csv`, the best first.

    Raises:
        CacheError: the cache is missing, incomplete or not finite.
        ConfigError: the protocol is not a hold-out, or embeddings are centred.
        DataError: the groups file does not fit.
        SplitError: the images cannot be split.
    """
    start = time.perf_counter()
    repeat = Repeat("tune", {"cache": str(cache_path)}, _heeded(config), {"trials": trials})
    check_name(name)
    if config.protocol != "holdout":
        raise ConfigError(f"Got the protocol {config.protocol}, expected holdout: folds would test what chose.")
    if config.center:
        raise ConfigError(f"Got center={config.center!r}, which the search does not use. Leave it out.")
    config = replace(config, repeats=1)
    cache = chosen_cache(cache_path, config)
    grouping = read_grouping(config, cache.path, cache.label, cache.columns)
    splits, said = split_by(config, cache, grouping)
    codes = np.unique(cache.label, return_inverse=True)[1]
    require_folder(out_root)
    # Fixed views are other pictures. The head has no use for them beside the plain one.
    drawn = draw_trials(trials, config.seed, config.head.epochs, 1 if fixed_views(cache) else len(cache.view))
    found = search(cache.embeddings, codes, splits[0], drawn, seed=config.seed, jobs=config.jobs, progress=progress)
    cache.require_unchanged()
    search_s = time.perf_counter() - start
    best = found[0]
    tuned = replace(config, head=best.head, train_views=best.views[0], test_views=best.views[1], models=("mlp",))
    (own,) = evaluate(Evaluation(cache, tuple(select(["mlp"])), tuple(splits), tuned))
    rows = [_row(rank, trial) for rank, trial in enumerate(found, 1)]
    # The same hold-out again: in another one, images that chose the settings would test them.
    best_fit = Repeat("fit", {"cache": str(cache_path)}, tuned)
    with reserved_folder(Path(out_root), name or stamped("tune", out_root)) as folder:
        use = best_fit.command(folder, _BEST)
        comparison = Comparison(
            cache=cache,
            config=tuned,
            splits=splits,
            results=[_tuned(own), *evaluate(Evaluation(cache, _rivals(cache), tuple(splits), config))],
            grouping=grouping,
            source=str(cache_path),
            repeat=repeat,
            folder=folder,
            subject=describe_cache(cache),
            notes=[
                f"mlp-tuned is the best of {len(found)} settings by validation log loss, {best.val_loss:.4f} after "
                f"epoch {best.best_epoch}; those of the student report reached {_loss_of(drawn[0], found):.4f}. Found "
                f"in {search_s:.1f} s.",
                f"To use it: {use}",
                *said,
            ],
            start=start,
        )
        same = (best.head, best.views) == (drawn[0].head, drawn[0].views)
        comparison = replace(comparison, notes=[*notes, _against_report(comparison, same), *comparison.notes])
        contents = measure_comparison(comparison)
        with NewFolder(folder.parent, folder.name) as new:
            contents.write(new.path)
            write_rows(new.path / "trials.csv", rows)
            values = {"head": best.head, "train_views": best.views[0], "test_views": best.views[1], "command": use}
            write_json(new.path / "best.json", values)
            (new.path / _BEST).write_text(best_fit.text(), encoding="utf-8")
    return finish(contents, new.path, cache), rows


def _heeded(config: FitConfig) -> FitConfig:
    """Keep the settings that the search uses, and the defaults of the others."""
    return FitConfig(
        test_size=config.test_size,
        val_size=config.val_size,
        seed=config.seed,
        groups=config.groups,
        group_column=config.group_column,
        channels=config.channels,
        combine=config.combine,
        head=HeadConfig(epochs=config.head.epochs),
        jobs=config.jobs,
    )


def _tuned(result: ModelResult) -> ModelResult:
    return replace(result, spec=replace(result.spec, name="mlp-tuned"))


def _rivals(cache: Cache) -> tuple[Model, ...]:
    specs = select(["mlp", "logistic", "colour"])
    return tuple(spec for spec in specs if spec.features in ("embedding", *cache.shortcuts))


def _against_report(comparison: Comparison, same: bool) -> str:
    """Say whether the choice beats the student report's settings on the test images, by a paired test.

    Args:
        comparison: results of "mlp-tuned" and of "mlp" on the one split.
        same: True where the choice is the student report's settings.
    """
    if same:
        return "No setting that was tried beats those of the student report on the validation images: they are chosen."
    codes = np.unique(comparison.cache.label, return_inverse=True)[1]
    fitted = {result.spec.name: result.fitted[0] for result in comparison.results if result.fitted}
    if not {"mlp-tuned", "mlp"} <= set(fitted):
        return "The choice could not be compared with the student report's settings, since one of them failed."
    test = fitted["mlp"].split.test
    own, usual = (fitted[name].probability.argmax(1) == codes[test] for name in ("mlp-tuned", "mlp"))
    low, high, p = paired_bootstrap(own.astype(float) - usual, comparison.units[test])
    gain = float(own.mean() - usual.mean())
    figures = (
        f"{100 * own.mean():.2f} against {100 * usual.mean():.2f} % of {len(test)} test images, difference "
        f"{round(100 * gain, 2) + 0.0:+.2f} points (95 % interval {100 * low:.2f} to {100 * high:.2f}, p = {p:.3f}, "
        "paired permutation test)"
    )
    if p <= _LEVEL and gain > 0:
        return f"The choice beats the student report's settings: {figures}."
    if p <= _LEVEL:
        return f"The choice is worse than the student report's settings: {figures}. Keep theirs."
    return f"The choice does not beat the student report's settings significantly: {figures}. Theirs do as well."


def _loss_of(first: Trial, found: Sequence[Trial]) -> float:
    """Look up the validation loss of the student report's settings, which are those of the first trial drawn."""
    return next(trial.val_loss for trial in found if (trial.head, trial.views) == (first.head, first.views))


def _row(rank: int, trial: Trial) -> TrialRow:
    head = trial.head
    return TrialRow(
        rank=rank,
        val_loss=trial.val_loss,
        val_accuracy=trial.val_accuracy,
        epochs=trial.epochs,
        best_epoch=trial.best_epoch,
        hidden=",".join(map(str, head.hidden)),
        learning_rate=head.learning_rate,
        l2=head.l2,
        dropout=head.dropout,
        batch_size=head.batch_size,
        clip_norm=head.clip_norm,
        class_weight=head.class_weight or "none",
        train_views=trial.views[0],
        test_views=trial.views[1],
    )
