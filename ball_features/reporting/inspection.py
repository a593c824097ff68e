"""What a cache holds, for a person or a machine."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ball_features.cache import Cache

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["describe", "render_facts"]


def describe(cache: Cache, path: Path) -> dict[str, Any]:
    """The contents of a cache as plain values, ready for JSON.

    Args:
        cache: As read, with or without its embeddings.
        path: Where it lies.
    """
    copies = Counter(cache.sha256.tolist())
    return {
        "cache": str(path),
        "size_mb": round(path.stat().st_size / 1e6, 1),
        "complete": cache.complete,
        "images": len(cache.path),
        "committed": int(cache.committed.sum()),
        "classes": dict(sorted(Counter(cache.label.tolist()).items())),
        "views": list(cache.view),
        "dim": int(cache.embeddings.shape[2]),
        "dtype": str(cache.embeddings.dtype),
        "shortcuts": {name: int(values.shape[1]) for name, values in sorted(cache.shortcuts.items())},
        "byte_identical_extra": sum(count - 1 for count in copies.values()),
        "rejected": [{"path": item.path, "reason": item.reason} for item in cache.rejected],
        "provenance": dict(sorted(cache.attributes.items())),
    }


def render_facts(values: dict[str, Any]) -> RenderableType:
    """`describe`'s values as tables for a terminal."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    state = "complete" if values["complete"] else f"INCOMPLETE, {values['committed']} of {values['images']} images"
    head = Text(f"{values['cache']}: {state}, {values['size_mb']} MB", style="bold")
    counts = Table("class", "images", box=None, pad_edge=False)
    for name, count in values["classes"].items():
        counts.add_row(Text(name), str(count))
    counts.add_row("all", str(values["images"]), style="bold")
    facts = Table("", "", box=None, pad_edge=False, show_header=False)
    copies = values["byte_identical_extra"]
    rows = {
        "embeddings": f"{values['images']} x {len(values['views'])} x {values['dim']} {values['dtype']}",
        "views": ", ".join(values["views"]),
        "pixel numbers": ", ".join(f"{name} {width}" for name, width in values["shortcuts"].items()),
        "byte-identical copies": str(copies),
        **{key: value for key, value in values["provenance"].items() if key != "versions"},
        **{f"{key} version": value for key, value in values["provenance"].get("versions", {}).items()},
    }
    for key, value in rows.items():
        facts.add_row(Text(key.replace("_", " ")), Text(f"{value:.6g}" if isinstance(value, float) else str(value)))
    rejected = [Text(f"rejected  {item['path']}: {item['reason']}") for item in values["rejected"]]
    return Group(head, counts, Text(), facts, *rejected)
