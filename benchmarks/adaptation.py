"""Other ways to adapt to a site, beside those of the product: for docs/shift.md.

    python benchmarks/adaptation.py CACHE SITES.csv [--column site] [--folds 0]

Each site is left out in turn (`--folds 5`: folds of sites). A method maps training and test embeddings before a model
is fitted; it sees sites of training with labels, and the images of the new site without. Two models: a logistic
regression on the plain view, and `robust` (whose choice sees training sites alone). Figures are means over the sites.

    none      nothing of the new site is seen (setting A)
    mean      training sites less the mean of their class means, the new one less its mean
    balanced, auto: methods of the product
    adabn     each site by its own mean and deviation (Li et al. 2018, doi 10.1016/j.patcog.2018.03.005), on the numbers
              that the classifier sees, which is where a frozen network has its batch statistics
    combat    each site by location and scale, shrunk by empirical Bayes (Johnson et al. 2007, doi
              10.1093/biostatistics/kxj037); classes are covariates in training, and unknown for the new site
    coral     training embeddings with the covariance of the new site (Sun et al. 2016, arXiv 1511.05547, algorithm 1)
    every     balanced, with every prediction, not those alone of which the model is sure
    transport every, with predictions whose shares are those of training, by Sinkhorn's iterations
    truth     the mean of the new site's true class means: an oracle, which sees its labels
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.model_selection import GroupKFold

from ball_features.cache import read_cache
from ball_features.config import HeadConfig
from ball_features.evaluation.views import fixed_views, view_roles
from ball_features.models.adaptation import SiteAdapter
from ball_features.models.recipe_choice import RecipeChoice
from ball_features.models.registry import MODELS

ITERATIONS, STEP, PRIOR = 15, 0.5, (3.0, 0.3)  # as `models.adaptation` has them


class AdaptiveNormalisation(TransformerMixin, BaseEstimator):
    """AdaBN on embeddings: every site by its own mean and deviation.

    Attributes:
        mean_: mean of the site's embeddings, (columns,).
        scale_: their deviation.
    """

    def fit(self, X: np.ndarray, y: object = None) -> AdaptiveNormalisation:
        """Take mean and deviation of the embeddings of one site, (images, columns)."""
        self.mean_, self.scale_ = X.mean(0), X.std(0) + 1e-6
        return self

    def transform(self, X: np.ndarray) -> np.ndarray:
        """Return X less the mean, by the deviation."""
        return (X - self.mean_) / self.scale_


class Coral(TransformerMixin, BaseEstimator):
    """Correlation alignment: embeddings of training with the covariance of a target site.

    Args:
        ridge: multiple of the identity that is added to both covariances, 1 in the paper, on standardised columns.
    """

    def __init__(self, ridge: float = 1.0) -> None:
        self.ridge = ridge

    def fit(self, X: np.ndarray, y: object = None) -> Coral:
        """Take the covariance of the target's embeddings, (images, columns)."""
        self.target_ = X
        return self

    def transform(self, X: np.ndarray) -> np.ndarray:
        """Return embeddings of training with the target's covariance and mean, (images, columns)."""
        mean, scale = X.mean(0), X.std(0) + 1e-6
        source, target = (X - mean) / scale, (self.target_ - mean) / scale
        whole = self._power(source, -0.5) @ self._power(target - target.mean(0), 0.5)
        return (source @ whole + target.mean(0)) * scale + mean

    def _power(self, X: np.ndarray, power: float) -> np.ndarray:
        values, vectors = np.linalg.eigh(np.cov(X, rowvar=False).astype(np.float64) + self.ridge * np.eye(X.shape[1]))
        return ((vectors * values**power) @ vectors.T).astype(np.float32)


