"""Caches of drawn numbers, for tests that need no image: classes are clouds, patients and sites shift them."""

from pathlib import Path

import numpy as np

from ball_features.cache import CacheContents, CacheWriter, create_cache

NAMES = ("Benign", "Early", "Pre", "Pro")
SETTINGS = {
    "backbone": "densenet121",
    "batch_size": 16,
    "fingerprint": "f" * 64,
    "input_px": 224,
    "normalize": "imagenet",
    "precision": "fp32",
    "recipe": "plain",
    "weights": "random",
    "weights_sha256": "0" * 64,
    "images": "images",
}


def write_cache(
    path: Path,
    embeddings: np.ndarray,
    label: list[str],
    columns: dict[str, list[str]] | None = None,
    paths: list[str] | None = None,
    **attributes: object,
) -> Path:
    """Write a complete cache of one view; embeddings float (images, dim); further attributes by name."""
    number = np.arange(len(label))
    contents = CacheContents(
        paths=paths or [f"{name or 'none'}/{row:05}.png" for row, name in zip(number, label, strict=True)],
        labels=label,
        sha256=[f"{row:064x}" for row in number],
        view=["plain"],
        dim=embeddings.shape[1],
        dtype="float32",
        shortcuts={"colour": 3},
        attributes=SETTINGS | attributes,
        columns=columns or {},
    )
    create_cache(path, contents)
    colour = np.random.default_rng(9).normal(size=(len(label), 3)).astype(np.float32)
    with CacheWriter(path) as writer:
        writer.write(number, embeddings[:, None, :].astype(np.float32), {"colour": colour})
    return path


def clouds(per_class: int, dim: int = 16, distance: float = 1.2, seed: int = 0) -> tuple[np.ndarray, list[str]]:
    """Embeddings (images, dim) of four classes at random corners, and the class of each."""
    rng = np.random.default_rng(seed)
    centre = rng.normal(size=(len(NAMES), dim)) * distance
    code = np.repeat(np.arange(len(NAMES)), per_class)
    return centre[code] + rng.normal(size=(len(code), dim)), [NAMES[own] for own in code]
