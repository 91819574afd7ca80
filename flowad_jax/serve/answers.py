"""What the service answers, as OpenAPI describes it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from flowad_jax.feedback.store import Row
from flowad_jax.serve.served import Judged, Served


class Error(BaseModel):
    """Why a request was not answered, in one line."""

    error: str


class Region(BaseModel):
    """Where the map exceeds the pixel threshold: a box in pixels, its peak and its area."""

    left: int
    top: int
    right: int
    bottom: int
    peak: float
    area: int


class Predicted(BaseModel):
    """What the detector says about one image."""

    id: int
    name: str
    image: str = Field(description="SHA-256 of the file.")
    score: float | None = Field(description="Larger is more anomalous; null if it is no number.")
    scores: list[float | None] = Field(description="By every part of the detector.")
    p_value: float | None
    anomalous: bool | None = Field(description="null: undecided, which is not normal.")
    decided_by: str | None
    reason: str | None
    regions: list[Region]
    width: int
    height: int
    brightness: float | None
    sharpness: float | None
    seconds: float
    pictures: dict[str, str]


class Failed(BaseModel):
    """Why one of several images was not judged."""

    name: str
    error: str


class Predictions(BaseModel):
    """The answer to a request, in the order of its images."""

    detector: str
    version: str
    predictions: list[Predicted | Failed]


class Shown(BaseModel):
    """One judged image of the history."""

    id: int
    time: float
    name: str
    score: float | None
    scores: list[float | None]
    p_value: float | None
    anomalous: bool | None
    verdict: Literal["good", "defect"] | None
    brightness: float | None
    sharpness: float | None
    pictures: dict[str, str]


class History(BaseModel):
    """Judged images, newest last."""

    rows: list[Shown]


class Verdict(BaseModel):
    """What an operator says about an image."""

    id: int = Field(ge=1, le=2**63 - 1)
    verdict: Literal["good", "defect"]


class Detector(BaseModel):
    """A detector of the service."""

    name: str
    kind: Literal["bundle", "workdir"]
    path: str
    version: str
    method: str
    height: int
    width: int
    batch_size: int
    card: dict[str, Any] = Field(description="Its calibration card; empty if nothing decides.")
    normal: list[list[float]] = Field(description="Scores of the held-out normal images.")
    drift: dict[str, Any]
    counts: dict[str, int]
    feedback: bool
    error: str | None = Field(description="Why a newer detector at the path is not taken.")


class Detectors(BaseModel):
    """All detectors."""

    detectors: list[Detector]


class Drift(BaseModel):
    """The drift statistic and its course."""

    model_config = {"extra": "allow"}
    points: list[dict[str, Any]]


def predicted(served: Served, found: Judged) -> Predicted:
    """The answer about one image."""
    one = found.prediction
    height, width = one.map.shape
    return Predicted(
        id=found.id,
        name=found.item.name,
        image=found.item.sha256,
        score=finite(one.score),
        scores=[finite(x) for x in one.scores or (one.score,)],
        p_value=one.p_value,
        anomalous=one.anomalous,
        decided_by=one.decided_by,
        reason=one.reason,
        regions=[Region(**region._asdict()) for region in one.regions],
        width=width,
        height=height,
        brightness=one.brightness,
        sharpness=one.sharpness,
        seconds=round(found.seconds, 5),
        pictures=pictures(served, found.id),
    )


def shown(served: Served, row: Row) -> Shown:
    """One row of the history."""
    one = row.judgement
    scores = [finite(x) for x in one.scores]
    whole = None if None in scores or not scores else sum(one.scores) / len(scores)
    return Shown(
        id=row.id,
        time=one.time,
        name=one.name,
        score=whole,
        scores=scores,
        p_value=one.p_value,
        anomalous=one.anomalous,
        verdict=row.verdict,  # type: ignore[arg-type]
        brightness=one.brightness,
        sharpness=one.sharpness,
        pictures=pictures(served, row.id),
    )


def described(served: Served) -> Detector:
    """A detector with all that is known of it."""
    used = served.judge
    return Detector(
        name=served.name,
        kind=used.kind,  # type: ignore[arg-type]
        path=str(served.path),
        version=used.version,
        method=used.detector.name,
        height=used.canvas[0],
        width=used.canvas[1],
        batch_size=used.detector.batch_size,
        card=used.thresholds,
        normal=[part.tolist() for part in used.normal],
        drift=served.stream.record(),
        counts={name: served.counts[name] for name in ("anomalous", "normal", "undecided")},
        feedback=served.stream.store is not None,
        error=served.error,
    )


def pictures(served: Served, number: int) -> dict[str, str]:
    """Addresses of the pictures that are kept of an image."""
    start = f"/v1/detectors/{served.name}/pictures/{number}"
    return {kind: f"{start}/{kind}.png" for kind in served.stream.kinds(number)}


def finite(value: float) -> float | None:
    """A number as JSON has it: there is no infinity."""
    return value if abs(value) < float("inf") else None
