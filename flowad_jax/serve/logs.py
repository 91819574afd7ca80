"""Structured logs: a JSON object per line on standard error."""

from __future__ import annotations

import json
import logging
import time
from typing import Any

log = logging.getLogger("flowad_jax.serve")


class JsonFormatter(logging.Formatter):
    """Writes message, level and time, and what `event` was given."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter.format`."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        values = {
            "time": f"{moment}.{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "values", {}),
        }
        if record.exc_info and record.exc_info[1]:
            values["error"] = repr(record.exc_info[1])
        return json.dumps(values, ensure_ascii=True)


def event(message: str, level: int = logging.INFO, **values: Any) -> None:
    """Logs something that happened, with its figures."""
    log.log(level, message, extra={"values": values})


def set_up() -> None:
    """Has this service and its server log in this form alone."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    for name in ("flowad_jax", "uvicorn", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    log.handlers, log.propagate = [handler], False
