"""What the server bounds: connections, times of head and answer, unfinished files; headers as HTTP defines them."""

import asyncio
import contextlib
import http.client
import json
import logging
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

pytest.importorskip("uvicorn")

from ball_features.deployment.limits import (
    Limits,
    Memory,
    TokenBuckets,
    bearer,
    is_loopback,
    is_of_another_page,
    media_type,
    require_token,
    stated_bytes,
)
from ball_features.deployment.listen import bind, run_server
from ball_features.errors import ConfigError

LARGE = 32 << 20  # bytes of an answer, more than a system keeps for a client


async def app(scope, receive, send):
    if scope["type"] == "http":
        if scope["path"] == "/slow":
            await asyncio.sleep(60)
        elif scope["path"] == "/thread":
            await pytest.importorskip("anyio").to_thread.run_sync(time.sleep, 2)
        elif scope["path"] == "/body":
            while (await receive()).get("more_body"):
                pass
        body = bytes(LARGE) if scope["path"] == "/large" else b"ok"
        length = str(len(body)).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
        await send({"type": "http.response.body", "body": body})


@pytest.fixture
def port(started):
    """The port of a server that takes eight connections, and a head within half a second."""
    return started[0]


@pytest.fixture
def limits():
    return Limits(connections=8, headers_s=0.5)


@pytest.fixture
def started(monkeypatch, limits):
    """Port and server."""
    servers, ready = [], threading.Event()
    monkeypatch.setattr("uvicorn.Server.install_signal_handlers", lambda self: None, raising=False)
    monkeypatch.setattr("uvicorn.Server.__init__", _kept(servers), raising=False)
    listener = bind("127.0.0.1", 0)
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
        assert status.lower().count(b"x-request-id: ") == 1
        assert json.loads(body) == {"detail": "The server ends, and did not finish this request. Ask again."}


# A server as `ball serve` has it: a middleware around the application, whose threads cannot be cancelled.
_SERVER = """
import threading, time
from fastapi import FastAPI, Request
from ball_features.deployment import listen

listen._LEAVE_S = 0.5
app = FastAPI()

@app.middleware("http")
async def guard(request: Request, proceed):
    return await proceed(request)

@app.post("/thread")
def thread():
    time.sleep(4)

@app.post("/body")
async def body(request: Request):
    await request.body()

listener = listen.bind("127.0.0.1", 0)
listen.run_server(app, listener, lambda url: print(url, flush=True), verbose=False)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows ends a process without a word to it")
@pytest.mark.parametrize("sent", [(signal.SIGTERM,), (signal.SIGINT,), (signal.SIGINT,) * 3])
def test_a_server_that_is_told_to_end_answers_first(sent):
    pytest.importorskip("fastapi")
    with contextlib.ExitStack() as opened:
        process = opened.enter_context(
            subprocess.Popen([sys.executable, "-c", _SERVER], stdout=subprocess.PIPE, text=True)
        )
        assert process.stdout is not None
        address = ("127.0.0.1", int(process.stdout.readline().rpartition(":")[2]))
        clients = [opened.enter_context(socket.create_connection(address, timeout=20)) for _ in range(4)]
        for client, path in zip(clients, (b"/thread", b"/body") * 2, strict=True):
            client.sendall(b"POST " + path + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n" + b"ab")
            if path == b"/thread":
                client.sendall(b"cdefghi")
        time.sleep(0.5)
        for one in sent:
            process.send_signal(one)
            time.sleep(0.05)
        begin = time.monotonic()
        for client in clients:
            answer = b""
            while more := client.recv(4096):
                answer += more
            assert answer.startswith(b"HTTP/1.1 503")
            assert b"retry-after: 5" in answer.lower()
            assert answer.lower().count(b"x-request-id: ") == 1
        assert time.monotonic() - begin < 3  # and not after the threads


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


def reluctant(port, request):
    """A connection whose client sends requests and takes next to nothing of the answers."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(20)
    client.connect(("127.0.0.1", port))
    client.sendall(request)
    return client