class Combat(BaseEstimator):
    """ComBat with parametric priors; classes are the covariate of training, and unknown for a new site.

    Attributes:
        mean_: mean over sites of the class means, (columns,).
        scale_: pooled deviation within classes and sites, (columns,).
    """

    def fit(self, X: np.ndarray, y: np.ndarray, sites: np.ndarray) -> Combat:
        """Estimate mean, deviation and class effects from training embeddings (images, columns)."""
        self.classes_ = np.unique(y)
        names = np.unique(sites)
        design = np.concatenate([sites[:, None] == names, (y[:, None] == self.classes_)[:, 1:]], 1).astype(float)
        beta = np.linalg.lstsq(design, X.astype(np.float64), rcond=None)[0]
        effects = np.concatenate([np.zeros((1, X.shape[1])), beta[len(names) :]])
        self.effects_ = effects - effects.mean(0)
        self.mean_ = beta[: len(names)].mean(0) + effects.mean(0)
        self.scale_ = (X - design @ beta).std(0) + 1e-6
        return self

    def transform(self, X: np.ndarray, y: np.ndarray | None = None) -> np.ndarray:
        """Return the embeddings of one site without its location and scale; y is None for a new site."""
        known = 0.0 if y is None else self.effects_[np.searchsorted(self.classes_, y)]
        Z = (X - self.mean_ - known) / self.scale_
        location, variance, images = Z.mean(0), Z.var(0, ddof=1), len(Z)
        prior_mean, prior_variance = location.mean(), location.var()
        mean, spread = variance.mean(), variance.var()
        shape, rate = (2 * spread + mean**2) / spread, (mean * spread + mean**3) / spread
        gamma, delta = location, variance
        for _ in range(30):
            gamma = (images * prior_variance * location + delta * prior_mean) / (images * prior_variance + delta)
            delta = (rate + 0.5 * ((Z - gamma) ** 2).sum(0)) / (images / 2 + shape - 1)
        return (Z - gamma) / np.sqrt(delta) * self.scale_ + self.mean_ + known


Predict = Callable[[np.ndarray], np.ndarray]


def offset_by(method: str, adapter: SiteAdapter, X: np.ndarray, y: np.ndarray, predict: Predict) -> np.ndarray:
    """Offset of a new site by a method that moves class means, float (views, D)."""
    if method == "truth":
        return np.mean([X[y == name].mean(0) for name in np.unique(y)], 0)
    if method in ("mean", "balanced", "auto"):
        own = SiteAdapter(method)
        own.__dict__ |= {name: value for name, value in vars(adapter).items() if name != "method"}
        return own.adapt(X, predict).offset
    flat, means = X.reshape(len(X), -1), adapter.class_means_.reshape(len(adapter.class_means_), -1)
    offset = adapter.average
    for _ in range(ITERATIONS):
        share = predict(X - offset)
        if method == "transport":
            share = np.maximum(share, 1e-6)
            for _ in range(50):
                share = share * (adapter.shares_ * len(X) / share.sum(0))
                share = share / share.sum(1, keepdims=True)
        count = share.sum(0)
        weight = count / (count + PRIOR[0] + PRIOR[1] * len(X))
        own = share.T @ flat / np.maximum(count, 1e-9)[:, None] - means
        offset = offset + STEP * ((weight @ own / weight.sum()).reshape(offset.shape) - offset)
    return offset


METHODS = (
    "none", "mean", "balanced", "auto", "adabn", "combat", "coral", "every", "transport", "truth",
)  # fmt: skip


def by_view(method: Callable[[np.ndarray], np.ndarray], X: np.ndarray) -> np.ndarray:
    """Apply a map of embeddings (images, columns) to each view of X (images, views, columns)."""
    return np.stack([method(X[:, view]) for view in range(X.shape[1])], 1).astype(np.float32)


