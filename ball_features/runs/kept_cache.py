"""The cache that a run was made on, found again from what the run says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ball_features.bundles.bundle import Bundle
from ball_features.cache import Cache, read_cache
from ball_features.cache.places import place_of
from ball_features.config.paths import expanded, is_address
from ball_features.errors import BallError
from ball_features.reporting.provenance import require_cache_of
from ball_features.runs.store import read_run

__all__ = ["cache_of_bundle", "kept_place"]


def kept_place(details: Mapping[str, object], folder: Path) -> Path:
    """Where a run says that its cache lies: seen from its own folder, or else from the current one."""
    place, beside = Path(str(details["cache"])), details.get("cache_from_run")
    if is_address(place):
        return place
    place = expanded(place)
    if isinstance(beside, str) and (place_of(beside, folder).exists() or not place.exists()):
        return place_of(beside, folder)
    return place


def cache_of_bundle(folder: Path, bundle: Bundle) -> Cache | None:
    """The cache of a bundle that lies in its run, without embeddings; None where run or cache are not at hand.

    Args:
        folder: folder of the bundle, RUN/models/MODEL.
        bundle: what it holds.
    """
    try:
        run = folder.resolve().parent.parent
        details = read_run(run).details
        place = kept_place(details, run)
        if isinstance(details["cache"], list) or is_address(place):  # which somebody else may have put there
            return None
        found = read_cache(place, embeddings=False)
        require_cache_of(details, found)
    except (BallError, OSError):
        return None
    return found if found.fingerprint == bundle.facts.cache_fingerprint else None
