"""Origin of a run's numbers: its settings, its cache, the command that repeats it."""

from __future__ import annotations

import hashlib
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from ball_features import __version__
from ball_features.cache import Cache
from ball_features.cache.places import to_stored
from ball_features.config import FitConfig
from ball_features.config.paths import named
from ball_features.config.toml import Repeat
from ball_features.errors import CacheError

__all__ = ["Provenance", "images_digest", "own_note", "provenance", "provenance_block", "require_cache_of"]


def images_digest(cache: Cache) -> str:
    """SHA-256 of the paths and contents of a cache's images, whatever their order."""
    lines = sorted(f"{path}\t{content}" for path, content in zip(cache.path, cache.content, strict=True))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def own_note(details: Mapping[str, Any]) -> list[str]:
    """The user's note on a run as one of its notes, of the content of `run.json`; empty without one."""
    return [f"Note: {details['note']}"] if details.get("note") else []


def provenance(
    cache: Cache,
    config: FitConfig,
    *,
    source: Any,
    start: float,
    repeats: Sequence[int],
    again: str,
    groups_sha256: str | None,
) -> dict[str, object]:
    """Values that `run.json` keeps beside title, caption and notes of a run, ready for JSON.

    Args:
        cache: images of the run, with the attributes of their cache.
        config: settings of the run.
        source: path of the cache, or paths of several.
        start: `time.perf_counter()` at the start of the work.
        repeats: repeat number of each split; duplicates are dropped.
        again: command that repeats the run.
        groups_sha256: SHA-256 of the groups file; None without one.
    """
    return {
        "command": again,
        "config": named(config.to_dict()),
        "config_fingerprint": config.fingerprint(groups_sha256=groups_sha256),
        "groups_sha256": groups_sha256,
        "cache": named(source),
        "cache_fingerprint": cache.fingerprint,
        "cache_attributes": to_stored(
            cache.attributes, Path(([source] if isinstance(source, str) else source)[0]).parent
        ),
        "images": len(cache.path),
        "images_sha256": images_digest(cache),
        "classes": sorted(set(cache.label.tolist())),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "ball_version": __version__,
        "python": platform.python_version(),
        "versions": {key: metadata.version(key) for key in ("numpy", "scikit-learn", "torch", "xgboost")},
        "seeds": {"seed": config.seed, "repeats": sorted(set(repeats))},
        "fit_s": time.perf_counter() - start,
    }


def require_cache_of(details: Mapping[str, Any], cache: Cache, name: str = "The cache") -> None:
    """Refuse a cache that a run was not made on.

    Args:
        details: contents of the run's `run.json`.
        cache: cache in question.
        name: name of the cache in the message.

    Raises:
        CacheError: the cache has other settings or other images.
    """
    wanted, got = details["cache_fingerprint"], cache.fingerprint
    if got != wanted:
        raise CacheError(
            f"{name} was made with other settings than the cache of this run: got the fingerprint {got[:12]}, expected "
            f"{wanted[:12]} ({details['cache']}). Give that cache, or fit again on this one."
        )
    known = details.get("images_sha256")  # runs of 0.1.0 before it was kept know the number only
    if len(cache.path) != details["images"] or (known and images_digest(cache) != known) or not cache.complete:
        raise CacheError(
            f"{name} holds other images than the cache of this run: got {int(cache.committed.sum())} images, expected "
            f"the {details['images']} of {details['cache']}, of the same names and content. Give that cache, or fit "
            "again on this one."
        )


@dataclass(frozen=True)
class Provenance:
    """Where a run comes from, for a page.

    Attributes:
        facts: (name, value) pairs.
        command: command line that makes the run again; "" for a run made in Python.
    """

    facts: tuple[tuple[str, str], ...]
    command: str


def provenance_block(details: Mapping[str, Any]) -> Provenance | None:
    """Where a run comes from; None for a ladder of an older version, which does not say."""
    if "cache_attributes" not in details:
        return None
    config, cache = details["config"], details["cache_attributes"]
    facts: dict[str, object] = {
        **({"note": details["note"]} if details.get("note") else {}),
        "weights SHA-256": cache.get("weights_sha256"),
        "cache": ", ".join([details["cache"]] if isinstance(details["cache"], str) else details["cache"]),
        "cache fingerprint": details["cache_fingerprint"],
        "backbone": cache.get("backbone"),
        "precision": cache.get("precision"),
        "cosine to float32, worst of a sample": cache.get("deviation_cosine"),
        "images": details["images"],
        **({"groups SHA-256": details["groups_sha256"]} if details.get("groups_sha256") else {}),
        "seed": config["seed"],
        "made": details["created"],
        "ball": details["ball_version"],
        **{f"{key} version": value for key, value in details["versions"].items()},
    }
    again = details["command"] if "command" in details else _of_older(details)
    return Provenance(tuple((name, str(value)) for name, value in facts.items()), again)


def _of_older(details: Mapping[str, Any]) -> str:
    """The command that repeats a run of 0.1.0 which did not keep its own: with the settings in its `run.json`."""
    one = isinstance(details["cache"], str)
    inputs = {"cache" if one else "caches": details["cache"]}
    return Repeat("fit" if one else "compare", inputs, FitConfig()).command(Path(), "run.json")
