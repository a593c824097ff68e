"""Settings of a fitted model in use: how it is loaded, and how it is evaluated on images of elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

from ball_features.config.embedding import PRECISION_CHOICES
from ball_features.config.fields import Config, option

__all__ = ["COVERAGE", "TRUST", "BundleUse", "Coverage", "EvaluateConfig"]

TRUST = "Load the bundle's model.joblib, or its TorchScript network, which can run code: only from people you trust."
COVERAGE = 0.95  # default of prediction sets


@dataclass(frozen=True)
class BundleUse(Config):
    """How a saved model is loaded and run."""

    weights: str | None = option(
        None, "File of the network's weights, where it is no longer at the path that the bundle names.", path=True
    )
    device: str = option("auto", "Device of the network: auto, cpu, cuda (NVIDIA) or mps (Apple).")
    precision: str = option(
        "auto",
        "Number format of the network's computations: auto (the bundle's own), fp32, bf16 or fp16.",
        choices=PRECISION_CHOICES,
    )
    trust: bool = option(False, TRUST)


@dataclass(frozen=True)
class Coverage(Config):
    """What the sets of classes promise."""

    coverage: float = option(
        COVERAGE,
        "Share of images whose set of classes should hold the true one.",
        above=0,
        below=1,
        unit="a share",
        note="such as 0.95",
    )


@dataclass(frozen=True)
class EvaluateConfig(Coverage, BundleUse):
    """Settings of an external evaluation."""

    recalibrate: float = option(
        0.25,
        "Share of the labelled images that a new temperature and set threshold are fitted on, to say what they would "
        "mend on the others; 0 leaves this out.",
        low=0,
        below=1,
        unit="a share",
        note="such as 0.25",
    )
    seed: int = option(0, "Seed of the choice of these images.", low=0)
