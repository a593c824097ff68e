"""The kernel for CUDA without CUDA: its numbers in Triton's interpreter, its code by the compiler for two GPUs."""

import os
import subprocess
import sys

import pytest

triton = pytest.importorskip("triton")

NUMBERS = """
import torch
from ball_features.extraction.fused import norm_product

generator = torch.Generator().manual_seed(0)
for dtype, error in ((torch.float32, 1e-6), (torch.float16, 1e-3)):
    for rows, channels, width, apart in ((300, 160, 128, 256), (64, 64, 128, 64), (5, 208, 192, 224), (1, 32, 16, 40)):
        x = torch.randn(rows, apart, generator=generator).to(dtype)[:, :channels]
        scale, shift = torch.randn(2, channels, generator=generator)
        weight = (torch.randn(width, channels, generator=generator) / channels**0.5).to(dtype)
        bias = torch.randn(width, generator=generator)
        got = norm_product(x, scale, shift, weight, bias)
        activated = torch.relu(x.double() * scale.double() + shift.double())
        expected = torch.relu(activated @ weight.double().T + bias.double())
        assert got.shape == (rows, width) and got.dtype == dtype
        off = ((got.double() - expected).norm() / expected.norm()).item()
        assert off < error, (dtype, rows, channels, width, off)
"""

ENGINE = """
import torch, torchvision
from ball_features.extraction import engine
from ball_features.extraction.fused import norm_product

torch.manual_seed(0)
module = torchvision.models.densenet121(weights=None).eval()
for part in module.modules():
    if isinstance(part, torch.nn.BatchNorm2d):
        part.weight.data.uniform_(0.5, 1.5)
        part.bias.data.uniform_(-0.3, 0.3)
        part.running_mean.uniform_(-0.3, 0.3)
        part.running_var.uniform_(0.5, 1.5)
images = torch.randn(2, 3, 64, 64)
with torch.no_grad():
    expected = torch.relu(module.features(images)).mean((2, 3))
calls = []
def counted(*arguments):
    calls.append(1)
    return norm_product(*arguments)
engine.make_fused = lambda *arguments: counted
got = engine.Engine(module, torch.device("cpu"), "fp16")(images)
assert len(calls) == 58  # DenseNet-121's layers
off = ((got - expected).norm() / expected.norm()).item()
assert off < 5e-3, off
"""


@pytest.mark.parametrize("script", [NUMBERS, ENGINE], ids=["numbers", "engine"])
def test_the_interpreter_says_what_torch_says(script):
    # The interpreter is chosen when the kernel's module is imported, and has no products in bfloat16.
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize(("width", "block_rows"), [(128, 128), (128, 64), (192, 64)])
def test_it_compiles_for_tensor_cores(capability, width, block_rows):
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from ball_features.extraction.fused import BLOCK_CHANNELS, OPTIONS, norm_product_kernel

    pointers = {"x": "*bf16", "scale": "*fp32", "shift": "*fp32", "weight": "*bf16", "bias": "*fp32", "out": "*bf16"}
    numbers = {"rows": "i32", "channels": "i32", "stride": "i32"}
    constants = {"WIDTH": width, "PADDED": triton.next_power_of_2(width), "BLOCK_ROWS": block_rows,
                 "BLOCK_CHANNELS": BLOCK_CHANNELS}  # fmt: skip
    signature = pointers | numbers | dict.fromkeys(constants, "constexpr")
    aligned = {(place,): [["tt.divisibility", 16]] for place in range(9) if place != 6}  # all but the rows
    source = ASTSource(norm_product_kernel, signature, constexprs=constants, attrs=aligned)
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=OPTIONS)
    code = compiled.asm["ptx"]
    assert ("wgmma.mma_async" if capability == 90 else "mma.sync") in code
    assert "cp.async" in code  # the next tile comes while this one is multiplied
    assert compiled.metadata.shared < 160_000  # what a processor of the older one has
