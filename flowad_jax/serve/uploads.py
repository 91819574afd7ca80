"""What a request sends, as files."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from flowad_jax.errors import printable
from flowad_jax.serve.errors import WHY

# The last one is what `curl --data-binary` says.
RAW = ("", "application/octet-stream", "application/x-www-form-urlencoded")


async def receive(request: Request, folder: Path, name: str) -> list[tuple[Path, str]]:
    """Writes the body into files; returns them with the names that they were sent with."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        try:
            async with request.form(max_files=1000, max_fields=0) as form:
                sent = [x for _, x in form.multi_items() if isinstance(x, UploadFile)]
                return [
                    (await _write(folder / str(index), _chunks(x)), printable(x.filename or name))
                    for index, x in enumerate(sent)
                ]
        except HTTPException as error:
            raise HTTPException(400, f"the form cannot be read: {error.detail}") from None
        except ClientDisconnect:
            raise HTTPException(400, "the connection was closed") from None
    if kind not in RAW and not kind.startswith("image/"):
        raise HTTPException(415, f"content-type {printable(kind)}: {WHY[415]}")
    try:
        file = await _write(folder / "0", request.stream())
    except ClientDisconnect:
        raise HTTPException(400, "the connection was closed") from None
    return [(file, printable(name))] if file.stat().st_size else []


async def _chunks(file: UploadFile) -> AsyncIterator[bytes]:
    while part := await file.read(2**20):
        yield part


async def _write(path: Path, chunks: AsyncIterator[bytes]) -> Path:
    with open(path, "wb") as file:
        async for chunk in chunks:
            file.write(chunk)
    return path


@contextmanager
def taken() -> Iterator[None]:
    """Turns a disk that is full into an answer."""
    try:
        yield
    except OSError as error:
        raise HTTPException(507, f"the image cannot be taken: {error.strerror}") from None
