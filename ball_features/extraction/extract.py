"""Stage 1 from end to end: manifest, decoding, views, engine, cache.

Work is cut into batches that are aligned slices of the row index; `extraction/pipeline.py` computes one,
`extraction/streaming.py` deals them out.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ball_features import __version__
from ball_features.cache import Cache, create_cache, lock_cache, read_cache
from ball_features.config import ExtractConfig
from ball_features.dataset.manifest import Manifest, Rejected, scan, spread_rows
from ball_features.dataset.twins import twin_folder, with_twins
from ball_features.errors import CacheError, ConfigError
from ball_features.extraction.backbones import Backbone, get_backbone
from ball_features.extraction.batch import Pipeline, batch_size, load_image, pack_mask, unpack_mask
from ball_features.extraction.decoding import ON_DEVICE
from ball_features.extraction.stream import Writing, feeders, stream
from ball_features.extraction.views import (
    check_views,
    mean_std,
    needs_mask,
    plan_views,
    readouts_of,
    recipe_version,
    view_names,
)
from ball_features.extraction.weights import load_backbone, weights_digest
from ball_features.files import require_folder, require_writable
from ball_features.threads import core_count

if TYPE_CHECKING:
    from torch import nn

    from ball_features.extraction.engine.modules import EmbeddingEngine

__all__ = ["Extraction", "extract"]

OVERLAY_IMAGES = 4000  # of a larger collection, those that overlays are learnt on
Progress = Callable[[int, int], None]
Log = Callable[[str], None]


@dataclass(frozen=True)
class Extraction:
    """What a run did.

    Attributes:
        cache: The file.
        images: Rows in it.
        views: Views of each.
        dim: Length of an embedding.
        computed: Images that went through the network now.
        reused: Images that were there already.
        removed: Images that were in the cache before and are not any more.
        rejected: Files that could not be used.
        note: What the user should know about the folder, or "".
        extract_s: Seconds in all.
        forward_s: Seconds of decoding, views, forward pass and writing, without loading the network.
        attributes: The cache's settings and provenance.
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
    extract_s: float
    forward_s: float
    attributes: dict[str, Any]


def extract(
    images: Path | str,
    out: Path | str,
    config: ExtractConfig | None = None,
    *,
    overwrite: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
    log: Log | None = None,
) -> Extraction:
    """Embed every image of a folder into a cache, or bring that cache up to date.

    Args:
        images: Folder with one folder a class.
        out: The cache, an HDF5 file. If it is there, only what is missing is computed.
        config: Settings; the defaults if None.
        overwrite: Replace a cache that was made with other settings.
        dry_run: Say what would be done, compute and write nothing.
        progress: Called with (images done, images to do).
        log: Called with one line for each decision a user should see.

    Raises:
        ConfigError: A name is in no registry, or the device is not there.
        DataError: No usable image, fewer than two classes, or a file that cannot be written.
        WeightsError: The weights are missing or do not fit.
        CacheError: The cache was made with other settings, or is no cache.
        CacheBusyError: Another process writes it.
    """
    start = time.perf_counter()
    out, config, log = Path(out), config or ExtractConfig(), log or (lambda line: None)
    backbone = get_backbone(config.backbone, config.input_px)
    recipe, views = plan_views(config.recipe, config.views, backbone=backbone.name, channels=config.channels)
    config = dataclasses.replace(
        config, recipe=recipe, views=views, backbone=backbone.name, normalize=_normalization(config, backbone)
    )
    check_views(recipe, views)
    _require_maps(config, backbone)
    try:
        if out.is_dir():
            raise CacheError(f"Got the folder {out}, expected the name of a file, such as {out / 'cache.h5'}.")
    except OSError as error:  # a name that is too long, or in a folder that may not be entered
        raise CacheError(f"{out} cannot be written ({error.strerror}). Give another --out.") from error
    manifest = scan(images, limit=config.limit)
    if manifest.note:
        log(manifest.note)
    channels: dict[str, Any] = {}
    if len(config.channels) > 1:
        manifest = _find_twins(manifest, config.twins, log)
        channels = {"channels": list(config.channels), "segmentation": "twins" if manifest.twin else "hsv"}
    settings: dict[str, Any] = {
        "backbone": backbone.name,
        "weights_sha256": weights_digest(backbone, config.weights, config.seed),
        "pooling": backbone.pooling,
        "resize": f"{backbone.input_px} px, bilinear, antialiased",
        "normalize": config.normalize,
        "views": config.view_count,
        "recipe": config.recipe if config.view_count > 1 else "plain",
        "recipe_version": recipe_version(config.recipe) if config.view_count > 1 else 0,
        "seed": config.seed if config.view_count > 1 or config.weights == "random" else 0,
        "dtype": config.dtype,
        **channels,
    }
    with contextlib.nullcontext() if dry_run else lock_cache(out):
        old = None
        if out.exists() and not overwrite:
            old = read_cache(out, embeddings=False)
            _require_same(old, settings, config, out)
            manifest = _without_known_bad(manifest, old)
        removed = len(set(old.path.tolist()) - set(manifest.path)) if old else 0
        if removed and config.limit:
            raise CacheError(
                f"{out} holds {len(old.path) if old else 0} images, and --limit {config.limit} would drop {removed} "
                "of them. Give another name to --out, or leave --limit out."
            )
        todo = _todo(manifest, old)
        if dry_run or (old and not todo and _same_rows(manifest, old)):
            known = old.attributes if old else settings
            return _finish(start, out, manifest, todo, removed, 0.0, known, backbone.dim, config.view_count)
        require_folder(out.parent)
        require_writable(out, "--out")
        return _Run(out, config, backbone, manifest, settings, old, removed, progress, log)(start)


