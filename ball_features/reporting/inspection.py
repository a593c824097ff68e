"""Contents of a cache, for a person or a machine."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ball_features.cache import Cache, local_copy
from ball_features.config.paths import shown_path

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["CacheContents", "describe", "render_contents"]


@dataclass(frozen=True)
class CacheContents:
    """Contents of a cache as plain values.

    Attributes:
        cache: path of the file.
        size_mb: size of the file in MB.
        complete: True where every image has its embedding.
        images: number of images.
        committed: number of images that have their embedding.
        classes: class -> number of images.
        views: names of the views.
        dim: width of an embedding.
        dtype: number format of the embeddings.
        shortcuts: name of pixel statistics -> how many numbers they are.
        byte_identical_extra: number of images that are a byte-identical copy of another.
        rejected: path and reason of each file that could not be used.
        provenance: settings and origin.
    """

    cache: str
    size_mb: float
    complete: bool
    images: int
    committed: int
    classes: dict[str, int]
    views: list[str]
    dim: int
    dtype: str
    shortcuts: dict[str, int]
    byte_identical_extra: int
    rejected: list[dict[str, str]]
    provenance: dict[str, Any]

    def to_dict(self) -> dict[str, object]:
        """Everything, ready for JSON."""
        return asdict(self)


def describe(cache: Cache, path: Path) -> CacheContents:
    """Describe a cache.

    Args:
        cache: the cache, read with or without its embeddings.
        path: path or address of its file.
    """
    copies = Counter(cache.sha256.tolist())
    return CacheContents(
        cache=shown_path(path),
        size_mb=round(local_copy(path).stat().st_size / 1e6, 1),
        complete=cache.complete,
        images=len(cache.path),
        committed=int(cache.committed.sum()),
        classes=dict(sorted(Counter(cache.label.tolist()).items())),
        views=list(cache.view),
        dim=int(cache.embeddings.shape[2]),
        dtype=str(cache.embeddings.dtype),
        shortcuts={name: int(values.shape[1]) for name, values in sorted(cache.shortcuts.items())},
        byte_identical_extra=sum(count - 1 for count in copies.values()),
        rejected=[{"path": item.path, "reason": item.reason} for item in cache.rejected],
        provenance=dict(sorted(cache.attributes.items())),
    )


def render_contents(contents: CacheContents) -> RenderableType:
    """Render the contents as tables for a terminal."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    state = "complete" if contents.complete else f"INCOMPLETE, {contents.committed} of {contents.images} images"
    head = Text(f"{contents.cache}: {state}, {contents.size_mb} MB", style="bold")
    counts = Table("class", "images", box=None, pad_edge=False)
    for name, count in contents.classes.items():
        counts.add_row(Text(name), str(count))
    counts.add_row("all", str(contents.images), style="bold")
    facts = Table("", "", box=None, pad_edge=False, show_header=False)
    rows = {
        "embeddings": f"{contents.images} x {len(contents.views)} x {contents.dim} {contents.dtype}",
        "views": ", ".join(contents.views),
        "pixel statistics": ", ".join(f"{name} {width}" for name, width in contents.shortcuts.items()),
        "byte-identical copies": str(contents.byte_identical_extra),
        **{key: value for key, value in contents.provenance.items() if key != "versions"},
        **{f"{key} version": value for key, value in contents.provenance.get("versions", {}).items()},
    }
    for key, value in rows.items():
        facts.add_row(Text(key.replace("_", " ")), Text(f"{value:.6g}" if isinstance(value, float) else str(value)))
    rejected = [Text(f"rejected  {item['path']}: {item['reason']}") for item in contents.rejected]
    return Group(head, counts, Text(), facts, *rejected)
