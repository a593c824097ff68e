"""A bundle as one ONNX graph, from pixels to calibrated probabilities, which runs without this package."""

from __future__ import annotations

import json
import logging
import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from ball_features.bundles.bundle import Bundle
from ball_features.bundles.calibration import NEIGHBOURS
from ball_features.bundles.predictor import Predictor
from ball_features.config import COVERAGE
from ball_features.errors import ConfigError, DataError, is_of_the_machine, require_extra
from ball_features.extraction.onnx_graph import start_session
from ball_features.extraction.readouts import reader
from ball_features.files import replacing, temporary_folder
from ball_features.models.base import PerViewClassifier
from ball_features.models.linear import view_modules

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["TOLERANCE", "BundleModule", "check_graph", "export_onnx"]

TOLERANCE = 1e-3  # largest difference of a probability or a distance between the graph and `Predictor`
# A protocol buffer holds 2 GB; this many training images of 1,920 numbers take 0.4 GB.
_MOST_REFERENCES = 50_000


class BundleModule(nn.Module):
    """A bundle and its network as one module.

    Args:
        bundle: bundle of a model with weights, on fixed views.
        network: network that maps normalised images to embeddings, in float32 on the CPU.

    Raises:
        ConfigError: A view is random for each image, which a graph cannot compute.
        DataError: The model has no weights.
    """

    def __init__(self, bundle: Bundle, network: nn.Module) -> None:
        super().__init__()
        own = bundle.facts.preprocessing
        self.preprocessing = own.select(bundle.facts.model_views) if bundle.facts.model_views else own
        plan = self.preprocessing.plan
        if not all(view.fixed for view in plan.views):
            raise ConfigError(
                f"The bundle tests on views of the recipe {plan.recipe}, which are random for each image; a graph "
                "needs fixed views. Fit with test_views='plain'."
            )
        self.preprocessing.mask("cpu")  # unpacked before the graph is traced
        self.temperature = bundle.facts.temperature
        self.network = network
        self.heads = nn.ModuleList(view_modules(bundle.estimator, len(plan)))
        # Lower bound of a probability that one view gives, for a model that fits each view separately.
        per_view = isinstance(bundle.estimator, PerViewClassifier)
        self.floor = math.log(bundle.estimator.floor) if per_view else None
        place = torch.zeros(len(bundle.estimator.classes_), len(bundle.classes))
        place[range(len(place)), bundle.estimator.classes_.tolist()] = 1
        self.place = nn.Parameter(place, False)
        offset = bundle.offset
        if offset is not None:
            offset = torch.from_numpy(offset[list(bundle.facts.model_views)] if bundle.facts.model_views else offset)
        self.offset = None if offset is None else nn.Parameter(offset.clone(), False)
        self.reference = nn.Parameter(torch.from_numpy(np.ascontiguousarray(bundle.train.T, dtype=np.float32)), False)
        self.references = len(bundle.train) <= _MOST_REFERENCES

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Compute a bundle's answer.

        Args:
            images: pixels, float32 (images, 3, input_px, input_px) in [0, 1].

        Returns:
            Calibrated probabilities (images, classes); the mean embedding over views at unit length (images, dim); and,
            unless there are too many training images, the mean cosine distance to the nearest of them (images,).
        """
        embeddings = self.preprocessing.embed(images, (), reader(self.network))
        views = (embeddings if self.offset is None else embeddings - self.offset).unbind(1)
        each = torch.stack([torch.log_softmax(head(view), 1) for head, view in zip(self.heads, views, strict=True)])
        pooled = each.exp().mean(0) if self.floor is None else torch.softmax(each.clamp(min=self.floor).mean(0), 1)
        probability = pooled @ self.place
        logits = probability.clamp(1e-12, 1.0).log() / self.temperature
        mean = torch.stack(views).mean(0)
        unit = mean / mean.norm(dim=1, keepdim=True).clamp_min(1e-12)
        out = (torch.softmax(logits, 1), unit)
        if not self.references:
            return out
        near = torch.topk(unit @ self.reference, min(NEIGHBOURS, self.reference.shape[1]), dim=1).values
        return *out, 1 - near.mean(1)


def export_onnx(predictor: Predictor, path: Path) -> float:
    """Write the graph of a bundle, and check it in ONNX Runtime against `Predictor`.

    Args:
        predictor: predictor in float32 on the CPU.
        path: path of the graph.

    Returns:
        The largest difference of a probability or distance on drawn smears.

    Raises:
        ConfigError: A view is random, the network comes from a file, or an operation cannot be exported.
        DataError: The model has no weights, the file cannot be written, or the graph's answers differ by more than
            `TOLERANCE`.
        MissingExtraError: The packages of the extra `onnx` are not installed.
    """
    for module in ("onnx", "onnxruntime", "onnxscript"):
        require_extra(module, "onnx", "an ONNX graph")
    if predictor.backbone.path is not None:
        raise ConfigError(
            f"{predictor.backbone.name} is a network in a file, which cannot be traced. Join its graph with the head's "
            "weights (head.safetensors) by the tools that made it."
        )
    module = BundleModule(predictor.bundle, predictor.module).eval()
    names = ["probability", "embedding", *(["distance"] if module.references else [])]
    try:
        with replacing(path) as partial:
            return _write_graph(partial, predictor, module, names)
    except OSError as error:
        raise DataError(f"{path} cannot be written ({error.strerror or error}). Give another file.") from error


def _write_graph(partial: Path, predictor: Predictor, module: Any, names: list[str]) -> float:
    """Trace and check a graph; the largest difference."""
    side = predictor.backbone.input_px
    try:
        with warnings.catch_warnings(), _silent(), torch.inference_mode(False), torch.no_grad():
            warnings.simplefilter("ignore")
            batch = torch.export.Dim("images", min=1, max=4096)
            program: Any = torch.onnx.export(
                module,
                (torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0)),),
                input_names=["images"],
                output_names=names,
                dynamic_shapes={"images": {0: batch}},
                dynamo=True,
                external_data=False,
                verbose=False,
            )
            program.save(partial, external_data=False)
    except Exception as error:  # the exporter raises many types of errors
        if is_of_the_machine(error):
            raise
        first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ConfigError(
            f"{predictor.backbone.name} with the recipe {predictor.preprocessing.plan.recipe} cannot be written as "
            f"ONNX ({first}). Fit on plain views, or predict with ball."
        ) from error
    _describe(partial, predictor)
    try:
        worst = check_graph(partial, predictor)
    except Exception as error:  # ONNX Runtime raises its own types of errors
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise DataError(f"ONNX Runtime cannot run the graph ({first}). It was not kept; report this.") from error
    if worst > TOLERANCE:
        raise DataError(f"The graph's probabilities differ by {worst:.1e}, expected {TOLERANCE}. It was not kept.")
    return worst


class _silent:
    """Keeps the exporter's progress off the terminal."""

    def __enter__(self) -> None:
        self.level = logging.root.manager.disable
        logging.disable(logging.ERROR)

    def __exit__(self, *exc: object) -> None:
        logging.disable(self.level)


