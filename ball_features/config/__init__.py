"""Settings of the two stages: records whose fields hold default, range and help of each setting."""

from ball_features.config.comparison import ADAPTATIONS, LADDER, LEAVE_OUT, PROTOCOLS, FitConfig, HeadConfig
from ball_features.config.embedding import ExtractConfig
from ball_features.config.fields import split_names

__all__ = ["ADAPTATIONS", "LADDER", "LEAVE_OUT", "PROTOCOLS", "ExtractConfig", "FitConfig", "HeadConfig", "split_names"]
