"""The kernels for CUDA without CUDA: its numbers in Triton's interpreter, its code by the compiler for two GPUs."""

import os
import subprocess
import sys

import pytest

triton = pytest.importorskip("triton")

NUMBERS = """
import torch
from ball_features.extraction.engine.cuda_kernels import affine_relu, norm_product, stem_pool

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

        out = torch.full((rows, channels + 3), 7.0)[:, :channels]
        affine_relu(x, scale, shift, out)
        assert torch.allclose(out.double(), activated, atol=1e-5)
        affine_relu(out, scale, shift, out)  # in place
        assert torch.allclose(out.double(), torch.relu(activated * scale + shift), atol=1e-4)

for shape in ((2, 28, 28, 64), (1, 29, 27, 96), (3, 8, 8, 24), (1, 1, 2, 8)):
    x, bias = torch.randn(shape, generator=generator), torch.randn(shape[-1], generator=generator)
    maps = torch.relu(x + bias).permute(0, 3, 1, 2)
    expected = torch.nn.functional.max_pool2d(maps, 3, stride=2, padding=1).permute(0, 2, 3, 1)
    assert torch.equal(stem_pool(x, bias, torch.float32), expected)
    assert torch.equal(stem_pool(x, bias, torch.float16), expected.half())

x = torch.ones(2, 40)
x[1, 3] = torch.nan
out = torch.empty(2, 40)
affine_relu(x, torch.ones(40), torch.ones(40), out)
assert torch.equal(out.isnan(), x.isnan())
assert norm_product(x, torch.ones(40), torch.ones(40), torch.ones(16, 40), torch.ones(16)).isnan()[1].all()
"""

ENGINE = """
import torch, torchvision
from ball_features.extraction.engine import cuda_kernels as gpu
from ball_features.extraction.engine import densenet as engine

torch.manual_seed(0)
module = torchvision.models.DenseNet(32, (2, 3, 2, 2), 64).eval()
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
def counted(name):
    kernel = getattr(gpu, name)
    def call(*arguments):
        calls.append(name)
        return kernel(*arguments)
    return call
for name in ("affine_relu", "norm_product", "stem_pool"):
    setattr(gpu, name, counted(name))
engine.gpu_kernels, engine.packs = lambda device: gpu, lambda dtype: False
for fused, counts in (("norm_product", [4, 9, 1]), (None, [9 + 4 + 9, 0, 1])):
    calls.clear()
    engine.make_fused = lambda device, dtype, kernels: [fused and getattr(kernels, fused)] * 4
    got = engine.Engine(module, torch.device("cpu"), "fp16")(images)
    assert [calls.count(name) for name in ("affine_relu", "norm_product", "stem_pool")] == counts
    off = ((got - expected).norm() / expected.norm()).item()
    assert off < 5e-3, off
"""


@pytest.mark.slow
@pytest.mark.parametrize("script", [NUMBERS, ENGINE], ids=["numbers", "engine"])
def test_the_interpreter_says_what_torch_says(script):
    # The interpreter is chosen when the kernel's module is imported, and has no products in bfloat16.
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-2000:]


SIGNATURES = {
    "affine_relu": ({"x": "*bf16", "scale": "*fp32", "bias": "*fp32", "out": "*bf16"},
                    ("rows", "channels", "stride", "out_stride"), {}),
    "stem_pool": ({"x": "*fp32", "bias": "*fp32", "out": "*bf16"},
                  ("pixels", "height", "width"), {"WIDTH": 64, "PADDED": 64}),
    "norm_product": ({"x": "*bf16", "scale": "*fp32", "shift": "*fp32", "weight": "*bf16", "bias": "*fp32",
                      "out": "*bf16"}, ("rows", "channels", "stride"),
                     {"WIDTH": 128, "PADDED": 128, "BLOCK_ROWS": 128}),
    "norm_product of DenseNet-161": ({"x": "*fp16", "scale": "*fp32", "shift": "*fp32", "weight": "*fp16",
                                      "bias": "*fp32", "out": "*fp16"}, ("rows", "channels", "stride"),
                                     {"WIDTH": 192, "PADDED": 256, "BLOCK_ROWS": 64}),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("name", list(SIGNATURES))
def test_it_compiles_for_two_gpus(capability, name):
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from ball_features.extraction.engine.cuda_kernels import KERNELS

    pointers, numbers, constants = SIGNATURES[name]
    kernel, options, tile = KERNELS[name.split()[0]]
    signature = pointers | dict.fromkeys(numbers, "i32") | dict.fromkeys(constants | tile, "constexpr")
    aligned = {(place,): [["tt.divisibility", 16]] for place in range(len(pointers) + len(numbers))}
    source = ASTSource(kernel, signature, constexprs=constants | tile, attrs=aligned)
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    code = compiled.asm["ptx"]
    if name.startswith("norm_product"):
        assert ("wgmma.mma_async" if capability == 90 else "mma.sync") in code  # tensor cores
        assert "cp.async" in code  # the next tile comes while this one is multiplied
        assert compiled.metadata.shared < 160_000  # what a processor of the older one has
    else:
        assert "ld.global.v4" in code  # 16 bytes at once
