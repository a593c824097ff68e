"""Extraction on a Ray cluster: shards of a collection as tasks, which Ray places, watches and repeats.

Each task is the extraction of one shard into its own cache, and the shards are merged in the end, so that the rows are
those of a single process whatever the number of nodes. Ray: Moritz et al. 2018 (arXiv 1712.05889).
"""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ball_features.cache import SHARD, merge, read_cache
from ball_features.config import CollectionConfig, ExtractConfig
from ball_features.config.paths import is_address, shown_address
from ball_features.dataset.manifest import Manifest
from ball_features.errors import BallError, CacheError, require_extra
from ball_features.extraction.extract import Extraction, extract
from ball_features.extraction.update import read_collection

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Cluster", "extract_with_ray"]

PARTS_OF_A_NODE = 4  # shards for each node: a slow or lost one holds up a quarter of its share
_SHARD = re.compile(r"([1-9][0-9]*)-of-([1-9][0-9]*)\.h5")
_BESIDE = re.compile(r"\.?([1-9][0-9]*-of-[1-9][0-9]*\.h5)\.(lock|writer|.+\.partial)")  # what its writer leaves
RETRIES = 5  # times that a shard is begun again where its worker or node is lost; it goes on where it was


@dataclass(frozen=True)
class Cluster:
    """Where the tasks run.

    Attributes:
        address: address of a running cluster, "auto" for the one of this machine, or "" to start one here.
        parts: number of shards; 0 for four for each node. An interrupted extraction goes on with the number it had.
    """

    address: str = ""
    parts: int = 0


def extract_with_ray(
    images: Path | str,
    out: Path | str,
    config: ExtractConfig,
    *,
    cluster: Cluster,
    collection: CollectionConfig | None = None,
    progress: Callable[[int, int], None] | None = None,
    log: Callable[[str], None] | None = None,
) -> Extraction:
    """Embed a folder of images on a Ray cluster, into one cache.

    Args:
        images: folder of images, under a path that every node sees.
        out: path of the cache, which must not exist; its shards lie beside it until they are merged, so that an
            interrupted extraction goes on with what is finished.
        config: settings.
        cluster: cluster that runs the tasks.
        collection: layout of the folders, and columns of the sheet.
        progress: function that takes (images done, images to do), called when a shard is finished.
        log: function that takes a line for the user.

    Raises:
        MissingExtraError: Ray is not installed.
        CacheError: The output exists, or a shard could not be made.
    """
    require_extra("ray", "ray", "extraction on a Ray cluster")
    ray: Any = import_module("ray")
    if is_address(out):
        raise CacheError(
            f"Got {shown_address(out)}, expected a path that every node of the cluster sees. Copy the cache when it is "
            "done, or extract shards, whose output may be an address."
        )
    out = Path(out)
    if out.exists():
        raise CacheError(f"{out} exists. Give another output file; on a cluster a cache is made whole.")
    folder = out.with_name(f".{out.name}.shards")
    if folder.is_symlink():
        raise CacheError(f"{folder} is a link, and files in what it leads to would be replaced. Remove it.")
    told = log or (lambda line: None)
    manifest = read_collection(images, config, told, collection=collection)
    started = not ray.is_initialized()
    if started:
        _start(ray, cluster.address)
    try:
        nodes = [node for node in ray.nodes() if node["Alive"]]
        begun = _parts_begun(folder, len(manifest.path))
        parts = begun or min(cluster.parts or PARTS_OF_A_NODE * len(nodes), len(manifest.path))
        cores = max(1, int(min(node["Resources"].get("CPU", 1) for node in nodes)))
        told(f"Ray: {len(nodes)} nodes, {parts} shards{' of an earlier run' if begun else ''}.")
        folder.mkdir(parents=True, exist_ok=True)
        files = [folder / f"{number}-of-{parts}.h5" for number in range(1, parts + 1)]
        task: Any = ray.remote(num_cpus=cores, num_gpus=_gpus(nodes), max_retries=RETRIES)(_extract_shard)
        shared = ray.put(manifest)
        running = {
            task.remote(shared, file, config, (number, parts)): file for number, file in enumerate(files, start=1)
        }
        done = list(_finished(ray, running, len(manifest.path), progress))
    finally:
        if started:
            ray.shutdown()
    merge(files, out)
    _remove_shards(folder, told)
    return _joined(out, manifest, done)


