"""An external evaluation as a record: `evaluation.json`, `predictions.csv`, and what a model card quotes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ball_features.bundles.prediction import Prediction
from ball_features.bundles.recalibration import Recalibration
from ball_features.evaluation.external import ExternalScores, Share
from ball_features.files import joined_names
from ball_features.reporting.finding import Finding
from ball_features.reporting.verdict import findings_to_json

__all__ = [
    "FORMAT",
    "EvaluatedBundle",
    "Evaluation",
    "LabelCounts",
    "Published",
    "ScoredImage",
    "bundle_digest",
]

FORMAT = 1


@dataclass(frozen=True)
class EvaluatedBundle:
    """The bundle, as far as an evaluation names it.

    Attributes:
        sha256: digest of its `bundle.json`; "" where the bundle was given in memory.
        model: name of the model.
        backbone: name of the network.
        weights_sha256: digest of the network's weights.
        cache_fingerprint: fingerprint of the cache that it was fitted on.
        train_images: number of training images.
        ball_version: version that evaluated it.
        name: its folder, below that of its run; "" where the bundle was given in memory.
    """

    sha256: str
    model: str
    backbone: str
    weights_sha256: str
    cache_fingerprint: str
    train_images: int
    ball_version: str
    name: str = ""


@dataclass(frozen=True)
class LabelCounts:
    """Which of the images could be scored.

    Attributes:
        scored: images whose label the bundle knows.
        unlabelled: images without a label.
        unknown: label that the bundle does not know -> number of images.
        absent: classes of the bundle that no image shows.
        matched: label -> class of the bundle that it was taken for, where they differ in case or separators.
    """

    scored: int
    unlabelled: int
    unknown: Mapping[str, int]
    absent: tuple[str, ...]
    matched: Mapping[str, str]


@dataclass(frozen=True)
class Published:
    """The figures that the bundle was sold with, and the difference.

    Attributes:
        accuracy: accuracy on the test images of its own split, with the interval by groups that the bundle names, or
            Wilson's on images for a bundle of earlier versions.
        source: what they were measured on, in words.
        difference: published accuracy less the one found.
        low: lower end of the 95 % interval of the difference.
        high: upper end.
        ece: expected calibration error on those images.
        unusual: share of those images that were flagged.
    """

    accuracy: Share
    source: str
    difference: float
    low: float
    high: float
    ece: float
    unusual: float


@dataclass(frozen=True, eq=False)
class ScoredImage:
    """An image with its label and prediction.

    Attributes:
        prediction: what the bundle says.
        label: label as the source names it; "" for none.
        true: class of the bundle that the label is; "" where it is none.
        status: "scored", "unknown label" or "unlabelled".
        recalibration: "fitted" or "tested", its part in the recalibration; "" for none.
        patient: name of the patient, or "".
        site: name of the site, or "".
        trained_on: whether its embedding is that of a training image.
    """

    prediction: Prediction
    label: str
    true: str
    status: str
    recalibration: str = ""
    patient: str = ""
    site: str = ""
    trained_on: bool = False


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Result of `ball evaluate`.

    Attributes:
        folder: folder of its files; None where none were written.
        source: folder or cache that was evaluated.
        created: date and time, in UTC.
        bundle: the bundle.
        classes: classes of the bundle.
        coverage: coverage of the prediction sets.
        counts: which images could be scored.
        scores: what was measured.
        recalibration: what a temperature and a threshold fitted here would mend; None where images are too few.
        published: the figures that the bundle was sold with; None where it has none.
        findings: the verdict.
        images: every image with its prediction.
        rejected: number of files that could not be used, and the first of them with reasons.
        notes: remarks for the reader.
        note: the user's own note.
    """

    folder: Path | None
    source: str
    created: str
    bundle: EvaluatedBundle
    classes: tuple[str, ...]
    coverage: float
    counts: LabelCounts
    scores: ExternalScores
    recalibration: Recalibration | None
    published: Published | None
    findings: list[Finding]
    images: list[ScoredImage]
    rejected: list[tuple[str, str]]
    notes: list[str]
    note: str = ""

    @property
    def accuracy(self) -> float:
        """Share of the scored images that are right."""
        return self.scores.values["accuracy"]

    def to_dict(self) -> dict[str, object]:
        """The content of `evaluation.json`."""
        low, high = self.scores.intervals["accuracy"]
        recall = self.scores.intervals["recall"]
        return {
            "format": FORMAT,
            "accuracy": self.accuracy,
            "accuracy_low": low,
            "accuracy_high": high,
            "n": self.scores.images,
            "balanced_recall": self.scores.values["recall"],
            "balanced_recall_low": recall[0],
            "balanced_recall_high": recall[1],
            "source": Path(self.source).name,
            "created": self.created,
            "bundle": asdict(self.bundle),
            "classes": self.classes,
            "coverage": self.coverage,
            "labels": asdict(self.counts),
            **self.scores.to_dict(),
            "recalibration": self.recalibration,
            "published": None if self.published is None else asdict(self.published),
            "trained_on": sum(item.trained_on for item in self.images),
            "rejected": [{"path": path, "reason": reason} for path, reason in self.rejected],
            "notes": self.notes,
            **({"note": self.note} if self.note else {}),
            "verdict": findings_to_json(self.findings),
        }

    def columns(self) -> tuple[str, ...]:
        """Columns of `predictions.csv`."""
        named = [f"p_{name}" for name in self.classes]
        return (
            "path", "label", "true", "status", "predicted", *named, "set", "covered", "distance", "unusual", "nearest",
            "recalibration", "patient", "site", "trained_on",
        )  # fmt: skip

    def rows(self) -> Iterable[Sequence[object]]:
        """Rows of `predictions.csv`, in full precision; `covered` is empty without a true class."""
        for item in self.images:
            found = item.prediction
            yield (
                found.path, item.label, item.true, item.status, found.predicted,
                *(found.probability[name] for name in self.classes),
                joined_names(found.set),
                str(item.true in found.set).lower() if item.true else "",
                found.distance, str(found.unusual).lower(), joined_names(found.nearest),
                item.recalibration, item.patient, item.site, str(item.trained_on).lower(),
            )  # fmt: skip


def bundle_digest(folder: Path) -> str:
    """SHA-256 of `bundle.json`, by which an evaluation knows its bundle."""
    return hashlib.sha256((folder / "bundle.json").read_bytes()).hexdigest()
