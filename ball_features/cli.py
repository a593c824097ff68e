"""The command line: options to a configuration, one call, its result printed. Nothing is decided here.

Exit codes: 0 done, 1 done with findings under `--strict`, 2 wrong use or input, 3 internal error, 130 interrupted.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ball_features import __version__
from ball_features.errors import BallError, ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from ball_features.extraction.extract import Extraction

__all__ = ["app", "main"]

app = typer.Typer(
    name="ball",
    help="Subtypes of B-ALL on blood smears: embed images once with a frozen network, compare classifiers on the "
    "embeddings in seconds. For research; not a medical device.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run `ball`; errors raised on purpose are printed as one message."""
    try:
        app(standalone_mode=True)
    except BallError as error:
        _say(f"Error: {error}")
        sys.exit(2)
    except KeyboardInterrupt:
        _say("Interrupted. What was finished is kept; the same command goes on from there.")
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except Exception as error:
        if "--verbose" in sys.argv:
            raise
        _say(f"Internal error: {type(error).__name__}: {error}. Run it again with --verbose and report what it prints.")
        sys.exit(3)


def _say(line: str) -> None:
    typer.echo(line, err=True)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ball {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    pass


Strict = Annotated[bool, typer.Option("--strict", help="Exit with 1 where files were rejected.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output, for machines.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print results and errors only.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Show the traceback of an internal error.")]


@contextmanager
def _progress(what: str, quiet: bool, unit: str = "images") -> Iterator[Callable[..., None]]:
    """A bar on a terminal, a line every tenth elsewhere."""
    if quiet:
        yield lambda done, total, name="": None
        return
    if not sys.stderr.isatty():
        import time

        start = time.perf_counter()
        tenth = [-1]

        def line(done: int, total: int, name: str = "") -> None:
            now = 10 * done // max(total, 1)
            if now > tenth[0] and total:
                tenth[0] = now
                rate = done / max(time.perf_counter() - start, 1e-9)
                _say(f"{what}: {done} of {total} {unit}, {rate:.1f} {unit}/s")

        yield line
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(f"{{task.fields[rate]:.1f}} {unit}/s"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[name]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None, rate=0.0, name="")

        def update(done: int, total: int, name: str = "") -> None:
            rate = done / max(bar.tasks[0].elapsed or 1e-9, 1e-9)
            bar.update(task, completed=done, total=total, rate=rate, name=name)

        yield update


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else 120)


def _batch_size(text: str) -> int:
    if text == "auto":
        return 0
    if not text.isdigit() or int(text) < 1:
        raise ConfigError(f"Got --batch-size {text!r}, expected a number of images of at least 1, or auto.")
    return int(text)


