"""What a verdict rests on: plain records that runs, audits and evaluations fill."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = [
    "AuditEvidence",
    "DataEvidence",
    "Evidence",
    "ExternalEvidence",
    "ExtractionEvidence",
    "ModelEvidence",
    "PredictionEvidence",
    "ProtocolEvidence",
]


ALL_SINGLE = 0.98  # groups by images above which a protocol keeps next to nothing together


@dataclass(frozen=True)
class ModelEvidence:
    """One model under one protocol.

    Attributes:
        name: name of the model.
        kind: "head", "baseline" or "shortcut".
        accuracy: share of test images that are right.
        low: lower end of its 95 % interval.
        high: upper end.
        balanced: mean over classes of the recall, or None.
        ece: expected calibration error, or None.
        ties_best: whether it does not differ significantly from the first model of the table.
    """

    name: str
    kind: str
    accuracy: float
    low: float
    high: float
    balanced: float | None = None
    ece: float | None = None
    ties_best: bool = False


@dataclass(frozen=True)
class ProtocolEvidence:
    """One protocol with its models.

    Attributes:
        name: plain words that complete "on ...", such as "random splits" or "series left out".
        unit: what no split divides: "image", "copy" (identical files), "group", "block", "patient", "site" or "series";
            "split" for a split that came with the images.
        models: models sorted by accuracy, best first.
        tested: class -> number of images tested, each counted once.
        distinct: class -> number of them that are not byte-identical; empty where it is not known.
        groups: number of units that the interval rests on.
        adapted: whether unlabelled images of the site that is left out were used.
        cannot_tell: models that lose where they are adapted to images of one class.
        run: command that repeats it with other settings, such as Command("fit", ("CACHE",)).
    """

    name: str
    unit: str
    models: tuple[ModelEvidence, ...]
    tested: Mapping[str, int] = field(default_factory=dict)
    distinct: Mapping[str, int] = field(default_factory=dict)
    groups: int = 0
    adapted: bool = False
    cannot_tell: tuple[str, ...] = ()

    @property
    def keeps_nothing_together(self) -> bool:
        """Whether the groups are single images, or nearly all."""
        return self.unit in ("copy", "group") and self.groups > ALL_SINGLE * sum(self.tested.values())

    @property
    def network(self) -> ModelEvidence | None:
        """The best model that sees a network."""
        return next((model for model in self.models if model.kind != "shortcut"), None)

    def named(self, name: str) -> ModelEvidence | None:
        """The model of this name, or None."""
        return next((model for model in self.models if model.name == name), None)


@dataclass(frozen=True)
class DataEvidence:
    """The images and what is known of them.

    Attributes:
        images: number of images.
        classes: class -> number of images.
        patients: number of patients, or None where the data do not say.
        sites: number of sites, or None.
        copies: byte-identical copies of another image.
        conflicts: pairs of identical images with different labels.
        conflict_example: two paths of such a pair, or empty.
        doubtful: images that all models of a table give one other class with a high probability: (path, label, class).
        leaks: what crosses a given split -> number of test images concerned, such as {"patients": 24}.
        site_accuracy: share of the images whose class is the most frequent one of their site, or NaN.
        few_patients: class -> number of patients, for classes of fewer patients than can be kept apart.
        fewest: "patient" or "group" -> number of them in the class that has the fewest, where the data name them.
        untestable: units that the data name, but that cannot be kept out of training: "patient", "site".
        views_chosen_here: whether views or settings were chosen on this data set.
        cache: path of the cache, for commands.
        groups: path of the groups file, for commands; "" where there is none.
        folder: folder of the images, for commands.
        sheet: whether the names of the images do not tell all that is known of them, so that a sheet must have.
    """

    images: int
    classes: Mapping[str, int] = field(default_factory=dict)
    patients: int | None = None
    sites: int | None = None
    copies: int = 0
    conflicts: int = 0
    conflict_example: tuple[str, ...] = ()
    doubtful: tuple[tuple[str, str, str], ...] = ()
    leaks: Mapping[str, int] = field(default_factory=dict)
    site_accuracy: float = float("nan")
    few_patients: Mapping[str, int] = field(default_factory=dict)
    fewest: Mapping[str, int] = field(default_factory=dict)
    untestable: tuple[str, ...] = ()
    views_chosen_here: tuple[str, ...] = ()
    cache: str = "CACHE.h5"
    groups: str = ""
    folder: str = "IMAGES"
    sheet: bool = False


@dataclass(frozen=True)
class ExtractionEvidence:
    """How the embeddings were made.

    Attributes:
        backbone: name of the network.
        random_weights: whether its weights are random.
        cosine: worst cosine to float32 on the sample, or NaN.
        bound: cosine below which the precision counts as too low.
        precision: number format of the forward pass.
        trained_on: data sets that the network was trained on and that the images at hand belong to.
        collections: number of public collections of blood cells that the network was trained on.
        recognised: titles of those that are recognised by name.
    """

    backbone: str
    random_weights: bool = False
    cosine: float = float("nan")
    bound: float = 0.9995
    precision: str = "fp32"
    trained_on: tuple[str, ...] = ()
    collections: int = 0
    recognised: tuple[str, ...] = ()


@dataclass(frozen=True)
class AuditEvidence:
    """What `ball audit` found.

    Attributes:
        images: images that could be decoded.
        exact: pairs of identical images.
        near: pairs of near-duplicates.
        shared: pairs of overlapping fields.
        in_pairs: images in any such pair.
        largest_group: images of the largest connected group.
        groups: number of connected groups, single images included.
        conflicts: pairs that show the same under different labels.
        conflict_example: two paths of such a pair, or empty.
        overlay_accuracy: accuracy of the kind of burned-in overlay alone, or NaN.
        colour_accuracy: accuracy of colour alone, groups kept together, or NaN.
        majority: share of the most frequent class.
        series: number of inferred series.
    """

    images: int
    exact: int = 0
    near: int = 0
    shared: int = 0
    in_pairs: int = 0
    largest_group: int = 1
    groups: int = 0
    conflicts: int = 0
    conflict_example: tuple[str, ...] = ()
    overlay_accuracy: float = float("nan")
    colour_accuracy: float = float("nan")
    majority: float = float("nan")
    series: int = 0


@dataclass(frozen=True)
class ExternalEvidence:
    """A fitted bundle on labelled images of elsewhere.

    Attributes:
        images: labelled images evaluated.
        accuracy: share that is right.
        low: lower end of its 95 % interval.
        high: upper end.
        sold: accuracy that the bundle was published with, or NaN.
        drop_low: lower end of the 95 % interval of `sold - accuracy`.
        drop_high: upper end.
        confidence: mean probability of the predicted class.
        coverage: promised coverage of the prediction sets.
        covered: share of sets that hold the true class.
        covered_high: upper end of its 95 % interval.
        unusual: share of images flagged as unusual.
        unknown: images whose label the bundle does not know.
        expected_unusual: share of images like the training images that is flagged.
        tested: class -> number of images evaluated; those of absent classes are 0.
        trained_on: images evaluated that the model was trained on.
        patients: number of patients, or None where the images name none.
        sites: number of sites, or None.
        bundle: path of the bundle, for commands.
    """

    images: int
    accuracy: float
    low: float
    high: float
    sold: float = float("nan")
    drop_low: float = float("nan")
    drop_high: float = float("nan")
    confidence: float = float("nan")
    coverage: float = float("nan")
    covered: float = float("nan")
    covered_high: float = float("nan")
    unusual: float = float("nan")
    unknown: int = 0
    expected_unusual: float = 0.01
    tested: Mapping[str, int] = field(default_factory=dict)
    trained_on: int = 0
    patients: int | None = None
    sites: int | None = None
    bundle: str = "BUNDLE"


@dataclass(frozen=True)
class PredictionEvidence:
    """Predictions of images without labels.

    Attributes:
        images: images predicted.
        unusual: images flagged as unusual.
        expected_unusual: share of images like the training images that is flagged.
        confidence: mean probability of the predicted class.
        ambiguous: images whose set holds more than one class.
        contradicted: images whose class none of the nearest training images has.
        confidence_unusual: mean probability of the predicted class of the flagged images.
        classes: number of classes that the model knows.
        bundle: path of the bundle, for commands.
    """

    images: int
    unusual: int = 0
    expected_unusual: float = 0.01
    confidence: float = float("nan")
    ambiguous: int = 0
    contradicted: int = 0
    confidence_unusual: float = float("nan")
    classes: int = 0
    bundle: str = "BUNDLE"


@dataclass(frozen=True)
class Evidence:
    """Everything that a verdict can rest on; what is None or empty was not looked at.

    Attributes:
        protocols: protocols that were run, from the most lenient to the strictest.
        data: the images.
        extraction: the embeddings.
        audit: findings of the audit.
        external: an evaluation on images of elsewhere.
        predictions: predictions of new images.
    """

    protocols: tuple[ProtocolEvidence, ...] = ()
    data: DataEvidence | None = None
    extraction: ExtractionEvidence | None = None
    audit: AuditEvidence | None = None
    external: ExternalEvidence | None = None
    predictions: PredictionEvidence | None = None
