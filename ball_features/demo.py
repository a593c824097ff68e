"""`ball demo`: the whole way from images to a table, on synthetic smears."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ball_features.config import ExtractConfig, FitConfig
from ball_features.errors import CacheError, DataError, WeightsError

__all__ = ["Demo", "demo"]


_LEFT_BY_DESKTOPS = {".DS_Store", "Thumbs.db", "desktop.ini"}


@dataclass(frozen=True)
class Demo:
    """Where a demonstration lies.

    Attributes:
        images: Folder of the synthetic smears.
        cache: Their embeddings.
        run: The comparison, as `runs.store.fit` returns it.
        weights_note: Which weights were used, and what that means for the table.
    """

    images: Path
    cache: Path
    run: Any
    weights_note: str


def demo(
    out: Path | str = "artifacts/demo",
    *,
    per_class: int = 60,
    seed: int = 0,
    log: Callable[[str], None] = lambda line: None,
    embedding: Callable[..., None] | None = None,
    fitting: Callable[..., None] | None = None,
) -> Demo:
    """Draw smears, embed them, compare models.

    Args:
        out: Folder for everything; images and cache of an earlier demonstration in it are made anew. `truth.json` says
            what was drawn.
        per_class: Images a class.
        seed: Of the drawing.
        log: Called with one line a step.
        embedding: Progress of extraction, (done, total).
        fitting: Progress of fitting, (done, total, name).

    Raises:
        DataError: The folder cannot be written, or holds images or a cache that no demonstration made.
    """
    from ball_features.dataset.synthetic import draw_smears
    from ball_features.extraction.backbones import get_backbone
    from ball_features.extraction.extract import extract
    from ball_features.extraction.weights import weights_digest
    from ball_features.files import require_folder
    from ball_features.runs.fit import fit

    out = Path(out)
    images, cache, truth = out / "images", out / "cache.h5", out / "truth.json"
    require_folder(out)
    _require_own(images, cache, truth)
    log(f"Making {4 * per_class} synthetic smears in {images}")
    try:
        with tempfile.TemporaryDirectory(dir=out) as folder:
            drawn = Path(folder) / "images"
            draw_smears(drawn, per_class=per_class, seed=seed)
            cache.unlink(missing_ok=True)
            if images.exists():
                shutil.rmtree(images)
            (drawn / "truth.json").replace(truth)  # among the images it would be reported as none
            drawn.replace(images)
    except OSError as error:
        raise DataError(f"{images} cannot be written ({error.strerror}). Give another --out.") from error
    config = ExtractConfig(views=1)  # the plain image alone, in a third of the time
    try:
        weights_digest(get_backbone(config.backbone), "imagenet")
        note = "Weights: ImageNet. The smears are synthetic: the figures show that it runs, not how well it would do."
    except WeightsError:
        config = ExtractConfig(weights="random", views=1)
        note = (
            "WEIGHTS: RANDOM. ImageNet's could not be had (no cached file, no network), so the network saw random "
            "filters. The figures show that it runs, and nothing else."
        )
    extract(images, cache, config, progress=embedding, log=log)
    run = fit(cache, FitConfig(repeats=3), out_root=out / "runs", progress=fitting)
    return Demo(images, cache, run, note)


def _require_own(images: Path, cache: Path, truth: Path) -> None:
    """Raise `DataError` where something is there that an earlier demonstration's `truth.json` does not list."""
    from ball_features.cache import read_cache

    try:
        drawn = set(json.loads(truth.read_text(encoding="utf-8"))["label"])
    except (OSError, ValueError, KeyError, TypeError):
        drawn = set()
    there = [images] if images.is_symlink() or images.is_file() else images.rglob("*")
    strange = [
        path for path in there
        if (path.is_symlink() or not path.is_dir()) and path.name not in _LEFT_BY_DESKTOPS
        and path.relative_to(images).as_posix() not in drawn
    ]  # fmt: skip
    if cache.exists():
        try:
            made = set(read_cache(cache, embeddings=False).path.tolist())
        except CacheError:
            made = {""}
        strange += [] if made <= drawn else [cache]
    if truth.exists() and not drawn:
        strange.append(truth)
    if strange:
        raise DataError(
            f"{strange[0]} was not made by `ball demo`, which would replace it. Give another --out, or an empty folder."
        )
