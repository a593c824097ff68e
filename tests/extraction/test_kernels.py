"""The pass in C++ against torch, for every kind of width; machines that cannot compile it."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from ball_features.config import ExtractConfig
from ball_features.extraction.engine import cpu as kernels
from ball_features.extraction.engine.cpu import affine_relu_kernel, pack_bits
from ball_features.extraction.extract import extract

KINDS = [(torch.float32, torch.float32), (torch.bfloat16, torch.bfloat16), (torch.bfloat16, torch.float32)]
# By the compiler and not by what it made: a pass that no longer compiles must fail here, not skip.
HAS_COMPILER = (
    any(map(shutil.which, ("c++", "g++", "clang++"))) and torch.backends.cpu.get_cpu_capability() != "DEFAULT"
)
needs_compiler = pytest.mark.skipif(not HAS_COMPILER, reason="no C++ compiler here")


@pytest.fixture
def compile_again():
    affine_relu_kernel.cache_clear()
    yield
    affine_relu_kernel.cache_clear()


@pytest.fixture(scope="module", params=["native", "avx2", "avx512"])
def kernel(request):
    """The pass as compiled for this processor, and for others whose instructions this one has too."""
    if not HAS_COMPILER:
        pytest.skip("no C++ compiler here")
    if request.param == "native":
        return affine_relu_kernel()
    wanted = {"avx2": ("-mavx2", "-mfma"), "avx512": ("-mavx512f", "-mavx512bw")}[request.param]
    if torch.backends.cpu.get_cpu_capability() not in ("AVX512", request.param.upper()):
        pytest.skip("not on this processor")
    affine_relu_kernel.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "_TUNING", (wanted,))
        built = affine_relu_kernel()
    affine_relu_kernel.cache_clear()
    return built


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("channels", [1, 15, 16, 17, 64, 100, 1003])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 1.0])
def test_it_is_batch_norm_and_relu_of_the_wanted_channels(kernel, kind, channels, share):
    rng = np.random.default_rng(channels)
    keep = rng.random(channels) <= share
    keep[0] = True
    own, other = kind
    wide = torch.from_numpy(rng.normal(size=(37, channels + 9)).astype(np.float32)).to(own)
    x = wide[:, :channels]  # rows that lie further apart than they are long, as in a block's buffer
    scale, bias = (torch.from_numpy(rng.normal(size=channels).astype(np.float32)) for _ in range(2))
    # One more row, which must stay as it is.
    out = torch.full((38, int(keep.sum())), 7.0, dtype=other)
    kernel(x, scale, bias, pack_bits(keep), out[:37])
    expected = torch.relu(torch.addcmul(bias, x.float(), scale))[:, torch.from_numpy(keep)].to(other)
    assert torch.equal(out[37], torch.full_like(out[37], 7.0))
    if other == torch.float32:
        assert torch.allclose(out[:37], expected, atol=1e-6)
    else:  # the same but where a product and a sum rounded together fall on the other side
        assert torch.allclose(out[:37].float(), expected.float(), rtol=2**-7, atol=1e-6)
        assert (out[:37] == expected).float().mean() > 0.999


@pytest.mark.slow
@needs_compiler
def test_threads_share_the_rows(compile_again):
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(101, 40)).astype(np.float32))
    scale, bias, keep = torch.ones(40), torch.zeros(40), pack_bits(np.arange(40) % 2 == 0)
    kernel, before = affine_relu_kernel(), torch.get_num_threads()
    assert kernel is not None
    found = []
    try:
        for threads in (1, 2, 7, 64):
            torch.set_num_threads(threads)
            out = torch.empty(101, 20)
            kernel(x, scale, bias, keep, out)
            found.append(out)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(out, found[0]) for out in found)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_what_is_not_a_number_stays_none(kernel, kind):
    """Else damaged weights would look like an embedding of zeros."""
    x = torch.ones(3, 45, dtype=kind[0])
    x[1, 4] = x[2, 44] = torch.nan
    out = torch.empty(3, 45, dtype=kind[1])
    kernel(x, torch.ones(45), torch.zeros(45), pack_bits(np.ones(45, bool)), out)
    assert torch.equal(out.isnan(), x.isnan())


def test_bits_lie_as_the_source_reads_them():
    bits = pack_bits(np.array([True] + [False] * 15 + [False, True]))
    assert bits.dtype == np.uint16
    assert bits.tolist() == [1, 2]


@pytest.mark.parametrize("compiler", ["no-such-compiler", "false"])
def test_without_a_compiler_there_is_none(compiler, compile_again, monkeypatch):
    monkeypatch.setenv("CXX", compiler)
    assert affine_relu_kernel() is None


@pytest.mark.slow
@needs_compiler
def test_a_compilation_that_began_early_is_taken(compile_again, monkeypatch):
    kernels.compile_early()
    (begun,) = kernels._begun.values()
    monkeypatch.setattr(kernels, "_begin", lambda options: pytest.fail("compiled twice"))
    kernels.compile_early()
    assert affine_relu_kernel() is not None
    assert not kernels._begun
    assert begun[1].returncode == 0
    assert not Path(begun[0].name).exists()
    kernels.compile_early()  # it is loaded
    assert not kernels._begun


@pytest.mark.parametrize("compiler", ["no-such-compiler", "false"])
def test_a_compilation_that_began_early_may_fail(compiler, compile_again, monkeypatch):
    monkeypatch.setenv("CXX", compiler)
    kernels.compile_early()
    assert affine_relu_kernel() is None
    assert not kernels._begun


@pytest.mark.slow
@needs_compiler
def test_a_compiler_without_threads_or_tuning_does(compile_again, monkeypatch):
    monkeypatch.setattr(kernels, "_TUNING", (("-no-such-option",), ("-march=native",)))
    assert affine_relu_kernel() is not None
    affine_relu_kernel.cache_clear()
    monkeypatch.setattr(kernels, "_TUNING", ((),))  # any processor of the kind: torch's own passes are faster there
    assert affine_relu_kernel() is None


@pytest.mark.slow
@needs_compiler
def test_a_run_says_that_there_is_none(smears, tmp_path, compile_again, monkeypatch):
    monkeypatch.setenv("CXX", "false")
    said: list[str] = []
    settings = ExtractConfig("densenet121", weights="random", input_px=64, limit=8, precision="fp32")
    extract(smears, tmp_path / "c.h5", settings, log=said.append)
    assert kernels.NO_COMPILER in said


@pytest.mark.slow
@needs_compiler
def test_the_pass_compiles_here():
    assert kernels._SOURCE.is_file()
    assert affine_relu_kernel() is not None
