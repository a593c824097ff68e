"""`ball demo`: images, cache and comparison of synthetic smears."""

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
    """Files of a demonstration.

    Attributes:
        images: folder of the synthetic smears.
        cache: file of their embeddings.
        run: the comparison, as `runs.fit.fit` returns it.
        weights_note: sentence on the weights in use and their consequence for the table.
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
        out: folder for everything; images and cache of an earlier demonstration in it are replaced. `truth.json` in it
            lists what was drawn.
        per_class: number of images of each class.
        seed: random seed of the drawing.
        log: function called with one line for each step.
        embedding: function called with the progress of extraction, (done, total).
        fitting: function called with the progress of fitting, (done, total, name).

    Raises:
        DataError: the folder cannot be written, or holds images or a cache that no demonstration made.
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
            (drawn / "truth.json").replace(truth)  # among the images it would be reported as no image
            drawn.replace(images)
    except OSError as error:
        raise DataError(f"{images} cannot be written ({error.strerror}). Name another folder.") from error
    config = ExtractConfig(views=1)  # the plain image alone, in a third of the time
    try:
        weights_digest(get_backbone(config.backbone), "imagenet")
        note = (
            "Weights: ImageNet. The smears are synthetic: the figures show that everything runs, not how well it works."
        )
    except WeightsError:
        config = ExtractConfig(weights="random", views=1)
        note = (
            "WEIGHTS: RANDOM. The ImageNet weights could not be found (no cached file, no internet connection), so the "
            "network has random filters. The figures show that everything runs, and nothing else."
        )
    extract(images, cache, config, progress=embedding, log=log)
    run = fit(cache, FitConfig(repeats=3), out_root=out / "runs", progress=fitting)
    return Demo(images, cache, run, note)


def _require_own(images: Path, cache: Path, truth: Path) -> None:
    """Raise `DataError` for a file that an earlier demonstration's `truth.json` does not list."""
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
            f"{strange[0]} was not made by `ball demo`, which would replace it. Name another folder, or an empty one."
        )
