"""The server's socket: bound before the network is loaded, announced once requests are answered."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING

from ball_features.deployment.connections import answering_to_the_end, bounded_protocol
from ball_features.deployment.limits import Limits
from ball_features.errors import ConfigError

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["bind", "run_server"]

_LEAVE_S = 8  # in which requests that are being answered may end: containers are killed 10 s after they are told to
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
        limits: number of connections and times of a request's head and answer; the defaults if None.

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

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            if not self.should_exit:  # told again, uvicorn would leave answers out, and the application without its end
                super().handle_exit(sig, frame)

    level = logging.INFO if verbose else logging.WARNING
    config = uvicorn.Config(
        answering_to_the_end(app),
        http=bounded_protocol(limits or Limits()),
        ws="none",  # such a connection would be under none of these bounds
        log_level=level,
        access_log=verbose,
        server_header=False,
        backlog=_AT_ONCE,
        timeout_graceful_shutdown=_LEAVE_S,
    )
    Server(config).run(sockets=[listener])


def _unusable(host: str, port: int, error: OSError) -> ConfigError:
    reason = error.strerror or error
    return ConfigError(f"{host}:{port} cannot be listened on ({reason}). Give another port.")
