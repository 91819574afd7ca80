"""Errors as answers: a status and one line of JSON."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from flowad_jax.errors import UserError, printable
from flowad_jax.flowad_runtime import UserError as RuntimeUserError
from flowad_jax.serve.answers import Error
from flowad_jax.serve.served import TooLarge

WHY = {
    400: "No image, or none that can be read.",
    401: "The token is missing or wrong.",
    403: "Another site, or a foreign name of the host.",
    404: "There is no such thing.",
    408: "The body came too slowly.",
    409: "Verdicts are not kept.",
    413: "Too many bytes, pixels or images.",
    415: "No image and no multipart/form-data.",
    422: "A parameter has no such value.",
    429: "The queue is full: try again later.",
    503: "The service is about to end.",
    507: "The disk is full.",
}


def described(*codes: int) -> dict[int | str, dict[str, Any]]:
    """The errors of a route for OpenAPI: those of all, and its own."""
    return {code: {"model": Error, "description": WHY[code]} for code in (401, 403, *codes)}


@contextmanager
def explained(code: int) -> Iterator[None]:
    """Turns a `UserError` into an answer."""
    try:
        yield
    except (UserError, RuntimeUserError) as error:
        raise status(error, code) from None


def status(error: UserError | RuntimeUserError, code: int) -> HTTPException:
    """The answer to a `UserError`; some have a status of their own, others ``code``."""
    text = printable(str(error))
    if isinstance(error, TooLarge):
        return HTTPException(413, text)
    if "disk is full" in text or "disk I/O error" in text:
        return HTTPException(507, text)
    return HTTPException(code, text)


async def invalid(request: Request, error: Any) -> JSONResponse:
    """A parameter that is none."""
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"][1:])) or "body"
    return JSONResponse({"error": printable(f"{where}: {first['msg']}")}, 422)


async def of_http(request: Request, error: Any) -> JSONResponse:
    """An error with a status."""
    return JSONResponse({"error": str(error.detail)}, error.status_code, error.headers)


async def bug(request: Request, error: Exception) -> JSONResponse:
    """What nobody thought of; the log has it."""
    return JSONResponse({"error": "the service failed; its log says how"}, 500)
