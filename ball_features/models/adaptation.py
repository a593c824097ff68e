"""Adaptation to a site by its unlabelled images: what is constant within a site is estimated and subtracted.

Training sites are centred with the mean of their class means, so that their shares of classes do not matter. Of a new
site no labels are known. The mean of all its images is wrong where classes have other shares than in training, so
the offset starts at the mean of the training sites and moves to the mean of the class means, with the model's
predictions in place of labels (those that it is sure of, where there are enough): expectation maximisation for a shift
between domains (Saerens et al. 2002, doi 10.1162/089976602753284446, with the offset in place of the priors, which stay
equal).

Where training sites (patients, say) all have nearly the same shares of classes, a new site is expected to have them as
well, and its mean less that mixture's tells the offset best. How far that is trusted is the concentration of a
Dirichlet distribution of shares, estimated by moments: their variance between sites against that of single images.
Where a batch still has other shares than all training sites once it is adapted, although it is no farther from them
than they are from one another, its offset follows its classes, and it is not adapted.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from ball_features.errors import ConfigError
from ball_features.models.site_shares import concentration_of, one_class_reason

__all__ = ["ADAPTATIONS", "MIN_IMAGES", "Adaptation", "SiteAdapter", "SiteShift"]

MIN_IMAGES = 10  # of a new site; with fewer the offset is no better than that of the training sites (docs/shift.md)
_ITERATIONS = 15
_STEP = 0.5  # of an iteration, towards its own estimate
_PRIOR_IMAGES = 3.0  # a class has half its weight at so many images plus this share of the batch
_PRIOR_SHARE = 0.3
_SURE = 0.9  # probability from which an image counts, where enough do: errors draw the offset to their own class
_MOST_ASTRAY = 0.2  # by which a predicted share of a new site may differ from theirs
_EXPECTED, _POSSIBLE = 1.6, 2.0  # standard deviations of a batch's shares: so far they are theirs, so far they may be
_RESTORED = 1.0  # such deviations: adaptation has made them theirs
_FAR = 1.5  # times the farthest training site's distance from the average: predicted shares say little from there


@dataclass(frozen=True)
class Adaptation:
    """A way to estimate the offset of a new site.

    Attributes:
        name: key in `ADAPTATIONS`.
        iterations: iterations from the mean of the training sites; 0 takes the mean of the new images at once.
        guarded: True falls back to the mean of the training sites for few images or a batch of one class.
        by_shares: True expects the training sites' shares of classes as far as they agree.
    """

    name: str
    iterations: int
    guarded: bool = False
    by_shares: bool = False


ADAPTATIONS: dict[str, Adaptation] = {
    item.name: item
    for item in (
        # Balanced, with the shares of classes that training sites agree on if they do.
        Adaptation("auto", _ITERATIONS, guarded=True, by_shares=True),
        Adaptation("balanced", _ITERATIONS),  # mean of the class means, with predictions in place of labels
        Adaptation("mean", 0),  # mean of the new site's images: wrong if its classes have other shares
    )
}


@dataclass(frozen=True, eq=False)
class SiteShift:
    """The offset of one site.

    Attributes:
        offset: numbers to subtract from each embedding of the site, float32 (views, D).
        images: number of images that it was estimated on.
        reason: why it is that of the training sites and not the site's own, or "".
    """

    offset: np.ndarray
    images: int
    reason: str = ""

    @property
    def adapted(self) -> bool:
        """True if the offset is the site's own."""
        return not self.reason


Predict = Callable[[np.ndarray], np.ndarray]