def answer(
    method: str, build: Callable[[], Predict], data: tuple[np.ndarray, ...], test: np.ndarray
) -> tuple[list[float], list[float]]:
    """Accuracy and balanced recall of a method on each new site of a fold."""
    X, y, site = data
    train, adapter = ~test, None
    A, known = X[train], site[train]
    groups = {name: np.flatnonzero(known == name) for name in np.unique(known)}
    if method == "adabn":
        for rows in groups.values():
            A = A.copy()
            A[rows] = by_view(AdaptiveNormalisation().fit_transform, A[rows])
    elif method == "combat":
        combats = [Combat().fit(A[:, view], y[train], known) for view in range(A.shape[1])]
        B = np.empty_like(A)
        for rows in groups.values():
            for view, own in enumerate(combats):
                B[rows, view] = own.transform(A[rows, view], y[train][rows])
        A = B
    elif method not in ("none", "coral"):
        adapter = SiteAdapter().fit(A, y[train], known)
        A = adapter.center(A, known)
    model = None if method == "coral" else build()
    predict = None if model is None else model(A, y[train], known)
    accuracy, recall = [], []
    for name in np.unique(site[test]):
        rows = np.flatnonzero(test & (site == name))
        new = X[rows]
        if method == "coral":
            moved = np.stack([Coral().fit(new[:, view]).transform(A[:, view]) for view in range(A.shape[1])], 1).astype(
                np.float32
            )
            predict = build()(moved, y[train], known)
        elif method == "adabn":
            new = by_view(AdaptiveNormalisation().fit_transform, new)
        elif method == "combat":
            new = np.stack([own.transform(new[:, view]) for view, own in enumerate(combats)], 1).astype(np.float32)
        elif adapter is not None:
            new = new - offset_by(method, adapter, new, y[rows], predict)
        hit = predict(new.astype(np.float32)).argmax(1) == y[rows]
        accuracy.append(float(hit.mean()))
        recall.append(float(np.mean([hit[y[rows] == code].mean() for code in np.unique(y[rows])])))
    return accuracy, recall


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path)
    parser.add_argument("sites", type=Path)
    parser.add_argument("--column", default="site")
    parser.add_argument("--folds", type=int, default=0)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--models", nargs="+", default=["logistic", "robust"])
    asked = parser.parse_args()
    cache = read_cache(asked.cache)
    with asked.sites.open(newline="", encoding="utf-8") as file:
        of = {row["path"]: row[asked.column] for row in csv.DictReader(file)}
    site = np.array([of[path] for path in cache.path])
    y = np.unique(cache.label, return_inverse=True)[1]
    views = (0, *fixed_views(cache))
    X = np.asarray(cache.embeddings)[:, list(views)].astype(np.float32)
    roles = view_roles(cache, views)
    keep = X.std(0).max(1) > 1e-6
    X, roles = X[:, keep], tuple(role for role, kept in zip(roles, keep, strict=True) if kept)
    if asked.folds:
        folds = [np.isin(np.arange(len(y)), test) for _, test in GroupKFold(asked.folds).split(X, y, site)]
    else:
        folds = [site == name for name in np.unique(site)]

    def logistic() -> Callable[..., Predict]:
        def fit(A: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> Predict:
            return MODELS["logistic"].build(0, HeadConfig()).fit(A[:, 0], labels).predict_proba

        return lambda *known: (lambda own: lambda Z: own(Z[:, 0]))(fit(*known))

    def robust() -> Callable[..., Predict]:
        return lambda A, labels, groups: RecipeChoice(roles).fit(A, labels, groups=groups).predict_proba

    print("| method | " + " | ".join(asked.models) + " |\n| --- |" + " ---: |" * len(asked.models), flush=True)
    builds = {"logistic": logistic, "robust": robust}
    for method in asked.methods:
        cells = []
        for name in asked.models:
            own = X if name == "robust" else X[:, :1]
            found = [answer(method, builds[name], (own, y, site), test) for test in folds]
            means = (np.mean(np.concatenate([one[place] for one in found])) for place in (0, 1))
            cells.append(" / ".join(f"{100 * mean:.1f}" for mean in means))
        print(f"| {method} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
