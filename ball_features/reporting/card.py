"""A model card in Markdown (Mitchell et al. 2019, doi 10.1145/3287560.3287596), filled in from a bundle and its run."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ball_features.bundles.bundle import COVERAGE, Bundle
from ball_features.errors import DataError

__all__ = ["write_card"]


def write_card(bundle: Bundle, folder: Path, path: Path, ladder: Path | None = None) -> Path:
    """Write the card.

    Args:
        bundle: From `read_bundle`.
        folder: Of the bundle; the run that it lies in gives the figures.
        path: Of the card.
        ladder: Folder of a run of `ball fit --protocol ladder`, for what the figures are worth.

    Raises:
        DataError: The run's files or the ladder cannot be read, or the card cannot be written.
    """
    run, metrics, model = _read_run(folder, bundle.facts.model)
    parts = [
        f"# Model card: {bundle.facts.model} on {bundle.facts.preprocessing.backbone}",
        _about(bundle, run),
        _use(),
        _data(bundle, run),
        _bundle_figures(bundle),
        _figures(model, metrics, run),
        _ladder(ladder, bundle.facts.model),
        _limits(bundle),
        _provenance(bundle, run),
    ]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path} cannot be written ({error.strerror}). Give another --card.") from error
    return path


def _read_run(folder: Path, name: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """What run.json and metrics.json hold, and the model's own part of the latter."""
    place = folder.resolve().parent.parent
    try:
        run = json.loads((place / "run.json").read_text(encoding="utf-8"))
        metrics = json.loads((place / "metrics.json").read_text(encoding="utf-8"))
        return run, metrics, next(item for item in metrics["models"] if item["model"] == name)
    except (OSError, ValueError, KeyError, StopIteration) as error:
        raise DataError(
            f"{folder} does not lie in the run that made it ({error}), expected RUN/models/MODEL. The card's figures "
            "come from there."
        ) from error


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [f"| {' | '.join(header)} |", "| --- |" + " ---: |" * (len(header) - 1)]
    return "\n".join([*lines, *(f"| {' | '.join(str(cell).replace('|', '/') for cell in row)} |" for row in rows)])


def _percent(value: float | None, digits: int = 1) -> str:
    return "n/a" if value is None or math.isnan(value) else f"{100 * value:.{digits}f}"


def _about(bundle: Bundle, run: dict[str, Any]) -> str:
    facts = bundle.facts
    preprocessing = facts.preprocessing
    count = len(preprocessing.plan)
    views = "the plain image" if preprocessing.plan.indices == [0] else "one view" if count == 1 else f"{count} views"
    joined = "" if count == 1 else " The probabilities that it gives the views are averaged."
    if getattr(bundle.estimator, "by_view", False):
        joined = " Each view has a classifier of its own, and their log-probabilities are averaged."
    if facts.temperature == 1:
        how = f"Validation ({facts.validation_images} images) gave no cause to change its probabilities"
    else:
        how = (
            f"Its probabilities are calibrated by a temperature of {facts.temperature:.3f} on "
            f"{facts.validation_images} validation images"
        )
    return (
        "## What it is\n\n"
        f"A classifier of blood smear fields into {', '.join(bundle.classes)}: *{facts.model}* on embeddings of "
        f"{views} by a frozen {preprocessing.backbone} (weights `{preprocessing.weights_sha256[:16]}`, normalisation "
        f"{preprocessing.normalization}, recipe {preprocessing.plan.recipe}).{joined} {how}. Made "
        f"{run['created']} with ball {facts.ball_version}."
    )


def _use() -> str:
    return (
        "## Intended use\n\n"
        "Research on methods for smear images: comparing features, protocols and shortcuts. Not a medical device, not "
        "tested on patients, not for diagnosis, triage or any decision on treatment. Out of scope: other stains, "
        "magnifications and cameras than those of the training images, single-cell crops, other diseases. Images that "
        "`ball predict` flags as unusual have no meaningful class."
    )


def _data(bundle: Bundle, run: dict[str, Any]) -> str:
    count = bundle.facts.train_images
    train = [path.split("/")[0] for path in bundle.train_path]
    folders = {name: train.count(name) for name in dict.fromkeys(train)}
    by_folder = ", ".join(f"{name} {number}" for name, number in folders.items()) if len(folders) < 20 else "see run"
    return (
        "## Data\n\n"
        f"Trained on {count} of {run['images']} images (by folder: {by_folder}), validated on "
        f"{bundle.facts.validation_images}; tested on others (below). " + " ".join([_whose(bundle, run), *run["notes"]])
    )


def _whose(bundle: Bundle, run: dict[str, Any]) -> str:
    """Which of the run's models it is."""
    text = "It is the model of the run's first split, and is not fitted again on all images."
    if bundle.facts.protocol != "leave-group-out":
        return text
    name = bundle.facts.left_out
    return f"{text} It has seen nothing of {name or 'the first group left out'}."


def _bundle_figures(bundle: Bundle) -> str:
    """What the bundle itself, calibrated, does on the test images of its split."""
    found = bundle.facts.test
    if found is None:
        return (
            "## Figures of this bundle\n\nNot measured: it was made by an earlier version. Fit again with `--save` to "
            "have the calibrated figures, the coverage of its sets and the share it flags."
        )
    rows = [
        ("accuracy", _percent(found.accuracy, 2), ""),
        ("log loss", f"{found.log_loss:.4f}", f"{found.uncalibrated_log_loss:.4f}"),
        ("expected calibration error", f"{found.ece:.4f}", f"{found.uncalibrated_ece:.4f}"),
        ("flagged as unusual %", _percent(found.unusual), ""),
    ]
    sets = [
        (f"{100 * row.coverage:g}", _percent(row.covered), f"{row.size:.2f}", _percent(row.single))
        for row in found.sets
    ]
    left_out = bundle.facts.left_out
    whose = f", all of {left_out}, of which nothing was trained on" if left_out else ""
    notes = " ".join(bundle.notes(COVERAGE))
    return (
        f"## Figures of this bundle\n\nOn the {found.images} test images of its own split{whose}, with the "
        "calibrated probabilities that `ball predict` gives:\n\n"
        f"{_table(('metric', 'calibrated', 'before'), rows)}\n\n"
        f"{_table(('sets: coverage asked %', 'covered %', 'mean size', 'one class %'), sets)}"
        + (f"\n\n{notes}" if notes else "")
    )