def _shards_in(folder: Path) -> Iterator[tuple[Path, int, int]]:
    """(file, number of shards, images done) of each shard that an extraction wrote into a folder, whoever made it."""
    for file in sorted(folder.glob("*-of-*.h5")):
        named = _SHARD.fullmatch(file.name)
        if named is None or file.is_symlink():
            continue
        with contextlib.suppress(CacheError):  # no cache, or one that no extraction could go on with
            cache = read_cache(file, embeddings=False)
            if list(cache.attributes.get(SHARD, ())) == [int(named[1]), int(named[2])]:
                yield file, int(named[2]), int(cache.committed.sum())


def _parts_begun(folder: Path, images: int) -> int:
    """Number of shards of the earlier run that got furthest; 0 if there is none to go on with.

    The nodes may be others now, and with another number of shards all would be computed again.
    """
    done: Counter[int] = Counter()
    for _, parts, count in _shards_in(folder):
        if 2 <= parts <= images:
            done[parts] += count
    return max(done, key=lambda parts: (done[parts], parts), default=0)


def _remove_shards(folder: Path, log: Callable[[str], None]) -> None:
    """Remove the shards of all runs and what their writers left, and the folder, unless it holds anything else."""
    for file, _, _ in [*_shards_in(folder)]:
        file.unlink(missing_ok=True)
    for file in [*folder.iterdir()]:
        beside = _BESIDE.fullmatch(file.name)
        if beside and not (folder / beside[1]).exists() and file.is_file():
            file.unlink(missing_ok=True)
    try:
        folder.rmdir()
    except OSError:
        log(f"{folder} stays: it holds files that are no shards.")


def _start(ray: Any, address: str) -> None:
    import os

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to its makers
    try:
        ray.init(address=address or None, include_dashboard=False, log_to_driver=False, logging_level="error")
    except Exception as error:  # Ray raises errors of many kinds
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise CacheError(f"No Ray cluster at {address or 'this machine'} ({first}). Give its address.") from error


def _gpus(nodes: list[Any]) -> int:
    return int(all(node["Resources"].get("GPU", 0) >= 1 for node in nodes))


def _extract_shard(manifest: Manifest, file: Path, config: ExtractConfig, shard: tuple[int, int]) -> Extraction | str:
    """Extract one shard in a worker; a message in place of an error of ours, which repeating would not mend."""
    try:
        return extract(manifest, file, config, shard=shard)
    except BallError as error:
        return f"shard {shard[0]} of {shard[1]}: {error}"


def _finished(
    ray: Any, running: dict[Any, Path], images: int, progress: Callable[[int, int], None] | None
) -> Iterator[Extraction]:
    done = 0
    while running:
        ready, _ = ray.wait(list(running), num_returns=1)
        file = running.pop(ready[0])
        try:
            result = ray.get(ready[0])
        except Exception as error:  # a worker that dies again and again, a node that is lost
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise CacheError(
                f"{file.name} could not be made ({first}). What is finished is kept; the same command goes on."
            ) from error
        if isinstance(result, str):
            raise CacheError(f"{result} What is finished is kept; the same command goes on.")
        done += result.images
        if progress:
            progress(min(done, images), images)
        yield result


def _joined(out: Path, manifest: Manifest, parts: list[Extraction]) -> Extraction:
    images = sum(part.images for part in parts)
    rejected = {item.path: item for part in parts for item in part.rejected}
    return replace(
        parts[0],
        cache=out,
        images=images,
        computed=sum(part.computed for part in parts),
        reused=sum(part.reused for part in parts),
        removed=0,
        rejected=tuple(rejected[path] for path in sorted(rejected)),
        classes=manifest.classes,
        note=manifest.note,
        extract_s=max(part.extract_s for part in parts),
        forward_s=max(part.forward_s for part in parts),
    )
