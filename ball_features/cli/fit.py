"""`ball fit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ball_features.cli.options import (
    CachePath,
    Combine,
    Folds,
    Groups,
    Jobs,
    Json,
    Quiet,
    Repeats,
    RunName,
    RunsFolder,
    Seed,
    TestViews,
    TrainViews,
    UsedChannels,
    Verbose,
)
from ball_features.cli.presets import PRESETS
from ball_features.cli.root import app, console, print_json, progress_bar, say
from ball_features.config import FitConfig, HeadConfig, split_names
from ball_features.errors import ConfigError, require_extra
from ball_features.files import require_folder
from ball_features.models.registry import MODELS

__all__ = ["fit", "print_run"]


@app.command()
def fit(
    context: typer.Context,
    cache: CachePath,
    preset: Annotated[
        str,
        typer.Option(
            help="Settings of the student report (report) or of the paper (paper); options given beside it win."
        ),
    ] = "",
    protocol: Annotated[
        str,
        typer.Option(
            help="How images are divided: holdout (at random), cv (cross-validation), group-cv (of whole groups), "
            "block-cv (of runs of neighbouring files), leave-group-out (each series in turn), or ladder (from random "
            "draws to series left out, one after the other)."
        ),
    ] = "holdout",
    models: Annotated[
        str, typer.Option(help=f"Models of the table, with commas between, of: {', '.join(MODELS)}; all if left out.")
    ] = "",
    repeats: Repeats = 5,
    folds: Folds = 5,
    test_size: Annotated[float, typer.Option(help="Share of images in the test set of a hold-out.")] = 0.20,
    val_size: Annotated[
        float, typer.Option(help="Share of images in the validation set, which chooses the head's epoch.")
    ] = 0.16,
    groups: Groups = None,
    group_column: Annotated[
        str,
        typer.Option(
            help="Column of --groups that a split keeps together; several joined with +, such as class+overlay. auto: "
            "block for block-cv, series for leave-group-out, else group."
        ),
    ] = "auto",
    tta: Annotated[
        bool,
        typer.Option(
            "--tta", help="Test-time augmentation: test on the mean over all views instead of the plain view."
        ),
    ] = False,
    train_views: TrainViews = "auto",
    test_views: TestViews = "auto",
    channels: UsedChannels = "",
    combine: Combine = "concat",
    compat_batch_metrics: Annotated[
        bool,
        typer.Option(
            "--compat-batch-metrics", help="Add a table of the student report's figures, averaged over batches."
        ),
    ] = False,
    save: Annotated[
        str,
        typer.Option(
            help="Save a model for `ball predict` (a bundle): its name, all, or best (the first of the table, or "
            "robust-views where it does not differ significantly from that). A bundle is the first split's model, "
            "fitted on its training images only; under leave-group-out it has not seen the first group."
        ),
    ] = "",
    tensorboard: Annotated[
        Path | None, typer.Option(help="Folder to write the training curves into as well, for TensorBoard.")
    ] = None,
    seed: Seed = 0,
    hidden: Annotated[str, typer.Option(help="Widths of the head's hidden layers, with commas between.")] = "64,64",
    learning_rate: Annotated[float, typer.Option(help="Learning rate of the head, which Adam trains.")] = 1e-4,
    l2: Annotated[float, typer.Option(help="Weight decay (L2) of the head.")] = 1e-5,
    epochs: Annotated[
        int,
        typer.Option(
            help="Number of epochs the head is trained for; it keeps the one with the lowest validation loss."
        ),
    ] = 40,
    head_batch_size: Annotated[int, typer.Option(help="Number of embeddings in a training step of the head.")] = 16,
    dropout: Annotated[
        float, typer.Option(help="Share of the head's units dropped in training, after its first layer.")
    ] = 0.2,
    clip_norm: Annotated[
        float, typer.Option(help="Greatest norm of the head's gradient, which is clipped to it; 0 does not clip.")
    ] = 0.01,
    class_weight: Annotated[
        str, typer.Option(help="How classes weigh in the head's loss: none (as often as they occur) or balanced.")
    ] = "none",
    group_loss: Annotated[
        str,
        typer.Option(
            help="How the series of --groups weigh in the head's loss: none, balanced (small ones more), or dro (those "
            "that the head does worst on more: distributionally robust optimisation)."
        ),
    ] = "none",
    consistency: Annotated[
        float,
        typer.Option(
            help="Weight of a second loss of the head, by which all views of an image should get the same answer "
            "(logits)."
        ),
    ] = 0.0,
    per_image: Annotated[
        bool,
        typer.Option(
            "--per-image", help="Give each embedding mean 0 and spread 1, for the head and the robust models."
        ),
    ] = False,
    center: Annotated[
        str,
        typer.Option(
            help="Column of --groups, such as overlay: the mean embedding of all images with the same value there is "
            "subtracted from each, for the head and the robust models. Where training lacks a value, the mean is that "
            "of the images tested."
        ),
    ] = "",
    out: RunsFolder = Path("artifacts/runs"),
    name: RunName = "",
    jobs: Jobs = 0,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Compare the head (a small network), classical baselines and shortcuts on a cache, in one table.

    All views and all byte-identical copies of an image stay on one side of a
    split, and no model is fitted or tuned on test labels. Two options look
    further: --save best chooses by the table, that is by test images, and
    --center uses the mean embedding of test images (not their labels) for a
    value that training lacks. Shortcuts (models that see a few pixel numbers,
    no network) stand in the same table.
    """
    from ball_features.bundles.bundle import saved_notes
    from ball_features.runs.fit import fit as run

    if tensorboard is not None:
        require_extra("tensorboard", "tensorboard", "--tensorboard")
        require_folder(tensorboard, "--tensorboard")
    values, preset_notes = _with_preset(context, preset)
    config = _config(values)
    protocol = values["protocol"]
    if protocol == "ladder":
        from ball_features.reporting.run_tables import render_ladder
        from ball_features.runs.ladder import ladder

        for option in ("compat_batch_metrics", "save"):
            if values[option]:
                raise ConfigError(
                    f"--{option.replace('_', '-')} goes with a run of one protocol, not with the ladder. "
                    "Use it with --protocol holdout."
                )
        with progress_bar("Fitting", quiet or as_json, "fits") as progress:
            folder, rows, notes = ladder(cache, config, out_root=out, name=name or "ladder", progress=progress)
        if tensorboard is not None:
            say("--tensorboard: a ladder has no curves; it is for a run of one protocol.")
        if as_json:
            print_json({"run": str(folder), "ladder": rows, "notes": notes})
        else:
            for note in [*preset_notes, *notes]:
                typer.echo(note)
            console().print(render_ladder(rows))
            typer.echo(f"Run: {folder}")
        return
    with progress_bar("Fitting", quiet or as_json, "fits") as progress:
        result = run(
            cache,
            config,
            out_root=out,
            name=name or None,
            save=save,
            notes=preset_notes,
            progress=progress,
        )
    print_run(result, as_json)
    if not as_json:
        for bundle in result.bundles:
            typer.echo(f"Bundle: {bundle}")
        for note in dict.fromkeys(note for bundle in result.bundles for note in saved_notes(bundle)):
            if not quiet:
                say(note)
    if tensorboard is not None:
        from ball_features.reporting.events import write_events

        count = write_events(result.folder, tensorboard)
        if not (quiet or as_json):
            say(f"{count} curves for TensorBoard: tensorboard --logdir {tensorboard}")


