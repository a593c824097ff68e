"""`ball download`."""

from __future__ import annotations

from ball_features.cli.derive import command
from ball_features.cli.options import Quiet
from ball_features.cli.screen import echo, say

__all__ = ["COMMAND", "download"]


def download(shown: Quiet) -> None:
    """Fetch the public data set (Kaggle mehradaria/leukemia) with kagglehub, and check every file by its hash."""
    from ball_features.dataset.known import download as run

    manifest = run(log=(lambda line: None) if shown.quiet else say)
    echo(f"{len(manifest.path)} images, every hash right: {manifest.root.parent}")


COMMAND = command(download)