def _describe(path: Path, predictor: Predictor) -> None:
    """Write what a user of the graph must know into its metadata."""
    import onnx

    bundle, facts, preprocessing = predictor.bundle, predictor.bundle.facts, predictor.preprocessing
    side = predictor.backbone.input_px
    model = onnx.load(path)
    values = {
        "classes": json.dumps(list(bundle.classes)),
        "input": f"float32 (images, 3, {side}, {side}), RGB in [0, 1]: decoded, turned upright by EXIF, resized to "
        f"{side} x {side} px (bilinear, antialiased)",
        "outputs": "probability: calibrated, in the order of classes; embedding: mean over views at unit length; "
        "distance: mean cosine distance to the nearest training images",
        "unusual_from": repr(bundle.unusual_from),
        "unusual_share": repr(bundle.unusual_share),
        "conformal_threshold_95": repr(bundle.threshold(COVERAGE)),
        "notes": json.dumps(bundle.notes(COVERAGE)),
        "intended_use": "research only, not a medical device",
        "model": facts.model,
        "backbone": preprocessing.backbone.name,
        "weights_sha256": preprocessing.weights_sha256,
        "normalize": preprocessing.normalization,
        "recipe": preprocessing.plan.recipe,
        "temperature": str(facts.temperature),
        "cache_fingerprint": facts.cache_fingerprint,
        "ball_version": facts.ball_version,
    }
    for key, value in values.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    model.producer_name, model.producer_version = "ball", facts.ball_version
    onnx.save(model, path)


def check_graph(path: Path, predictor: Predictor) -> float:
    """Compare a graph with `Predictor` on drawn smears.

    Args:
        path: path of the graph.
        predictor: predictor in float32 on the CPU.

    Returns:
        The largest difference of a probability or distance.
    """
    from ball_features.dataset.decode import decode
    from ball_features.dataset.synthetic import draw_smears
    from ball_features.extraction.loading import resize

    with temporary_folder() as folder:
        draw_smears(folder, per_class=2, seed=0)
        files = sorted(Path(folder).rglob("*.jpg"))
        images = torch.stack([resize(decode(file), predictor.backbone.input_px) for file in files])
    session = start_session(path, ["CPUExecutionProvider"])
    expected = predictor.describe([str(file) for file in files], predictor.embed(images, [""] * len(files)), COVERAGE)
    worst = 0.0
    for rows in (slice(0, 1), slice(0, len(files))):  # any number of images
        out: Any = session.run(None, {"images": images[rows].numpy().astype(np.float32) / 255})
        theirs = np.array([list(item.probability.values()) for item in expected[rows]])
        worst = max(worst, float(np.abs(out[0] - theirs).max()))
        if len(out) == 3:
            worst = max(worst, float(np.abs(out[2] - np.array([item.distance for item in expected[rows]])).max()))
    return worst
