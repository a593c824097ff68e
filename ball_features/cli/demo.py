"""`ball demo`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ball_features.cli.assess import print_assessment
from ball_features.cli.derive import command
from ball_features.cli.options import Shown
from ball_features.cli.screen import echo, progress_bar, say
from ball_features.config.fields import LAST_SEED, Config, option
from ball_features.demo import PLANTED

__all__ = ["COMMAND", "DemoOptions", "demo"]


@dataclass(frozen=True)
class DemoOptions(Config):
    """Options of `ball demo`."""

    out: Path = option(Path("artifacts/demo"), "Folder that images, cache, run and page are written into.")
    per_class: int = option(60, "Number of synthetic images per class.", low=1)
    seed: int = option(0, "Random seed of the synthetic images.", low=0, high=LAST_SEED)
    shortcut: str = option(
        "both",
        f"What is planted in the images: {', '.join(f'{own.name} ({own.phrase})' for own in PLANTED.values())}.",
        choices=tuple(PLANTED),
    )


def demo(options: DemoOptions, shown: Shown) -> None:
    """Draw blood smears with a planted shortcut, and let `ball assess` find it.

    Each class gets its own stain and its own scale bar, as real collections
    do by accident. A model then scores near 100 % without seeing a cell's shape,
    and the verdict says so. With --shortcut none nothing is planted.
    No data, internet connection or account is needed.
    """
    from ball_features.demo import demo as run

    with progress_bar("Assessing", shown.silent, "steps") as progress:
        log = (lambda line: None) if shown.silent else say
        done = run(
            options.out,
            per_class=options.per_class,
            seed=options.seed,
            shortcut=options.shortcut,
            log=log,
            progress=progress,
        )
    print_assessment(done.assessment, shown)
    if shown.as_json:
        return
    echo(f"Images: {done.images}" + ("" if shown.quiet else f". {done.weights_note}"))
    planted = done.planted
    if planted.codes:
        missed = [code for code in planted.codes if code not in done.found]
        echo(
            f"Planted: {planted.phrase}. "
            + (f"Not found: {', '.join(missed)}." if missed else "The verdict above names it.")
        )
    if not shown.quiet:
        echo("Your own images: ball assess IMAGES")


COMMAND = command(demo)