def _find_twins(manifest: Manifest, wanted: str, log: Log) -> Manifest:
    folder = twin_folder(manifest) if wanted == "auto" else None if wanted == "none" else Path(wanted)
    if folder is None:
        log("Segmented pictures are computed by the published thresholds.")
        return manifest
    log(f"Segmented pictures are taken from {folder}.")
    return with_twins(manifest, folder)


def _todo(manifest: Manifest, old: Cache | None) -> int:
    known = set(old.content[old.committed].tolist()) if old else set()
    return sum(content not in known for content in manifest.content)


def _same_rows(manifest: Manifest, old: Cache) -> bool:
    return (
        old.path.tolist() == list(manifest.path)
        and old.label.tolist() == list(manifest.label)
        and old.content.tolist() == list(manifest.content)
        and _key(old.rejected) == _key(manifest.rejected)
    )


def _key(rejected: Sequence[Rejected]) -> list[tuple[str, str]]:
    return sorted((item.path, item.reason) for item in rejected)


def _finish(
    start: float,
    out: Path,
    manifest: Manifest,
    computed: int,
    removed: int,
    forward_s: float,
    attributes: dict[str, Any],
    dim: int,
    views: int,
) -> Extraction:
    rows = len(manifest.path)
    return Extraction(
        cache=out,
        images=rows,
        views=views,
        dim=dim,
        computed=computed,
        reused=rows - computed,
        removed=removed,
        rejected=manifest.rejected,
        note=manifest.note,
        extract_s=time.perf_counter() - start,
        forward_s=forward_s,
        attributes=attributes,
    )


def _require_same(old: Cache, settings: dict[str, Any], config: ExtractConfig, out: Path) -> None:
    wanted = dict(settings)
    if config.precision != "auto":
        wanted["precision"] = config.precision
    different = [
        f"{name} (cache: {old.attributes.get(name)}, asked for: {value})"
        for name, value in wanted.items()
        if old.attributes.get(name) != value
    ]
    if different:
        raise CacheError(
            f"{out} was made with other settings: {'; '.join(different)}. "
            "Give another name to --out, or --overwrite to replace it."
        )


def _without_known_bad(manifest: Manifest, old: Cache | None) -> Manifest:
    bad = {item.sha256: item.reason for item in old.rejected if item.sha256} if old else {}
    reasons = {row: bad[digest] for row, digest in enumerate(manifest.sha256) if digest in bad}
    return manifest.without(reasons) if reasons else manifest


