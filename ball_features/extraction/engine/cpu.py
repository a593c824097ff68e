"""The engine's element-wise pass on a CPU, in C++, compiled when it is first needed.

Neither torch's own operations nor code from its compiler can leave channels out without a scalar read for each, which
costs more than the smaller products save.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ball_features.files import temporary_folder

if TYPE_CHECKING:
    from tempfile import TemporaryDirectory

    from torch import Tensor

__all__ = ["NO_COMPILER", "AffineRelu", "affine_relu_kernel", "compile_early", "kernel_is_missing", "pack_bits"]

NO_COMPILER = (
    "Found no working C++ compiler (c++, g++, clang++, or the one that CXX names), or no temporary folder from which a "
    "library can be loaded (TMPDIR). Extraction takes two to three times as long. Install a compiler (such as by "
    "apt-get install g++), or set CXX or TMPDIR."
)

_SOURCE = Path(__file__).with_name("affine_relu.cpp")
_COMPILERS = ("c++", "g++", "clang++")
_LIBRARY = "affine_relu.so"
_TIMEOUT_S = 120
_FLAGS = ("-O3", "-shared", "-fPIC", "-std=c++17")
# Options to try in order: with threads, then without.
_TUNING = (("-march=native", "-fopenmp"), ("-march=native",))


def pack_bits(keep: np.ndarray) -> np.ndarray:
    """Pack bool (channels,) into uint16 words: channel 16 i + j is bit j of word i."""
    bits = np.packbits(np.pad(keep, (0, -len(keep) % 16)), bitorder="little")
    return bits.view("<u2").astype(np.uint16)


class AffineRelu:
    """Computes max(0, x * scale + bias) for the kept channels and stores them side by side.

    Args:
        library: `affine_relu.cpp`, compiled and loaded.
    """

    def __init__(self, library: Any) -> None:
        import torch

        pointer, integer = ctypes.c_void_p, ctypes.c_int64
        half, single = torch.bfloat16, torch.float32
        self._functions = {
            (half, half): library.bf16_to_bf16,
            (half, single): library.bf16_to_fp32,
            (single, single): library.fp32_to_fp32,
        }
        for function in self._functions.values():
            function.argtypes = [pointer, integer, integer, *[pointer] * 4, integer, integer, integer]
            function.restype = None
        self._threads = torch.get_num_threads

    def __call__(self, x: Tensor, scale: Tensor, bias: Tensor, keep: np.ndarray, out: Tensor) -> None:
        """Fill `out`.

        Args:
            x: input, bfloat16 or float32 (rows, channels), contiguous within a row.
            scale: factors, float32 (channels,).
            bias: offsets, float32 (channels,).
            keep: mask of the kept channels, from `pack_bits`.
            out: result (rows, kept), contiguous, in the dtype of x or in float32.
        """
        rows, channels = x.shape
        self._functions[x.dtype, out.dtype](
            x.data_ptr(), x.stride(0), channels, scale.data_ptr(), bias.data_ptr(), keep.ctypes.data,
            out.data_ptr(), out.shape[1], rows, self._threads(),
        )  # fmt: skip


_Begun = tuple["TemporaryDirectory[str]", "subprocess.Popen[bytes]"]
_begun: dict[tuple[str, ...], _Begun] = {}  # compilations that go on beside other work, by their options


def _compiler() -> list[str]:
    """The compiler with its own options; empty where there is none."""
    return shlex.split(os.environ.get("CXX", "")) or list(filter(shutil.which, _COMPILERS))[:1]


def _begin(options: tuple[str, ...]) -> _Begun:
    """Begin to compile into a new temporary folder."""
    # A loaded library needs no file, and one that is kept might meet another processor.
    folder = temporary_folder()
    command = [*options, str(_SOURCE), "-o", str(Path(folder.name) / _LIBRARY)]
    quiet = subprocess.DEVNULL
    try:
        return folder, subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet)
    except OSError:
        folder.cleanup()
        raise


def compile_early() -> None:
    """Begin to compile the pass, which takes half a second, beside other work such as the import of torch."""
    compiler = _compiler()
    options = (*compiler, *_FLAGS, *_TUNING[0])
    if compiler and options not in _begun and not affine_relu_kernel.cache_info().currsize:
        with contextlib.suppress(OSError):  # said when the pass is needed
            _begun[options] = _begin(options)


@functools.cache
def affine_relu_kernel() -> AffineRelu | None:
    """Compile the pass for this processor (half a second); None without AVX2 or a working C++ compiler."""
    compiler = _compiler()
    for tuning in _TUNING if compiler else ():
        options = (*compiler, *_FLAGS, *tuning)
        try:
            folder, process = _begun.pop(options, None) or _begin(options)
        except OSError:
            continue
        with folder, process:
            try:
                if process.wait(_TIMEOUT_S):
                    continue
                kernel = AffineRelu(ctypes.CDLL(str(Path(folder.name) / _LIBRARY)))
            except (OSError, subprocess.SubprocessError, AttributeError):
                process.kill()
                continue
            return kernel if _works(kernel) else None
    return None


def kernel_is_missing() -> bool:
    """Tell whether this processor could run the pass but no compiler builds it."""
    import torch

    return torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512") and affine_relu_kernel() is None


def _works(kernel: AffineRelu) -> bool:
    import torch

    keep = np.arange(40) % 3 > 0
    scale, bias = torch.linspace(-2, 2, 40), torch.linspace(-1, 1, 40)
    for dtype, other in ((torch.float32, torch.float32), (torch.bfloat16, torch.float32), (torch.bfloat16,) * 2):
        x = (torch.arange(200).view(5, 40) / 100 - 1).to(dtype)
        out = torch.empty(5, int(keep.sum()), dtype=other)
        kernel(x, scale, bias, pack_bits(keep), out)
        expected = torch.relu(x.float() * scale + bias)[:, torch.from_numpy(keep)]
        if not torch.allclose(out.float(), expected, atol=1e-6 if other == torch.float32 else 0.02):
            return False
    return True
