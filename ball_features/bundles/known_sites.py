"""Sites of a site-adapted bundle: offsets of the training sites, and of sites that it was adapted to.

A site-adapted model takes embeddings less the offset of their site. For a site of which nothing is known that is the
mean of the training sites (setting A of `docs/shift.md`); a batch of its images without labels gives its own (B).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ball_features.dataset.remarks import read_as

if TYPE_CHECKING:
    from ball_features.models.adaptation import SiteAdapter

__all__ = ["FAR", "Sites", "distinct"]

FAR = 2.0  # times the farthest training site's distance from their average: 1.4 to 2.7 for white blood cells of three
# hospitals, 2.0 to 3.6 for malaria cells, photographs and drawings in their place (benchmarks/unusual.md)


def distinct(X: np.ndarray) -> np.ndarray:
    """The embeddings (images, views, dim) without those that an earlier image has, of which it is a copy."""
    _, first = np.unique(X.reshape(len(X), -1), axis=0, return_index=True)
    return X[np.sort(first)]


@dataclass(frozen=True, eq=False)
class Sites:
    """Offsets of sites, for every view of a bundle.

    Attributes:
        adapter: offsets of the training sites.
        kept: offset of each site that the bundle was adapted to, name -> float32 (views, dim).
    """

    adapter: SiteAdapter
    kept: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def training(self) -> tuple[str, ...]:
        """Names of the training sites."""
        return tuple(str(name) for name in self.adapter.sites_)

    def find(self, name: str) -> np.ndarray | None:
        """The offset of a site, float32 (views, dim), or None for one that is not known."""
        if name in self.kept:
            return self.kept[name]
        return self.adapter.offsets_[self.training.index(name)] if name in self.training else None

    def alike(self, name: str) -> str:
        """The known site whose name differs from this one in case, blanks or the form of signs alone, or ""."""
        plain = {"".join(read_as(own).split()): own for own in (*self.training, *self.kept)}
        found = plain.get("".join(read_as(name).split()), "")
        return "" if found == name else found

    def is_near(self, offset: np.ndarray) -> bool:
        """Whether an offset (views, dim) is that of a new site, not far from those of training."""
        new = not any(np.array_equal(offset, own) for own in (*self.adapter.offsets_, self.adapter.average))
        return new and self.adapter.farness(offset) < FAR

    def to_measure(self, X: np.ndarray, offset: np.ndarray) -> np.ndarray:
        """Embeddings less what says whether an image is unusual, float32 (images, views, dim).

        Where the site is not known, that is the offset of the training site that the image is nearest to: an image
        between the sites is like those of none.

        Args:
            X: embeddings, float (images, views, dim).
            offset: offset that the bundle answers by, float32 (views, dim).
        """
        X = X.astype(np.float32)
        if not np.array_equal(offset, self.adapter.average):
            return X - offset
        flat, known = X.reshape(len(X), -1), self.adapter.offsets_.reshape(len(self.adapter.offsets_), -1)
        nearest = ((known.astype(np.float64) ** 2).sum(1) / 2 - flat @ known.T).argmin(1)
        return X - self.adapter.offsets_[nearest]

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Arrays by name, for a file."""
        own = {"site_offsets": self.adapter.offsets_, "site_class_means": self.adapter.class_means_}
        own["site_shares"] = np.append(self.adapter.shares_, self.adapter.concentration_).astype(np.float32)
        return own | ({"site_kept": np.stack(list(self.kept.values()))} if self.kept else {})

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, np.ndarray], method: str, training: tuple[str, ...], kept: tuple[str, ...]
    ) -> Sites:
        """Read what `to_arrays` gave.

        Args:
            arrays: arrays by name.
            method: key of `models.adaptation.ADAPTATIONS`.
            training: names of the training sites.
            kept: names of the other sites.

        Raises:
            KeyError, ValueError: Arrays are missing, or do not fit the names.
        """
        from ball_features.models.adaptation import SiteAdapter

        adapter = SiteAdapter(method)
        adapter.sites_ = np.array(training)
        adapter.offsets_, adapter.class_means_ = arrays["site_offsets"], arrays["site_class_means"]
        shares = arrays.get("site_shares", np.zeros(len(adapter.class_means_) + 1))  # missing in older bundles
        if len(shares) != len(adapter.class_means_) + 1:
            raise ValueError("reference.safetensors has shares of other classes")
        adapter.shares_, adapter.concentration_ = shares[:-1], float(shares[-1])
        offsets = arrays["site_kept"] if kept else adapter.offsets_[:0]
        if len(adapter.offsets_) != len(training) or len(offsets) != len(kept):
            raise ValueError("reference.safetensors and bundle.json name different sites")
        return cls(adapter, dict(zip(kept, offsets, strict=True)))
