"""Whether the recent images of a server are such that an alarm must be raised."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from ball_features.bundles.prediction import Prediction
from ball_features.deployment.alarm import judge
from ball_features.reporting.finding import Finding

__all__ = ["Recent", "alarms"]

_KEPT = 200  # images that an alarm rests on
_LEAST = 10  # images from which one is raised
_SAID = ("serious", "warning")


def alarms(items: Sequence[Prediction], classes: Sequence[str], unusual_share: float) -> list[Finding]:
    """What is serious, or a warning, on these images."""
    found = judge(items, classes, unusual_share)
    return [finding for finding in found if finding.severity in _SAID]


class Recent:
    """The last predictions of a server, in memory only, without paths or pixels.

    Args:
        classes: names of the classes.
        unusual_share: share of images like the training images that is flagged as unusual.
    """

    def __init__(self, classes: Sequence[str], unusual_share: float) -> None:
        self.classes, self.unusual_share = tuple(classes), unusual_share
        self._items: deque[Prediction] = deque(maxlen=_KEPT)

    def add(self, items: Sequence[Prediction]) -> None:
        """Note predictions."""
        self._items.extend(items)

    @property
    def findings(self) -> list[Finding]:
        """What is serious, or a warning; nothing before the tenth image."""
        if len(self._items) < _LEAST:
            return []
        return alarms(list(self._items), self.classes, self.unusual_share)
