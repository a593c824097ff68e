"""Where the real data lies, if it does; a small folder of drawn smears; a small cache of it."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

from tests import typecheck

# Shapes in signatures are checked while tests run, and only then; before anything imports these modules.
SHAPED = (
    "evaluation.metrics",
    "evaluation.intervals",
    "evaluation.paired_tests",
    "evaluation.pooled",
    "evaluation.resampling",
    "models.training",
)
# torch, scikit-learn and XGBoost each bring an OpenMP of their own, whose idle threads would spin on the others' cores.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # begun in the background by a shell, where Ctrl-C means nothing
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ["BALL_CHECKS"] = "off"  # a check of the precision that another test made would hide a fault
# What is drawn is tried however busy the machine is.
settings.register_profile("ball", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ball")
install_import_hook([f"ball_features.{module}" for module in SHAPED], f"{typecheck.__name__}.check")


def _folder(variable: str) -> Path | None:
    value = os.environ.get(variable)
    return Path(value) if value and Path(value).is_dir() else None


def pytest_collection_modifyitems(items):
    if _folder("BALL_DATA") and _folder("BALL_WEIGHTS"):
        return
    skip = pytest.mark.skip(reason="BALL_DATA and BALL_WEIGHTS do not name the real images and weights")
    for item in items:
        if "real_data" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(scope="session")
def real_images() -> Path:
    folder = _folder("BALL_DATA")
    assert folder is not None
    return folder / "all" / "Original"


@pytest.fixture(scope="session")
def real_weights() -> Path:
    folder = _folder("BALL_WEIGHTS")
    assert folder is not None
    return folder


def _once(tmp_path_factory, name: str, make: Callable[[Path], object]) -> Path:
    """What `make` writes at a path, for all processes of the tests: the first that asks makes it."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        made = tmp_path_factory.mktemp("once") / name
        make(made)
        return made
    root = tmp_path_factory.getbasetemp().parent
    with FileLock(root / f"{name}.making"):
        if not (root / name).exists():
            make(root / f"new-{name}")
            (root / f"new-{name}").rename(root / name)
    return root / name


@pytest.fixture(scope="session")
def smears(tmp_path_factory) -> Path:
    """Drawn smears: 12 images of each of four classes. Read only."""
    from ball_features.dataset.synthetic import draw_smears

    return _once(tmp_path_factory, "smears", lambda path: draw_smears(path, per_class=12, seed=1))


@pytest.fixture(scope="session")
def few_smears(tmp_path_factory, smears) -> Path:
    """Six of each class of the drawn smears, where more prove nothing. Read only."""

    def copy(folder: Path) -> None:
        for file in sorted(smears.glob("*/*-00[1-6].jpg")):
            (folder / file.parent.name).mkdir(parents=True, exist_ok=True)
            shutil.copy(file, folder / file.parent.name)

    return _once(tmp_path_factory, "few-smears", copy)


@pytest.fixture(scope="session", autouse=True)
def few_trees() -> Iterator[None]:
    """A small forest for the accuracy of colour in audits: the large one takes four seconds, whatever it sees."""
    from ball_features.audit import indicators

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(indicators, "_TREES", 10)
        yield


@pytest.fixture(autouse=True)
def interrupts() -> Iterator[None]:
    """What Ctrl-C does, as it was before: a command that a test runs in this process sets its own answer."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def small_cache(tmp_path_factory, smears) -> Path:
    """The drawn smears, small, through DenseNet-121 with random weights, two views. Read only."""
    from ball_features import ExtractConfig, extract

    settings = {"weights": "random", "views": 2, "input_px": 96, "precision": "fp32"}
    config = ExtractConfig(backbone="densenet121", **settings)
    return _once(tmp_path_factory, "small.h5", lambda path: extract(smears, path, config))


@pytest.fixture(scope="module")
def object_store() -> Iterator[Any]:
    """The file system of a local S3 server; moto and s3fs are no requirement of the tests."""
    server = pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    running = server.ThreadedMotoServer(port=0)
    running.start()
    host, port = running.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("AWS_ACCESS_KEY_ID", "key"), ("AWS_SECRET_ACCESS_KEY", "SECRET")):
            patch.setenv(name, value)
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        import fsspec

        system = fsspec.filesystem("s3")
        yield system
        type(system).clear_instance_cache()  # another test has another server
    running.stop()


@pytest.fixture(scope="module")
def tiny_densenet() -> Iterator[str]:
    """Name of the backbone of `tests.tiny`, which is known while a module is tested."""
    from tests import tiny

    tiny.register()
    yield tiny.TINY
    tiny.forget()


def with_columns(small_cache, path, **columns):
    """A copy of the cache whose sheet had these columns: name -> function of the number of the row."""
    import h5py

    from ball_features import read_cache

    path.write_bytes(small_cache.read_bytes())
    rows = len(read_cache(path, embeddings=False).path)
    with h5py.File(path, "r+") as file:
        del file["checksums"]
        for name, value in columns.items():
            texts = [str(value(row)) for row in range(rows)]
            file.create_dataset(f"columns/{name}", data=texts, dtype=h5py.string_dtype())
    return path
