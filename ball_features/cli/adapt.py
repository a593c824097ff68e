"""`ball adapt`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from ball_features.cli.derive import command
from ball_features.cli.options import BundleFolder, BundleUse, Shown
from ball_features.cli.screen import echo, print_json, progress_bar, say
from ball_features.config.fields import REQUIRED, Config, option

__all__ = ["COMMAND", "AdaptOptions", "adapt"]


@dataclass(frozen=True)
class AdaptOptions(Config):
    """Options of `ball adapt`."""

    site: str = option(REQUIRED, "Name of the site (hospital, scanner) that the images are from.")
    mixed: bool = option(
        False,
        "The images are known to be of several classes. A model that cannot tell images of one class from several is "
        "adapted only then.",
    )
    out: Path | None = option(
        None,
        "Folder of the new bundle; BUNDLE-SITE beside the bundle if left out. It must not exist.",
        short="o",
        stored="folder",
    )


def adapt(
    bundle: BundleFolder,
    images: Annotated[
        list[str], typer.Argument(help="Folders, patterns or files: images of the site as they come, of mixed classes.")
    ],
    options: AdaptOptions,
    use: BundleUse,
    shown: Shown,
) -> None:
    """Adapt a saved model to a new site by its images without labels, and keep the site's statistics.

    The model must have been fitted with --adapt. The images are used together:
    ten are needed, of mixed classes; where they are fewer, or nearly all look
    like one class, nothing is written, since that would do harm. Where the model
    cannot tell one class from several, as measured on sites that were left out
    when it was fitted, it asks for your word (--mixed). The new bundle is a copy
    that answers for the site; the old one is left as it is.
    """
    from ball_features.deployment.adapt import BundleSettings
    from ball_features.deployment.adapt import adapt as run

    settings = BundleSettings(use.weights, use.device, use.precision, use.trust)
    with progress_bar("Embedding", shown.silent) as progress:
        found = run(
            bundle,
            images,
            options.site,
            mixed=options.mixed,
            out=options.out,
            settings=settings,
            progress=progress,
        )
    if shown.as_json:
        rejected = [vars(item) for item in found.rejected]
        print_json(asdict(found) | {"folder": str(found.folder), "rejected": rejected})
        return
    for item in found.rejected:
        say(f"rejected  {item.path}: {item.reason}")
    shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in found.shares.items())
    if not shown.quiet:
        say(f"Adapted to {found.site} by {found.images} images. Predicted among them: {shares}.")
        if found.note:
            say(found.note)
        if 2 * found.unusual > found.images:
            say(
                f"{found.unusual} of {found.images} images are unlike the training images even so: do not trust their "
                "classes."
            )
    echo(f"Bundle: {found.folder}")


COMMAND = command(adapt)
