"""The site that a request to the server names: the bundle that answers for it, or why none does."""

from __future__ import annotations

from ball_features.bundles.bundle import Bundle
from ball_features.errors import ConfigError

__all__ = ["bundle_of_site", "known_sites", "site_notes"]


def known_sites(bundle: Bundle) -> list[str]:
    """Names of the sites that a bundle answers for; empty for one that is not site-adapted."""
    return [] if bundle.sites is None else [*bundle.sites.training, *bundle.sites.kept]


def bundle_of_site(bundle: Bundle, site: str) -> Bundle:
    """The bundle that answers for a site, or the bundle itself where the request names none.

    Args:
        bundle: bundle that is served.
        site: name of a site, or "".

    Raises:
        ConfigError: The bundle is not site-adapted, or does not know the site.
    """
    if not site:
        return bundle
    bundle.require_sites()
    own = bundle.at_site(site)
    if own is None:
        raise ConfigError(
            f"Got the site {site!r}, expected one that the bundle knows: {', '.join(known_sites(bundle))}. One image "
            "says nothing of a site: adapt the bundle to it by some of its images (`ball adapt`) and serve the copy.",
            option="site",
        )
    return own


def site_notes(bundle: Bundle, site: str, coverage: float) -> list[str]:
    """What a reader must know of an answer for this site, or for none."""
    told = [f"Site-adapted to {site}."] if site else []
    return [*told, *(note for note in bundle.notes(coverage) if not site or note != bundle.site_note)]