def _chosen(model: dict[str, Any], metrics: dict[str, Any]) -> str:
    """How many models these test images have compared."""
    rivals = [item["model"] for item in metrics["models"] if item["kind"] != "shortcut"]
    if len(rivals) < 2:
        return "No other model was compared on these test images."
    text = (
        f"{len(rivals)} models were compared on these test images; by accuracy this one is number "
        f"{rivals.index(model['model']) + 1}. A model that is taken because it was best here looks better than it is "
        "(Cawley and Talbot 2010)"
    )
    best = metrics.get("best_of")
    if not best or best["accuracy"] is None:
        return f"{text}."
    return (
        f"{text}: the best of them reaches {_percent(best['accuracy'], 2)} % ({_percent(best['low'])} - "
        f"{_percent(best['high'])}) on images that did not choose it."
    )


def _figures(model: dict[str, Any], metrics: dict[str, Any], run: dict[str, Any]) -> str:
    interval = f"{_percent(model['accuracy_low'])} - {_percent(model['accuracy_high'])}"
    names = ("specificity", "precision", "recall", "f1")
    rows = [("accuracy", f"{_percent(model['accuracy'], 2)} ({interval})")]
    rows += [(f"{name}, mean over classes", _percent(model[name], 2)) for name in names]
    rows += [(name, f"{model[name]:.3f}") for name in ("auroc", "mcc", "log_loss", "ece") if model[name] is not None]
    classes = []
    for name, own in model["per_class"].items():
        low, high = (math.nan if own[key] is None else own[key] for key in ("recall_low", "recall_high"))
        classes.append(
            (
                name,
                f"{own['support']:.0f}",
                _percent(own["precision"]),
                f"{_percent(own['recall'])} ({_percent(low)} - {_percent(high)})",
            )
        )
    confusion = [(name, *row) for name, row in zip(model["per_class"], model["confusion"], strict=True)]
    return (
        "## Figures of the comparison\n\n"
        f"Of {model['model']} on all splits of the run, each fitted anew, before any calibration: log loss and "
        "calibration error (`ece`) are not the bundle's, which stand above.\n\n"
        f"{run['title']}. {run['caption']} {_chosen(model, metrics)}\n\n"
        f"{_table(('metric', '% or value'), rows)}\n\n"
        f"{_table(('class', 'tests', 'precision %', 'recall % (95 %)'), classes)}\n\n"
        f"{_table(('true / predicted', *model['per_class']), confusion)}"
    )


def _ladder(folder: Path | None, name: str) -> str:
    if folder is None:
        return (
            "## What the figures are worth\n\n"
            "The optimism ladder (random splits down to series never seen) was not given. Make it with "
            "`ball fit CACHE --protocol ladder --groups groups.csv` and give its folder to `--ladder`."
        )
    try:
        with (folder / "ladder.csv").open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["model"] == name]
    except OSError as error:
        raise DataError(f"{folder} holds no ladder ({error.strerror}). Give a run of --protocol ladder.") from error
    if not rows:
        raise DataError(f"The ladder in {folder} has no rows of {name}. Run it with --models {name} among others.")
    cells = [
        (
            row["rung"],
            _percent(float(row["accuracy"])),
            f"{_percent(float(row['accuracy_low']))} - {_percent(float(row['accuracy_high']))}",
            _percent(float(row["worst_recall"])) if row["worst_recall"] else "",
        )
        for row in rows
    ]
    drop = float(rows[0]["accuracy"]) - float(rows[-1]["accuracy"])
    return (
        "## What the figures are worth\n\n"
        f"From {rows[0]['rung']} to {rows[-1]['rung']} the accuracy drops by {100 * drop:.1f} points.\n\n"
        + _table(("test images", "accuracy %", "95 %", "worst group %"), cells)
    )


def _limits(bundle: Bundle) -> str:
    return (
        "## Limits\n\n"
        "- A random split puts fields of one slide on both sides: its figures say how well *these* slides are known.\n"
        "- Prediction sets and calibration hold for images exchangeable with the validation images, no others; the "
        "same images chose the temperature, and a head's epoch.\n"
        f"- An image is flagged as unusual beyond a cosine distance of {bundle.unusual_from:.4f} to its nearest "
        f"training images, which up to {100 * bundle.unusual_share:.1f} % of images like the {len(bundle.distances)} "
        "validation images exceed by chance. What is not flagged may still be wrong.\n"
        "- Nothing is known of patients, ages, devices or treatment behind the images."
    )


def _provenance(bundle: Bundle, run: dict[str, Any]) -> str:
    facts = bundle.facts
    rows = [
        ("weights SHA-256", f"`{facts.preprocessing.weights_sha256}`"),
        ("cache fingerprint", f"`{facts.cache_fingerprint}`"),
        ("configuration", f"`{run['config_fingerprint']}`"),
        ("protocol", facts.protocol),
        ("seed", run["seeds"]["seed"]),
        *((name, version) for name, version in run["versions"].items()),
    ]
    return f"## Provenance\n\n{_table(('what', 'value'), rows)}"
