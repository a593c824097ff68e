"""Shares of classes of sites: how far they agree, and when predictions name a single class."""

from __future__ import annotations

import numpy as np

__all__ = ["concentration_of", "one_class_reason"]

MAX_EXCESS = 0.75  # share of the most predicted class beyond 1 / C, of the way to 1, from which a batch is one class
_SITES_FOR_SHARES = 5  # training sites from which their shares of classes say what those of a new one are
_MOST_TRUST = 1e6  # images


def concentration_of(counts: np.ndarray) -> float:
    """Concentration of the Dirichlet distribution of shares of classes, by moments; 0 for few sites.

    Args:
        counts: number of images by site and class, float (S, C).
    """
    if len(counts) < _SITES_FOR_SHARES:
        return 0.0
    shares = counts / counts.sum(1, keepdims=True)
    even = float((shares.mean(0) * (1 - shares.mean(0))).sum())
    return min(even / max(float(shares.var(0, ddof=1).sum()), even / _MOST_TRUST), _MOST_TRUST)


def one_class_reason(probability: np.ndarray) -> str:
    """Why a batch looks like one class by its predictions (N, C), or ""."""
    share = probability.mean(0)
    least = 1 / len(share)
    if share.max() <= least + MAX_EXCESS * (1 - least):
        return ""
    return f"{100 * share.max():.0f} % of the images look like one class"
