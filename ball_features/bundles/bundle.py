"""Bundles: a fitted model with all that is needed to use it on new images, in files that cannot run code.

A bundle is a folder: `bundle.json` (`bundles.facts`), `reference.safetensors` (training embeddings, and the scores of
calibration images that sets and thresholds come from) and the model: safetensors for the head, XGBoost's own JSON,
skops for scikit-learn, whose types are checked before anything is built. An estimator of another library is kept by
joblib, which is read only if the user trusts it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ball_features.bundles.calibration import (
    class_set_note,
    class_thresholds,
    conformal_threshold,
    mean_probability,
    neighbour_distance,
    outlier_threshold,
    set_note,
    tempered,
    unusual_note,
)
from ball_features.bundles.facts import FORMAT, BundleFacts
from ball_features.bundles.formats import read_model
from ball_features.bundles.known_sites import Sites, distinct
from ball_features.bundles.novelty import Novelty
from ball_features.bundles.ranges import require_ranges
from ball_features.bundles.sums import require_plain_files, require_unchanged
from ball_features.cache.places import from_stored
from ball_features.errors import BallError, ConfigError, DataError, is_of_the_machine
from ball_features.files import read_json

if TYPE_CHECKING:
    from ball_features.models.adaptation import SiteShift

__all__ = ["UNUSUAL_SHARE", "Bundle", "read_bundle", "saved_notes"]

UNUSUAL_SHARE = 0.01  # share of calibration images that may lie beyond the threshold of unusual images


@dataclass(frozen=True, eq=False)  # arrays have no single truth to compare or hash by
class Bundle:
    """A model ready to predict.

    Attributes:
        estimator: fitted classifier of embeddings; its classes are numbers of `classes`.
        facts: content of `bundle.json`.
        train: mean over the tested views of each training image at unit length, float32 (train, dim).
        scores: 1 minus the calibrated probability of the true class of each calibration image, increasing, float64
            (calibration,).
        distances: distance of each calibration image to the training embeddings, increasing, float64 (calibration,).
        score_class: class number of the image of each score, int (calibration,); empty in bundles of earlier versions.
        train_class: class number of each training image, int (train,); empty in bundles of earlier versions.
        novelty: what flags unusual images; None in bundles of earlier versions, which flag by distance alone.
        sites: sites of a site-adapted model, else None.
        offset: numbers subtracted from each embedding first, those of the site that the bundle answers for, float32
            (views, dim); None for a model that is not adapted.
        trusted: whether its network may be a program: the user trusts its maker, or has made it here.

    The calibration images are the validation images of the model's split. Those of a final model are all images of its
    folds, each predicted by a model that has not seen it.
    """

    estimator: Any
    facts: BundleFacts
    train: np.ndarray
    scores: np.ndarray
    distances: np.ndarray
    score_class: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    train_class: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    novelty: Novelty | None = None
    sites: Sites | None = None
    offset: np.ndarray | None = None
    trusted: bool = True

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.facts.classes

    @property
    def train_path(self) -> tuple[str, ...]:
        """Ids of the training images."""
        return self.facts.train_path

    def probability(self, X: np.ndarray) -> np.ndarray:
        """Calibrated class probabilities, float64 (images, classes), of embeddings (images, views, dim)."""
        raw = mean_probability(self.estimator, self.model_views(X), len(self.classes))
        return tempered(raw, self.facts.temperature)

    def model_views(self, X: np.ndarray) -> np.ndarray:
        """What the model sees of embeddings (images, views, dim): its own views, less the offset of the site."""
        return _choose(self.facts, self._centred(X))

    def _centred(self, X: np.ndarray) -> np.ndarray:
        return X if self.offset is None else X.astype(np.float32) - self.offset

    def at_site(self, name: str) -> Bundle | None:
        """The bundle that answers for a site of training, or one that it was adapted to; None for another."""
        offset = None if self.sites is None else self.sites.find(name)
        return None if offset is None else replace(self, offset=offset)

    def adapt(self, X: np.ndarray) -> SiteShift:
        """Estimate the offset of a new site from its images without labels.

        Args:
            X: embeddings as they are, float (images, views, dim). Copies of an image count once.

        Returns:
            The offset, of the site itself or, with the reason, of the training sites.

        Raises:
            ConfigError: The model is not site-adapted.
        """
        sites = self.require_sites()

        def answer(centred: np.ndarray) -> np.ndarray:
            return mean_probability(self.estimator, _choose(self.facts, centred), len(self.classes))

        return sites.adapter.adapt(distinct(X), answer, guarded=True)

    def require_sites(self) -> Sites:
        """The sites of a site-adapted model; raises `ConfigError` for another model."""
        if self.sites is None:
            own = f"The bundle of {self.facts.model} is not site-adapted, so that a site changes nothing. "
            raise ConfigError(f"{own}Fit it with adapt='auto' and a column site, or name no site.", option="site")
        return self.sites

    def distance(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean cosine distance to the nearest training images, (images,), and their rows, (images, neighbours).

        Distance to neighbours in a deep embedding detects unfamiliar input (Sun et al. 2022, "Out-of-distribution
        detection with deep nearest neighbors").
        """
        return neighbour_distance(self.model_views(X), self.train)

    def unusual(self, X: np.ndarray, probability: np.ndarray, histogram: np.ndarray | None = None) -> np.ndarray:
        """Whether images are unlike the training images, bool (images,); see `bundles.novelty`.

        Args:
            X: embeddings, float (images, views, dim).
            probability: result of `probability` on them, float (images, classes).
            histogram: share of the pixels in each bin of colour, float (images, bins); None where it is not known.
        """
        distance = self.distance(X)[0]
        if self.novelty is None:
            return distance > self.unusual_from
        measured, scale, elsewhere = self._centred(X), self.novelty.scale, self.novelty.elsewhere
        if self.sites is not None and self.offset is not None and elsewhere is not None:
            measured = self.sites.to_measure(X, self.offset)
            scale = elsewhere if self.sites.is_near(self.offset) else scale
        scores = self.novelty.measures.score(measured, histogram, distance)
        return scale.flags(scores, probability.argmax(1), len(self.classes), UNUSUAL_SHARE)

    @property
    def unusual_from(self) -> float:
        """Distance beyond which an image is called unusual where distance alone decides."""
        return outlier_threshold(self.distances, UNUSUAL_SHARE)[0]

    @property
    def unusual_share(self) -> float:
        """Largest share of images like the calibration images that is flagged by chance."""
        if self.novelty is None:
            return outlier_threshold(self.distances, UNUSUAL_SHARE)[1]
        scale = self.novelty.scale
        return outlier_threshold(scale.values, UNUSUAL_SHARE)[1] + scale.beyond_share(UNUSUAL_SHARE)

    @property
    def mondrian(self) -> bool:
        """True if each class has a threshold of its own, so that the coverage holds within each class."""
        return self.facts.conformal == "mondrian"

    def thresholds(self, coverage: float) -> np.ndarray:
        """Largest 1 - p of each class in a set of this coverage, float64 (classes,); 1 for too few images."""
        count = len(self.classes)
        if self.mondrian:
            return np.minimum(class_thresholds(self.scores, self.score_class, count, coverage), 1.0)
        return np.full(count, min(conformal_threshold(self.scores, coverage), 1.0))

    def threshold(self, coverage: float) -> float:
        """Largest 1 - p of any class in the set of this coverage; 1 if there are too few calibration images."""
        return float(self.thresholds(coverage).max())

    def notes(self, coverage: float) -> list[str]:
        """What a user must know about sets of this coverage and about the flag for unusual images."""
        unusual = unusual_note(self.distances, UNUSUAL_SHARE)
        if not self.mondrian:
            sets = [set_note(self.scores, coverage)]
        else:
            own = {name: self.scores[self.score_class == code] for code, name in enumerate(self.classes)}
            sets = [class_set_note(own, coverage)]
        return [note for note in (*sets, unusual, self.site_note) if note]

    @property
    def site_note(self) -> str:
        """What a user must know of a site-adapted bundle that answers for no site, or ""."""
        if self.sites is None or self.offset is None or (self.offset != self.sites.adapter.average).any():
            return ""
        from ball_features.models.adaptation import MIN_IMAGES

        return (
            "The model is site-adapted, but each image is taken as one of a site of which nothing is known. Name the "
            f"site of the images: {MIN_IMAGES} of them or more, of mixed classes, adapt the model to it."
        )

    def sets(self, probability: np.ndarray, coverage: float) -> np.ndarray:
        """Prediction sets, bool (images, classes), that contain the true class with this probability.

        The probability holds for images exchangeable with the calibration images. Method: split conformal prediction
        with the score 1 - p(true) (Sadinle et al. 2019, doi 10.1080/01621459.2017.1395341), of a final model
        `evaluation.final_fit`; the most probable class is always in the set.
        """
        inside = 1 - probability <= self.thresholds(coverage)
        inside[np.arange(len(probability)), probability.argmax(1)] = True
        return inside


