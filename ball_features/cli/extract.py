"""`ball extract`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ball_features.cli.derive import command
from ball_features.cli.options import Images, Strict
from ball_features.cli.screen import echo, print_json, progress_bar, say
from ball_features.config import CollectionConfig, ExtractConfig
from ball_features.config.fields import COMMON, REQUIRED, Config, option
from ball_features.config.paths import shown_path
from ball_features.config.sizes import whole_number
from ball_features.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ball_features.extraction.extract import Extraction

__all__ = ["COMMAND", "CacheOptions", "extract"]


@dataclass(frozen=True)
class CacheOptions(Config):
    """Where a cache is written, and whether."""

    out: Path = option(
        REQUIRED,
        "Cache to write, one HDF5 file of embeddings: a path, or an address such as s3://bucket/all.h5.",
        panel=COMMON,
        short="o",
        in_file=False,
    )
    shard: str = option(
        "",
        "Part of the images to compute, I/N, such as 3/8, for jobs on several machines; `ball merge` joins the parts.",
        panel="Output",
        in_file=False,
    )
    engine: str = option(
        "local",
        "Where the work is done: local, this process; ray, a Ray cluster (extra ray), in shards that are merged.",
        panel="Output",
        choices=("local", "ray"),
        in_file=False,
    )
    address: str = option(
        "",
        "Address of a running Ray cluster; one is started on this machine if left out.",
        panel="Output",
        in_file=False,
    )
    dry_run: bool = option(False, "Print what would be computed, and compute nothing.", panel="Output", in_file=False)
    overwrite: bool = option(False, "Replace a cache made with other settings.", panel="Output", in_file=False)
    prune: bool = option(
        False, "Remove images from the cache that are not in the folder any more.", panel="Output", in_file=False
    )
    repair: bool = option(
        False,
        "Compute again what is damaged in the cache, and only that; `ball inspect --verify` finds it.",
        panel="Output",
        in_file=False,
    )


def extract(
    images: Images, config: ExtractConfig, collection: CollectionConfig, cache: CacheOptions, shown: Strict
) -> None:
    """Turn the images of a folder into embeddings, once, with a frozen network, and keep them in a cache.

    The images may also lie in a .zip or .tar file, which is read in place, or
    under an address such as s3://bucket/folder (extra remote).
    The class of each image is read from the folder that it lies in, or from a
    sheet; both are shown before the work starts. A second run computes only what is
    new; a killed run goes on where it was. Files that cannot be decoded are
    listed, in the end and in the cache, and never stop the run. A cache holds
    the plain image alone unless --recipe or --views asks for more views.
    --recipe robust makes the views from which the model robust chooses, for
    images of other sites and series; what they cost is printed first.
    """
    from ball_features.extraction.extract import extract as run

    with progress_bar("Embedding", shown.silent) as progress:
        log = (lambda line: None) if shown.silent else say
        if cache.engine == "ray":
            result = _on_cluster(images, config, collection, cache, progress, log)
        else:
            result = run(
                images,
                cache.out,
                config,
                collection=collection,
                overwrite=cache.overwrite,
                prune=cache.prune,
                repair=cache.repair,
                dry_run=cache.dry_run,
                shard=_shard(cache.shard),
                progress=progress,
                log=log,
            )
    if shown.as_json:
        print_json(_extraction_json(result))
    else:
        _print_extraction(result, cache.dry_run)
    if shown.strict and result.rejected:
        raise typer.Exit(1)


def _on_cluster(
    images: Path,
    config: ExtractConfig,
    collection: CollectionConfig,
    cache: CacheOptions,
    progress: Callable[[int, int], None],
    log: Callable[[str], None],
) -> Extraction:
    from ball_features.extraction.ray_tasks import Cluster, extract_with_ray

    given = [name for name in ("shard", "dry_run") if getattr(cache, name)]
    if given:
        listed = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise ConfigError(f"Got --engine ray with {listed}, which is for one process. Leave {listed} out.")
    return extract_with_ray(
        images,
        cache.out,
        config,
        cluster=Cluster(cache.address),
        collection=collection,
        overwrite=cache.overwrite,
        prune=cache.prune,
        repair=cache.repair,
        progress=progress,
        log=log,
    )


def _shard(text: str) -> tuple[int, int] | None:
    if not text:
        return None
    number, total = (whole_number(part) for part in text.partition("/")[::2])
    if number is None or total is None:
        raise ConfigError(f"Got --shard {text[:100]}, expected I/N, such as 3/8.")
    return number, total


def _extraction_json(result: Extraction) -> dict[str, object]:
    import dataclasses

    values = dataclasses.asdict(result)
    return values | {
        "cache": shown_path(result.cache),
        "rejected": [dataclasses.asdict(item) for item in result.rejected],
    }


def _print_extraction(result: Extraction, dry_run: bool = False) -> None:
    for item in result.rejected:
        say(f"rejected  {item.path}: {item.reason}")
    cache = shown_path(result.cache)
    shape = f"{result.images} images x {result.views} {'view' if result.views == 1 else 'views'} x {result.dim}"
    if dry_run:
        echo(f"Would compute {result.computed} of {result.images} images; {shape} in {cache}")
        return
    dropped = f", {result.removed} removed" if result.removed else ""
    if not result.computed:
        what = "Nothing to compute" + (dropped or ": every image is in the cache")
    else:
        rate = result.computed * result.views / max(result.forward_s, 1e-9)
        what = f"Computed {result.computed} images ({rate:.1f} views/s), {result.reused} were there{dropped}"
    rejected = (
        f", {len(result.rejected)} {'file' if len(result.rejected) == 1 else 'files'} rejected"
        if result.rejected
        else ""
    )
    echo(f"{what}{rejected}, in {result.extract_s:.1f} s.")
    echo(f"{cache}: {shape}")


COMMAND = command(extract, file=True)
