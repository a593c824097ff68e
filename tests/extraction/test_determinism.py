"""What differs between machines: threads change nothing, other instructions round float32 otherwise, within a bound."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.made import clouds, write_cache

ROOT = Path(__file__).parents[2]
EMBED = """
import sys, numpy as np, torch
from ball_features.extraction.backbones import get_backbone
from ball_features.extraction.engine.modules import build_engine
from ball_features.extraction.weights import load_backbone
backbone = get_backbone("densenet121", 64)
engine = build_engine(backbone, load_backbone(backbone, "random", 0), torch.device("cpu"), "fp32", False)
images = torch.from_numpy(np.random.default_rng(0).normal(size=(4, 3, 64, 64)).astype("f4"))
with torch.inference_mode():
    np.save(sys.argv[1], engine(images).numpy())
"""
FIT = """
import sys
from ball_features import FitConfig, fit
config = FitConfig(models=("mlp", "logistic", "lda", "xgboost"), repeats=1, jobs=1)
fit(sys.argv[2], config, out_root=sys.argv[3], name="a")
"""
MACHINES = {
    "one thread": {"OMP_NUM_THREADS": "1"},
    "two threads": {"OMP_NUM_THREADS": "2"},
    "AVX2": {"OMP_NUM_THREADS": "1", "ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
}


def run(code, *arguments, **variables):
    environment = os.environ | variables | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Folder with a.npy of each machine, of one thread twice, and with a run by one and by two threads."""
    folder = tmp_path_factory.mktemp("machines")
    cache = write_cache(folder / "a.h5", *clouds(20))
    for name, variables in MACHINES.items():
        (folder / name).mkdir()
        both = name != "AVX2"
        run(EMBED + FIT * both, folder / name / "a.npy", *[cache, folder / name] * both, **variables)
    (folder / "again").mkdir()
    run(EMBED, folder / "again" / "a.npy", **MACHINES["one thread"])
    return folder


@pytest.mark.slow
def test_embeddings_of_other_machines_agree_within_a_bound(made):
    one = np.load(made / "one thread" / "a.npy")
    for name in MACHINES:
        other = np.load(made / name / "a.npy").astype(float)
        relative = np.linalg.norm(other - one, axis=1) / np.linalg.norm(one.astype(float), axis=1)
        assert relative.max() < 1e-5, name
    assert np.array_equal(np.load(made / "again" / "a.npy"), one)  # the same machine: the same bits


@pytest.mark.slow
def test_predictions_do_not_depend_on_the_number_of_threads(made):
    tables = [(made / name / "a" / "predictions.csv").read_bytes() for name in ("one thread", "two threads")]
    assert tables[0] == tables[1]


@pytest.mark.skipif(os.name == "nt", reason="modes are those of Unix")
def test_compiled_kernels_are_the_users_own(tmp_path, monkeypatch):
    from ball_features.extraction.engine import cuda

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("TRITON_CACHE_DIR", raising=False)
    cuda._keep_kernels_private()
    folder = Path(os.environ["TRITON_CACHE_DIR"])
    assert folder == tmp_path / "ball" / "triton"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
