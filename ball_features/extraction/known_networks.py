"""Networks in files: their hash, and those in TorchScript that this user has named.

TorchScript is a program that can read and write files, so that the network of a stranger's bundle runs only if the user
says so: by trust, or by the file's name, once, on this machine.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

from ball_features.files import user_folder

__all__ = ["file_sha256", "is_program", "know_network", "knows_network", "network_sha256"]


def is_program(path: Path) -> bool:
    """Whether a network's file can do more than compute: TorchScript can, ONNX cannot."""
    return path.suffix != ".onnx"


def know_network(sha256: str) -> None:
    """Keep the hash of a file that the user has named; a folder that cannot be written to loses it."""
    with contextlib.suppress(OSError):
        folder = _folder()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / sha256).touch(mode=0o600)


def knows_network(sha256: str) -> bool:
    """Whether this user has named a file of this hash before."""
    try:
        own = (_folder() / sha256).stat()
    except OSError:
        return False
    return not hasattr(os, "getuid") or own.st_uid == os.getuid()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def network_sha256(path: Path) -> str:
    """SHA-256 of a network's file; of an ONNX file with weights in files beside it, one of all of them.

    Raises:
        WeightsError: An ONNX file cannot be read, or one of the files beside it.
    """
    own = file_sha256(path)
    if is_program(path):
        return own
    from ball_features.extraction.onnx_graph import side_digest

    beside = side_digest(path)
    return hashlib.sha256((own + beside).encode()).hexdigest() if beside else own


def _folder() -> Path:
    return user_folder() / "networks"
