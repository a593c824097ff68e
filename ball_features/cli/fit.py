"""`ball fit`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ball_features.cli.derive import command
from ball_features.cli.layers import flag
from ball_features.cli.options import CachePath, RunFolder, Shown, told
from ball_features.cli.presets import PRESETS
from ball_features.cli.root import invocation
from ball_features.cli.screen import echo, print_json, progress_bar, require_written, say, show, width
from ball_features.config import LADDER, LEARNING_CURVE, FitConfig, Saving
from ball_features.config.fields import option
from ball_features.config.paths import shown_address
from ball_features.errors import ConfigError, require_extra

if TYPE_CHECKING:
    from ball_features.runs.store import Run

__all__ = ["COMMAND", "FitOptions", "fit", "print_run"]


@dataclass(frozen=True)
class FitOptions(Saving, RunFolder):
    """Options of `ball fit` that are no settings of the models."""

    mlflow: str = option(
        "",
        "MLflow store to write settings, metrics and files of the run into as well: a folder, or the address of a "
        "server.",
        panel="Output",
    )
    tensorboard: Path | None = option(
        None, "Folder to write the training curves into as well, for TensorBoard.", panel="Output"
    )


def fit(cache: CachePath, config: FitConfig, options: FitOptions, shown: Shown) -> None:
    """Compare the head (a small network), classical baselines and shortcuts on a cache, in one table.

    All views and all byte-identical copies of an image stay on one side of a
    split, and no model is fitted or tuned on test labels. Two options look
    further: --save best chooses by the table, that is by test images, and
    --center uses the mean embedding of test images (not their labels) for a
    value that training lacks. Shortcuts (models that see a few pixel numbers,
    no network) stand in the same table. Every run keeps a config.toml, and
    --config takes it to repeat the run.
    """
    from ball_features.outputs import require_folder, require_outside_bundles
    from ball_features.reporting.mlflow_store import store_path

    if options.tensorboard is not None:
        require_extra("tensorboard", "tensorboard", "The export of training curves")
        require_folder(options.tensorboard, "--tensorboard")
    if options.mlflow:
        require_extra("mlflow", "mlflow", "The export to MLflow")
        require_outside_bundles(store_path(options.mlflow), "--mlflow")
    preset = PRESETS.get(invocation.preset)
    notes = told(options.note)
    notes += [f"Preset {invocation.preset} {preset.told(config.repeats)}"] if preset else []
    if config.protocol == LEARNING_CURVE:
        _draw_curve(cache, config, options, shown)
    elif config.protocol == LADDER:
        _climb(cache, config, options, shown, notes)
    else:
        _compare(cache, config, options, shown, notes)


def _compare(cache: Path, config: FitConfig, options: FitOptions, shown: Shown, notes: list[str]) -> None:
    """A run of one protocol."""
    from ball_features.bundles.bundle import saved_notes
    from ball_features.runs.fit import fit as run

    with progress_bar("Fitting", shown.silent, "fits") as progress:
        result = run(
            cache,
            config,
            out_root=options.out,
            name=options.name or None,
            save=Saving(options.save, options.final, options.conformal),
            notes=notes,
            progress=progress,
        )
    _record(result.folder, options, shown)
    print_run(result, shown)
    if not shown.as_json:
        for bundle in result.bundles:
            echo(f"Bundle: {bundle}")
    if not shown.silent:
        for note in dict.fromkeys(note for bundle in result.bundles for note in saved_notes(bundle)):
            say(note)
    if options.tensorboard is not None:
        from ball_features.reporting.events import write_events

        count = write_events(result.folder, options.tensorboard)
        if not shown.silent:
            say(f"{count} curves for TensorBoard: tensorboard --logdir {options.tensorboard}")
    require_written(result.unwritten)


def _record(folder: Path, options: FitOptions, shown: Shown) -> None:
    """Keep the user's note, and write the run to MLflow where that was asked for."""
    from ball_features.reporting.joint import has_own_page, write_own_report
    from ball_features.reporting.mlflow_store import write_mlflow
    from ball_features.runs.store import annotate

    if options.note:
        annotate(folder, options.note)
        if has_own_page(folder):  # a run of one protocol has the note among its notes
            write_own_report(folder)
    if options.mlflow:
        number = write_mlflow(folder, options.mlflow)
        if not shown.silent:
            say(f"MLflow: run {number} in {shown_address(options.mlflow)}")


