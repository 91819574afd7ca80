"""The routes of the service."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, Response
from starlette.exceptions import HTTPException

from flowad_jax.errors import UserError, printable
from flowad_jax.serve import access, answers, errors, logs, uploads
from flowad_jax.serve.access import Guard, Limits, Refusal
from flowad_jax.serve.answers import Error
from flowad_jax.serve.batches import Busy
from flowad_jax.serve.errors import WHY
from flowad_jax.serve.metrics import CONTENT_TYPE_LATEST, Metrics
from flowad_jax.serve.served import Served
from flowad_jax.version import __version__

BASE = "/v1/detectors/{name}"
PAGE = Path(__file__).parent / "page"
FILES = {"/": "index.html", **{f"/{path.name}": path.name for path in sorted(PAGE.glob("*.*"))}}
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
POLICY = "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'"
_IMAGES = {"schema": {"type": "string", "format": "binary"}}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/octet-stream": _IMAGES,
            "image/*": _IMAGES,
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"images": {"type": "array", "items": _IMAGES["schema"]}},
                }
            },
        },
    }
}
Kinds = Annotated[
    str, Query(description="Pictures to draw: overlay, heatmap, or both with a comma.")
]


def create(
    served: Mapping[str, Served],
    limits: Limits,
    metrics: Metrics,
    start: Callable[[], None] = lambda: None,
    end: Callable[[], None] = lambda: None,
) -> Any:
    """Returns the ASGI application.

    Args:
      served: detectors by name.
      limits: of requests.
      metrics: what /metrics shows.
      start: called when the service begins.
      end: called when all requests are answered.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        start()
        app.state.is_ready = True
        yield
        app.state.is_ready = False
        await run_in_threadpool(end)

    app = FastAPI(
        title="flowad_jax",
        version=__version__,
        description="Finds defects in images. docs/how-to/serve.md explains it.",
        lifespan=lifespan,
        docs_url=None,  # its scripts would come from the network
        redoc_url=None,
    )
    app.state.is_ready, app.state.served = False, served
    app.add_exception_handler(RequestValidationError, errors.invalid)
    app.add_exception_handler(Refusal, access.answer)
    app.add_exception_handler(HTTPException, errors.of_http)
    app.add_exception_handler(Exception, errors.bug)
    _add_state(app, served, metrics)
    _add_detectors(app, served)
    _add_verdicts(app, served)
    _add_drift(app, served)
    _add_page(app)
    return Guard(app, limits, metrics, tuple(FILES))


def _add_state(app: FastAPI, served: Mapping[str, Served], metrics: Metrics) -> None:
    @app.get("/healthz", responses={})
    async def healthz() -> dict[str, str]:
        """The process lives."""
        return {"status": "alive"}

    @app.get("/readyz", responses={503: {"model": Error, "description": WHY[503]}})
    async def readyz() -> dict[str, str]:
        """Detectors are loaded and requests are taken."""
        if not app.state.is_ready:
            raise HTTPException(503, WHY[503])
        return {"status": "ready"}

    @app.get("/metrics", responses=errors.described(), response_class=Response)
    async def figures() -> Response:
        """Figures for Prometheus."""
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)


def _find(served: Mapping[str, Served], name: str) -> Served:
    if name not in served:
        known = ", ".join(served)
        raise HTTPException(404, f"there is no detector '{printable(name)}': choose {known}")
    return served[name]


def _add_detectors(app: FastAPI, served: Mapping[str, Served]) -> None:
    find, base = partial(_find, served), BASE

    @app.get("/v1/detectors", responses=errors.described())
    def detectors() -> answers.Detectors:
        """All detectors."""
        return answers.Detectors(detectors=[answers.described(one) for one in served.values()])

    @app.get(base, responses=errors.described(404))
    def detector(name: str) -> answers.Detector:
        """One detector."""
        return answers.described(find(name))

    @app.post(
        f"{base}/predict", responses=errors.described(400, 404, 408, 413, 415, 422, 429, 503, 507),
        openapi_extra=_BODY,
    )  # fmt: skip
    async def predict(
        request: Request, name: str, pictures: Kinds = "", file_name: str = "image"
    ) -> answers.Predictions:
        """Judges the image of the body, or those of a form."""
        one, kinds = find(name), _kinds(pictures)
        with uploads.taken(), tempfile.TemporaryDirectory(prefix="flowad-serve-") as folder:
            files = await uploads.receive(request, Path(folder), file_name)
            if not app.state.is_ready:
                raise HTTPException(503, WHY[503])
            return await run_in_threadpool(_judge, one, files, kinds)

    @app.get(f"{base}/pictures/{{number}}/{{kind}}.png", responses=errors.described(404),
             response_class=Response)  # fmt: skip
    def picture(name: str, number: int, kind: Literal["overlay", "heatmap"]) -> Response:
        """A picture that was asked for with its prediction; only the newest are kept."""
        content = find(name).stream.picture(number, kind)
        if content is None:
            raise HTTPException(404, f"the {kind} of image {number} is not kept any more")
        return Response(content, media_type="image/png")


