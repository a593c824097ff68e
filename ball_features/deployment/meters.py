"""Counters of the server in Prometheus' form."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

__all__ = ["Meters"]


class Meters:
    """What /metrics reports: counts and times, and nothing of any image."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        own: Any = {"registry": self.registry}
        self.requests = Counter("ball_requests", "Requests by status.", ["status"], **own)
        self.seconds = Histogram("ball_predict_seconds", "Seconds from a body's arrival to its answer.", **own)
        sizes = (1, 2, 4, 8, 16, 32, 64, 128)
        self.batches = Histogram("ball_batch_images", "Images in a forward pass.", buckets=sizes, **own)
        self.unusual = Counter("ball_unusual", "Images flagged as unlike the training images.", **own)
        self.waiting = Gauge("ball_waiting_images", "Images that wait for the network.", **own)
