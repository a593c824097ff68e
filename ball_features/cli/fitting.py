"""`ball fit`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ball_features.cli.root import (
    Json,
    Quiet,
    TestViews,
    TrainViews,
    Verbose,
    app,
    console,
    print_json,
    progress_bar,
    say,
)
from ball_features.dataset.targets import require_folder
from ball_features.errors import ConfigError, require_extra

if TYPE_CHECKING:
    from ball_features.config import FitConfig

__all__ = ["fit", "print_run"]


@app.command()
def fit(
    context: typer.Context,
    cache: Annotated[Path, typer.Argument(help="A cache made by `ball extract`.", show_default=False)],
    preset: Annotated[
        str, typer.Option(help="report or paper: the settings of either; options given beside it win.")
    ] = "",
    protocol: Annotated[
        str, typer.Option(help="holdout, cv, group-cv, block-cv, leave-group-out, or ladder: one after the other.")
    ] = "holdout",
    models: Annotated[str, typer.Option(help="Names with commas between; all if left out.")] = "",
    repeats: Annotated[int, typer.Option(help="Repeats of the protocol with another seed.")] = 5,
    folds: Annotated[int, typer.Option(help="Folds of the cross-validations.")] = 5,
    test_size: Annotated[float, typer.Option(help="Share of images in a hold-out test set.")] = 0.20,
    val_size: Annotated[float, typer.Option(help="Share of images that choose the head's epoch.")] = 0.16,
    groups: Annotated[Path | None, typer.Option(help="CSV with path,group: what a split keeps together.")] = None,
    group_column: Annotated[
        str,
        typer.Option(
            help="Column of --groups to use; several with +, such as class+overlay. auto: what the protocol is by."
        ),
    ] = "auto",
    tta: Annotated[bool, typer.Option("--tta", help="Test on the mean over views instead of the plain view.")] = False,
    train_views: TrainViews = "auto",
    test_views: TestViews = "auto",
    channels: Annotated[str, typer.Option(help="Channels of the cache to use, such as original,segmented.")] = "",
    combine: Annotated[str, typer.Option(help="Several channels: concat (behind one another) or mean.")] = "concat",
    compat_batch_metrics: Annotated[
        bool, typer.Option("--compat-batch-metrics", help="Add the student report's batch-averaged figures.")
    ] = False,
    save: Annotated[
        str,
        typer.Option(
            help="Bundle a model for `ball predict`: its name, all, or best (the first of the table, or robust-views "
            "where it cannot be told from that). A bundle is the first split's model, fitted on its training images "
            "only; under leave-group-out it has not seen the first group."
        ),
    ] = "",
    tensorboard: Annotated[Path | None, typer.Option(help="Write the curves there too, for TensorBoard.")] = None,
    seed: Annotated[int, typer.Option(help="Of splits and models.")] = 0,
    hidden: Annotated[str, typer.Option(help="Widths of the head's layers.")] = "64,64",
    learning_rate: Annotated[float, typer.Option(help="Of the head, with Adam.")] = 1e-4,
    l2: Annotated[float, typer.Option(help="Weight decay of the head.")] = 1e-5,
    epochs: Annotated[int, typer.Option(help="Of the head; validation chooses among them.")] = 40,
    head_batch_size: Annotated[int, typer.Option(help="Rows a step of the head.")] = 16,
    dropout: Annotated[float, typer.Option(help="Of the head, after its first layer.")] = 0.2,
    clip_norm: Annotated[float, typer.Option(help="Greatest gradient norm of the head; 0 does not clip.")] = 0.01,
    class_weight: Annotated[str, typer.Option(help="none or balanced, of the head's loss.")] = "none",
    group_loss: Annotated[
        str, typer.Option(help="none, balanced or dro: how the series of --groups weigh in the head's loss.")
    ] = "none",
    consistency: Annotated[
        float, typer.Option(help="Weight of a second loss of the head: views of an image should get the same logits.")
    ] = 0.0,
    per_image: Annotated[
        bool,
        typer.Option("--per-image", help="Standardise each embedding in itself, for the head and the robust models."),
    ] = False,
    center: Annotated[
        str,
        typer.Option(help="Column of --groups whose mean is taken from embeddings first, such as overlay; likewise."),
    ] = "",
    out: Annotated[Path, typer.Option(help="Folder of the runs.")] = Path("artifacts/runs"),
    name: Annotated[str, typer.Option(help="Name of this run; protocol and time if left out.")] = "",
    jobs: Annotated[int, typer.Option(help="Fits at once; 0 takes every core.")] = 0,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Compare the head, baselines and shortcuts on a cache, and print one table.

    Views and byte-identical copies of an image never cross a split, nothing is fitted or chosen on test images,
    and shortcuts (models that see a few pixel numbers, no network) stand in the same table.
    """
    from ball_features.deployment.bundle import saved_notes
    from ball_features.deployment.fitting import fit as run

    if tensorboard is not None:
        require_extra("tensorboard", "tensorboard", "--tensorboard")
        require_folder(tensorboard, "--tensorboard")
    values, preset_notes = _with_preset(context, preset)
    config = _config(values)
    protocol, compat_batch_metrics = values["protocol"], values["compat_batch_metrics"]
    if protocol == "ladder":
        from ball_features.reporting.ladder import ladder, render_ladder

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
            compat_batch_metrics=compat_batch_metrics,
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
    from ball_features.config import PRESETS

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
    from ball_features.config import FitConfig, HeadConfig

    same = ("repeats", "folds", "test_size", "val_size", "seed", "group_column", "tta", "train_views", "test_views")
    return FitConfig(
        protocol="holdout" if values["protocol"] == "ladder" else values["protocol"],
        models=_names(values["models"]),
        channels=_names(values["channels"]),
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


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _widths(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
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
