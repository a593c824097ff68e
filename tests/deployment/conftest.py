"""A bundle of the drawn smears, ready to answer, and a client of its server."""

import socket
import threading
import time

import pytest


@pytest.fixture(scope="module")
def predictor(small_cache, tmp_path_factory):
    from ball_features.bundles.bundle import read_bundle
    from ball_features.bundles.predictor import Predictor
    from ball_features.config import FitConfig
    from ball_features.runs.fit import fit

    config = FitConfig(models=("logistic",), repeats=1, test_size=0.3, val_size=0.3)
    run = fit(small_cache, config, out_root=tmp_path_factory.mktemp("runs"), save="logistic")
    return Predictor(read_bundle(run.folder / "models" / "logistic"), device="cpu", precision="fp32")


@pytest.fixture
def client(predictor):
    from fastapi.testclient import TestClient

    from ball_features.deployment.serve import create_app

    def make(**settings):
        return TestClient(create_app(predictor, **settings), base_url="http://127.0.0.1")

    return make


@pytest.fixture
def server(predictor):
    """Address of a server in a thread."""
    uvicorn = pytest.importorskip("uvicorn")
    from ball_features.deployment.serve import create_app

    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(predictor), log_level="warning", ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join(20)