@app.command()
def extract(
    images: Annotated[Path, typer.Argument(help="Folder with one folder a class.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="The cache to write, an HDF5 file.", show_default=False)],
    backbone: Annotated[str, typer.Option(help="densenet121, densenet169 or densenet201.")] = "densenet201",
    weights: Annotated[
        str, typer.Option(help="imagenet (downloaded once), random, or the path of a PyTorch state dict.")
    ] = "imagenet",
    views: Annotated[int, typer.Option(help="Views of each image; the first is the plain image.")] = 1,
    recipe: Annotated[str, typer.Option(help="How the further views are made.")] = "report",
    normalize: Annotated[str, typer.Option(help="imagenet (its mean and deviation) or unit ([0, 1]).")] = "imagenet",
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16: of the forward pass.")] = "auto",
    dtype: Annotated[str, typer.Option(help="float16 or float32: of the stored embeddings.")] = "float16",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    batch_size: Annotated[str, typer.Option(help="Images a forward pass, or auto.")] = "auto",
    seed: Annotated[int, typer.Option(help="Of the views, and of random weights.")] = 0,
    limit: Annotated[int, typer.Option(help="Use only so many images, spread over the classes; 0 is all.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a cache made with other settings.")] = False,
    strict: Strict = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Embed the images of a folder with a frozen network, once, into a cache.

    The folder holds one folder a class. A second run computes only what is new; a killed run goes on where it was.
    Files that cannot be decoded are listed, in the end and in the cache, and never stop the run.
    """
    from ball_features.config import ExtractConfig
    from ball_features.extraction.extract import extract as run

    config = ExtractConfig(
        backbone=backbone,
        weights=weights,
        views=views,
        recipe=recipe,
        normalize=normalize,
        precision=precision,
        dtype=dtype,
        device=device,
        batch_size=_batch_size(batch_size),
        seed=seed,
        limit=limit,
    )
    quiet = quiet or as_json
    with _progress("Embedding", quiet) as progress:
        log = (lambda line: None) if quiet else _say
        result = run(images, out, config, overwrite=overwrite, dry_run=dry_run, progress=progress, log=log)
    if as_json:
        typer.echo(json.dumps(_extraction_json(result), indent=2))
    else:
        _print_extraction(result, dry_run)
    if strict and result.rejected:
        raise typer.Exit(1)


def _extraction_json(result: Extraction) -> dict[str, Any]:
    import dataclasses

    values = dataclasses.asdict(result)
    return values | {"cache": str(result.cache), "rejected": [dataclasses.asdict(item) for item in result.rejected]}


def _print_extraction(result: Extraction, dry_run: bool = False) -> None:
    for item in result.rejected:
        typer.echo(f"rejected  {item.path}: {item.reason}")
    shape = f"{result.images} images x {result.views} {'view' if result.views == 1 else 'views'} x {result.dim}"
    if dry_run:
        typer.echo(f"Would compute {result.computed} of {result.images} images; {shape} in {result.cache}")
        return
    dropped = f", {result.removed} removed" if result.removed else ""
    if not result.computed:
        what = "Nothing to compute" + (dropped or ": every image is in the cache")
    else:
        rate = result.computed * result.views / max(result.forward_s, 1e-9)
        what = f"Computed {result.computed} images ({rate:.1f} views/s), {result.reused} were there{dropped}"
    rejected = f", {len(result.rejected)} files rejected" if result.rejected else ""
    typer.echo(f"{what}{rejected}, in {result.extract_s:.1f} s.\n{result.cache}: {shape}")


@app.command()
def audit(
    images: Annotated[Path, typer.Argument(help="Folder with one folder a class.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="Groups to write.")] = Path("artifacts/groups.csv"),
    cache: Annotated[Path | None, typer.Option(help="A cache of these images, to propose pairs with.")] = None,
    page: Annotated[Path | None, typer.Option(help="Write a page with the findings, thumbnails included.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 where labels conflict.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Find what makes a random split of these images lie, and write what a split must keep together.

    Copies (turned and re-encoded ones too), overlapping fields of view, burned-in scale bars and the classes that they
    give away, likely series, outliers. `ball fit --groups` takes the file; its columns: group, series, overlay, block.
    """
    from ball_features.dataset.audit import audit as run
    from ball_features.dataset.audit import write_groups
    from ball_features.dataset.manifest import scan
    from ball_features.reporting.audit_page import cached_embeddings, summary, write_page

    manifest = scan(images)
    embeddings = None if cache is None else cached_embeddings(cache, manifest)
    with _progress("Auditing", quiet or as_json, "steps") as progress:
        found = run(manifest, embeddings=embeddings, progress=progress)
    write_groups(found, out)
    if page is not None:
        write_page(found, manifest.root, page)
    if as_json:
        typer.echo(json.dumps(found.to_dict() | {"groups_file": str(out)}, indent=1))
    else:
        if manifest.note:
            _say(manifest.note)
        _console().print(summary(found))
        typer.echo(f"Groups: {out}" + (f"\nPage: {page} (holds thumbnails; do not pass it on)" if page else ""))
    if strict and found.conflicts:
        raise typer.Exit(1)


@app.command()
def fit(
    cache: Annotated[Path, typer.Argument(help="A cache made by `ball extract`.", show_default=False)],
    protocol: Annotated[
        str, typer.Option(help="holdout, cv, group-cv, block-cv, leave-group-out, or ladder: one after the other.")
    ] = "holdout",
    models: Annotated[str, typer.Option(help="Names with commas between; all if left out.")] = "",
    repeats: Annotated[int, typer.Option(help="Repeats of the protocol with another seed.")] = 5,
    folds: Annotated[int, typer.Option(help="Folds of the cross-validations.")] = 5,
    test_size: Annotated[float, typer.Option(help="Share of images in a hold-out test set.")] = 0.20,
    val_size: Annotated[float, typer.Option(help="Share of images that choose the head's epoch.")] = 0.16,
    groups: Annotated[Path | None, typer.Option(help="CSV with path,group: what a split keeps together.")] = None,
    group_column: Annotated[str, typer.Option(help="Column of --groups to use.")] = "group",
    tta: Annotated[bool, typer.Option("--tta", help="Test on the mean over views instead of the plain view.")] = False,
    seed: Annotated[int, typer.Option(help="Of splits and models.")] = 0,
    hidden: Annotated[str, typer.Option(help="Widths of the head's layers.")] = "64,64",
    learning_rate: Annotated[float, typer.Option(help="Of the head, with Adam.")] = 1e-4,
    l2: Annotated[float, typer.Option(help="Weight decay of the head.")] = 1e-5,
    epochs: Annotated[int, typer.Option(help="Of the head; validation chooses among them.")] = 40,
    head_batch_size: Annotated[int, typer.Option(help="Rows a step of the head.")] = 16,
    dropout: Annotated[float, typer.Option(help="Of the head, after its first layer.")] = 0.2,
    clip_norm: Annotated[float, typer.Option(help="Greatest gradient norm of the head; 0 does not clip.")] = 0.01,
    class_weight: Annotated[str, typer.Option(help="none or balanced, of the head's loss.")] = "none",
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
    from ball_features.config import FitConfig, HeadConfig
    from ball_features.reporting.run import fit as run

    config = FitConfig(
        protocol="holdout" if protocol == "ladder" else protocol,
        models=tuple(part.strip() for part in models.split(",") if part.strip()),
        repeats=repeats,
        folds=folds,
        test_size=test_size,
        val_size=val_size,
        seed=seed,
        groups=None if groups is None else str(groups),
        group_column=group_column,
        tta=tta,
        head=HeadConfig(
            hidden=_widths(hidden),
            learning_rate=learning_rate,
            l2=l2,
            epochs=epochs,
            batch_size=head_batch_size,
            dropout=dropout,
            clip_norm=clip_norm or None,
            class_weight=None if class_weight == "none" else class_weight,
        ),
        jobs=jobs,
    )
    if protocol == "ladder":
        from ball_features.reporting.ladder import ladder, render_ladder

        with _progress("Fitting", quiet or as_json, "fits") as progress:
            folder, rows, notes = ladder(cache, config, out_root=out, name=name or "ladder", progress=progress)
        if as_json:
            typer.echo(json.dumps({"run": str(folder), "ladder": rows, "notes": notes}, indent=1))
        else:
            for note in notes:
                typer.echo(note)
            _console().print(render_ladder(rows))
            typer.echo(f"Run: {folder}")
        return
    with _progress("Fitting", quiet or as_json, "fits") as progress:
        result = run(cache, config, out_root=out, name=name or None, progress=progress)
    _print_run(result, as_json)


def _widths(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isdigit() for part in parts):
        raise ConfigError(f"Got --hidden {text!r}, expected widths with commas between, such as 64,64.")
    return tuple(int(part) for part in parts)


def _print_run(result: Any, as_json: bool) -> None:
    if as_json:
        values = {"run": str(result.folder), "metrics": result.metrics, "notes": list(result.notes)}
        typer.echo(json.dumps(values, indent=2, default=str))
        return
    console = _console()
    for note in result.notes:
        console.print(note, markup=False)
    console.print(result.table(console.width))
    typer.echo(f"Run: {result.folder}")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for images, cache and run.")] = Path("artifacts/demo"),
    per_class: Annotated[int, typer.Option(help="Drawn images a class.")] = 60,
    seed: Annotated[int, typer.Option(help="Of the drawing.")] = 0,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Draw a small four-class smear set, then run extract and fit on it: no data, network or account needed."""
    from ball_features.demo import demo as run

    with _progress("Embedding", quiet) as embedding, _progress("Fitting", quiet, "fits") as fitting:
        log = (lambda line: None) if quiet else _say
        result = run(out, per_class=per_class, seed=seed, log=log, embedding=embedding, fitting=fitting)
    _print_run(result.run, as_json=False)
    typer.echo(f"Images: {result.images}\nCache: {result.cache}")
    typer.echo(result.weights_note)


@app.command()
def inspect(
    cache: Annotated[Path, typer.Argument(help="A cache made by `ball extract`.", show_default=False)],
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Show what a cache holds: images a class, views, provenance, rejected files, whether it is complete."""
    from ball_features.cache import read_cache
    from ball_features.reporting.inspection import describe, render

    values = describe(read_cache(cache, embeddings=False), cache)
    if as_json:
        typer.echo(json.dumps(values, indent=2))
    else:
        _console().print(render(values))
