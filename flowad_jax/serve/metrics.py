"""What Prometheus reads at /metrics."""

from __future__ import annotations

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

__all__ = ["CONTENT_TYPE_LATEST", "Metrics"]


class Metrics:
    """The figures of one service; two in a process do not get in each other's way."""

    def __init__(self) -> None:
        """Makes all of them."""
        self._registry = own = CollectorRegistry()
        one = ["detector"]
        self.images = Counter("flowad_images", "Judged images.", [*one, "decision"], registry=own)
        self.requests = Histogram(
            "flowad_request_seconds", "From request to answer.", ["route"], registry=own
        )
        self.judging = Histogram(
            "flowad_judge_seconds", "Of a batch in the detector.", one, registry=own
        )
        self.queue = Gauge("flowad_queue_images", "Images on their way.", one, registry=own)
        self.drift = Gauge(
            "flowad_drift_statistic", "Conformal test martingale.", one, registry=own
        )
        self.alarm = Gauge("flowad_drift_alarm", "1 from the alarm on, else 0.", one, registry=own)
        self.refused = Counter("flowad_refused", "Refused requests.", ["reason"], registry=own)

    def text(self) -> bytes:
        """All figures in Prometheus' format."""
        return generate_latest(self._registry)