def taken(client, pause=0.0):
    count = 0
    with contextlib.suppress(ConnectionError):
        while more := client.recv(1 << 20):
            count += len(more)
            time.sleep(pause)
    return count


@pytest.mark.slow
@pytest.mark.parametrize("limits", [Limits(connections=8, headers_s=60, answer_s=60)])
@pytest.mark.parametrize(
    ("path", "last"), [(b"/large", b""), (b"/large", b"Connection: close\r\n"), (b"/slow", b"")], ids=str
)
def test_connections_whose_client_takes_nothing_or_sends_ahead_make_room(port, path, last):
    request = b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n" + last + b"\r\n"
    held = [reluctant(port, request * 20) for _ in range(12)]
    time.sleep(0.3)
    assert [ask(port) for _ in range(10)] == [200] * 10
    for client in held:
        client.close()


@pytest.mark.slow
@pytest.mark.parametrize("limits", [Limits(connections=8, headers_s=60, answer_s=0.4)])
@pytest.mark.parametrize("last", [b"", b"Connection: close\r\n"])
def test_an_answer_that_nobody_takes_is_not_waited_for(started, last):
    port, server = started
    with reluctant(port, b"GET /large HTTP/1.1\r\nHost: x\r\n" + last + b"\r\n") as client:
        until = time.monotonic() + 10
        while not server.server_state.connections:
            time.sleep(0.01)
        while server.server_state.connections and time.monotonic() < until:
            time.sleep(0.05)
        assert not server.server_state.connections
        assert taken(client) < LARGE


@pytest.mark.slow
@pytest.mark.parametrize("limits", [Limits(connections=8, headers_s=60, answer_s=0.5)])
def test_a_slow_client_gets_its_whole_answer(port):
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        start = time.monotonic()
        assert taken(client, 0.03) > LARGE
        assert time.monotonic() - start > 0.9


@pytest.mark.parametrize("limits", [Limits(connections=8, headers_s=60, ahead=3)])
def test_requests_that_do_not_wait_for_answers_are_bounded(port):
    request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(request * 3)
        answer = b""
        while answer.count(b"\r\n\r\nok") < 3:
            answer += client.recv(4096)
        client.sendall(request * 50)  # of these the first may find nothing before it
        answer = b""
        while more := client.recv(4096):
            answer += more
    assert answer.count(b"HTTP/1.1 200") == 4


@pytest.mark.parametrize("sent", [b"\x16\x03\x01\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"GET [x HTTP/9\r\n\r\n"])
def test_what_is_no_request_is_answered_with_a_number(port, sent):
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(sent)
        answer = b""
        while more := client.recv(4096):
            answer += more
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400")
    assert head.lower().count(b"x-request-id: ") == 1
    assert json.loads(body) == {"detail": "The request is no HTTP."}


def test_a_body_that_goes_wrong_after_its_answer_gets_no_second_one(port, caplog):
    head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(head)
        answer = client.recv(4096)
        while b"ok" not in answer:
            answer += client.recv(4096)
        client.sendall(b"no size\r\n")
        assert client.recv(4096) == b""
    assert ask(port) == 200
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


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
    assert is_of_another_page("http://[x", "127.0.0.1:8000")
    assert is_of_another_page("http://a\u2100b", "127.0.0.1:8000")
    assert stated_bytes("12") == 12
    assert stated_bytes("9" * 5000) > 1e300
    assert stated_bytes("\xb2") == stated_bytes("") == stated_bytes("-1") == 0


@pytest.mark.parametrize("token", ["\udcff" * 16, "ü" * 16, "a b" * 16, "x" * 16 + "\n", "\0" * 16])
def test_a_token_that_no_header_carries_is_refused(token):
    with pytest.raises(ConfigError, match="letters, digits and punctuation alone") as caught:
        require_token(token, loopback=True)
    str(caught.value).encode()
    require_token("!~" * 8, loopback=False)


def test_an_address_is_remembered_by_its_beginning():
    buckets = TokenBuckets(100)
    for number in range(3):
        assert buckets.take("x" * 60_000 + str(number))
    assert [len(key) for key in buckets.level] == [64]
