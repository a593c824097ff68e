"""Devices and the number formats that they compute in."""

from __future__ import annotations

from typing import Any

import torch

from ball_features.config.sizes import whole_number
from ball_features.errors import ConfigError

__all__ = ["PRECISIONS", "best_precision", "resolve_device"]

PRECISIONS: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_device(name: str) -> torch.device:
    """Return the device of a name; "auto" takes CUDA, then MPS, then the CPU.

    Raises:
        ConfigError: The machine has no such device.
    """
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next(family for family in ("cuda", "mps", "cpu") if present[family])
    family, _, index = name.partition(":")
    count, number = torch.cuda.device_count() if family == "cuda" else 1, whole_number(index)
    if not present.get(family, False) or (name != family and (number is None or number >= count)):
        available = [one for one, there in present.items() if there]
        available += [f"cuda:{one}" for one in range(torch.cuda.device_count()) if present["cuda"]]
        raise ConfigError(
            f"Device {name!r} is not available here. Present: {', '.join(available)}; or use the device auto."
        )
    return torch.device(name)


def best_precision(device: torch.device) -> str:
    """Return the fastest precision that the device computes in hardware, by capability and not by timing.

    bf16 on processors with AVX-512 BF16 or AMX and on CUDA from Ampere on, fp16 on older CUDA devices and on MPS,
    fp32 elsewhere, where emulated half precision would only be slower.
    """
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device)[0] >= 8 else "fp16"
    if device.type == "mps":
        return "fp16"
    capabilities = torch.backends.cpu.get_cpu_capability()
    flags: Any = torch.cpu
    has_bf16 = getattr(flags, "_is_avx512_bf16_supported", lambda: False)()
    return "bf16" if has_bf16 and "AVX512" in capabilities else "fp32"
