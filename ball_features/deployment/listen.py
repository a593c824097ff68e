"""The server's socket: bound before the network is loaded, announced once requests are answered."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ball_features.deployment.limits import Limits
from ball_features.errors import ConfigError

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["bind", "bounded_protocol", "run_server"]

_LEAVE_S = 10  # in which requests that are being answered may end, before a container would be killed
_ENDS = b'{"detail": "The server ends, and did not finish this request. Ask again."}'
_WAITING = 2048  # connections that wait for the server, uvicorn's default

_AT_ONCE = 64  # connections that are accepted before any of them is looked at


def bind(host: str, port: int) -> socket.socket:
    """Return a socket bound to an address; port 0 takes a free one. Nothing can connect before `run_server`.

    Raises:
        ConfigError: The address cannot be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise _unusable(host, port, error) from error
    return listener


def run_server(
    app: FastAPI,
    listener: socket.socket,
    announce: Callable[[str], None],
    *,
    verbose: bool,
    limits: Limits | None = None,
) -> None:
    """Answer requests until interrupted.

    Args:
        app: application.
        listener: socket from `bind`.
        announce: function called with the server's URL once it answers.
        verbose: True logs each request.
        limits: number of connections and time of a request's head; the defaults if None.

    Raises:
        ConfigError: Another program has started to listen on the address since it was bound.
    """
    import uvicorn

    host, port = listener.getsockname()[:2]
    try:
        listener.listen(_WAITING)
    except OSError as error:
        raise _unusable(host, port, error) from error

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            listener.listen(_WAITING)
            if self.started:
                announce(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")

    level = logging.INFO if verbose else logging.WARNING
    config = uvicorn.Config(
        answering_to_the_end(app),
        http=bounded_protocol(limits or Limits()),
        log_level=level,
        access_log=verbose,
        server_header=False,
        backlog=_AT_ONCE,
        timeout_graceful_shutdown=_LEAVE_S,
    )
    Server(config).run(sockets=[listener])


def answering_to_the_end(app: Any) -> Any:
    """The application, which answers 503 to what it cannot finish when the server ends; else the line would go dead."""

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        begun = scope["type"] != "http"

        async def noted(message: Any) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await app(scope, receive, noted)
        except asyncio.CancelledError:
            if begun:
                raise
            headers = [(b"content-type", b"application/json"), (b"retry-after", b"5"), (b"connection", b"close")]
            headers.append((b"content-length", str(len(_ENDS)).encode()))
            await send({"type": "http.response.start", "status": 503, "headers": headers})
            await send({"type": "http.response.body", "body": _ENDS})

    return answer


def bounded_protocol(limits: Limits) -> type[asyncio.Protocol]:
    """Uvicorn's protocol with a bound on the number of connections, and on the time that the head of a request takes.

    A connection that brings no whole head in that time is closed, from its first byte on or without any. If there are
    too many, the oldest without a request makes room.
    """
    from uvicorn.protocols.http.auto import AutoHTTPProtocol

    base: Any = AutoHTTPProtocol
    most = min(limits.connections, _most_files())

    class Bounded(base):
        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._wait()
            if len(self.connections) > most:
                idle = (item for item in self._opened if item.is_idle and not item.transport.is_closing())
                next(idle, self).transport.abort()
            self._opened[self] = None

        @property
        def _opened(self) -> dict[Any, None]:
            """Connections in the order in which they were opened."""
            return self.server_state.__dict__.setdefault("opened", {})

        @property
        def is_idle(self) -> bool:
            return self.cycle is None or self.cycle.response_complete

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if not self.is_idle:
                self._stop()
            elif self._timer is None:
                self._wait()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop()
            self._opened.pop(self, None)
            super().connection_lost(exc)

        def _wait(self) -> None:
            self._timer = self.loop.call_later(limits.headers_s, self._end)

        def _stop(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _end(self) -> None:
            self._timer = None
            if self.is_idle:
                self.transport.abort()

    return Bounded


def _most_files() -> int:
    """Connections that leave enough of the files that a process may open."""
    try:
        import resource
    except ImportError:  # Windows
        return 1 << 20
    return max(16, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 128)


def _unusable(host: str, port: int, error: OSError) -> ConfigError:
    reason = error.strerror or error
    return ConfigError(f"{host}:{port} cannot be listened on ({reason}). Give another port.")
