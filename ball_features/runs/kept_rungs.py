"""Finished rungs of a ladder, kept on disk until the whole ladder is done: an interrupted ladder goes on from there."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ball_features import __version__
from ball_features.evaluation.fit_split import Fitted
from ball_features.evaluation.protocols import ModelResult
from ball_features.files import whole_file
from ball_features.models.registry import Model
from ball_features.runs.rungs import Rung

__all__ = ["KeptRungs"]


@dataclass(frozen=True)
class KeptRungs:
    """Results of finished rungs, one file each.

    A rung is read back only for the same images, settings, splits, models and version of the package.

    Attributes:
        folder: folder of the files; it is made when the first rung is kept.
        basis: digest of everything that all rungs have in common: images, embeddings, settings.
    """

    folder: Path
    basis: str

    def load(self, rung: Rung, models: Sequence[Model]) -> list[ModelResult] | None:
        """Read the results of a rung; None where it is not kept, or its file is damaged."""
        try:
            with np.load(self._file(rung, models), allow_pickle=False) as file:
                failures = json.loads(str(file["failures"]))
                return [self._result(file, rung, model, failures.get(model.name)) for model in models]
        except (OSError, KeyError, ValueError, zipfile.BadZipFile):
            return None

    def save(self, rung: Rung, models: Sequence[Model], results: Sequence[ModelResult]) -> None:
        """Keep the results of a rung; a full disk loses the copy and not the ladder."""
        arrays: dict[str, np.ndarray] = {}
        for result in results:
            for place, item in enumerate(result.fitted):
                arrays[f"{result.spec.name}/{place}/probability"] = item.probability
                arrays[f"{result.spec.name}/{place}/seconds"] = np.array([item.fit_s, item.predict_s])
                arrays[f"{result.spec.name}/{place}/converged"] = np.array([item.converged, item.refitted])
                if item.flips is not None:
                    arrays[f"{result.spec.name}/{place}/flips"] = item.flips
        failures = {item.spec.name: [item.failure, item.traceback] for item in results if item.failure}
        target = self._file(rung, models)
        if self.folder.is_symlink():  # to a folder of somebody's
            return
        with contextlib.suppress(OSError), whole_file(target) as partial, partial.path.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays, failures=np.array(json.dumps(failures)))

    def clear(self) -> None:
        """Forget all rungs."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def keep_only(self, rungs: Sequence[Rung], models: Sequence[Model]) -> None:
        """Forget all rungs but these."""
        own = {self._file(rung, models).name for rung in rungs}
        for file in () if self.folder.is_symlink() else self.folder.glob("*.npz"):
            if file.name not in own:
                file.unlink(missing_ok=True)

    def _file(self, rung: Rung, models: Sequence[Model]) -> Path:
        digest = hashlib.sha256(f"{self.basis}\n{__version__}\n{rung.name}\n{rung.config.to_dict()}".encode())
        digest.update("\n".join(f"{model.name} {model.most_trees}" for model in models).encode())
        for split in rung.splits:
            for rows in (split.train, split.val, split.test):
                digest.update(np.ascontiguousarray(rows, dtype=np.int64).tobytes())
        return self.folder / f"{digest.hexdigest()[:32]}.npz"

    @staticmethod
    def _result(file: np.lib.npyio.NpzFile, rung: Rung, model: Model, failure: list[str] | None) -> ModelResult:
        if failure is not None:
            return ModelResult(model, [], *failure)
        fitted = []
        for place, split in enumerate(rung.splits):
            own = f"{model.name}/{place}"
            fit_s, predict_s = file[f"{own}/seconds"].tolist()
            converged, refitted = file[f"{own}/converged"].tolist()
            fitted.append(
                Fitted(
                    split=split,
                    probability=file[f"{own}/probability"],
                    curves={},
                    best_epoch=-1,
                    fit_s=fit_s,
                    predict_s=predict_s,
                    flips=file[f"{own}/flips"] if f"{own}/flips" in file else None,
                    converged=converged,
                    refitted=refitted,
                )
            )
        return ModelResult(model, fitted)
