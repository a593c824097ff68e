"""Finished rungs of a ladder, kept on disk until the whole ladder is done: an interrupted ladder goes on from there."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import struct
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from ball_features import __version__
from ball_features.evaluation.fit_split import Fitted
from ball_features.evaluation.protocols import ModelResult
from ball_features.files import clear_partial, open_plain, whole_file
from ball_features.models.registry import Model
from ball_features.runs.rungs import Rung

__all__ = ["KeptRungs"]

_NAME = re.compile(r"[0-9a-f]{32}\.npz")
_MARK = "ball-ladder-step"  # the first member, by which a file is known, whole or cut
_FAILURES, _MOST_BYTES = "failures.json", 1 << 24
_FORMER = re.compile(
    r"failures\.(?:json|npy)|[a-z-]+/\d+/(?:probability|seconds|converged|flips)\.npy"
)  # of earlier versions
# What readers of damaged archives and JSON raise, as far as 64-bit offsets and nesting without an end lead.
_DAMAGE = (OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError,
           MemoryError, struct.error, zipfile.BadZipFile)  # fmt: skip


@dataclass(frozen=True)
class KeptRungs:
    """Results of finished rungs, one file each.

    A rung is read back only for the same images, settings, splits, models and version of the package.

    Attributes:
        folder: folder of the files; it is made when the first rung is kept.
        basis: digest of everything that all rungs have in common: images, embeddings, settings.
        classes: number of classes.
    """

    folder: Path
    basis: str
    classes: int

    def load(self, rung: Rung, models: Sequence[Model]) -> list[ModelResult] | None:
        """Read the results of a rung; None where it is not kept, or its file is damaged."""
        try:
            with open_plain(self._file(rung, models)) as file, zipfile.ZipFile(file) as archive:
                failures = json.loads(_member(archive, _FAILURES, None))
                results = [self._result(archive, rung, model, failures.get(model.name)) for model in models]
                fitted = [item for result in results for item in result.fitted]
                members = 2 + sum(3 + (item.flips is not None) for item in fitted)
                return results if len(archive.filelist) == members else None  # flips may be lost with their name
        except _DAMAGE:
            return None

    def save(self, rung: Rung, models: Sequence[Model], results: Sequence[ModelResult]) -> None:
        """Keep the results of a rung; a full disk loses the copy and not the ladder, and files of others stay."""
        arrays: dict[str, np.ndarray] = {}
        for result in results:
            for place, item in enumerate(result.fitted):
                arrays[f"{result.spec.name}/{place}/probability"] = np.asarray(item.probability, dtype=np.float64)
                arrays[f"{result.spec.name}/{place}/seconds"] = np.array([item.fit_s, item.predict_s], float)
                arrays[f"{result.spec.name}/{place}/converged"] = np.array([item.converged, item.refitted], bool)
                if item.flips is not None:
                    arrays[f"{result.spec.name}/{place}/flips"] = np.asarray(item.flips, dtype=np.bool_)
        failures = {item.spec.name: [item.failure, item.traceback] for item in results if item.failure}
        target = self._file(rung, models)
        if self.folder.is_symlink() or not _is_free(target):  # a folder, or a file, of somebody's
            return
        with (
            contextlib.suppress(OSError),
            whole_file(target) as partial,
            partial.path.open("wb") as file,
            zipfile.ZipFile(file, "w") as archive,
        ):
            archive.writestr(_MARK, b"")
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    npy.write_array(member, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
            archive.writestr(_FAILURES, json.dumps(failures))
            if not _is_free(target):
                raise FileExistsError(target)

    def clear(self) -> None:
        """Forget all rungs; what else lies in the folder stays."""
        self._forget(set())
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def keep_only(self, rungs: Sequence[Rung], models: Sequence[Model]) -> None:
        """Forget all rungs but these; what else lies in the folder stays."""
        self._forget({self._file(rung, models).name for rung in rungs})

    def _forget(self, but: set[str]) -> None:
        if self.folder.is_symlink():
            return
        clear_partial(self.folder)
        with contextlib.suppress(OSError):
            for file in self.folder.iterdir():
                if _NAME.fullmatch(file.name) and file.name not in but and _is_own(file):
                    file.unlink(missing_ok=True)

    def _file(self, rung: Rung, models: Sequence[Model]) -> Path:
        digest = hashlib.sha256(f"{self.basis}\n{__version__}\n{rung.name}\n{rung.config.to_dict()}".encode())
        digest.update("\n".join(f"{model.name} {model.most_trees}" for model in models).encode())
        for split in rung.splits:
            for rows in (split.train, split.val, split.test):
                digest.update(np.ascontiguousarray(rows, dtype=np.int64).tobytes())
        return self.folder / f"{digest.hexdigest()[:32]}.npz"

    def _result(self, archive: zipfile.ZipFile, rung: Rung, model: Model, failure: Any) -> ModelResult:
        if failure is not None:
            reason, trace = failure
            if not (reason and isinstance(reason, str) and isinstance(trace, str)):
                raise ValueError("a failure has no text")
            return ModelResult(model, [], reason, trace)
        fitted = []
        for place, split in enumerate(rung.splits):
            own = f"{model.name}/{place}"
            fit_s, predict_s = _array(archive, f"{own}/seconds", np.float64, (2,)).tolist()
            converged, refitted = _array(archive, f"{own}/converged", np.bool_, (2,)).tolist()
            tested, flips = len(split.test), f"{own}/flips"
            fitted.append(
                Fitted(
                    split=split,
                    probability=_array(archive, f"{own}/probability", np.float64, (tested, self.classes)),
                    curves={},
                    best_epoch=-1,
                    fit_s=fit_s,
                    predict_s=predict_s,
                    flips=_array(archive, flips, np.bool_, (tested,)) if f"{flips}.npy" in archive.NameToInfo else None,
                    converged=converged,
                    refitted=refitted,
                )
            )
        return ModelResult(model, fitted)


def _is_free(file: Path) -> bool:
    """Whether nothing has the name of a kept rung, or a kept rung."""
    return not os.path.lexists(file) or _is_own(file)


def _is_own(file: Path) -> bool:
    """Whether a file is a kept rung, also one that is cut or of an earlier version, by its content."""
    if file.is_symlink():
        return False
    try:
        with open_plain(file) as content:
            head = content.read(30 + len(_MARK))
            if head.startswith(b"PK\3\4") and head[30:] == _MARK.encode():
                return True
            with zipfile.ZipFile(content) as archive:
                names = archive.namelist()
                return (
                    bool({"failures.json", "failures.npy"} & {*names})
                    and len(names) > 1
                    and all(map(_FORMER.fullmatch, names))
                )
    except _DAMAGE:
        return False


def _array(archive: zipfile.ZipFile, name: str, dtype: type[np.generic], shape: tuple[int, ...]) -> np.ndarray:
    """An array of the type and shape that are expected: what its header claims is compared, and never believed.

    Raises:
        ValueError: It is another one, or not finite.
    """
    head = io.BytesIO()
    npy.write_array_header_1_0(head, {"descr": npy.dtype_to_descr(np.dtype(dtype)), "fortran_order": False,
                                      "shape": shape})  # fmt: skip
    start = head.getvalue()
    data = _member(archive, f"{name}.npy", len(start) + int(np.prod(shape)) * np.dtype(dtype).itemsize)
    values = np.frombuffer(bytearray(data[len(start) :]), np.uint8 if dtype is np.bool_ else dtype)
    if not data.startswith(start) or not np.isfinite(values).all() or (dtype is np.bool_ and values.max(initial=0) > 1):
        raise ValueError(f"{name} is no such array")
    return values.view(dtype).reshape(shape)


def _member(archive: zipfile.ZipFile, name: str, size: int | None) -> bytes:
    """The bytes of a member, which is not compressed.

    Raises:
        ValueError: It is, or has another number of bytes, or more than a record of failures has.
    """
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED or info.file_size > (_MOST_BYTES if size is None else size):
        raise ValueError(f"{name} is packed, or too large")
    data = archive.read(info)
    if size is not None and len(data) != size:
        raise ValueError(f"{name} has {len(data)} bytes")
    return data