class SiteAdapter(BaseEstimator):
    """Offsets of training sites and of new ones.

    Args:
        method: key of `ADAPTATIONS`.

    Attributes:
        sites_: names of the training sites, (S,).
        offsets_: mean of the class means of each training site, float32 (S, views, D).
        class_means_: mean over sites of each class's mean less its site's offset, float32 (C, views, D).
        shares_: mean over sites of the share of each class, float32 (C,).
        concentration_: number of images that these shares are worth, 0 where sites differ or are few.
    """

    def __init__(self, method: str = "auto") -> None:
        self.method = method

    def fit(self, X: Any, y: Any, sites: Any) -> SiteAdapter:
        """Estimate the offsets of the training sites.

        Args:
            X: embeddings, float (N, views, D).
            y: labels, (N,).
            sites: site of each image, (N,).

        Raises:
            ConfigError: The method is unknown, or a site holds one class, which would be lost with its mean.
        """
        if self.method not in ADAPTATIONS:
            raise ConfigError(f"Unknown adaptation {self.method!r}. Valid: none, {', '.join(ADAPTATIONS)}.")
        classes, code = np.unique(y, return_inverse=True)
        self.sites_, site = np.unique(sites, return_inverse=True)
        means = np.full((len(self.sites_), len(classes), *X.shape[1:]), np.nan)
        for s, c in {*zip(site.tolist(), code.tolist(), strict=True)}:
            means[s, c] = X[(site == s) & (code == c)].mean(0, dtype=np.float64)
        seen = ~np.isnan(means[:, :, 0, 0])
        if (seen.sum(1) < 2).any():
            name = self.sites_[int(np.argmin(seen.sum(1)))]
            raise ConfigError(
                f"Site {name} holds one class in training, so that its mean cannot be told from its class. Give sites "
                "that hold several classes each, or adapt='none'."
            )
        # A site that lacks classes is compared with the others by the classes that it has.
        offsets = np.nanmean(means, 1)
        for _ in range(1 if seen.all() else 5):
            self.class_means_ = np.nanmean(means - offsets[:, None], 0).astype(np.float32)
            offsets = np.nanmean(means - self.class_means_, 1)
        self.offsets_ = offsets.astype(np.float32)
        counts = np.zeros(seen.shape)
        np.add.at(counts, (site, code), 1)
        self.shares_ = (counts / counts.sum(1, keepdims=True)).mean(0).astype(np.float32)
        self.concentration_ = concentration_of(counts)
        return self

    def select(self, positions: Sequence[int]) -> SiteAdapter:
        """The same adapter for some of its views."""
        own = SiteAdapter(self.method)
        own.sites_, own.shares_, own.concentration_ = self.sites_, self.shares_, self.concentration_
        own.offsets_, own.class_means_ = (a[:, list(positions)] for a in (self.offsets_, self.class_means_))
        return own

    @property
    def average(self) -> np.ndarray:
        """Mean offset of the training sites, float32 (views, D): that of a site of which nothing is known."""
        return self.offsets_.mean(0)

    def farness(self, offset: np.ndarray) -> float:
        """Distance of an offset (views, D) from the average, in units of the farthest training site's; NaN for one."""
        most = float(((self.offsets_ - self.average) ** 2).sum((1, 2)).max())
        return float(((offset - self.average) ** 2).sum() / most) ** 0.5 if most else float("nan")

    def center(self, X: np.ndarray, sites: Any) -> np.ndarray:
        """Return X (N, views, D) of training sites less their offsets, float32."""
        check_is_fitted(self)
        known = {name: number for number, name in enumerate(self.sites_.tolist())}
        number = np.array([known[name] for name in np.asarray(sites).tolist()])
        return X.astype(np.float32) - self.offsets_[number]

    def adapt(self, X: np.ndarray, predict: Predict, *, guarded: bool = False) -> SiteShift:
        """Estimate the offset of a new site.

        Args:
            X: embeddings of its images, float (N, views, D).
            predict: function from centred embeddings (N, views, D) to class probabilities (N, C), of the model that
                was fitted on centred embeddings.
            guarded: fall back to the mean of the training sites also for a method that does not.
        """
        return self.adapt_each([X], lambda asked: [predict(asked[0])], guarded=guarded)[0]

    def adapt_each(
        self,
        batches: Sequence[np.ndarray],
        predict: Callable[[dict[int, np.ndarray]], Sequence[np.ndarray]],
        *,
        guarded: bool = False,
    ) -> list[SiteShift]:
        """Estimate the offsets of several new sites, with one call of the model for all of them in each iteration.

        Args:
            batches: embeddings of the images of each, float (N, views, D).
            predict: function from centred embeddings by number of the batch to class probabilities in their order.
            guarded: as in `adapt`.
        """
        check_is_fitted(self)
        steps = [self._steps(X, guarded) for X in batches]
        found: dict[int, SiteShift] = {}
        answers: dict[int, Any] = dict.fromkeys(range(len(batches)))
        while answers:
            asked: dict[int, np.ndarray] = {}
            for number, answer in answers.items():
                try:
                    asked[number] = steps[number].send(answer)
                except StopIteration as end:
                    found[number] = end.value
            answers = dict(zip(asked, predict(asked), strict=True)) if asked else {}
        return [found[number] for number in range(len(batches))]

    def _steps(self, X: np.ndarray, guarded: bool) -> Generator[np.ndarray, np.ndarray, SiteShift]:
        """Yield centred embeddings, take their class probabilities, and return the offset."""
        method = ADAPTATIONS[self.method]
        X = X.astype(np.float32)
        offset = self.average
        guarded = guarded or method.guarded
        if guarded and len(X) < MIN_IMAGES:
            return SiteShift(offset, len(X), f"{len(X)} images, expected at least {MIN_IMAGES}")
        if not method.iterations and not guarded:
            return SiteShift(X.mean(0), len(X))
        probability = yield X - offset
        one_class = one_class_reason(probability) if guarded else ""
        if not method.iterations:
            return SiteShift(offset, len(X), one_class) if one_class else SiteShift(X.mean(0), len(X))
        before = probability.mean(0)
        trust = self._trust(before, len(X)) if method.by_shares else 0.0
        flat = X.reshape(len(X), -1)
        means = self.class_means_.reshape(len(self.class_means_), -1)
        for _ in range(method.iterations):
            sure = probability.max(1, keepdims=True) > _SURE
            if sure.sum() >= MIN_IMAGES:
                probability = probability * sure
            count = probability.sum(0)
            weight = count / (count + _PRIOR_IMAGES + _PRIOR_SHARE * len(X))
            own = probability.T @ flat / np.maximum(count, 1e-9)[:, None] - means  # (C, views * D)
            target = (1 - trust) * (weight @ own / weight.sum())
            target += trust * (flat.mean(0) - self.shares_ @ means)
            target = target.reshape(offset.shape)
            offset = (offset + _STEP * (target - offset)).astype(np.float32)
            probability = yield X - offset
        # A site that is far away may look like one class before it is adapted, and mixed afterwards, image by image.
        called = np.eye(probability.shape[1])[probability.argmax(1)]
        if one_class and (one_class_reason(called) or (self.concentration_ >= len(X) and self._near(X, before))):
            return SiteShift(self.average, len(X), one_class)
        if guarded and method.by_shares and self._other_mixture(X, before, probability.mean(0)):
            reason = "the predicted shares of classes are others than those on which all training sites agree"
            return SiteShift(self.average, len(X), reason)
        return SiteShift(offset, len(X))

    def _trust(self, share: np.ndarray, images: int) -> float:
        """Weight of the training sites' shares of classes for so many images with these predicted shares, (C,)."""
        if self._astray(share, images) > _EXPECTED:
            return 0.0
        return self.concentration_ / (self.concentration_ + images)

    def _astray(self, share: np.ndarray, images: int) -> float:
        """Distance of predicted shares (C,) from those of training, in deviations of so many images.

        Shares that are never taken for those of training are farther than `_POSSIBLE`.
        """
        off = float(np.abs(share - self.shares_).max())
        even = float((self.shares_ * (1 - self.shares_)).max())
        deviations = off / np.sqrt(even * (1 / images + 1 / (self.concentration_ + 1)))
        return deviations if off <= _MOST_ASTRAY else max(deviations, np.nextafter(_POSSIBLE, np.inf))

    def _other_mixture(self, X: np.ndarray, before: np.ndarray, after: np.ndarray) -> bool:
        """Whether images are of a near site with another mixture of classes than that on which training sites agree.

        Args:
            X: embeddings, float (N, views, D).
            before: predicted shares before adaptation, (C,).
            after: predicted shares after it, which come back to those of training where the site was merely shifted.
        """
        return (
            self.concentration_ >= len(X)
            and self._astray(before, len(X)) > _POSSIBLE
            and self._astray(after, len(X)) > _RESTORED
            and self._near(X, before)
        )

    def _near(self, X: np.ndarray, share: np.ndarray) -> bool:
        """Whether images (N, views, D) of these predicted shares are about as near to training sites as these are."""
        rest = X.mean(0) - self.average - np.tensordot(share, self.class_means_, 1)
        distance = float((rest**2).sum()) - float(X.var(0).sum()) / len(X)
        return distance <= _FAR**2 * float(((self.offsets_ - self.average) ** 2).sum((1, 2)).max())
