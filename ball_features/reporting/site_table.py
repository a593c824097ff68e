"""What a cache's embeddings tell of its sites, as a table for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ball_features.cache import Cache
from ball_features.errors import DataError
from ball_features.evaluation.site_measures import SiteMeasures, measure_sites
from ball_features.reporting.captions import Caption

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["measure_cache", "render_sites"]


def measure_cache(cache: Cache) -> SiteMeasures:
    """Measure what each view of a cache tells of the column `site`.

    Args:
        cache: cache with its embeddings; a column `patient` says which images show the same.

    Raises:
        DataError: The cache has no column `site`, or it holds fewer than two sites or classes.
    """
    if "site" not in cache.columns:
        listed = ", ".join(cache.columns) or "none"
        raise DataError(
            f"The cache has no column site, got the columns: {listed}. Give each image a site in a sheet: "
            "`ball extract` takes one."
        )
    shows = cache.columns.get("patient", cache.sha256)
    unit = np.unique(np.where(shows == "", cache.sha256, shows), return_inverse=True)[1]
    return measure_sites(cache.embeddings, cache.view, cache.label, cache.columns["site"], unit)


def render_sites(measured: SiteMeasures) -> RenderableType:
    """Render the measures: a row a view."""
    from rich import box
    from rich.console import Group
    from rich.table import Table

    counts = ", ".join(f"{name} {count}" for name, count in measured.sites.items())
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=f"{len(measured.sites)} sites: {counts}")
    table.title_justify = "left"
    table.add_column("view")
    headings = ("robustness index", "95 %", "site named, %", "index, adapted", "site named, adapted, %")
    for heading in headings:
        table.add_column(heading, justify="right")
    for view in measured.views:
        table.add_row(
            view.view,
            _share(view.index),
            f"{_share(view.index_low)} - {_share(view.index_high)}",
            _percent(view.site_accuracy),
            _share(view.adapted_index),
            _percent(view.adapted_site_accuracy),
        )
    lines = [
        "Robustness index: among the 50 nearest images, those of the same class from another site, as a share of "
        "these and those of the same site with another class. 1: the class decides, 0: the site decides, "
        f"{measured.chance_index:.2f}: neither.",
        f"Site named: how often a linear model names the site of an image (mean over sites; guessing "
        f"{100 * measured.chance_accuracy:.0f} %). Adapted: each embedding less the offset of its site.",
        *([f"Not adapted: {measured.note}"] if measured.note else []),
    ]
    return Group(table, *(Caption(line) for line in lines))


def _share(value: float | None) -> str:
    return "n/a" if value is None or value != value else f"{value:.2f}"


def _percent(value: float | None) -> str:
    return "n/a" if value is None or value != value else f"{100 * value:.1f}"