def _with_preset(context: typer.Context, preset: str) -> tuple[dict[str, Any], list[str]]:
    """The options, those of a preset where the user gave none, and what the preset keeps and changes."""
    values = dict(context.params)
    if not preset:
        return values, []
    if preset not in PRESETS:
        raise ConfigError(f"Unknown preset {preset!r}. Valid: {', '.join(PRESETS)}.")
    for key, value in PRESETS[preset].settings.items():
        source = context.get_parameter_source(key)
        if source is None or source.name.startswith("DEFAULT"):
            values[key] = value
    return values, [f"Preset {preset} {PRESETS[preset].told(values['repeats'])}"]


def _config(values: dict[str, Any]) -> FitConfig:
    same = (
        "repeats", "folds", "test_size", "val_size", "seed", "group_column", "tta", "train_views", "test_views",
        "compat_batch_metrics",
    )  # fmt: skip
    return FitConfig(
        protocol="holdout" if values["protocol"] == "ladder" else values["protocol"],
        models=split_names(values["models"]),
        channels=split_names(values["channels"]),
        combine=values["combine"],
        center=values["center"] or None,
        groups=None if values["groups"] is None else str(values["groups"]),
        head=HeadConfig(
            hidden=_widths(values["hidden"]),
            learning_rate=values["learning_rate"],
            l2=values["l2"],
            epochs=values["epochs"],
            batch_size=values["head_batch_size"],
            dropout=values["dropout"],
            clip_norm=values["clip_norm"] or None,
            class_weight=None if values["class_weight"] == "none" else values["class_weight"],
            group_loss=None if values["group_loss"] == "none" else values["group_loss"],
            consistency=values["consistency"],
            per_image=values["per_image"],
        ),
        jobs=values["jobs"],
        **{key: values[key] for key in same},
    )


def _widths(text: str) -> tuple[int, ...]:
    parts = split_names(text)
    if not parts or not all(part.isdigit() for part in parts):
        raise ConfigError(f"Got --hidden {text!r}, expected widths with commas between, such as 64,64.")
    return tuple(int(part) for part in parts)


def print_run(result: Any, as_json: bool) -> None:
    """The table of a run, its notes and where it lies."""
    if as_json:
        values = {"run": str(result.folder), "metrics": result.metrics, "notes": list(result.notes)}
        values |= {"groups": result.groups, "compat": result.compat}
        values |= {"bundles": [str(path) for path in result.bundles]}
        print_json(values)
        return
    screen = console()
    for note in result.notes:
        screen.print(note, markup=False)
    screen.print(result.table(screen.width))
    for table in result.more_tables():
        screen.print(table)
    typer.echo(f"Run: {result.folder}")