def read_bundle(folder: Path | str, *, trust: bool = False) -> Bundle:
    """Read a bundle; nothing in it is executed unless `trust` is given.

    Args:
        folder: folder of the bundle, RUN/models/MODEL.
        trust: take what can run any code too: a model in joblib's format, a TorchScript network of somebody else.

    Raises:
        DataError: The folder is no bundle, is damaged, has another format, or holds types that no classifier needs.
    """
    from safetensors import safe_open

    folder = Path(folder)
    try:
        values = _read_json(folder)
        if values["format"] != FORMAT:
            raise DataError(
                f"{folder} has bundle format {values['format']}, expected {FORMAT}. Use the version of ball that wrote "
                "it, or save the model again with `ball fit`."
            )
        require_plain_files(folder)
        facts = BundleFacts.from_json(from_stored(values, folder))
        with safe_open(folder / "reference.safetensors", "numpy") as file:  # which reads no more than its head says
            arrays = {name: file.get_tensor(name) for name in file.keys()}
        require_ranges(values, facts, arrays)
        bundle = Bundle(
            estimator=read_model(folder, facts.model_file, facts.estimator_classes, trust),
            facts=facts,
            train=arrays["train"].astype(np.float32),
            scores=arrays["scores"],
            distances=arrays["distances"],
            score_class=arrays.get("score_class", np.empty(0, dtype=np.int64)),
            train_class=arrays.get("train_class", np.empty(0, dtype=np.int64)),
            novelty=Novelty.from_arrays(arrays),
            trusted=trust,
        )
        if facts.adapt != "none":
            sites = Sites.from_arrays(arrays, facts.adapt, facts.sites, facts.kept_sites)
            offset = sites.find(facts.site) if facts.site else sites.adapter.average
            bundle = replace(bundle, sites=sites, offset=offset)
        if len(bundle.train) != len(facts.train_path) or not len(bundle.scores) == len(bundle.distances) > 0:
            raise ValueError("reference.safetensors and bundle.json belong to different images")
        require_unchanged(folder)
        if bundle.mondrian and len(bundle.score_class) != len(bundle.scores):
            raise ValueError("reference.safetensors names no class of its scores")
    except (BallError, ImportError, MemoryError):
        raise
    except Exception as error:  # each format raises its own errors for a truncated file
        first = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
        if is_of_the_machine(error):
            raise DataError(f"{folder} cannot be read ({first}). Try again, or give a copy of it.") from error
        remedy = "Copy it again from its source, or save the model again with `ball fit`."
        raise DataError(f"{folder} is a damaged bundle ({first}). {remedy}") from error
    return bundle


def _choose(facts: BundleFacts, X: np.ndarray) -> np.ndarray:
    """The views that the model sees; the others serve the flag for unusual images."""
    return X[:, list(facts.model_views)] if facts.model_views else X


def saved_notes(folder: Path | str) -> list[str]:
    """Notes for the user of a bundle; empty in bundles of earlier versions.

    Raises:
        DataError: The folder is no bundle.
    """
    return list(_read_json(Path(folder)).get("notes", ()))


def _read_json(folder: Path) -> dict[str, Any]:
    try:
        return read_json(folder / "bundle.json")
    except (OSError, ValueError) as error:
        why = (error.strerror or str(error)) if isinstance(error, OSError) else "its bundle.json is damaged"
        raise DataError(
            f"{folder} is not a bundle ({why}). Expected a folder RUN/models/MODEL, as `ball fit` saves one."
        ) from error
