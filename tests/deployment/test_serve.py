"""The server: answers as `ball predict`, within its limits, in a real browser too."""

import logging
import os
import re
import shutil
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")

from ball_features.cache import read_cache
from ball_features.deployment.batching import Batcher, BusyError
from ball_features.deployment.limits import Limits, is_loopback
from ball_features.deployment.serve import create_app
from ball_features.errors import ConfigError
from ball_features.reporting.markup import Thumbnails

AXE = Path(os.environ.get("BALL_AXE", "node_modules/axe-core/axe.min.js"))
DOT = (  # a picture of one pixel
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
FILE = {"Content-Type": "application/octet-stream"}


@pytest.mark.slow
def test_it_answers_as_predict_does(predictor, client, smears):
    files = sorted((smears / "Early").iterdir())[:6]
    expected, _ = predictor(files)
    with client() as http:
        for file, item in zip(files, expected, strict=True):
            answer = http.post("/v1/predict", content=file.read_bytes(), headers=FILE)
            assert answer.status_code == 200
            found = answer.json()
            assert found["predicted"] == item.predicted
            assert found["probability"] == pytest.approx(item.probability, abs=1e-4)
            assert found["set"] == list(item.set)
            assert found["distance"] == pytest.approx(item.distance, abs=1e-5)
            assert found["nearest"] == list(item.nearest)
            assert found["nearest_class"] == [name.split("/")[0] for name in item.nearest]
            assert found["nearest_picture"] == []
            assert found["map"] is None
            assert found["notes"] == predictor.bundle.notes(0.95)
        body = files[0].read_bytes()
        mapped = http.post("/v1/predict?map=true&coverage=0.5", content=body, headers=FILE).json()
        assert (mapped["map"]["height"], mapped["map"]["width"]) == (3, 3)
        assert len(mapped["map"]["values"]) == 9
        assert mapped["coverage"] == 0.5
        health = http.get("/healthz").json()
        assert health["classes"] == list(predictor.bundle.classes)
        assert health["unusual_from"] == predictor.bundle.unusual_from
        assert health["unusual_share"] == predictor.bundle.unusual_share
        metrics = http.get("/metrics").text
        assert 'ball_requests_total{status="200"}' in metrics
        assert "ball_batch_images_count 7.0" in metrics
        body = http.get("/openapi.json").json()["paths"]["/v1/predict"]["post"]["requestBody"]
        assert "application/octet-stream" in body["content"]


@pytest.mark.slow
def test_what_is_refused(client, smears):
    body = next((smears / "Pro").iterdir()).read_bytes()
    with client(limits=Limits(megabytes=0.001, requests_per_s=1000)) as http:
        assert http.post("/v1/predict", content=body, headers=FILE).status_code == 413
        # In pieces, so that no length is stated.
        assert http.post("/v1/predict", content=iter([body[:600], body[600:1200]]), headers=FILE).status_code == 413
    with client(limits=Limits(megapixels=0.01)) as http:
        answer = http.post("/v1/predict", content=body, headers=FILE)
        assert (answer.status_code, "0.01 megapixels" in answer.text) == (422, True)
    with client() as http:
        assert http.post("/v1/predict", content=b"no image", headers=FILE).status_code == 422
        assert http.post("/v1/predict", content=b"", headers=FILE).status_code == 422
        assert http.post("/v1/predict", content=body, headers={"Content-Type": "text/plain"}).status_code == 415
        assert http.post("/v1/predict?coverage=2", content=body, headers=FILE).status_code == 422
        assert http.get("/", headers={"Host": "evil.example"}).status_code == 421
        assert http.get("/v1/predict").status_code == 405
    with client(limits=Limits(requests_per_s=1)) as http:
        status = [http.post("/v1/predict", content=body, headers=FILE).status_code for _ in range(5)]
        assert status[:2] == [200, 200]
        assert 429 in status
    with client(limits=Limits(requests_per_s=0.01)) as http:  # twice that is less than one
        status = [http.post("/v1/predict", content=body, headers=FILE).status_code for _ in range(2)]
        assert status == [200, 429]
    for value in (0, 1e305, float("inf"), float("nan")):
        with pytest.raises(ConfigError, match="megabytes"):
            Limits(megabytes=value)


def test_a_client_that_leaves_is_no_fault_of_the_server(predictor):
    import asyncio

    app, sent = create_app(predictor), []
    parts = iter([{"type": "http.request", "body": b"half", "more_body": True}, {"type": "http.disconnect"}])
    scope = {
        "type": "http", "method": "POST", "path": "/v1/predict", "query_string": b"", "http_version": "1.1",
        "headers": [(b"host", b"127.0.0.1"), (b"content-type", b"image/jpeg")], "client": ("127.0.0.1", 1),
    }  # fmt: skip

    async def receive():
        return next(parts, {"type": "http.disconnect"})

    async def send(message):
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    assert sent[0]["status"] == 400


def test_the_token(client, smears):
    body = next((smears / "Pro").iterdir()).read_bytes()
    with client(token="0123456789abcdef", loopback=False) as http:
        assert http.post("/v1/predict", content=body, headers=FILE).status_code == 401
        wrong = FILE | {"Authorization": "Bearer 0123456789abcdeg"}
        assert http.post("/v1/predict", content=body, headers=wrong).status_code == 401
        assert http.get("/metrics").status_code == 401
        right = FILE | {"Authorization": "Bearer 0123456789abcdef"}
        assert http.post("/v1/predict", content=body, headers=right).status_code == 200
        assert http.get("/healthz").json()["token"] is True
        assert http.get("/", headers={"Host": "lab.example"}).status_code == 200


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loopback": False}, "no token.*16 characters or more"),
        ({"loopback": False, "token": "short"}, "5 characters, expected 16"),
        ({"token": "short"}, "5 characters, expected 16"),
    ],
)
def test_no_server_is_open(predictor, settings, message):
    """From Python as by the command."""
    with pytest.raises(ConfigError, match=message):
        create_app(predictor, **settings)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--host", "0.0.0.0"], r"--host 0\.0\.0\.0 can be reached.*BALL_TOKEN="),
        (["--host", "0.0.0.0", "--token", "short"], "5 characters, expected 16"),
        (["--token", "short"], "5 characters, expected 16"),
    ],
)
def test_the_command_says_so_before_it_reads_the_bundle(tmp_path, options, message):
    from typer.testing import CliRunner

    from ball_features.cli import app

    result = CliRunner().invoke(app, ["serve", str(tmp_path / "none"), *options], env={"BALL_TOKEN": ""})
    assert isinstance(result.exception, ConfigError)
    assert re.search(message, str(result.exception))


