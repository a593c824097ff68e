"""Extraction on a Ray cluster: shards of a collection as tasks, which Ray places, watches and repeats.

Each task is the extraction of one shard into its own cache, and the shards are merged in the end, so that the rows are
those of a single process whatever the number of nodes. Ray: Moritz et al. 2018 (arXiv 1712.05889).
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from ball_features.cache import merge
from ball_features.config import CollectionConfig, ExtractConfig
from ball_features.config.paths import disk_path, is_address, shown_path
from ball_features.dataset.manifest import Manifest
from ball_features.errors import BallError, CacheBusyError, CacheError, ConfigError, require_extra
from ball_features.extraction.extract import Extraction, How, extract, read_collection
from ball_features.extraction.shard_folder import ShardFolder
from ball_features.extraction.update import require_file_name
from ball_features.files import StoredFile
from ball_features.outputs import require_writable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Cluster", "extract_with_ray"]

PARTS_OF_A_WORKER = 4  # shards for each worker: a slow or lost one holds up a quarter of its share
RETRIES = 5  # times that a shard is begun again where its worker or node is lost; it goes on where it was
BUSY_S, _LOOK_S = 60.0, 1.0  # for which a task waits for the worker of a lost node to let go of its shard


@dataclass(frozen=True)
class Cluster:
    """Where the tasks run.

    Attributes:
        address: address of a running cluster, "auto" for the one of this machine, or "" to start one here.
        parts: number of shards; 0 for four for each worker. An interrupted extraction goes on with the number it had.
    """

    address: str = ""
    parts: int = 0


@dataclass(frozen=True)
class _Needs:
    """What Ray keeps for a task, and how many of them run at once.

    Attributes:
        cpus: cores; all of the smallest node, or its share for each GPU.
        gpus: 1 where the device is a GPU.
        workers: tasks at once.
        nodes: nodes that they run on.
    """

    cpus: int
    gpus: int
    workers: int
    nodes: int

    @classmethod
    def of(cls, nodes: Sequence[Any], device: str) -> _Needs:
        """The needs on these nodes: a GPU for each task where one is asked for, or there is one.

        Shards must be computed on one kind of device, so that nodes without a GPU have no task beside those with one.

        Raises:
            ConfigError: A GPU is asked for, and there is none.
        """
        there = [(int(node["Resources"].get("CPU", 0)), int(node["Resources"].get("GPU", 0))) for node in nodes]
        with_gpu = [one for one in there if one[1]]
        if device.startswith("cuda") and not with_gpu:
            raise ConfigError(
                f"Got the device {device}, and no node of the cluster has a GPU. Use the device auto or cpu."
            )
        if with_gpu and (device == "auto" or device.startswith("cuda")):
            cpus = min(cores // gpus for cores, gpus in with_gpu)
            return cls(cpus, 1, sum(gpus for _, gpus in with_gpu), len(with_gpu))
        own = [cores for cores, _ in there if cores] or [1]
        return cls(min(own), 0, sum(cores // min(own) for cores in own), len(own))

    def __str__(self) -> str:
        each = f"{self.cpus} {'core' if self.cpus == 1 else 'cores'}{' and a GPU' if self.gpus else ''}"
        workers = f"{self.workers} {'worker' if self.workers == 1 else 'workers'}"
        return f"{workers} of {each} on {self.nodes} {'node' if self.nodes == 1 else 'nodes'}"


def extract_with_ray(
    images: Path | str,
    out: Path | str,
    config: ExtractConfig,
    *,
    cluster: Cluster,
    collection: CollectionConfig | None = None,
    **how: Unpack[How],
) -> Extraction:
    """Embed a folder of images on a Ray cluster, into one cache.

    Args:
        images: folder of images, under a path or an address that every node sees.
        out: path or address of the cache, which must not exist; its shards lie beside it until they are merged, so that
            an interrupted extraction goes on with what is finished.
        config: settings.
        cluster: cluster that runs the tasks.
        collection: layout of the folders, and columns of the sheet.
        how: see `How`, without `shard` and `dry_run`. `overwrite` replaces the output, and shards of an interrupted
            extraction that do not go with these settings; `prune` and `repair` are for such shards. Progress is told
            when a shard is finished.

    Raises:
        MissingExtraError: Ray is not installed.
        ConfigError: The settings do not go with a cluster, or with this one.
        CacheError: The output exists, or a shard could not be made.
        DataError: The output cannot be written.
    """
    require_extra("ray", "ray", "extraction on a Ray cluster")
    ray: Any = import_module("ray")
    if how.get("shard") or how.get("dry_run"):
        raise ConfigError("Got shard or dry_run for a cluster, which makes its own shards. Leave them out.")
    start, overwrite = time.perf_counter(), how.get("overwrite", False)
    out = disk_path(out) or out
    given, out = Path(out), _free(out, overwrite)
    folder = ShardFolder.beside(out)
    told, progress = how.get("log") or (lambda line: None), how.get("progress")
    manifest = read_collection(images, config, told, collection=collection)
    started = not ray.is_initialized()
    if started:
        _start(ray, cluster.address)
    try:
        needs = _Needs.of([node for node in ray.nodes() if node["Alive"]], config.device)
        begun = folder.begun(len(manifest.path))
        parts = begun or min(cluster.parts or PARTS_OF_A_WORKER * needs.workers, len(manifest.path))
        told(f"Ray: {needs}, {parts} {'shard' if parts == 1 else 'shards'}{' of an earlier run' if begun else ''}.")
        files = folder.files(parts)
        task: Any = ray.remote(num_cpus=needs.cpus, num_gpus=needs.gpus, max_retries=RETRIES)(_extract_shard)
        if needs.gpus:
            config = replace(config, device="cuda")  # Ray shows each task its own alone
        asked = overwrite, how.get("prune", False), how.get("repair", False)
        shared = ray.put(_Work(manifest, config, parts, *asked, str(Path.cwd())))
        begin = time.perf_counter()
        running = {task.remote(shared, number, file): (number, file) for number, file in enumerate(files, start=1)}
        rows = [len(range(number, len(manifest.path), parts)) for number in range(parts)]
        done = list(_finished(ray, running, rows, progress, told))
        forward_s = time.perf_counter() - begin
    finally:
        if started:
            ray.shutdown()
    merge(files, out, overwrite=overwrite)
    folder.remove(told)
    joined = _joined(given, manifest, done)
    return replace(joined, extract_s=time.perf_counter() - start, forward_s=forward_s)


def _free(out: Path | str, overwrite: bool) -> Path:
    """The output as nodes are told of it, where it may be written.

    Raises:
        CacheError: It exists.
        DataError: It is a file that `ball` has not written.
    """
    if is_address(out):
        if not overwrite and StoredFile.at(out, CacheError).version():
            raise _exists(out)
        return Path(out)
    out = Path(out).absolute()
    if overwrite:
        out = Path(os.path.realpath(out))
    require_file_name(out)
    if os.path.lexists(out):
        if not overwrite:
            raise _exists(out)
        require_writable(out, kind="cache")
    return out


def _exists(out: Path | str) -> CacheError:
    return CacheError(
        f"{shown_path(out)} exists, and a cluster makes a cache whole. Give another output file, or overwrite=True to "
        "replace it."
    )


def _start(ray: Any, address: str) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to its makers
    try:
        ray.init(address=address or None, include_dashboard=False, log_to_driver=False, logging_level="error")
    except Exception as error:  # Ray raises errors of many kinds
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise CacheError(f"No Ray cluster at {address or 'this machine'} ({first}). Give its address.") from error


@dataclass(frozen=True)
class _Work:
    """What all tasks share.

    Attributes:
        manifest: images of the whole collection.
        config: settings.
        parts: number of shards.
        overwrite: see `How`, as prune and repair.
        prune: see there.
        repair: see there.
        folder: working folder of the process that was started, where relative paths begin.
    """

    manifest: Manifest
    config: ExtractConfig
    parts: int
    overwrite: bool
    prune: bool
    repair: bool
    folder: str


def _extract_shard(work: _Work, number: int, file: Path) -> tuple[Extraction, list[str]] | str:
    """Extract one shard in a worker: the result and lines for the user.

    A message takes the place of an error of ours, which repeating would not mend.
    """
    with contextlib.suppress(OSError):  # where nodes lack it, paths are absolute
        os.chdir(work.folder)
    lines: list[str] = []
    how: How = {"prune": work.prune, "repair": work.repair, "shard": (number, work.parts), "log": lines.append}
    until = time.monotonic() + BUSY_S
    while True:
        try:
            return extract(work.manifest, file, work.config, **how), lines
        except CacheBusyError as error:
            if time.monotonic() > until:
                return f"shard {number} of {work.parts}: {error}"
            time.sleep(_LOOK_S)
        except BallError as error:
            if not isinstance(error, CacheError) or not work.overwrite or how.get("overwrite"):
                return f"shard {number} of {work.parts}: {error}"
            how["overwrite"] = True  # what is there was made with other settings, or is damaged


def _finished(
    ray: Any,
    running: dict[Any, tuple[int, Path]],
    rows: Sequence[int],
    progress: Callable[[int, int], None] | None,
    log: Callable[[str], None],
) -> Iterator[Extraction]:
    done = 0
    while running:
        ready, _ = ray.wait(list(running), num_returns=1)
        number, file = running.pop(ready[0])
        try:
            result = ray.get(ready[0])
        except Exception as error:  # a worker that dies again and again, a node that is lost, a fault of its system
            cause = getattr(error, "cause", None) or error
            first = next(filter(None, str(cause).splitlines()), "")
            raise CacheError(
                f"{file.name} could not be made ({type(cause).__name__}: {first}). What is finished is kept; the "
                "same command goes on."
            ) from error
        if isinstance(result, str):
            raise CacheError(f"{result} What is finished is kept.")
        extraction, lines = result
        if not done:  # choices are the same for all shards
            for line in lines:
                log(line)
        done += rows[number - 1]
        if progress:
            progress(done, sum(rows))
        yield extraction


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
    )