class _Run:
    """One extraction with the network loaded: owns the engine, the decoding threads and the writing thread."""

    def __init__(
        self,
        out: Path,
        config: ExtractConfig,
        backbone: Backbone,
        manifest: Manifest,
        settings: dict[str, Any],
        old: Cache | None,
        removed: int,
        progress: Progress | None,
        log: Log,
    ) -> None:
        self.out, self.config, self.manifest, self.settings = out, config, manifest, settings
        self.old, self.removed, self.progress, self.log = old, removed, progress or (lambda done, total: None), log
        self.backbone = backbone
        self.bad: dict[int, str] = {}

    def __call__(self, start: float) -> Extraction:
        from ball_features.extraction.pixels import SHORTCUT_WIDTHS

        # A cache begun before a kind of pixel numbers was known goes on without it.
        kept = SHORTCUT_WIDTHS if self.old is None else self.old.shortcuts
        self.shortcuts = {name: width for name, width in SHORTCUT_WIDTHS.items() if name in kept}
        if self.old is not None and not _todo(self.manifest, self.old):
            attributes = self.old.attributes | {"images": str(self.manifest.root.resolve())}
            self._create(self.manifest, attributes, source=True)
            dim, views = self.backbone.dim, self.config.view_count
            return _finish(start, self.out, self.manifest, 0, self.removed, 0.0, attributes, dim, views)
        from ball_features.extraction.engine.devices import resolve_device

        self.device = resolve_device(self.config.device)
        module = load_backbone(self.backbone, self.config.weights, self.config.seed)
        engine, attributes = self._engine(module)
        del module
        manifest = self.manifest
        if self.old is None or not _same_rows(manifest, self.old):
            self._create(manifest, attributes, source=self.old is not None)
        committed = read_cache(self.out, embeddings=False).committed
        rows = np.flatnonzero(~committed)
        began = time.perf_counter()
        with Writing(self.out) as writing:
            self._stream(engine, rows, attributes, writing)
            writing.time(len(rows) - len(self.bad), time.perf_counter() - began)
        forward_s = time.perf_counter() - began
        if self.bad:
            manifest = manifest.without(self.bad)
            self._create(manifest, attributes, source=True)
        done = len(rows) - len(self.bad)
        dim = self.backbone.dim
        views = self.config.view_count
        return _finish(start, self.out, manifest, done, self.removed, forward_s, attributes, dim, views)

    def _create(self, manifest: Manifest, attributes: dict[str, Any], *, source: bool) -> None:
        create_cache(
            self.out,
            paths=manifest.path,
            labels=manifest.label,
            sha256=manifest.sha256,
            view=view_names(self.config.recipe, self.config.view_count, self.config.channels),
            dim=self.backbone.dim,
            dtype=self.config.dtype,
            shortcuts=self.shortcuts,
            attributes=attributes,
            rejected=manifest.rejected,
            twin_sha256=manifest.twin_sha256,
            source=self.out if source else None,
        )

    def _engine(self, module: nn.Module) -> tuple[EmbeddingEngine, dict[str, Any]]:
        """The engine in the precision asked for, and the attributes of the cache."""
        from ball_features.extraction.engine.choose import Chooser

        chooser = Chooser(
            module, self.backbone, self.config, self.manifest, self.device, min(16, core_count()), self.log
        )
        if self.old is not None:
            # Rows of one cache are computed alike: what was chosen when it was begun stays.
            attributes = self.old.attributes | {"images": str(self.manifest.root.resolve())}
            return chooser.resume(self.old.attributes), attributes
        choice = chooser.choose()
        settings = self.settings | {"precision": choice.precision}
        if self.config.view_count > 1 and needs_mask(self.config.recipe):
            # Found once and kept: images added later are masked as the first ones were.
            settings["overlay_mask"] = pack_mask(self._overlay_mask())
        measured = choice.measured
        attributes = (
            settings
            | choice.attributes
            | {
                "fingerprint": self.config.fingerprint(**settings),
                "weights": _weights_name(self.backbone, self.config.weights),
                "input_px": self.backbone.input_px,
                "batch_size": self.config.batch_size
                or batch_size(self.device.type, choice.precision, self.backbone.input_px),
                "device": self.device.type,
                "deviation_cosine": measured.cosine if measured else float("nan"),
                "deviation_relative": measured.relative if measured else float("nan"),
                "deviation_images": measured.images if measured else 0,
                "images": str(self.manifest.root.resolve()),
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                "ball_version": __version__,
                "versions": {
                    name: metadata.version(name) for name in ("torch", "torchvision", "numpy", "h5py", "pillow")
                },
            }
        )
        return choice.engine, attributes

    def _stream(self, engine: EmbeddingEngine, rows: np.ndarray, attributes: dict[str, Any], writing: Writing) -> None:
        """Compute rows and hand them to the thread that writes."""
        import torch

        from ball_features.extraction.engine.modules import runs_on_all_cores

        mask = unpack_mask(attributes["overlay_mask"]) if "overlay_mask" in attributes else None
        pipeline = Pipeline(
            manifest=self.manifest,
            config=self.config,
            engine=engine,
            device=self.device,
            dim=self.backbone.dim,
            side_px=self.backbone.input_px,
            batch=attributes["batch_size"],
            shortcuts=tuple(self.shortcuts),
            mask=None if mask is None else torch.from_numpy(mask).to(self.device),
            # A run that goes on without the GPU that decoded decodes on its cores: nearly the same pixels.
            decodes=self.device.type == "cuda" and attributes.get("decoder") == ON_DEVICE,
        )
        on_cpu = self.device.type == "cpu"
        workers = 1 if on_cpu and runs_on_all_cores(engine) else min(16, core_count())
        done = 0
        self.progress(0, len(rows))
        threads: dict[str, Any] = {"on_cpu": on_cpu, "workers": workers, "feeders": feeders(self.device.type)}
        results = stream(rows, pipeline.batch, pipeline.load, pipeline.compute, stop=pipeline.stop, **threads)
        with contextlib.closing(results):
            for item in results:
                self.bad |= item.bad
                if len(item.rows):
                    writing.put(item.rows, item.embeddings, item.shortcuts)
                done += len(item.rows) + len(item.bad)
                self.progress(done, len(rows))

    def _overlay_mask(self) -> np.ndarray:
        """Where the collection has overlays, bool (input_px, input_px), learnt on a sample spread over it."""
        from ball_features.audit.overlays import learn_overlays

        rows = spread_rows(len(self.manifest.path), OVERLAY_IMAGES)

        def read() -> Iterator[np.ndarray]:
            loaded = (load_image(self.manifest, row, self.backbone.input_px) for row in rows.tolist())
            yield from (item[:3].permute(1, 2, 0).numpy() for item in loaded if not isinstance(item, str))

        model = learn_overlays(read)
        mask = model.mask()
        found = (
            f"{len(model.names)} kinds, {100 * mask.mean():.1f} % of the picture is masked" if mask.any() else "none"
        )
        self.log(f"Overlays in these images: {found}.")
        return mask


def _require_maps(config: ExtractConfig, backbone: Backbone) -> None:
    wanted = set(readouts_of(config.recipe)) - {"average"} if config.view_count > 1 else set()
    if wanted and not backbone.name.startswith("densenet"):
        raise ConfigError(
            f"{backbone.name} has no feature maps that {', '.join(sorted(wanted))} could be read from, expected a "
            "DenseNet. Leave what follows the @ out of --recipe, or use --backbone densenet201."
        )


def _normalization(config: ExtractConfig, backbone: Backbone) -> str:
    if config.normalize != "auto":
        mean_std(config.normalize)
        return config.normalize
    if not backbone.normalize:
        raise ConfigError(
            f"{backbone.name} does not tell how its input is normalised. Give --normalize imagenet, half, unit, or "
            "mean and deviation of R, G and B: 0.7,0.6,0.7/0.2,0.2,0.2"
        )
    return backbone.normalize


def _weights_name(backbone: Backbone, weights: str) -> str:
    """The name of published or random weights, or the whole path of a file, so that a prediction finds it again."""
    if backbone.path is not None:
        return str(backbone.path.resolve())
    return weights if weights in ("imagenet", "random") else str(Path(weights).resolve())
