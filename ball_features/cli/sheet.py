"""`ball sheet`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from ball_features.cli.derive import command
from ball_features.cli.options import Images, Shown
from ball_features.cli.screen import echo, print_json, say
from ball_features.config.fields import REQUIRED, Config, option

__all__ = ["COMMAND", "SheetOptions", "sheet"]


@dataclass(frozen=True)
class SheetOptions(Config):
    """Options of `ball sheet`."""

    out: Path = option(REQUIRED, "Sheet to write, a CSV; a file that exists is not replaced.", short="o", stored="file")
    layout: str = option("auto", "How the folders are read, as in `ball extract --layout`.")


def sheet(images: Images, options: SheetOptions, shown: Shown) -> None:
    """Write a table with a row for each image of a folder or archive, to fill in class, patient, site, split and group.

    What the folders tell is filled in. `ball extract IMAGES --sheet FILE` and
    `ball fit --groups FILE` take the table; further columns are kept.
    """
    from ball_features.dataset.table_files import write_sheet

    written = write_sheet(images, options.out, options.layout)
    if shown.as_json:
        print_json({"sheet": str(options.out), **asdict(written)})
        return
    for remark in () if shown.quiet else written.remarks:
        say(remark)
    for item in written.rejected:
        say(f"rejected  {item.path}: {item.reason}")
    echo(f"Sheet: {options.out}, {written.rows} rows. Classes: {written.classes or 'none yet'}.")


COMMAND = command(sheet)
