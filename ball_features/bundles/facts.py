"""What `bundle.json` says: the model, how pictures are embedded for it, its calibration, origin and figures."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from ball_features.extraction.preprocessing import Preprocessing
from ball_features.models.one_class import OneClassRecord

__all__ = ["FORMAT", "BundleFacts", "BundleFigures", "SetFigures"]

FORMAT = 1
Value = TypeVar("Value", str, int, float, list)


@dataclass(frozen=True)
class SetFigures:
    """Prediction sets of a coverage on the test images.

    Attributes:
        coverage: coverage that the sets were made for.
        covered: share of images whose set contains the true class.
        size: mean number of classes in a set.
        single: share of sets of one class.
    """

    coverage: float
    covered: float
    size: float
    single: float


@dataclass(frozen=True)
class BundleFigures:
    """Figures of a bundle on the test images of its split.

    Attributes:
        images: number of test images.
        accuracy: share of images whose most probable class is the true one.
        log_loss: mean log loss of calibrated probabilities.
        ece: expected calibration error of calibrated probabilities.
        uncalibrated_log_loss: mean log loss before calibration.
        uncalibrated_ece: expected calibration error before calibration.
        sets: figures of prediction sets, for each coverage.
        unusual: share of images that are flagged as unusual.
        units: number of units (patients, groups, sets of copies) that the interval rests on; 0 in bundles of earlier
            versions.
        accuracy_low: lower end of the 95 % interval of the accuracy, by units; NaN in bundles of earlier versions.
        accuracy_high: upper end.
    """

    images: int
    accuracy: float
    log_loss: float
    ece: float
    uncalibrated_log_loss: float
    uncalibrated_ece: float
    sets: tuple[SetFigures, ...]
    unusual: float
    units: int = 0
    accuracy_low: float = math.nan
    accuracy_high: float = math.nan

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> BundleFigures:
        """Read the values that `dataclasses.asdict` gives, also those of earlier versions.

        Raises:
            KeyError: A figure is missing that every version has.
            TypeError: A figure is no number.
        """
        fields = dataclasses.fields(cls)
        later = {field.name for field in fields if field.default is not dataclasses.MISSING}
        own: dict[str, Any] = {
            field.name: values[field.name] for field in fields if field.name in values or field.name not in later
        }
        own["sets"] = tuple(SetFigures(**row) for row in _value(own, "sets", list))
        numbers = {name: value for name, value in own.items() if name != "sets"}
        for figures in (numbers, *map(dataclasses.asdict, own["sets"])):
            for name in figures:
                if name in ("images", "units"):
                    _value(figures, name, int)
                elif type(figures[name]) is not int:
                    _value(figures, name, float)
        return cls(**own)


@dataclass(frozen=True)
class BundleFacts:
    """Everything that `bundle.json` says.

    Attributes:
        model: name of the model.
        classes: names of the classes.
        preprocessing: how an image becomes the embeddings that the model takes; its plan has the views that are tested.
        train_path: ids of the training images whose embeddings are kept.
        estimator_classes: numbers of the classes that the estimator knows.
        model_file: name of the file that holds the estimator.
        temperature: temperature that calibrates the probabilities.
        cache_fingerprint: fingerprint of the cache that the model was fitted on.
        protocol: protocol of the run.
        left_out: group that the first split left out, or "".
        final: whether the model was fitted on all labelled images and calibrated by out-of-fold predictions.
        folds: number of the folds that calibrate a final model.
        epochs: epochs that a final head was trained for; 0 for other models.
        model_views: positions of the views that the model sees; empty for all. Further views serve the flag for unusual
            images.
        adapt: key of `models.adaptation.ADAPTATIONS` for a site-adapted model, else "none".
        sites: names of the training sites of a site-adapted model.
        kept_sites: names of the sites that it was adapted to.
        one_class: what adapting to images of one class cost the model on sites that folds left out; None where that was
            not tried.
        site: site that it answers for where none is named; "" for one of which nothing is known.
        conformal: "marginal" or "mondrian" (a threshold for each class).
        forward_pass: forward pass that made the embeddings: "torchvision" where the fast one was wrong, else "".
        train_images: number of training images.
        validation_images: number of images that calibrate the model: of validation, or of the folds.
        ball_version: version that wrote the bundle.
        notes: what its user should know.
        test: figures on the test images, which for a final model are those of its folds; None in bundles of earlier
            versions.
    """

    model: str
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    train_path: tuple[str, ...]
    estimator_classes: tuple[int, ...] = ()
    model_file: str = ""
    temperature: float = 1.0
    cache_fingerprint: str = ""
    protocol: str = ""
    left_out: str = ""
    final: bool = False
    folds: int = 0
    epochs: int = 0
    adapt: str = "none"
    sites: tuple[str, ...] = ()
    kept_sites: tuple[str, ...] = ()
    one_class: OneClassRecord | None = None
    site: str = ""
    conformal: str = "marginal"
    forward_pass: str = ""
    model_views: tuple[int, ...] = ()
    train_images: int = 0
    validation_images: int = 0
    ball_version: str = ""
    notes: tuple[str, ...] = ()
    test: BundleFigures | None = None

    @property
    def needs_word(self) -> str:
        """Why the model is adapted only to images that are said to be of several classes, or "" if it is not so."""
        if self.adapt == "none":
            return ""
        from ball_features.models.adaptation import ADAPTATIONS

        if not ADAPTATIONS[self.adapt].guarded:
            return ""
        if self.one_class is None:
            return (
                "the bundle holds no trial of batches of one class (its sites are too small for one, or it is of an "
                "earlier version)"
            )
        if self.one_class.tells:
            return ""
        return f"the model cannot tell images of one class from images of several: {self.one_class.figures}"

    @property
    def one_class_note(self) -> str:
        """To which images of a new site the model is adapted, in a sentence; "" where nothing was asked or tried."""
        if self.needs_word:
            return (
                "It is adapted to a new site only where the images are said to be of several classes (mixed): "
                f"{self.needs_word}."
            )
        return "" if self.one_class is None else f"It bears images of one class: {self.one_class.figures}."

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> BundleFacts:
        """Read the content of `bundle.json`.

        Raises:
            KeyError: A key is missing.
            TypeError: A value has the wrong type.
            ConfigError: The recipe of the views is unknown.
        """
        test = values.get("test")
        return cls(
            model=_value(values, "model", str),
            classes=_texts(values, "classes"),
            preprocessing=Preprocessing.from_facts(values),
            train_path=_texts(values, "train_path"),
            estimator_classes=tuple(int(code) for code in _value(values, "estimator_classes", list)),
            model_file=_value(values, "model_file", str),
            temperature=float(_value(values, "temperature", float)),
            cache_fingerprint=_value(values, "cache_fingerprint", str, ""),
            protocol=_value(values, "protocol", str, ""),
            left_out=_value(values, "left_out", str, ""),
            final=values.get("final") is True,
            folds=_value(values, "folds", int, 0),
            epochs=_value(values, "epochs", int, 0),
            model_views=tuple(int(view) for view in values.get("model_views", ())),
            adapt=_value(values, "adapt", str, "none"),
            sites=_texts(values, "sites") if "sites" in values else (),
            kept_sites=_texts(values, "kept_sites") if "kept_sites" in values else (),
            one_class=None if values.get("one_class") is None else OneClassRecord(**values["one_class"]),
            site=_value(values, "site", str, ""),
            conformal=_value(values, "conformal", str, "marginal"),
            forward_pass=_value(values, "forward_pass", str, ""),
            train_images=_value(values, "train_images", int, 0),
            validation_images=_value(values, "validation_images", int, 0),
            ball_version=_value(values, "ball_version", str, ""),
            notes=_texts(values, "notes") if "notes" in values else (),
            test=None if test is None else BundleFigures.from_json(test),
        )

    def to_json(self) -> dict[str, object]:
        """The content of `bundle.json`."""
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del own["preprocessing"]
        for name in ("test", "one_class"):
            own[name] = None if own[name] is None else dataclasses.asdict(own[name])
        own["forward_pass"] = self.forward_pass or None
        return {"format": FORMAT} | self.preprocessing.to_facts() | {k: v for k, v in own.items() if v is not None}


def _value(values: Mapping[str, Any], name: str, kind: type[Value], default: Value | None = None) -> Value:
    value = values[name] if default is None else values.get(name, default)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}, expected {kind.__name__}")
    return value


def _texts(values: Mapping[str, Any], name: str) -> tuple[str, ...]:
    texts = _value(values, name, list)
    if not all(isinstance(text, str) for text in texts):
        raise TypeError(f"{name} holds values that are not texts")
    return tuple(texts)
