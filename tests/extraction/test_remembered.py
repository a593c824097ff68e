"""A check of the precision is remembered for the same images, weights and settings, and for no others."""

import dataclasses
import json
import stat

import h5py
import numpy as np
import pytest

from ball_features import ExtractConfig, draw_smears, extract
from ball_features.extraction.engine.deviation import Deviation, Reference
from ball_features.extraction.engine.remembered import recall, remember
from tests.tiny import TINY

pytestmark = pytest.mark.usefixtures("tiny_densenet")
CONFIG = ExtractConfig(backbone=TINY, weights="random", input_px=64)


@pytest.fixture
def memory(tmp_path, monkeypatch):
    monkeypatch.setenv("BALL_CHECKS", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "ball" / "checks.json"


@pytest.mark.slow
def test_the_same_collection_is_not_checked_again(memory, tmp_path, monkeypatch):
    images = tmp_path / "images"
    draw_smears(images, per_class=2, seed=4, size_px=96)
    (images / "truth.json").unlink()
    said: list[str] = []
    first = extract(images, tmp_path / "a.h5", CONFIG, log=said.append)
    assert stat.S_IMODE(memory.stat().st_mode) == 0o600
    calls = []
    measure = Reference.measure
    monkeypatch.setattr(Reference, "measure", lambda *given: calls.append(given) or measure(*given))
    again: list[str] = []
    second = extract(images, tmp_path / "b.h5", CONFIG, log=again.append)
    assert not calls
    assert said == again
    for name in ("precision", "deviation_cosine", "deviation_relative", "deviation_images"):
        assert first.attributes[name] == second.attributes[name]
    with h5py.File(tmp_path / "a.h5") as a, h5py.File(tmp_path / "b.h5") as b:
        assert np.array_equal(a["embeddings"][:], b["embeddings"][:])  # pyright: ignore
    for changed in (dataclasses.replace(CONFIG, seed=1), dataclasses.replace(CONFIG, precision="fp32")):
        calls.clear()
        extract(images, tmp_path / "c.h5", changed, overwrite=True)
        assert calls
    calls.clear()
    next(images.rglob("*.jpg")).unlink()
    extract(images, tmp_path / "d.h5", CONFIG)
    assert calls


@pytest.mark.slow
def test_what_cannot_be_read_or_written_is_no_error(memory, monkeypatch):
    measured = Deviation(0.9999, 1e-3, 16)
    assert recall("a") is None
    remember("a", "bf16", False, measured)
    assert recall("a") == ("bf16", False, measured)
    for text in ("{", "[]", json.dumps({"a": ["bf16"]}), json.dumps({"a": [1, 2, "x", 3, 4]})):
        memory.write_text(text)
        assert recall("a") is None
    for number in range(210):
        remember(f"k{number}", "fp32", True, measured)
    assert len(json.loads(memory.read_text())) == 200
    assert recall("k209") == ("fp32", True, measured)
    monkeypatch.setenv("BALL_CHECKS", "off")
    assert recall("k209") is None
    monkeypatch.setenv("BALL_CHECKS", "")
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/none")
    remember("b", "fp32", False, measured)
    assert recall("b") is None
