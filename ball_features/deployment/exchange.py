"""One request and its answer: a number by which both are found again, headers of every answer, a line in the log."""

from __future__ import annotations

import logging
import secrets
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi import Request, Response

__all__ = ["Exchange"]

_HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
# Uvicorn's own logger, whose level --verbose sets.
_log = logging.getLogger("uvicorn.error")


class Exchange:
    """A request that is being answered."""

    def __init__(self) -> None:
        self._number, self._begin = secrets.token_hex(6), time.perf_counter()

    def end(self, request: Request, response: Response) -> Response:
        """Add the headers of every answer, and log the exchange: its number, kind, path, status, seconds.

        The log holds nothing of an image: no name, no content, no answer. The path is written so that no byte of it
        acts on a terminal or begins a line.
        """
        response.headers.update({**_HEADERS, "X-Request-ID": self._number})
        seconds = time.perf_counter() - self._begin
        path = ascii(request.url.path[:80])[1:-1]
        _log.info("%s %s %s %d %.3f s", self._number, request.method, path, response.status_code, seconds)
        return response
