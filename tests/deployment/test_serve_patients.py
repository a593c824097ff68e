"""The server and patients: several images in one request, one answer; an alarm where the images are foreign."""

import base64
import contextlib
import io
import shutil
import socket
import threading
import time

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")

from ball_features.bundles.prediction import Prediction
from ball_features.deployment.limits import Limits
from ball_features.deployment.recent import Recent
from ball_features.deployment.serve import create_app

FILE = {"Content-Type": "application/octet-stream"}


@contextlib.contextmanager
def running(predictor):
    """Address of a server in a thread."""
    uvicorn = pytest.importorskip("uvicorn")
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(predictor), log_level="warning", ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join(20)


def packed(named):
    return {"images": [{"name": name, "data": base64.b64encode(data).decode()} for name, data in named]}


def test_a_patient_gets_one_answer(predictor, client, smears):
    files = sorted((smears / "Early").iterdir())[:4]
    expected, _ = predictor(files)
    probability = np.array([list(item.probability.values()) for item in expected])
    joint = np.exp(np.log(probability).mean(0))
    named = [(file.name, file.read_bytes()) for file in files]
    with client() as http:
        answer = http.post("/v1/patients", json=packed([*named, ("bad.png", b"no image")]) | {"patient": "P7"})
        assert answer.status_code == 200, answer.text
        found = answer.json()
        described = http.get("/openapi.json").json()["paths"]["/v1/patients"]["post"]
    assert (found["patient"], found["images"]) == ("P7", 4)
    assert list(found["probability"].values()) == pytest.approx(joint / joint.sum(), abs=1e-4)
    assert found["predicted"] == predictor.bundle.classes[joint.argmax()]
    assert [item["name"] for item in found["answers"]] == [file.name for file in files]
    for item, own in zip(found["answers"], expected, strict=True):
        assert item["predicted"] == own.predicted
        assert item["set"] == list(own.set)
    assert found["agreement"] == np.mean([item.predicted == found["predicted"] for item in expected])
    assert [item["name"] for item in found["rejected"]] == ["bad.png"]
    assert "application/json" in described["requestBody"]["content"]


def test_what_is_refused_of_a_patient(client, smears):
    one = ("a.png", next((smears / "Pro").iterdir()).read_bytes())
    with client(limits=Limits(patient_images=2)) as http:
        assert http.post("/v1/patients", json=packed([one] * 3)).status_code == 422
        assert http.post("/v1/patients", json={"images": []}).status_code == 422
        assert http.post("/v1/patients", json={"images": [{"data": "?"}]}).status_code == 422
        assert http.post("/v1/patients", json=packed([("a", b"x")])).status_code == 422
        assert http.post("/v1/patients", content=b"{", headers={"Content-Type": "application/json"}).status_code == 422
        assert http.post("/v1/patients", content=one[1], headers=FILE).status_code == 415
        assert http.post("/v1/patients?coverage=2", json=packed([one])).status_code == 422
    with client(limits=Limits(patient_megabytes=0.001)) as http:
        assert http.post("/v1/patients", json=packed([one])).status_code == 413
    with client(token="x" * 16) as http:
        assert http.post("/v1/patients", json=packed([one])).status_code == 401


@pytest.mark.slow
def test_an_alarm_is_raised_after_ten_foreign_images(client):
    bodies = []
    for number in range(12):
        buffer = io.BytesIO()
        Image.new("RGB", (64, 64), (255, 20 * number, 0)).save(buffer, "PNG")
        bodies.append(buffer.getvalue())
    with client(limits=Limits(requests_per_s=1000)) as http:
        alarms = [http.post("/v1/predict", content=body, headers=FILE).json()["alarm"] for body in bodies]
        health = http.get("/healthz").json()["alarm"]
        patient = http.post("/v1/patients", json=packed([(f"{n}.png", body) for n, body in enumerate(bodies)])).json()
    assert not any(alarms[:9])
    assert "mostly-unusual" in {item["code"] for item in alarms[-1]}
    assert health == alarms[-1]
    assert "mostly-unusual" in {item["code"] for item in patient["alarm"]}


def test_recent_images_are_forgotten():
    def item(unusual):
        return Prediction("", "a", {"a": 0.9, "b": 0.1}, ("a",), 0.1, unusual, ())

    recent = Recent(("a", "b"), 0.01)
    recent.add([item(True)] * 50)
    assert {finding.code for finding in recent.findings} == {"mostly-unusual", "confident-on-unusual"}
    recent.add([item(False)] * 200)
    assert recent.findings == []


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_a_browser_drops_the_images_of_a_patient(predictor, smears):
    api = pytest.importorskip("playwright.sync_api")
    with running(predictor) as address, api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 390, "height": 800})
        page.goto(address)
        page.check("#together")
        page.set_input_files("input[type=file]", [str(file) for file in sorted((smears / "Pro").iterdir())[:3]])
        page.wait_for_selector("article li")
        assert page.inner_text("article h2") == "Patient with 3 images"
        assert page.locator("article li").count() == 3
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        browser.close()
