"""One request and its answer: a number by which both are found again, headers of every answer, a line in the log."""

from __future__ import annotations

import logging
import secrets
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi import Request, Response

__all__ = ["NUMBER", "Exchange"]

NUMBER = "X-Request-ID"
_HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
# Uvicorn's own logger, whose level --verbose sets.
_log = logging.getLogger("uvicorn.error")


class Exchange:
    """A request that is being answered."""

    def __init__(self) -> None:
        self._number, self._begin = secrets.token_hex(6), time.perf_counter()

    @property
    def headers(self) -> dict[str, str]:
        """Headers of every answer."""
        return {**_HEADERS, NUMBER: self._number}

    def end(self, request: Request, response: Response) -> Response:
        """Add the headers of every answer, and log the exchange."""
        response.headers.update(self.headers)
        # Not `request.url`, which holds the header Host and may be no address.
        self.note(request.method, request.scope["path"], response.status_code)
        return response

    def note(self, method: str, path: str, status: int) -> None:
        """Log the exchange: its number, kind, path, status, seconds.

        The log holds nothing of an image: no name, no content, no answer. What the client chose is written so that no
        byte of it acts on a terminal or begins a line.
        """
        seconds = time.perf_counter() - self._begin
        _log.info("%s %s %s %d %.3f s", self._number, ascii(method[:20])[1:-1], ascii(path[:80])[1:-1], status, seconds)

    def failed(self, error: Exception) -> Response:
        """The answer to a request that met a fault of the server, which is logged under the number."""
        from fastapi.responses import JSONResponse

        _log.error("%s met a fault of the server.", self._number, exc_info=error)
        return JSONResponse({"detail": f"The server failed. Its log tells of it under {self._number}."}, 500)
