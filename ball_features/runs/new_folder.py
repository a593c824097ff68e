"""A run's folder, which appears whole."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Self

from ball_features.errors import DataError
from ball_features.files import clear_partial, partial_of, settle

__all__ = ["NewFolder", "free_folder"]

_TAKEN = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)


def free_folder(root: Path, name: str) -> Path:
    """Choose the folder of a run before it is written, for what its files say of their own place.

    Args:
        root: parent folder.
        name: wanted name; a name that is taken gets a number.

    Raises:
        DataError: 10,000 folders have the name.
    """
    for number in range(1, 10_000):
        folder = root / (name if number == 1 else f"{name}-{number}")
        if not os.path.lexists(folder):
            return folder
    raise DataError(f"{root} holds 10,000 runs called {name}. Give another name.")


class NewFolder:
    """A folder that appears whole under a free name: it is written under another name, then renamed.

    An exception inside the `with` block, an interrupt too, removes it.

    Attributes:
        path: folder to write into; the final folder after the `with` block.

    Examples:
        >>> with NewFolder(Path("artifacts/runs"), "holdout") as new:
        ...     _ = (new.path / "run.json").write_text("{}")
        >>> new.path.as_posix()
        'artifacts/runs/holdout'
    """

    def __init__(self, root: Path, name: str) -> None:
        """Choose the folder.

        Args:
            root: parent folder, which is made.
            name: wanted name; a name that is taken gets a number.
        """
        self._root, self._name = root, name
        self.path = partial_of(root / name)

    def __enter__(self) -> Self:
        """Make the folder.

        Raises:
            DataError: the folder cannot be made.
        """
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            clear_partial(self._root, self._name)
            shutil.rmtree(self.path, ignore_errors=True)
            self.path.mkdir()
        except OSError as error:
            raise self._refusal(error) from error
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Give the folder its name, or remove it after an exception.

        Raises:
            DataError: the folder cannot be written, or 10,000 folders have its name.
        """
        if error is not None:
            shutil.rmtree(self.path, ignore_errors=True)
            if isinstance(error, OSError):
                raise self._refusal(error) from error
            return
        try:
            self.path = self._settled()
        except (DataError, OSError) as error:
            shutil.rmtree(self.path, ignore_errors=True)
            if isinstance(error, OSError):
                raise self._refusal(error) from error
            raise

    def _settled(self) -> Path:
        """The folder under a free name; another process may take the one that was free."""
        while True:
            try:
                return settle(self.path, free_folder(self._root, self._name))
            except OSError as error:
                if error.errno not in _TAKEN or not self.path.exists():
                    raise

    def _refusal(self, error: OSError) -> DataError:
        return DataError(f"The run cannot be written to {self._root} ({error.strerror}). Give another output folder.")
