"""What the server bounds: connections, time of a head, bytes of unfinished files; headers as HTTP defines them."""

import asyncio
import contextlib
import http.client
import json
import socket
import threading
import time

import pytest

pytest.importorskip("uvicorn")

from ball_features.deployment.limits import Limits, Memory, bearer, is_loopback, is_of_another_page, media_type
from ball_features.deployment.listen import bind, run_server


async def app(scope, receive, send):
    if scope["type"] == "http":
        if scope["path"] == "/slow":
            await asyncio.sleep(60)
        elif scope["path"] == "/thread":
            await pytest.importorskip("anyio").to_thread.run_sync(time.sleep, 2)
        elif scope["path"] == "/body":
            while (await receive()).get("more_body"):
                pass
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture
def port(started):
    """The port of a server that takes eight connections, and a head within half a second."""
    return started[0]


@pytest.fixture
def started(monkeypatch):
    """Port and server."""
    servers, ready = [], threading.Event()
    monkeypatch.setattr("uvicorn.Server.install_signal_handlers", lambda self: None, raising=False)
    monkeypatch.setattr("uvicorn.Server.__init__", _kept(servers), raising=False)
    listener = bind("127.0.0.1", 0)
    limits = Limits(connections=8, headers_s=0.5)
    work = threading.Thread(
        target=run_server, args=(app, listener, lambda url: ready.set()), kwargs={"verbose": False, "limits": limits}
    )
    work.start()
    assert ready.wait(20)
    yield listener.getsockname()[1], servers[0]
    servers[0].should_exit = True
    work.join(20)
    listener.close()


def _kept(servers):
    import uvicorn

    first = uvicorn.Server.__init__

    def init(self, config):
        first(self, config)
        servers.append(self)

    return init


def ask(port):
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request("GET", "/")
        return connection.getresponse().status


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/slow", "/thread", "/body", "/quick"])
def test_a_request_that_the_end_of_the_server_meets_is_answered(started, monkeypatch, path):
    port, server = started
    server.config.timeout_graceful_shutdown = 0.5
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        length = b"Content-Length: 9\r\n" if path == "/body" else b""
        client.sendall(
            b"POST " + path.encode() + b" HTTP/1.1\r\nHost: x\r\n" + length + b"\r\nab"[: 4 if length else 2]
        )
        time.sleep(0.2)
        server.should_exit = True
        answer = b""
        while more := client.recv(4096):
            answer += more
    status, _, body = answer.partition(b"\r\n\r\n")
    if path == "/quick":
        assert status.startswith(b"HTTP/1.1 200")
    else:
        assert status.startswith(b"HTTP/1.1 503")
        assert b"retry-after: 5" in status.lower()
        assert json.loads(body) == {"detail": "The server ends, and did not finish this request. Ask again."}


@pytest.mark.slow
@pytest.mark.parametrize("first", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HT"])
def test_a_head_that_does_not_come_is_not_waited_for(port, first):
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(first)
        start = time.monotonic()
        while client.recv(4096):
            pass
        assert 0.3 < time.monotonic() - start < 8


def test_idle_connections_make_room(port):
    idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(100)]
    assert ask(port) == 200
    for item in idle:
        item.close()


def test_requests_share_a_bounded_memory():
    async def run():
        memory = Memory(100)
        first, second = memory.share(), memory.share()
        take, other = await anext(first), await anext(second)
        assert take(60)
        assert not other(60)
        assert other(40)
        await first.aclose()
        assert memory.held == 40
        assert other(60)
        await second.aclose()
        assert memory.held == 0

    asyncio.run(run())


def test_headers_are_read_as_http_defines_them():
    assert bearer("Bearer abc") == bearer("bearer  abc") == bearer("BEARER abc") == "abc"
    assert bearer("abc") == bearer("Basic abc") == bearer("") == ""
    assert media_type("Image/JPEG; charset=x") == "image/jpeg"
    assert is_loopback("LOCALHOST")
    assert is_loopback("localhost.")
    assert not is_loopback("localhost.evil.example")
    assert is_of_another_page("http://evil.example", "127.0.0.1:8000")
    assert is_of_another_page("null", "127.0.0.1:8000")
    assert not is_of_another_page("http://127.0.0.1:8000", "127.0.0.1:8000")
    assert not is_of_another_page("", "127.0.0.1:8000")
