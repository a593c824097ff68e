"""Stage 1 from end to end: from a folder of images to a cache of embeddings."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict, Unpack

from ball_features.cache import equal_remark, lock_cache, read_cache, written
from ball_features.config import CollectionConfig, ExtractConfig
from ball_features.config.paths import is_address
from ball_features.dataset.manifest import Manifest, Rejected, hash_images, scan
from ball_features.dataset.twins import twin_folder, with_twins
from ball_features.errors import CacheError, DataError
from ball_features.extraction.compute import Computation, Computed
from ball_features.extraction.known_networks import know_network
from ball_features.extraction.preprocessing import Preprocessing
from ball_features.extraction.suitability import offer_cells, suit
from ball_features.extraction.update import Request, Update, plan_update, require_file_name, shard_of
from ball_features.extraction.weights import weights_digest
from ball_features.outputs import require_folder, require_writable

__all__ = ["Extraction", "How", "extract", "read_collection"]

Progress = Callable[[int, int], None]
Log = Callable[[str], None]


class How(TypedDict, total=False):
    """How an extraction runs; each is off where it is not named.

    Attributes:
        overwrite: replace a cache that was made with other settings.
        dry_run: count what would be computed; compute and write nothing.
        prune: remove images from the cache that are not in the folder any more; otherwise that is an error.
        shard: number of a shard, from 1, and number of shards: only every so many-th image is computed.
        repair: compute again what does not match its checksums in the cache, and only that.
        progress: function that takes (images done, images to do).
        log: function that takes a line for each decision that the user should see.
    """

    overwrite: bool
    dry_run: bool
    prune: bool
    shard: tuple[int, int] | None
    repair: bool
    progress: Progress | None
    log: Log | None


@dataclass(frozen=True)
class Extraction:
    """Result of a run.

    Attributes:
        cache: path of the cache.
        images: number of images in it.
        views: number of views of each image.
        dim: length of an embedding.
        computed: number of images that went through the network, or would have gone in a dry run.
        reused: number of images that the cache held already.
        removed: number of images that the cache held and the folder does not.
        rejected: files that could not be used.
        note: what the user should know about the folder, or "".
        classes: classes with their counts, and where they were read from, in two lines.
        columns: names of the further columns that travel with the cache.
        extract_s: seconds in all.
        forward_s: seconds of decoding, views, forward passes and writing, without loading the network.
        attributes: settings and provenance of the cache.
    """

    cache: Path
    images: int
    views: int
    dim: int
    computed: int
    reused: int
    removed: int
    rejected: tuple[Rejected, ...]
    note: str
    classes: tuple[str, ...]
    columns: tuple[str, ...]
    extract_s: float
    forward_s: float
    attributes: dict[str, object]


def extract(
    images: Path | str | Manifest,
    out: Path | str,
    config: ExtractConfig | Mapping[str, Any] | None = None,
    *,
    sheet: Any = None,
    collection: CollectionConfig | None = None,
    **how: Unpack[How],
) -> Extraction:
    """Embed every image of a folder into a cache, or bring that cache up to date.

    Args:
        images: folder of images; the class of each is read from its folders or from a sheet. Or a manifest of one.
        out: path or address of the cache, an HDF5 file. If it exists, only what is missing is computed.
        config: settings, as a record or a mapping; the defaults if None.
        sheet: path of a table with a row for each image or patient, a pandas or polars data frame, or a list of
            these: class, patient, site and more; see `dataset.sheet`. It wins over the folders.
        collection: layout of the folders, and columns of the sheet.
        how: see `How`.

    Raises:
        ConfigError: A name is in no registry, or the device is not available.
        DataError: There is no usable image, or the output cannot be written.
        WeightsError: The weights are missing or do not fit.
        CacheError: The cache was made with other settings, or the file is no cache.
        CacheBusyError: Another process writes the cache.
    """
    if is_address(out):
        with written(out, log=how.get("log") or (lambda line: None)) as work:
            done = extract(images, work, config, sheet=sheet, collection=collection, **how)
        return replace(done, cache=Path(out))
    start = time.perf_counter()
    out, config = Path(out), ExtractConfig.of(config)
    real = Path(os.path.realpath(out))
    linked = [os.path.islink(place) for place in (out, real)]  # noqa: PTH114  (is_symlink fails for a long name)
    if linked == [True, False]:  # no link in a circle; one cache has one lock
        return replace(extract(images, real, config, sheet=sheet, collection=collection, **how), cache=out)
    progress = how.get("progress") or (lambda done, total: None)
    log = how.get("log") or (lambda line: None)
    if config.views is None and config.recipe == "auto" and not how.get("overwrite"):
        config = _with_views_of(out, config)
    preprocessing = Preprocessing.from_config(config)
    fixed = _is_in_a_bundle(out, how)
    if how.get("overwrite") and not how.get("dry_run"):
        require_writable(out, kind="cache")
    shard = how.get("shard")
    whole = isinstance(images, Manifest) or not shard  # a shard hashes its own images alone
    if isinstance(images, Manifest):
        manifest = images
    else:
        manifest = read_collection(images, config, log, collection=collection, sheet=sheet, hashed=whole)
    if manifest.twin:
        preprocessing = replace(preprocessing, segmentation="twins")
    preprocessing = suit(preprocessing, manifest, config.recipe, log)
    if len(preprocessing.plan) > 1:
        log(preprocessing.plan.cost(preprocessing.backbone.input_px))
    part = shard_of(manifest, shard) if shard else manifest
    request = Request(
        out=out,
        manifest=part if whole else hash_images(part),
        config=config,
        preprocessing=preprocessing,
        shard=shard,
        whole=manifest if shard else None,
    )
    update, computed = _bring_up_to_date(request, progress, log, how, fixed=fixed)
    if computed.images and not how.get("dry_run"):
        # What can wait until the images are embedded does not keep the first one waiting.
        cache = read_cache(out)
        for remark in (equal_remark(cache), offer_cells(cache, computed.manifest)):
            if remark:
                log(remark)
    rows = len(computed.manifest.path)
    return Extraction(
        cache=out,
        images=rows,
        views=len(preprocessing.plan),
        dim=preprocessing.backbone.dim,
        computed=computed.images,
        reused=rows - computed.images,
        removed=update.removed,
        rejected=computed.manifest.rejected,
        note=computed.manifest.note,
        classes=computed.manifest.classes,
        columns=tuple(computed.manifest.columns),
        extract_s=time.perf_counter() - start,
        forward_s=computed.forward_s,
        attributes=computed.attributes,
    )


def read_collection(
    images: Path | str,
    config: ExtractConfig,
    log: Log,
    *,
    collection: CollectionConfig | None = None,
    sheet: Any = None,
    hashed: bool = True,
) -> Manifest:
    """List the images of a folder, and their segmented twins if segmented pictures come from files.

    Args:
        images: folder, archive or address of images, see `dataset.sources`.
        config: settings of the extraction: channels, twins and limit.
        log: function that takes a line for the user.
        collection: layout of the folders, and path and columns of a sheet.
        sheet: a data frame, or the path of a sheet.
        hashed: False leaves the hashes of the images out; see `manifest.hash_images`.

    Raises:
        DataError: There is no image, or no folder of twins, or folders or sheet cannot be read.
    """
    manifest = scan(images, limit=config.limit, collection=collection, sheet=sheet, anywhere=True, hashed=hashed)
    for line in (*manifest.classes, *filter(None, manifest.note.split("\n"))):
        log(line)
    if len(config.channels) == 1:
        return manifest
    folder = None if config.twins == "none" else Path(config.twins)
    if config.twins == "auto":
        folder = twin_folder(manifest)
    if folder is None:
        log("Segmented pictures are computed by the published thresholds.")
        return manifest
    log(f"Segmented pictures are read from {folder}.")
    return with_twins(manifest, folder)


def _is_in_a_bundle(out: Path, how: How) -> bool:
    """Whether the output is a cache in a saved model, which is read where it is up to date, and never written.

    Raises:
        CacheError: It is no name of a file.
        DataError: It lies in a saved model, and would be made there.
    """
    try:
        require_file_name(out)
    except DataError:
        if how.get("overwrite") or not out.is_file():
            raise
        return True
    return False


def _with_views_of(out: Path, config: ExtractConfig) -> ExtractConfig:
    """The settings with the views of an existing cache, which it keeps where no others are asked for."""
    try:
        cache = read_cache(out, embeddings=False, verify=False)
    except CacheError:  # none, or none that can be used, which is said later
        return config
    views = len(cache.view) // len(cache.channels)
    return config if views == 1 else replace(config, recipe=cache.recipe, views=views)


def _bring_up_to_date(
    request: Request, progress: Progress, log: Log, how: How, *, fixed: bool
) -> tuple[Update, Computed]:
    """Compute what the cache lacks; the difference that was found, and what was computed."""
    preprocessing = request.preprocessing
    digest = weights_digest(preprocessing.backbone, preprocessing.weights, preprocessing.seed)
    request = replace(request, preprocessing=replace(preprocessing, weights_sha256=digest))
    if preprocessing.backbone.path is not None:
        know_network(digest)  # the user has named it
    dry_run = how.get("dry_run", False)
    with contextlib.nullcontext() if dry_run or fixed else lock_cache(request.out):
        asked = {name: how.get(name, False) for name in ("overwrite", "prune", "repair")}
        update = plan_update(request, **asked)
        if update.remark:
            log(update.remark)
        done = update.same_rows and not update.missing
        if fixed and not done:
            raise DataError(
                f"{request.out} lies in a saved model, where nothing is written, and is not up to date "
                f"({update.missing} images to compute). Move it elsewhere, or give another output file."
            )
        if dry_run or done:
            attributes = update.old.attributes if update.old else request.preprocessing.to_attributes()
            return update, Computed(update.manifest, attributes, update.missing)
        require_folder(request.out.parent, "output file")
        require_writable(request.out, kind="cache")
        return update, Computation(update, progress, log)()
