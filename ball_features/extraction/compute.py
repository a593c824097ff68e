"""The computing part of an extraction: builds the network, embeds what a cache lacks and writes it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib import metadata
from typing import TYPE_CHECKING

import numpy as np

from ball_features import __version__
from ball_features.cache import CacheContents, create_cache, read_cache
from ball_features.dataset.manifest import Manifest
from ball_features.errors import CacheError
from ball_features.extraction.batch import Pipeline
from ball_features.extraction.decoding import ON_DEVICE
from ball_features.extraction.engine.cpu import compile_early
from ball_features.extraction.memory import batch_size, require_memory
from ball_features.extraction.overlay_mask import learn_overlay_mask, pack_mask
from ball_features.extraction.pixels import SHORTCUT_WIDTHS
from ball_features.extraction.preprocessing import Preprocessing
from ball_features.extraction.stream import DECODING_THREADS, Workers, Writing, stream
from ball_features.extraction.update import Update
from ball_features.extraction.weights import load_backbone
from ball_features.threads import core_count

if TYPE_CHECKING:
    import torch

    from ball_features.extraction.engine.modules import EmbeddingEngine

__all__ = ["Computation", "Computed"]


@dataclass(frozen=True, eq=False)
class Computed:
    """Result of a computation.

    Attributes:
        manifest: images in the cache; those that could not be decoded are rejected.
        attributes: attributes of the cache.
        images: number of images that went through the network, or would have gone in a dry run.
        forward_s: seconds of decoding, views, forward passes and writing, without loading the network.
    """

    manifest: Manifest
    attributes: dict[str, object]
    images: int = 0
    forward_s: float = 0.0


@dataclass(frozen=True, eq=False)
class _Network:
    """A network that is ready to compute a collection."""

    engine: EmbeddingEngine
    device: torch.device
    preprocessing: Preprocessing
    batch: int
    attributes: dict[str, object]


@dataclass(frozen=True, eq=False)
class Computation:
    """Brings a cache up to date.

    Attributes:
        update: what the cache lacks.
        progress: function that takes (images done, images to do).
        log: function that takes a line for the user.
    """

    update: Update
    progress: Callable[[int, int], None]
    log: Callable[[str], None]

    def __call__(self) -> Computed:
        """Compute and write.

        Raises:
            CacheError: The cache cannot be written, or the network computes something else than when it was begun.
            WeightsError: The weights do not fit.
        """
        out, manifest, old = self.update.request.out, self.update.manifest, self.update.old
        if old is not None and not self.update.missing:
            attributes = self._resumed_attributes(old.attributes)
            self._create(manifest, attributes, keep_rows=True)
            return Computed(manifest, attributes)
        network = self._network()
        if not self.update.same_rows:
            self._create(manifest, network.attributes, keep_rows=old is not None)
        begun = read_cache(out, embeddings=False)
        rows = np.flatnonzero(~begun.committed)
        start = time.perf_counter()
        with Writing(out, begun.content.tolist()) as writing:
            bad = self._stream(network, rows, writing)
            writing.time(len(rows) - len(bad), time.perf_counter() - start)
        forward_s = time.perf_counter() - start
        if bad:
            manifest = manifest.without(bad)
            try:
                self._create(manifest, network.attributes, keep_rows=True)
            except CacheError as error:  # most likely no room for a second cache; the rows that are there stay
                self.log(f"The rows of {len(bad)} rejected files stay in the cache, and are empty. {error}")
        return Computed(manifest, network.attributes, len(rows) - len(bad), forward_s)

    @property
    def _shortcuts(self) -> dict[str, int]:
        """Pixel statistics and their widths; a cache that was begun without one goes on without it."""
        kept = SHORTCUT_WIDTHS if self.update.old is None else self.update.old.shortcuts
        return {name: width for name, width in SHORTCUT_WIDTHS.items() if name in kept}

    def _resumed_attributes(self, attributes: dict[str, object]) -> dict[str, object]:
        request = self.update.request
        return attributes | {"images": str(self.update.manifest.root.resolve()), **request.shard_attributes}

    def _create(self, manifest: Manifest, attributes: dict[str, object], *, keep_rows: bool) -> None:
        request = self.update.request
        contents = CacheContents(
            paths=manifest.path,
            labels=manifest.label,
            sha256=manifest.sha256,
            view=request.preprocessing.plan.names(request.preprocessing.channels),
            dim=request.preprocessing.backbone.dim,
            dtype=request.preprocessing.dtype,
            shortcuts=self._shortcuts,
            attributes=attributes,
            rejected=manifest.rejected,
            twin_sha256=manifest.twin_sha256,
            columns=manifest.columns,
        )
        source = request.out if keep_rows else None
        create_cache(request.out, contents, source=source, repair=self.update.damaged)

    def _network(self) -> _Network:
        """Load the network in the precision that is asked for, or in which the cache was begun."""
        request, manifest = self.update.request, self.update.request.sample
        wanted, config = request.preprocessing, request.config
        if wanted.backbone.engine == "densenet" and config.device in ("auto", "cpu"):
            compile_early()
        from ball_features.extraction.engine.choose import Chooser  # imports torch, which takes seconds
        from ball_features.extraction.engine.devices import resolve_device

        device, batch = resolve_device(config.device), config.batch_size
        require_memory(device.type, wanted)
        module = load_backbone(wanted.backbone, wanted.weights, wanted.seed)
        threads = min(DECODING_THREADS, core_count())
        chooser = Chooser(module, wanted, manifest, device, batch, threads, self.log)
        old = self.update.old
        if old is not None:
            # Rows of one cache are computed alike: what was chosen when it was begun stays.
            preprocessing = replace(wanted, precision=old.precision, overlay_mask=old.overlay_mask)
            attributes = self._resumed_attributes(old.attributes)
            return _Network(chooser.resume(old), device, preprocessing, int(old.attributes["batch_size"]), attributes)
        choice = chooser.choose()
        preprocessing = replace(wanted, precision=choice.precision)
        if wanted.plan.needs_mask:
            # Learnt once and kept: images that are added later are masked as the first ones were.
            mask = learn_overlay_mask(manifest, wanted.backbone.input_px, self.log)
            preprocessing = replace(preprocessing, overlay_mask=pack_mask(mask))
        measured = choice.measured
        batch = batch or batch_size(device.type, choice.precision, wanted.backbone.input_px)
        attributes = {
            **preprocessing.to_attributes(),
            **choice.attributes,
            "fingerprint": preprocessing.fingerprint,
            "batch_size": batch,
            "device": device.type,
            "deviation_cosine": measured.cosine if measured else float("nan"),
            "deviation_relative": measured.relative if measured else float("nan"),
            "deviation_images": measured.images if measured else 0,
            "images": str(manifest.root.resolve()),
            **request.shard_attributes,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "ball_version": __version__,
            "versions": {name: metadata.version(name) for name in ("torch", "torchvision", "numpy", "h5py", "pillow")},
        }
        return _Network(choice.engine, device, preprocessing, batch, attributes)

    def _stream(self, network: _Network, rows: np.ndarray, writing: Writing) -> dict[int, str]:
        """Embed rows and hand them to the thread that writes; the rows that cannot be decoded, with their reasons."""
        from ball_features.extraction.engine.modules import runs_on_all_cores

        device = network.device
        pipeline = Pipeline(
            manifest=self.update.manifest,
            preprocessing=network.preprocessing,
            engine=network.engine,
            device=device,
            batch=network.batch,
            shortcuts=tuple(self._shortcuts),
            # A run that goes on without the GPU that decoded decodes on its cores: nearly the same pixels.
            decodes=device.type == "cuda" and network.attributes.get("decoder") == ON_DEVICE,
        )
        workers = Workers.for_device(device.type, one_call=runs_on_all_cores(network.engine))
        done, bad = 0, {}
        self.progress(0, len(rows))
        results = stream(rows, pipeline.batch, pipeline.load, pipeline.compute, workers=workers, stop=pipeline.stop)
        with contextlib.closing(results):
            for item in results:
                bad |= item.bad
                if len(item.rows):
                    writing.put(item.rows, item.embeddings, item.shortcuts)
                done += len(item.rows) + len(item.bad)
                self.progress(done, len(rows))
        return bad
