"""The engine's element-wise pass on a CPU, in C++, compiled when it is first needed.

torch's own operations, and what its compiler makes of them, cannot leave channels out on the way without a scalar read
for each, which costs more than the products save.
"""

from __future__ import annotations

import ctypes
import functools
import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["NO_COMPILER", "AffineRelu", "affine_relu_kernel", "kernel_is_missing", "pack_bits"]

NO_COMPILER = (
    "Found no C++ compiler that works (c++, g++, clang++, or what CXX names), or no folder for temporary files that a "
    "library can be loaded from (TMPDIR); extraction takes two to three times as long. To have a compiler: apt-get "
    "install g++, or what your system calls it."
)

_SOURCE = Path(__file__).with_name("affine_relu.cpp")
_COMPILERS = ("c++", "g++", "clang++")
_FLAGS = ("-O3", "-shared", "-fPIC", "-std=c++17")
# The first that the compiler takes: with threads or without.
_TUNING = (("-march=native", "-fopenmp"), ("-march=native",))


def pack_bits(keep: np.ndarray) -> np.ndarray:
    """A bool (channels,) as uint16, channel 16 i + j in bit j of word i."""
    bits = np.packbits(np.pad(keep, (0, -len(keep) % 16)), bitorder="little")
    return bits.view("<u2").astype(np.uint16)


class AffineRelu:
    """max(0, x * scale + bias) of the channels that are wanted, side by side.

    Args:
        library: The compiled `affine_relu.cpp`.
    """

    def __init__(self, library: Any) -> None:
        import torch

        pointer, number = ctypes.c_void_p, ctypes.c_int64
        half, single = torch.bfloat16, torch.float32
        self._functions = {
            (half, half): library.bf16_to_bf16,
            (half, single): library.bf16_to_fp32,
            (single, single): library.fp32_to_fp32,
        }
        for function in self._functions.values():
            function.argtypes = [pointer, number, number, *[pointer] * 4, number, number, number]
            function.restype = None
        self._threads = torch.get_num_threads

    def __call__(self, x: Tensor, scale: Tensor, bias: Tensor, keep: np.ndarray, out: Tensor) -> None:
        """Fill `out`.

        Args:
            x: bfloat16 or float32 (rows, channels); the values of a row lie side by side.
            scale: float32 (channels,).
            bias: float32 (channels,).
            keep: As `pack_bits` makes it of (channels,).
            out: (rows, kept), contiguous; as x, or float32.
        """
        rows, channels = x.shape
        self._functions[x.dtype, out.dtype](
            x.data_ptr(), x.stride(0), channels, scale.data_ptr(), bias.data_ptr(), keep.ctypes.data,
            out.data_ptr(), out.shape[1], rows, self._threads(),
        )  # fmt: skip


@functools.cache
def affine_relu_kernel() -> AffineRelu | None:
    """The pass, compiled for this processor in half a second; None without AVX2 or a C++ compiler that works."""
    compiler = shlex.split(os.environ.get("CXX", "")) or list(filter(shutil.which, _COMPILERS))[:1]
    if not compiler:
        return None
    # A library once loaded needs no file; one kept for the next run might meet another processor.
    with tempfile.TemporaryDirectory(prefix="ball-", ignore_cleanup_errors=True) as folder:
        target = Path(folder) / "affine_relu.so"
        for tuning in _TUNING:
            command = [*compiler, *_FLAGS, *tuning, str(_SOURCE), "-o", str(target)]
            try:
                subprocess.run(command, check=True, capture_output=True, timeout=120)
                kernel = AffineRelu(ctypes.CDLL(str(target)))
            except (OSError, subprocess.SubprocessError, AttributeError):
                continue
            return kernel if _works(kernel) else None
    return None


def kernel_is_missing() -> bool:
    """Whether this processor could run the pass, and no compiler makes it."""
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
