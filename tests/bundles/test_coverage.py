"""Coverage of the sets of final models, by simulation; `benchmarks/coverage.py` runs more of it."""

import importlib.util
import sys
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / "benchmarks" / "coverage.py"


@pytest.mark.slow
def test_sets_hold_the_true_class_as_often_as_stated(monkeypatch):
    """200 draws of training images, the first new image of each: a binomial count. Takes some 10 seconds."""
    spec = importlib.util.spec_from_file_location("coverage_benchmark", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    covered, _, _ = module.simulate(module.Simulation("lda", images=120), 200)
    for number, coverage in enumerate(module.COVERAGES):
        low, high = module.band(200, coverage)
        assert low <= covered[:, 0, number].sum() <= high
        assert abs(covered[..., number].mean() - coverage) < 0.025
