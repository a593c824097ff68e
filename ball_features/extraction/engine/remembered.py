"""Checks of the precision that were made before, for the same weights, pixels, processor and versions.

A check compares an engine with float32 and takes seconds. It is made again for any other collection, since how far a
number format strays depends on the images; the same images by the same code on the same processor give the same result.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import platform
import tempfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ball_features import __version__
from ball_features.extraction.engine.cpu import kernel_is_missing
from ball_features.extraction.engine.deviation import Deviation
from ball_features.extraction.preprocessing import Preprocessing
from ball_features.files import user_folder

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["check_key", "recall", "remember"]

_MOST = 200  # checks that are kept, the latest ones
_OFF = ("0", "off", "no", "false")


def _file() -> Path | None:
    """The file of the checks, in the user's cache folder; None where BALL_CHECKS switches it off."""
    if os.environ.get("BALL_CHECKS", "").lower() in _OFF:
        return None
    return user_folder() / "checks.json"


@functools.cache
def _machine() -> tuple[str, ...]:
    """Processor and versions, on which the rounding of a forward pass depends."""
    import torch

    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(("model name", "flags", "Features")):
                name += line
            elif not line:  # the first core speaks for all
                break
    versions = [f"{own} {metadata.version(own)}" for own in ("torch", "numpy", "pillow")]
    return (__version__, name, torch.backends.cpu.get_cpu_capability(), *versions)


def check_key(preprocessing: Preprocessing, batch: int, pixels: Tensor) -> str:
    """Name of a check: everything that its result depends on.

    Args:
        preprocessing: how images become embeddings, with the digest of the weights and the precision asked for.
        batch: images in a forward pass; 0 for the default.
        pixels: images of the sample, uint8 (images, 3, side, side).
    """
    import torch

    attributes = {name: str(value) for name, value in sorted(preprocessing.to_attributes().items())}
    digest = hashlib.sha256(pixels.contiguous().numpy().tobytes())
    content = [attributes, preprocessing.precision, batch, list(pixels.shape), torch.get_num_threads(), _machine()]
    content.append(kernel_is_missing())
    digest.update(json.dumps(content, sort_keys=True).encode())
    return digest.hexdigest()


def recall(key: str) -> tuple[str, bool, Deviation] | None:
    """(precision, whether the library's own pass was taken, deviation) of a check, or None."""
    found: Any = _read().get(key)
    try:
        precision, plain, cosine, relative, images = found
        return str(precision), bool(plain), Deviation(float(cosine), float(relative), int(images))
    except (TypeError, ValueError):
        return None


def remember(key: str, precision: str, plain: bool, measured: Deviation) -> None:
    """Keep the result of a check; a folder that cannot be written to loses it, and nothing else."""
    file = _file()
    if file is None:
        return
    kept = {name: value for name, value in _read().items() if name != key}
    kept[key] = [precision, plain, measured.cosine, measured.relative, measured.images]
    with contextlib.suppress(OSError):
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=".checks.")  # only the owner may read it
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as partial:
                json.dump(dict(list(kept.items())[-_MOST:]), partial)
            Path(name).replace(file)
        except OSError:
            Path(name).unlink(missing_ok=True)


def _read() -> dict[str, Any]:
    """The checks that are kept; none where the file is missing, damaged, or belongs to another user."""
    file = _file()
    try:
        if file is None or (hasattr(os, "getuid") and file.stat().st_uid != os.getuid()):
            return {}
        kept = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}
