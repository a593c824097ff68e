"""`ball demo`: the whole way from images to a table, on drawn smears."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ball_features.config import ExtractConfig, FitConfig
from ball_features.errors import DataError, WeightsError

__all__ = ["Demo", "demo"]


@dataclass(frozen=True)
class Demo:
    """Where a demonstration lies.

    Attributes:
        images: Folder of the drawn smears.
        cache: Their embeddings.
        run: The comparison, as `reporting.run.fit` returns it.
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
        out: Folder for everything; images of an earlier demonstration in it are drawn anew. `truth.json` says what was
            drawn.
        per_class: Images a class.
        seed: Of the drawing.
        log: Called with one line a step.
        embedding: Progress of extraction, (done, total).
        fitting: Progress of fitting, (done, total, name).
    """
    import shutil

    from ball_features.dataset.synthetic import draw_smears
    from ball_features.dataset.targets import require_folder
    from ball_features.extraction.backbones import get_backbone
    from ball_features.extraction.extract import extract
    from ball_features.extraction.weights import weights_digest
    from ball_features.reporting.run import fit

    out = Path(out)
    images, cache = out / "images", out / "cache.h5"
    require_folder(out)
    log(f"Drawing {4 * per_class} smears in {images}")
    try:
        if images.exists():
            shutil.rmtree(images)
        draw_smears(images, per_class=per_class, seed=seed)
        (images / "truth.json").replace(out / "truth.json")  # among the images it would be reported as none
    except OSError as error:
        raise DataError(f"{images} cannot be written ({error.strerror}). Give another --out.") from error
    config = ExtractConfig(views=1)  # the plain image alone, in a third of the time
    try:
        weights_digest(get_backbone(config.backbone), "imagenet")
        note = "Weights: ImageNet. The smears are drawn: the figures show that it runs, not how well it would do."
    except WeightsError:
        config = ExtractConfig(weights="random", views=1)
        note = (
            "WEIGHTS: RANDOM. ImageNet's could not be had (no cached file, no network), so the network saw random "
            "filters. The figures show that it runs, and nothing else."
        )
    extract(images, cache, config, overwrite=True, progress=embedding, log=log)
    run = fit(cache, FitConfig(repeats=3), out_root=out / "runs", progress=fitting)
    return Demo(images, cache, run, note)