@pytest.fixture
def taken():
    """A port that another program listens on."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield other.getsockname()[1]


def test_the_port_and_the_bundle_are_checked_before_the_network_is_loaded(predictor, taken, tmp_path, monkeypatch):
    """Each of the three is wrong here; what is cheapest to find is said first."""
    from typer.testing import CliRunner

    from ball_features.cli import app

    def load(*arguments, **options):
        raise AssertionError("the network was loaded")

    monkeypatch.setattr("ball_features.deployment.predict.Predictor.__init__", load)
    ask = lambda *words: CliRunner().invoke(app, ["serve", str(tmp_path / "none"), *words]).exception  # noqa: E731
    error = ask("--port", str(taken))
    assert isinstance(error, ConfigError)
    assert re.search(rf"127\.0\.0\.1:{taken} cannot be listened on .* another port", str(error))
    assert "is not a bundle" in str(ask("--port", "0"))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_address_is_announced_once_it_answers(host, predictor):
    """In the moment of the announcement a request is answered."""
    httpx = pytest.importorskip("httpx")
    from ball_features.deployment.listen import bind, run_server

    try:
        listener = bind(host, 0)
    except ConfigError:
        pytest.skip("no such address on this machine")
    port = listener.getsockname()[1]
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((host, port), timeout=5)
    answers = []

    def ask(address):
        answers.append(httpx.get(f"{address}/healthz", timeout=30).status_code)
        signal.raise_signal(signal.SIGINT)

    def announce(address):
        assert address == (f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")
        socket.create_connection((host, port), timeout=5).close()
        threading.Thread(target=ask, args=[address]).start()

    with pytest.raises(KeyboardInterrupt):
        run_server(create_app(predictor), listener, announce, verbose=False)
    assert answers == [200]


def test_a_port_that_is_taken_while_the_network_loads_is_named():
    from ball_features.deployment.listen import bind, run_server

    one = bind("127.0.0.1", 0)
    two = bind("127.0.0.1", one.getsockname()[1])
    one.listen()
    with pytest.raises(ConfigError, match="cannot be listened on"):
        run_server(None, two, print, verbose=False)
    one.close()
    two.close()


def test_the_page_runs_nothing_but_its_own(client):
    with client() as http:
        answer = http.get("/")
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in answer.text.replace("<!doctype html>", "").lower()
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_each_request_has_a_number_that_the_log_knows_and_nothing_of_the_image(client, smears, caplog):
    content = next(smears.rglob("*.jpg")).read_bytes()
    with caplog.at_level(logging.INFO, "uvicorn.error"), client() as http:
        answer = http.post("/v1/predict", content=content, headers={"Content-Type": "image/jpeg"})
        other = http.get("/x%1b[31m%0ay")
    first, second = (message for message in caplog.messages if "/v1/predict" in message or " 404 " in message)
    number = answer.headers["X-Request-ID"]
    assert len(number) == 12
    assert number != other.headers["X-Request-ID"]
    assert first.startswith(f"{number} POST /v1/predict 200 ")
    assert answer.json()["predicted"] not in first
    assert "\x1b" not in second
    assert "\n" not in second


HEADERS = {
    "Host": ["[x", "[", "]", "a:b:c", "\xff", "127.0.0.1:99999999999999999999", "127.0.0.1%0a", "", "x" * 60_000],
    "Origin": ["http://[x", "[", "http://\xff", "http://a:b", "//", "null", "http://[::1", "\x7f"],
    "Referer": ["http://[x", "\xff"],
    "Content-Type": ["\xff", ";", "/", "image/", "image/png; charset=[", "x" * 60_000],
    "Content-Length": ["\xb2", "9" * 5000, "-1", "x"],
    "Authorization": ["\xff", "Bearer", "Bearer \xff\xfe", "Bearer " + "x" * 60_000],
    "X-Forwarded-For": ["[x", "[::1]:\xb2", "a:" + "9" * 5000, "\xff", ",,,", "x" * 60_000],
    "X-Forwarded-Proto": ["[x", "\xff"],
    "Cookie": ["\xff;=;"],
}


@pytest.mark.slow
@pytest.mark.parametrize("token", ["", "0123456789abcdef"])
def test_odd_headers_are_answered_and_numbered(predictor, token):
    """Whatever a header holds, the answer is no fault of the server; a foreign page is refused."""
    from fastapi.testclient import TestClient
    from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

    app: Any = ProxyHeadersMiddleware(create_app(predictor, token=token, loopback=not token), "*")
    asked = (("GET", "/healthz"), ("POST", "/v1/predict"), ("POST", "/v1/patients"))
    with TestClient(app, base_url="http://127.0.0.1") as http:
        for name, value in ((name, value) for name, values in HEADERS.items() for value in values):
            headers: Any = {**FILE, name: value.encode("latin-1")}
            for answer in (http.request(method, path, headers=headers) for method, path in asked):
                assert answer.status_code < 500, (name, value[:20])
                assert len(answer.headers["X-Request-ID"]) == 12
                if name == "Origin" and not token:
                    assert answer.status_code == 403, value


def test_a_fault_of_the_server_is_answered_and_logged_under_a_number(client, monkeypatch, caplog):
    def fail(*arguments):
        raise RuntimeError("a fault")

    monkeypatch.setattr("ball_features.deployment.serve.known_sites", fail)
    with client() as http:
        answer = http.get("/healthz")
    assert answer.status_code == 500
    number = answer.headers["X-Request-ID"]
    assert number in answer.json()["detail"]
    assert any(number in message for message in caplog.messages)


def test_loopback():
    assert all(is_loopback(host) for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost"))
    assert not any(is_loopback(host) for host in ("0.0.0.0", "::", "10.0.0.1", "localhost.evil.example", ""))


def test_requests_batch_together_and_the_queue_ends():
    import torch

    sizes, gate = [], threading.Event()

    def embed(images, digests):
        gate.wait(10)
        return images.float().mean((2, 3))[:, None].numpy()

    batcher = Batcher(embed, size=8, waiting=20, seen=sizes.append)
    image = torch.full((3, 4, 4), 7, dtype=torch.uint8)
    first = batcher.submit(image, "")
    time.sleep(0.1)  # the first is taken alone, the others wait behind it
    rest = [batcher.submit(image, "") for _ in range(20)]
    with pytest.raises(BusyError):
        batcher.submit(image, "")
    rest[0].cancel()
    gate.set()
    assert np.allclose(first.result(10), 7)
    assert all(np.allclose(item.result(10), 7) for item in rest[1:])
    assert sizes == [1, 7, 8, 4]
    batcher.close()
    with pytest.raises(BusyError):
        batcher.submit(image, "").result(10)

    gate.clear()
    batcher = Batcher(embed, size=1, waiting=20)
    at_work, *waiting = [batcher.submit(image, "") for _ in range(5)]
    time.sleep(0.1)
    threading.Timer(0.2, gate.set).start()
    batcher.close()  # ends what is computed; nobody waits for ever for the others
    assert np.allclose(at_work.result(10), 7)
    for item in waiting:
        with pytest.raises(BusyError, match="ends"):
            item.result(10)

    def fail(images, digests):
        raise ValueError("no")

    batcher = Batcher(fail, size=8)
    for _ in range(2):  # an error is answered, and the thread goes on
        with pytest.raises(ValueError, match="no"):
            batcher.submit(image, "").result(10)
    batcher.close()


@pytest.mark.slow
def test_many_clients_at_once(server, smears):
    httpx = pytest.importorskip("httpx")
    bodies = [file.read_bytes() for file in sorted(smears.rglob("*.jpg"))]
    with httpx.Client(base_url=server, timeout=120) as http, ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(lambda body: http.post("/v1/predict", content=body, headers=FILE), bodies))
        assert {answer.status_code for answer in answers} == {200}
        alone = http.post("/v1/predict", content=bodies[0], headers=FILE).json()
    assert alone["probability"] == pytest.approx(answers[0].json()["probability"], abs=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_a_browser_drops_images(server, smears, tmp_path):
    api = pytest.importorskip("playwright.sync_api")
    files = [str(file) for file in sorted((smears / "Pro").iterdir())[:2]]
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    with api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page()
        errors, asked = [], []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda line: errors.append(line.text) if "Content Security" in line.text else None)
        page.on("request", lambda request: asked.append(request.url))
        page.goto(server)
        api.expect(page.locator("#model")).to_contain_text("logistic on densenet121")
        page.set_input_files("input[type=file]", [*files, str(bad)])
        api.expect(page.locator("#status")).to_have_text("3 done", timeout=60_000)
        assert page.locator("article").count() == 3
        assert page.locator("canvas").count() == 2
        assert page.locator("article progress").count() == 8
        assert "no image" not in page.inner_text("main") and "not an image" in page.inner_text(".error")
        page.uncheck("#overlay")
        assert not page.locator("canvas").first.is_visible()
        assert all(url.startswith((server, "blob:")) for url in asked)
        assert errors == []
        browser.close()


@pytest.mark.slow
def test_thumbnails_of_the_nearest_images_only_if_allowed(client, smears, small_cache, tmp_path):
    """And only of files that are known to be them: another patient's picture under a name would do harm."""
    body = next((smears / "Pro").iterdir()).read_bytes()
    known = read_cache(small_cache)
    with client(pictures=Thumbnails(smears)) as http:  # no hash is at hand
        found = http.post("/v1/predict?map=true", content=body, headers=FILE).json()
        assert found["nearest_picture"] == [""] * len(found["nearest"])
    other = Path(shutil.copytree(smears, tmp_path / "other"))
    first, last = other / found["nearest"][0], other / found["nearest"][-1]
    content = first.read_bytes()
    first.write_bytes(last.read_bytes())
    with client(pictures=Thumbnails(other, known)) as http:
        shown = http.post("/v1/predict?map=true", content=body, headers=FILE).json()["nearest_picture"]
        assert [bool(address) for address in shown] == [False] + [True] * (len(shown) - 1)
    first.write_bytes(content)
    others = known.path != found["nearest"][0]
    part = SimpleNamespace(path=known.path[others], sha256=known.sha256[others])
    with client(pictures=Thumbnails(other, part)) as http:  # a cache that lacks an image
        shown = http.post("/v1/predict?map=true", content=body, headers=FILE).json()["nearest_picture"]
        assert [bool(address) for address in shown] == [False] + [True] * (len(shown) - 1)
    with client(pictures=Thumbnails(smears, known)) as http:
        found = http.post("/v1/predict?map=true", content=body, headers=FILE).json()
        assert len(found["nearest_picture"]) == len(found["nearest"])
        assert all(address.startswith("data:image/jpeg;base64,") for address in found["nearest_picture"])
        assert http.post("/v1/predict", content=body, headers=FILE).json()["nearest_picture"] == []
    with client() as http:
        assert http.post("/v1/predict?map=true", content=body, headers=FILE).json()["nearest_picture"] == []


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_the_page_warns_before_it_names_a_class(server, smears):
    """On a phone, with answers made up here: an unusual image with neighbours of another class, and plain ones."""
    api = pytest.importorskip("playwright.sync_api")
    files = [str(file) for file in sorted((smears / "Pro").iterdir())[:4]]
    base = {"coverage": 0.95, "distance": 0.1, "notes": [], "caveat": "", "map": None, "set": ["Pro"]}
    base |= {"predicted": "Pro", "probability": {"Pro": 0.9, "Early": 0.1}, "unusual": False}
    answers = [
        base | {"unusual": True, "nearest": ["Early/" + "a-very-long-name-without-a-break" * 4 + ".jpg"]},
        base | {"nearest": ["Pro/1.jpg", "Early/1.jpg"], "set": ["Pro", "Early"]},
        base | {"nearest": ["scan-1/1.jpg", "scan-2/1.jpg"]},  # folders that are no classes
        base | {"nearest": ["scan-1/1.jpg"], "nearest_class": ["Early"], "nearest_picture": [DOT]},
    ]
    with api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 390, "height": 844})
        page.goto(server)
        queue = iter(answers)
        page.route("**/v1/predict*", lambda route: route.fulfill(json=next(queue)))
        for number, file in enumerate(files, 1):
            page.set_input_files("input[type=file]", file)
            api.expect(page.locator("#status")).to_have_text(f"{number} done", timeout=60_000)
        texts = [article.inner_text() for article in page.locator("article").all()][::-1]  # the last comes first
        warnings = [article.locator(".warning").all_inner_texts() for article in page.locator("article").all()][::-1]
        assert [len(own) for own in warnings] == [2, 1, 0, 1]
        assert "of Early, none is of Pro" in warnings[3][0]
        picture = page.locator("article").first.locator("li img")
        assert picture.evaluate("async (image) => { await image.decode(); return image.naturalWidth; }") == 1
        assert page.locator("li img").count() == 1
        assert "do not trust the class" in warnings[0][0]
        assert "nearest training images are of Early, none is of Pro" in warnings[0][1]
        assert texts[0].index("do not trust") < texts[0].index("Pro 90.0 %")
        assert "Pro or Early" in warnings[1][0]
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        browser.close()


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
@pytest.mark.skipif(not AXE.is_file(), reason="BALL_AXE does not name axe.min.js of axe-core")
def test_the_page_has_no_accessibility_violation(server, smears):
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for theme, width in (("light", 1280), ("dark", 390)):
            page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=theme)
            page.goto(server)
            page.set_input_files("input[type=file]", str(next((smears / "Pro").iterdir())))
            api.expect(page.locator("#status")).to_have_text("1 done", timeout=60_000)
            page.evaluate(AXE.read_text(encoding="utf-8"))
            found = page.evaluate("axe.run()")["violations"]
            assert [(item["id"], item["nodes"][0]["html"][:200]) for item in found] == []
        browser.close()
