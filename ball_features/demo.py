"""`ball demo`: drawn smears with a planted shortcut, and the verdict that finds it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ball_features.config import ExtractConfig, FitConfig
from ball_features.errors import CacheError, ConfigError, DataError, WeightsError

if TYPE_CHECKING:
    from ball_features.dataset.synthetic import Faults
    from ball_features.runs.assess import Assessment

__all__ = ["PLANTED", "Demo", "Planted", "demo"]


@dataclass(frozen=True)
class Planted:
    """What a demonstration plants.

    Attributes:
        name: key of `PLANTED`.
        phrase: explanation in a few words, for help texts and the terminal.
        faults: faults to draw, see `dataset.synthetic.Faults`.
        codes: findings of the verdict that name it.
    """

    name: str
    phrase: str
    faults: Faults
    codes: tuple[str, ...] = ()


_BAR, _STAIN = "overlay-tells-class", "shortcut-matches-network"

PLANTED: dict[str, Planted] = {
    own.name: own
    for own in (
        Planted(
            "both",
            "a scale bar of another kind and another stain for each class",
            {"bar_by_class": 1, "series": 1},
            (_BAR, _STAIN),
        ),
        Planted("bar", "a scale bar of another kind for each class", {"bar_by_class": 1}, (_BAR,)),
        Planted("stain", "another stain for each class", {"series": 1}, (_STAIN,)),
        Planted("none", "nothing", {}),
    )
}
_LEFT_BY_DESKTOPS = {".DS_Store", "Thumbs.db", "desktop.ini"}


@dataclass(frozen=True)
class Demo:
    """Result of a demonstration.

    Attributes:
        images: folder of the synthetic smears.
        planted: what was planted in them.
        assessment: what `ball assess` says of them.
        found: findings that name what was planted.
        weights_note: sentence on the weights in use and their consequence for the figures.
    """

    images: Path
    planted: Planted
    assessment: Assessment
    found: tuple[str, ...]
    weights_note: str


def demo(
    out: Path | str = "artifacts/demo",
    *,
    per_class: int = 60,
    seed: int = 0,
    shortcut: str = "both",
    log: Callable[[str], None] = lambda line: None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Demo:
    """Draw smears with a planted shortcut, and assess them.

    Args:
        out: folder for everything; images and cache of an earlier demonstration in it are replaced. `truth.json` in it
            lists what was drawn.
        per_class: number of images of each class.
        seed: random seed of the drawing.
        shortcut: what is planted, a key of `PLANTED`.
        log: function called with one line for each step.
        progress: function called with (steps done, all steps, work in hand).

    Raises:
        ConfigError: the shortcut is unknown.
        DataError: the folder cannot be written, or holds what no demonstration made.
        CacheBusyError: another process writes a demonstration into it.
    """
    from ball_features.cache import lock_cache
    from ball_features.dataset.synthetic import draw_smears
    from ball_features.files import temporary_folder
    from ball_features.outputs import require_folder
    from ball_features.runs.assess import assess

    if shortcut not in PLANTED:
        raise ConfigError(f"Got shortcut={shortcut!r}, expected one of: {', '.join(PLANTED)}.", option="shortcut")
    planted = PLANTED[shortcut]
    out = Path(out)
    images, cache, truth = out / "images", out / "cache.h5", out / "truth.json"
    require_folder(out)
    _require_own(images, cache, truth)
    with lock_cache(truth):  # a second demonstration would replace the images that this one reads
        log(f"Drawing {4 * per_class} smears of four classes in {images}. Planted: {planted.phrase}.")
        try:
            with temporary_folder(out) as folder:
                drawn = Path(folder) / "images"
                draw_smears(drawn, per_class=per_class, seed=seed, **planted.faults)
                _require_own(images, cache, truth)  # what came there while smears were drawn is kept
                cache.unlink(missing_ok=True)
                if images.exists():
                    shutil.rmtree(images)
                (drawn / "truth.json").replace(truth)  # among the images it would be reported as no image
                drawn.replace(images)
        except OSError as error:
            raise DataError(f"{images} cannot be written ({error.strerror or error}). Name another folder.") from error
        config, note = _with_weights()
        done = assess(images, out, config, FitConfig(repeats=2), progress=progress, log=log)
    codes = {finding.code for finding in done.findings}
    return Demo(images, planted, done, tuple(code for code in planted.codes if code in codes), note)


def _with_weights() -> tuple[ExtractConfig, str]:
    """Settings with the weights that this machine can have, and a sentence on them."""
    from ball_features.extraction.backbones import get_backbone
    from ball_features.extraction.weights import weights_digest

    config = ExtractConfig()
    try:
        weights_digest(get_backbone(config.backbone), "imagenet")
    except WeightsError:
        return ExtractConfig(weights="random"), (
            "Weights: random, since the ImageNet weights are neither on this machine nor reachable. The verdict on a "
            "shortcut needs no network; the scores of the network say nothing."
        )
    return config, "Weights: ImageNet. The smears are drawn: the scores say nothing about real ones."


def _require_own(images: Path, cache: Path, truth: Path) -> None:
    """Raise `DataError` for a file that an earlier demonstration's `truth.json` does not list with its hash.

    Without one the folder must be empty: smears that are drawn among the images of a user would be read with them.
    """
    from ball_features.cache import read_cache
    from ball_features.extraction.known_networks import file_sha256

    drawn = _drawn(truth)
    there = [images] if images.is_symlink() or images.is_file() else images.rglob("*")
    strange = [
        path for path in there
        if (path.is_symlink() or not path.is_dir()) and path.name not in _LEFT_BY_DESKTOPS
        and (not path.is_file() or drawn.get(path.relative_to(images).as_posix()) != file_sha256(path))
    ]  # fmt: skip
    if cache.exists():
        try:
            made = set(read_cache(cache, embeddings=False).path.tolist())
        except CacheError:
            made = {""}
        strange += [] if made <= drawn.keys() else [cache]
    if not drawn:
        strange += sorted(
            path
            for path in truth.parent.iterdir()
            if path.name[0] != "." and path.name not in {*_LEFT_BY_DESKTOPS, f"{truth.name}.lock"}
        )
    if strange:
        raise DataError(
            f"{strange[0]} was not made by `ball demo`, which writes into no folder of others, and replaces nothing of "
            "theirs. Name another folder, or an empty one."
        )


def _drawn(truth: Path) -> dict[str, str]:
    """SHA-256 of each smear of an earlier demonstration, by its path; none where the file is not one that it wrote."""
    from ball_features.files import read_json

    try:
        fields = {} if truth.is_symlink() else read_json(truth)
        label, drawn = fields["label"], fields["sha256"]
        whole = label.keys() == drawn.keys() and all(re.fullmatch("[0-9a-f]{64}", own) for own in drawn.values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # read_json gives values of any type
        return {}
    return drawn if whole else {}