def _add_verdicts(app: FastAPI, served: Mapping[str, Served]) -> None:
    find, base = partial(_find, served), BASE

    @app.get(f"{base}/history", responses=errors.described(404, 422))
    def history(
        name: str,
        after: Annotated[int, Query(ge=0, le=2**63 - 1)] = 0,
        limit: Annotated[int, Query(ge=1, le=1000)] = 200,
    ) -> answers.History:
        """Judged images behind a number, the newest ones if they are more than the limit."""
        one = find(name)
        rows = [answers.shown(one, row) for row in one.stream.rows(after, limit)]
        return answers.History(rows=rows)

    @app.post(f"{base}/verdicts", responses=errors.described(404, 409, 422, 507))
    def verdict(name: str, said: answers.Verdict) -> answers.Shown:
        """Keeps what an operator says; answered when it is on disk."""
        one = find(name)
        if one.stream.store is None:
            raise HTTPException(409, "verdicts are not kept: start with --feedback")
        with errors.explained(404):
            return answers.shown(one, one.stream.add_verdict(said.id, said.verdict))

    @app.get(f"{base}/decisions", responses=errors.described(404, 422))
    def decisions(name: str, false_alarm_rate: float) -> dict[str, Any]:
        """The calibration card of another false-alarm rate; nothing is changed."""
        with errors.explained(422):
            return find(name).judge.card(false_alarm_rate)

    @app.get(f"{base}/feedback.csv", responses=errors.described(404, 409), response_class=Response)
    def feedback(name: str) -> Response:
        """All that was judged, with verdicts, as a table."""
        from flowad_jax.feedback.table import csv_text

        one = find(name)
        if one.stream.store is None:
            raise HTTPException(409, "nothing is kept: start with --feedback")
        text = csv_text(one.stream.store.rows())
        return Response(text, media_type="text/csv; charset=utf-8")


def _add_drift(app: FastAPI, served: Mapping[str, Served]) -> None:
    find, base = partial(_find, served), BASE

    @app.get(f"{base}/drift", responses=errors.described(404))
    def drift(name: str) -> answers.Drift:
        """The drift statistic and its course."""
        stream = find(name).stream
        points = [point._asdict() for point in stream.chart()]
        return answers.Drift(**stream.record(), points=points)

    @app.post(f"{base}/drift/reset", responses=errors.described(404, 507))
    def reset(name: str) -> answers.Drift:
        """Starts the drift statistic anew."""
        with errors.explained(507):
            find(name).stream.reset()
        logs.event("drift reset", detector=name)
        return drift(name)


def _add_page(app: FastAPI) -> None:
    def adder(path: str, file: str) -> None:
        @app.get(path, include_in_schema=False)
        async def page() -> FileResponse:
            kind = TYPES.get(Path(file).suffix, "image/svg+xml")
            headers = {"content-security-policy": POLICY, "cache-control": "no-cache"}
            return FileResponse(PAGE / file, media_type=kind, headers=headers)

    for path, file in FILES.items():
        adder(path, file)


def _kinds(pictures: str) -> list[str]:
    kinds = [kind for kind in pictures.split(",") if kind]
    if not {*kinds} <= {"overlay", "heatmap"}:
        raise HTTPException(422, f"pictures={printable(pictures)}: choose overlay, heatmap or both")
    return kinds


def _judge(served: Served, files: list[tuple[Path, str]], kinds: list[str]) -> answers.Predictions:
    """Judges files, if there is a place in the queue for all of them."""
    if not files:
        raise HTTPException(400, "the body holds no image")
    try:
        served.batches.admit(len(files))
    except Busy:
        raise HTTPException(429, WHY[429], {"Retry-After": "1"}) from None
    found: list[answers.Predicted | answers.Failed] = []
    version = served.judge.version
    try:
        with errors.explained(500):
            results = served.predict_all(files, kinds)
    finally:
        served.batches.leave(len(files))
    for (_, name), result in zip(files, results, strict=True):
        if not isinstance(result, UserError):
            version = result.item.judge.version
            found.append(answers.predicted(served, result))
        elif len(files) == 1:
            raise errors.status(result, 400)
        else:
            found.append(answers.Failed(name=name, error=str(result)))
    return answers.Predictions(detector=served.name, version=version, predictions=found)
