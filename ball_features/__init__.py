"""Subtypes of B-cell acute lymphoblastic leukemia on blood smears: cached embeddings, and models compared on them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

# ONNX Runtime reads it when it is imported; without it, it looks up a host of its maker.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"

if TYPE_CHECKING:
    from ball_features.audit.findings import audit, write_groups
    from ball_features.bundles.bundle import read_bundle
    from ball_features.bundles.predictor import Predictor
    from ball_features.cache import Cache, merge, read_cache
    from ball_features.config import ExtractConfig, FitConfig, HeadConfig, Saving
    from ball_features.dataset.synthetic import draw_smears
    from ball_features.deployment.answers import Predictions
    from ball_features.deployment.predict import predict
    from ball_features.errors import BallError
    from ball_features.extraction.extract import Extraction, extract
    from ball_features.models.mlp import MLPHead
    from ball_features.runs.compare import compare
    from ball_features.runs.evaluate import evaluate
    from ball_features.runs.fit import fit
    from ball_features.runs.store import Run, read_run

__all__ = [
    "BallError",
    "Cache",
    "ExtractConfig",
    "Extraction",
    "FitConfig",
    "HeadConfig",
    "MLPHead",
    "Predictions",
    "Predictor",
    "Run",
    "Saving",
    "audit",
    "compare",
    "draw_smears",
    "evaluate",
    "extract",
    "fit",
    "merge",
    "predict",
    "read_bundle",
    "read_cache",
    "read_run",
    "write_groups",
]

_ROOM = {
    "BallError": "errors",
    "Cache": "cache",
    "ExtractConfig": "config",
    "Extraction": "extraction.extract",
    "FitConfig": "config",
    "HeadConfig": "config",
    "MLPHead": "models.mlp",
    "Predictions": "deployment.answers",
    "Predictor": "bundles.predictor",
    "Run": "runs.store",
    "Saving": "config",
    "audit": "audit.findings",
    "compare": "runs.compare",
    "draw_smears": "dataset.synthetic",
    "evaluate": "runs.evaluate",
    "extract": "extraction.extract",
    "fit": "runs.fit",
    "merge": "cache",
    "predict": "deployment.predict",
    "read_bundle": "bundles.bundle",
    "read_cache": "cache",
    "read_run": "runs.store",
    "write_groups": "audit.findings",
}


def __getattr__(name: str) -> Any:
    # Names load on first use: `import ball_features` stays fast, and reading a cache does not load torch.
    if name not in _ROOM:
        raise AttributeError(f"module 'ball_features' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"ball_features.{_ROOM[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
