"""The server and patients: several images in one request, one answer; an alarm where the images are foreign."""

import base64
import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")

from ball_features.bundles.prediction import Prediction
from ball_features.deployment.limits import Limits
from ball_features.deployment.patient_requests import ImageFile, file_of, patient_request, read_request
from ball_features.deployment.recent import Recent
from ball_features.errors import ConfigError, ImageError

FILE = {"Content-Type": "application/octet-stream"}


def packed(named):
    return {"images": [{"name": name, "data": base64.b64encode(data).decode()} for name, data in named]}


@pytest.mark.slow
def test_a_patient_gets_one_answer(predictor, client, smears):
    files = sorted((smears / "Early").iterdir())[:4]
    expected, _ = predictor(files)
    probability = np.array([list(item.probability.values()) for item in expected])
    joint = np.exp(np.log(probability).mean(0))
    named = [(file.name, file.read_bytes()) for file in files]
    bad = [(name, b"no image") for name in ("bad.png", "bad.png", "", "6")]
    with client() as http:
        answer = http.post("/v1/patients", json=packed([*named, *bad]) | {"patient": "P7"})
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
        assert tuple(item["nearest_class"]) == own.nearest_class != ()
    assert found["agreement"] == np.mean([item.predicted == found["predicted"] for item in expected])
    assert [item["name"] for item in found["rejected"]] == ["bad.png", "bad.png", "6", "6"]
    assert "application/json" in described["requestBody"]["content"]


@pytest.mark.slow
@pytest.mark.parametrize("waiting", [1, 2])
def test_a_patient_may_have_more_images_than_may_wait(client, smears, waiting):
    named = [(file.name, file.read_bytes()) for file in sorted((smears / "Early").iterdir())[:6]]
    with client(limits=Limits(waiting=waiting)) as http:
        answer = http.post("/v1/patients", json=packed(named))
    assert answer.status_code == 200, answer.text
    assert [item["name"] for item in answer.json()["answers"]] == [name for name, _ in named]


@pytest.mark.slow
def test_what_is_refused_of_a_patient(client, smears):
    one = ("a.png", next((smears / "Pro").iterdir()).read_bytes())
    with client(limits=Limits(patient_images=2)) as http:
        assert http.post("/v1/patients", json=packed([one] * 3)).status_code == 422
        assert http.post("/v1/patients", json={"images": []}).status_code == 422
        assert http.post("/v1/patients", json={"images": [{"data": "?"}]}).status_code == 422
        assert http.post("/v1/patients", json=packed([("a", b"x")])).status_code == 422
        sent = packed([("a.png", b"x" * 2000), one])
        assert http.post("/v1/patients", content=b"{", headers={"Content-Type": "application/json"}).status_code == 422
        assert http.post("/v1/patients", content=one[1], headers=FILE).status_code == 415
        assert http.post("/v1/patients?coverage=2", json=packed([one])).status_code == 422
        schema = http.get("/openapi.json").json()["paths"]["/v1/patients"]["post"]["requestBody"]
        assert schema["content"]["application/json"]["schema"]["properties"]["images"]["maxItems"] == 2
        sent["images"][0]["data"] = "a"  # one letter is no base64
        assert "is no base64" in http.post("/v1/patients", json=sent).json()["rejected"][0]["reason"]
    with client(limits=Limits(patient_megabytes=0.001)) as http:
        assert http.post("/v1/patients", json=packed([one])).status_code == 413
    with client(token="x" * 16) as http:
        assert http.post("/v1/patients", json=packed([one])).status_code == 401


def whole(item, count):
    return b'{"images":[' + b",".join([item] * count) + b"]}"


@pytest.mark.parametrize(
    "body",
    [
        whole(b"0", 100_000),
        whole(b'{"data":""}', 50_000),
        whole(b"[[[[]]]]", 30_000),
        b'{"images":[{' + b",".join(b'"%d":0' % number for number in range(50_000)) + b"}]}",
        b'{"a":' * 50_000,
        b"[" * 200_000,
    ],
    ids=lambda body: body[:20].decode(),
)
def test_a_request_of_many_values_is_refused_before_they_are_built(body, monkeypatch, client):
    def build(*arguments, **options):
        raise AssertionError("built")

    kind = patient_request(64)
    monkeypatch.setattr(kind, "model_validate_json", build)
    with pytest.raises(ConfigError, match="expected 64 images or fewer"):
        read_request(kind, 64, body)
    with client() as http:
        answer = http.post("/v1/patients", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, len(answer.content) < 200) == (422, True)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (whole(b"0", 10_000), r"images\.0: Input should be an object$"),
        (whole(b'{"data":""}', 65), "images: List should have at most 64 items"),
        (whole(b'{"name":"' + b"n" * 501 + b'","data":0}', 9), r"images\.0\.name: .* at most 500 .*; images\.0\.data"),
        (b'{"images":[{"data":"' + b"1" * 100_000, "Invalid JSON"),
        (b"1" * 100_000, "Invalid JSON"),
    ],
)
def test_an_answer_tells_the_first_faults_and_not_what_was_sent(body, message):
    with pytest.raises(ConfigError, match=message) as caught:
        read_request(patient_request(64), 64, body)
    assert len(str(caught.value)) < 400


def test_the_longest_names_and_the_most_images_are_taken():
    item = {"name": "," * 500, "data": base64.b64encode(bytes(3000)).decode(), "taken": ["2024", "left"]}
    body = json.dumps({"patient": ":" * 500, "images": [item] * 64}).encode()
    found = read_request(patient_request(64), 64, body)
    assert [file_of(image, 1) for image in found.images] == [bytes(3000)] * 64


def test_a_file_of_a_patient_is_bounded_as_one_alone():
    lines = base64.encodebytes(bytes(1000)).decode()  # with line ends
    assert file_of(ImageFile(name="a", data=lines), 0.001) == bytes(1000)
    for data in (base64.b64encode(bytes(1001)).decode(), "A" * 10_000):
        with pytest.raises(ImageError, match=r"is larger than 0\.001 MB"):
            file_of(ImageFile(name="a", data=data), 0.001)
    plain = base64.b64encode(bytes(1000)).decode()
    for head in ("data:image/png;base64,", "data:;base64,", "data:image/svg+xml;charset=utf-8;base64,"):
        assert file_of(ImageFile(name="a", data=head + plain), 0.001) == bytes(1000)
    for data in ("A", "\xff", "é" * 4, "ab-_" * 4, "QUJD*REVG", "data:image/png," + plain, "data:base64," + plain):
        with pytest.raises(ImageError, match="is no base64"):
            file_of(ImageFile(name="a", data=data), 1)


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
def test_a_browser_drops_the_images_of_a_patient(server, smears):
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 390, "height": 800})
        page.goto(server)
        page.check("#together")
        page.set_input_files("input[type=file]", [str(file) for file in sorted((smears / "Pro").iterdir())[:3]])
        page.wait_for_selector("article li")
        assert page.inner_text("article h2") == "Patient with 3 images"
        assert page.locator("article li").count() == 3
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        browser.close()
