"""Connections to the server: how many, how long they wait for their client, what is said where no app answers."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

from ball_features.deployment.exchange import NUMBER, Exchange
from ball_features.deployment.limits import Limits

__all__ = ["answering_to_the_end", "bounded_protocol"]

_ENDS = b'{"detail": "The server ends, and did not finish this request. Ask again."}'
_LAST_WORDS_S = 1.0
_MALFORMED = b'{"detail": "The request is no HTTP."}'


def answering_to_the_end(app: Any) -> Any:
    """The application, with the headers of every answer on those that it does not give itself.

    It answers 503 to what it cannot finish when the server ends; else the line would go dead. The server ends a request
    by cancelling it. The answer then waits neither for threads, which cannot be cancelled, nor for the application to
    end, and the application ends only once each request has its answer.
    """
    answering: set[asyncio.Future[None]] = set()

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return await app(scope, _after(answering, receive), send)
        exchange, begun, ended = Exchange(), False, False
        done = asyncio.get_running_loop().create_future()
        answering.add(done)

        async def noted(message: Any) -> None:
            nonlocal begun
            if ended:
                return
            begun = True
            if message["type"] == "http.response.start" and not _is_numbered(message):
                exchange.note(scope["method"], scope["path"], message["status"])
                message = {**message, "headers": [*message.get("headers", ()), *_raw(exchange.headers)]}
            await send(message)

        work = asyncio.ensure_future(app(scope, receive, noted))
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            work.add_done_callback(_taken)
            work.cancel()
            if begun:
                raise
            await noted(
                {"type": "http.response.start", "status": 503, "headers": _raw(_json(_ENDS, {"Retry-After": "5"}))}
            )
            await noted({"type": "http.response.body", "body": _ENDS})
        finally:
            ended = True
            answering.discard(done)
            done.set_result(None)

    return answer


def _after(answering: set[asyncio.Future[None]], receive: Any) -> Any:
    """What the server tells the application of its life, its end only once each request has its answer."""

    async def told() -> Any:
        message = await receive()
        if message["type"] == "lifespan.shutdown" and answering:
            await asyncio.wait(set(answering), timeout=_LAST_WORDS_S)
        return message

    return told


def _taken(work: asyncio.Future[None]) -> None:
    """Take the error of work whose request is answered, so that nobody is told of it."""
    if not work.cancelled():
        work.exception()


def _is_numbered(message: Any) -> bool:
    return any(name.lower() == NUMBER.lower().encode() for name, _ in message.get("headers", ()))


def _json(body: bytes, more: dict[str, str]) -> dict[str, str]:
    """Headers of a last answer in JSON."""
    return {"Content-Type": "application/json", "Content-Length": str(len(body)), "Connection": "close", **more}


def _raw(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]


def bounded_protocol(limits: Limits) -> type[asyncio.Protocol]:
    """Uvicorn's protocol with bounds on connections and on how long they wait for their client.

    A connection that brings no whole head in `headers_s` is closed, from its first byte on or without any. So is one
    whose client takes nothing of its answer for `answer_s`, and one that sends more than `ahead` requests in a row
    without waiting for answers. If there are too many, the oldest without a request makes room, else the oldest whose
    client does not take its answer, else the oldest that sends requests ahead.
    """
    import h11

    # In pure Python, always there, and it parses a request only once the one before is answered.
    from uvicorn.protocols.http.h11_impl import H11Protocol

    base: Any = H11Protocol
    most = min(limits.connections, _most_files())

    class Bounded(base):
        _timer: asyncio.TimerHandle | None = None
        _taking: asyncio.TimerHandle | None = None
        _ahead = 0

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            # `pause_writing` is then called once anything waits to be taken, `resume_writing` once nothing does.
            transport.set_write_buffer_limits(0)
            self._wait()
            if len(self.connections) > most:
                self._make_room()
            self._opened[self] = None

        def _make_room(self) -> None:
            idle = (item for item in self._opened if item.is_idle and not item.transport.is_closing())
            untaken = (item for item in self._opened if item.untaken)
            ahead = (item for item in self._opened if item.is_ahead and not item.transport.is_closing())
            next(itertools.chain(idle, untaken, ahead), self).transport.abort()

        @property
        def _opened(self) -> dict[Any, None]:
            """Connections in the order in which they were opened."""
            return self.server_state.__dict__.setdefault("opened", {})

        @property
        def is_idle(self) -> bool:
            return (self.cycle is None or self.cycle.response_complete) and not self.untaken

        @property
        def untaken(self) -> int:
            """Bytes that the client has not taken, nor its system for it."""
            return self.transport.get_write_buffer_size()

        @property
        def is_ahead(self) -> bool:
            """Whether the client has sent more than the request that is being answered."""
            return self.conn.their_state is h11.DONE and bool(self.conn.trailing_data[0])

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if not self.is_idle:
                self._stop()
            elif self._timer is None:
                self._wait()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop()
            self._stop_taking()
            self._opened.pop(self, None)
            super().connection_lost(exc)

        def on_response_complete(self) -> None:
            self._ahead = self._ahead + 1 if self.is_ahead else 0
            if self._ahead > limits.ahead:
                self.transport.close()
            super().on_response_complete()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._watch()

        def resume_writing(self) -> None:
            super().resume_writing()
            self._stop_taking()
            if self.is_idle and self._timer is None:  # a part of a head may have come meanwhile
                self._wait()

        def send_400_response(self, msg: str) -> None:
            """Answer as every request is answered; what was answered already gets no second answer."""
            exchange = Exchange()
            exchange.note("-", "-", 400)
            if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                headers = _raw({**_json(_MALFORMED, {}), **exchange.headers})
                start = h11.Response(status_code=400, headers=headers, reason=b"Bad Request")
                for event in (start, h11.Data(data=_MALFORMED), h11.EndOfMessage()):
                    self.transport.write(self.conn.send(event))
            self.transport.close()

        def _watch(self) -> None:
            self._taking = self.loop.call_later(limits.answer_s, self._look, self.untaken)

        def _look(self, before: int) -> None:
            if self.untaken < before:
                self._watch()
            else:
                self.transport.abort()

        def _stop_taking(self) -> None:
            if self._taking is not None:
                self._taking.cancel()
                self._taking = None

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
