"""Where a run's numbers come from: what `run.json` keeps of it, the command that makes it again, and its cache."""

from __future__ import annotations

import dataclasses
import hashlib
import platform
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

from ball_features import __version__
from ball_features.cache import Cache
from ball_features.config import FitConfig, HeadConfig
from ball_features.errors import CacheError, ConfigError

__all__ = ["Provenance", "command", "images_digest", "provenance", "provenance_block", "require_cache_of"]

# Settings that a command has an option for; `ball fit` has one for each.
_OPTIONS: dict[str, set[str]] = {
    "compare": {
        "protocol", "models", "repeats", "folds", "groups", "group_column", "train_views", "test_views", "seed",
    },
    "tune": {
        "trials", "epochs", "test_size", "val_size", "groups", "group_column", "channels", "combine", "seed",
    },
}  # fmt: skip


def command(verb: str, source: str | Sequence[str], config: FitConfig, **more: Any) -> str:
    """The command line that makes a run again, quoted for a shell.

    Args:
        verb: fit, compare or tune.
        source: The cache, or the caches.
        config: Each setting that is not the default becomes an option; processes at once change no number.
        more: Options that are not settings, such as save="best"; they win, and what is false or empty is left out.

    Returns:
        The command, or "" where it has no option for one of the settings (a run made in Python).
    """
    settings = _changed(config, FitConfig()) | {
        # The head's batch size stands beside that of `ball extract`.
        {"batch_size": "head_batch_size"}.get(name, name): value
        for name, value in _changed(config.head, HeadConfig()).items()
    }
    settings |= {name: value for name, value in more.items() if value not in (None, False, "")}
    if not settings.keys() <= _OPTIONS.get(verb, settings.keys()):
        return ""
    words = ["ball", verb, *([source] if isinstance(source, str) else source)]
    for name, value in settings.items():
        words.append(f"--{name.replace('_', '-')}")
        if value is not True:
            words.append(_word(name, value))
    return shlex.join(words)


def _changed(config: FitConfig | HeadConfig, plain: FitConfig | HeadConfig) -> dict[str, Any]:
    names = [item.name for item in dataclasses.fields(config) if item.name not in ("head", "jobs")]
    return {name: getattr(config, name) for name in names if getattr(config, name) != getattr(plain, name)}


def _word(name: str, value: Any) -> str:
    if value is None:
        return "0" if name == "clip_norm" else "none"
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def images_digest(cache: Cache) -> str:
    """SHA-256 of which images a cache holds, by id and content, whatever their order."""
    lines = sorted(f"{path}\t{content}" for path, content in zip(cache.path, cache.content, strict=True))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def provenance(
    cache: Cache,
    config: FitConfig,
    *,
    source: Any,
    start: float,
    repeats: Sequence[int],
    again: str,
    groups_sha256: str | None,
) -> dict[str, Any]:
    """What `run.json` keeps beside a run's words, ready for JSON.

    Args:
        cache: The images and their attributes.
        config: Of the run.
        source: Path of the cache, or of several.
        start: `time.perf_counter()` when it all began.
        repeats: Numbers of the repeats.
        again: From `command`.
        groups_sha256: Of the groups file's content; None without one.
    """
    return {
        "command": again,
        "config": config.to_dict(),
        "config_fingerprint": config.fingerprint(groups_sha256=groups_sha256),
        "groups_sha256": groups_sha256,
        "cache": source,
        "cache_fingerprint": cache.attributes["fingerprint"],
        "cache_attributes": cache.attributes,
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
    """Raise `CacheError` for a cache that a run's numbers were not made of.

    Args:
        details: The run's `run.json`.
        cache: As read.
        name: For the message.
    """
    wanted, got = details["cache_fingerprint"], cache.attributes["fingerprint"]
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
    facts: dict[str, Any] = {
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
    again = details["command"] if "command" in details else _guessed(details)
    return Provenance(tuple((name, str(value)) for name, value in facts.items()), again)


def _guessed(details: Mapping[str, Any]) -> str:
    """The command of a run that did not keep its own."""
    try:
        config = FitConfig.from_mapping(details["config"])
    except ConfigError:  # of another version, with settings that are gone
        return ""
    return command("fit" if isinstance(details["cache"], str) else "compare", details["cache"], config)
