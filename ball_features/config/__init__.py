"""Settings of the two stages: records whose fields hold default, range and help of each setting."""

from ball_features.config.bundle_use import COVERAGE, BundleUse, Coverage, EvaluateConfig
from ball_features.config.bundling import Saving
from ball_features.config.collection import CollectionConfig
from ball_features.config.comparison import EVERY_MODEL, FitConfig, HeadConfig
from ball_features.config.embedding import ExtractConfig
from ball_features.config.fields import split_names
from ball_features.config.splitting import LADDER, LEARNING_CURVE, PROTOCOLS, Protocol

__all__ = [
    "COVERAGE",
    "EVERY_MODEL",
    "LADDER",
    "LEARNING_CURVE",
    "PROTOCOLS",
    "BundleUse",
    "CollectionConfig",
    "Coverage",
    "EvaluateConfig",
    "ExtractConfig",
    "FitConfig",
    "HeadConfig",
    "Protocol",
    "Saving",
    "split_names",
]
