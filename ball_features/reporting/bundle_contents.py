"""Contents of a saved model, for a person or a machine."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ball_features.bundles.bundle import Bundle
from ball_features.bundles.sums import SUMS
from ball_features.config.paths import shown_path

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["BundleContents", "describe_bundle", "render_bundle"]


@dataclass(frozen=True)
class BundleContents:
    """Contents of a bundle as plain values.

    Attributes:
        bundle: path of the folder.
        size_mb: size of its files in MB.
        checksums: whether its files have checksums, which were compared.
        model: name of the model.
        classes: names of the classes.
        preprocessing: how an image becomes embeddings.
        origin: origin of the model: cache, protocol, images, sites, version.
        test: figures on its test images, with their interval; empty in bundles of earlier versions.
        notes: what its user must know.
    """

    bundle: str
    size_mb: float
    checksums: bool
    model: str
    classes: list[str]
    preprocessing: dict[str, object]
    origin: dict[str, object]
    test: dict[str, float]
    notes: list[str]

    def to_dict(self) -> dict[str, object]:
        """Everything, ready for JSON."""
        return asdict(self)


def describe_bundle(bundle: Bundle, folder: Path) -> BundleContents:
    """Describe a bundle that was read from a folder."""
    facts, own = bundle.facts, bundle.facts.preprocessing
    test = facts.test
    return BundleContents(
        bundle=shown_path(folder),
        size_mb=round(sum(path.stat().st_size for path in folder.iterdir() if path.is_file()) / 1e6, 1),
        checksums=(folder / SUMS).is_file(),
        model=facts.model,
        classes=list(facts.classes),
        preprocessing={
            "backbone": own.backbone.name,
            "weights_sha256": own.weights_sha256,
            "input_px": own.backbone.input_px,
            "normalize": own.normalization,
            "precision": own.precision,
            "recipe": own.plan.recipe,
            "views": [view.name for view in own.plan.views],
            "channels": list(own.channels),
        },
        origin={
            "fitted on": f"{facts.train_images} images",
            "calibrated on": f"{facts.validation_images} images",
            "final": facts.final,
            "protocol": facts.protocol,
            "left out": facts.left_out,
            "sites": [*facts.sites, *facts.kept_sites],
            "cache_fingerprint": facts.cache_fingerprint,
            "ball_version": facts.ball_version,
        },
        test={}
        if test is None
        else {
            "images": test.images,
            "accuracy": test.accuracy,
            "accuracy_low": test.accuracy_low,
            "accuracy_high": test.accuracy_high,
            "ece": test.ece,
        },
        notes=[*facts.notes, *([facts.one_class_note] if facts.one_class_note else [])],
    )


def render_bundle(contents: BundleContents) -> RenderableType:
    """Render the contents as a table for a terminal."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    checked = "its files match their checksums" if contents.checksums else "without checksums, of an earlier version"
    head = Text(f"{contents.bundle}: saved model {contents.model}, {contents.size_mb} MB, {checked}", style="bold")
    facts = Table("", "", box=None, pad_edge=False, show_header=False)
    figures = contents.test
    rows = {"classes": contents.classes, **contents.preprocessing, **contents.origin}
    if figures:
        ends = [100 * figures[f"accuracy_{end}"] for end in ("low", "high")]
        interval = "" if math.isnan(ends[0]) else f" (95 % CI {ends[0]:.1f} to {ends[1]:.1f})"
        rows["accuracy in its own test"] = f"{figures['accuracy']:.1%} of {figures['images']:.0f} images{interval}"
    for key, value in rows.items():
        text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        if text:
            facts.add_row(Text(key.replace("_", " ")), Text(text))
    return Group(head, facts, *(Text(f"note  {note}") for note in contents.notes))
