"""A run's folder, which appears whole."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from ball_features.config.paths import is_copy
from ball_features.errors import DataError
from ball_features.files import clear_partial, is_begun_by_others, partial_of, settle

__all__ = ["NewFolder", "free_folder", "reserved_folder", "stamped"]

_TAKEN = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)


def free_folder(root: Path, name: str) -> Path:
    """Choose a folder that is not there, and that no other process has reserved.

    Args:
        root: parent folder.
        name: wanted name; a name that is taken gets a number.

    Raises:
        DataError: 10,000 folders have the name.
    """
    for number in range(1, 10_000):
        folder = root / (name if number == 1 else f"{name}-{number}")
        if not os.path.lexists(folder) and not is_begun_by_others(folder):
            return folder
    raise DataError(f"{root} holds 10,000 runs called {name}. Give another name.")


def stamped(kind: str, root: Path | str) -> str:
    """Name of a run that was given none: its kind, with date and time in UTC.

    Under an address, where no name can be reserved, a number is drawn too: jobs of an array begin in one second.
    """
    drawn = f"-{secrets.token_hex(3)}" if is_copy(Path(root)) else ""
    return f"{kind}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}{drawn}"


@contextlib.contextmanager
def reserved_folder(root: Path, name: str) -> Iterator[Path]:
    """Reserve the folder of a run before it is written, for what its files say of their own place.

    Args:
        root: parent folder, which is made.
        name: wanted name; a name that is taken gets a number.

    Raises:
        DataError: the parent folder cannot be written to, or 10,000 folders have the name.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        while True:
            folder = free_folder(root, name)
            mark = partial_of(folder)
            mark.mkdir(exist_ok=True)
            if not is_begun_by_others(folder):
                break
            mark.rmdir()  # another process has chosen it at the same moment
    except OSError as error:
        raise _refusal(root, error) from error
    try:
        yield folder
    finally:
        with contextlib.suppress(OSError):  # mostly it is the run by now
            mark.rmdir()


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
            raise _refusal(self._root, error) from error
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Give the folder its name, or remove it after an exception.

        Raises:
            DataError: the folder cannot be written, or 10,000 folders have its name.
        """
        if error is not None:
            shutil.rmtree(self.path, ignore_errors=True)
            if isinstance(error, OSError):
                raise _refusal(self._root, error) from error
            return
        try:
            self.path = self._settled()
        except (DataError, OSError) as error:
            shutil.rmtree(self.path, ignore_errors=True)
            if isinstance(error, OSError):
                raise _refusal(self._root, error) from error
            raise

    def _settled(self) -> Path:
        """The folder under a free name; another process may take the one that was free."""
        while True:
            try:
                return settle(self.path, free_folder(self._root, self._name))
            except OSError as error:
                if error.errno not in _TAKEN or not self.path.exists():
                    raise


def _refusal(root: Path, error: OSError) -> DataError:
    return DataError(f"The run cannot be written to {root} ({error.strerror or error}). Give another output folder.")