def _climb(cache: Path, config: FitConfig, options: FitOptions, shown: Shown, notes: list[str]) -> None:
    """The ladder."""
    from ball_features.reporting.run_tables import render_ladder
    from ball_features.reporting.verdict import findings_to_json, render_verdict
    from ball_features.runs.ladder import ladder

    for name, value in (("compat_batch_metrics", config.compat_batch_metrics), ("save", options.save)):
        if value:
            raise ConfigError(
                f"{flag(name)} goes with a run of one protocol, not with the ladder. Use it with --protocol holdout."
            )
    with progress_bar("Fitting", shown.silent, "fits") as progress:
        done = ladder(cache, config, out_root=options.out, name=options.name or LADDER, progress=progress)
    _record(done.folder, options, shown)
    if options.tensorboard is not None and not shown.silent:
        say("--tensorboard: a ladder has no curves; it is for a run of one protocol.")
    if shown.as_json:
        values = {"run": str(done.folder), "verdict": findings_to_json(done.findings), "ladder": done.rows}
        print_json(values | {"notes": done.notes})
        require_written(done.unwritten)
        return
    show(render_verdict(done.findings))
    for note in () if shown.quiet else [*notes, *done.notes]:
        echo(note)
    show(render_ladder(done.rows, width()), quiet=shown.quiet)
    echo(f"Run: {done.folder}")
    require_written(done.unwritten)


def _draw_curve(cache: Path, config: FitConfig, options: FitOptions, shown: Shown) -> None:
    """The learning curve."""
    from ball_features.reporting.curve_page import render_curve
    from ball_features.runs.learning_curve import learning_curve

    usual = FitConfig()
    refused = {"compat_batch_metrics": config.compat_batch_metrics, "folds": config.folds != usual.folds}
    refused |= {"adapt": config.adapt != usual.adapt, "save": options.save, "final": options.final}
    for name, value in refused.items():
        if value:
            raise ConfigError(f"{flag(name)} does not go with --protocol {LEARNING_CURVE}. Leave it out.")
    with progress_bar("Fitting", shown.silent, "fits") as progress:
        done = learning_curve(cache, config, out_root=options.out, name=options.name or None, progress=progress)
    _record(done.folder, options, shown)
    if options.tensorboard is not None and not shown.silent:
        say("--tensorboard: a learning curve has no training curves; it is for a run of one protocol.")
    if shown.as_json:
        values = {"run": str(done.folder), "curve": done.rows, "forecast": done.forecasts}
        print_json(values | {"sentences": done.sentences, "notes": done.notes})
        require_written(done.unwritten)
        return
    for sentence in done.sentences:
        echo(sentence)
    for note in () if shown.quiet else done.notes:
        echo(note)
    show(render_curve(done.rows))
    echo(f"Run: {done.folder}")
    require_written(done.unwritten)


def print_run(result: Run, shown: Shown) -> None:
    """The verdict of a run, its notes, its table and its folder."""
    from ball_features.reporting.verdict import findings_to_json, render_verdict

    if shown.as_json:
        values = {"run": str(result.folder), "verdict": findings_to_json(result.findings), "metrics": result.metrics}
        values |= {"notes": list(result.notes), "groups": result.groups, "compat": result.compat}
        values |= {"patients": result.patients}
        values |= {"bundles": [str(path) for path in result.bundles]}
        print_json(values)
        return
    show(render_verdict(result.findings), *(() if shown.quiet else result.remarks))
    show(result.table(width()), *result.more_tables(), quiet=shown.quiet)
    echo(f"Run: {result.folder}")


COMMAND = command(fit, file=True, presets=PRESETS)
