"""Outputs under addresses of fsspec, such as s3://bucket/runs: written on this machine, then stored.

A command writes into a folder of copies on this machine, which holds what the address holds, so that all checks of what
may be replaced are made there. When the command has ended, what it has written is stored: each file under a temporary
name, then moved, and last the files by which a run, a bundle or an evaluation is known.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from ball_features.config.paths import called, disk_path, is_address
from ball_features.errors import ConfigError, DataError
from ball_features.files.partial import clear_partial, partial_of
from ball_features.files.stored_file import StoredFile, copies_folder, make_folder

__all__ = ["STORED", "delivered"]

# What lies under the address of an output -> what that means.
STORED = {
    "file": "one file, and those that are named after it",
    "folder": "a folder of files, which are fetched first if there are any",
    "runs": "a folder that gets a folder of a free name; nothing in it is fetched",
    "kept": "a folder that an interrupted command goes on with; its copy outlives the command",
}
_LAST = ("run.json", "bundle.json", "evaluation.json", "assess.html")
_COMPANIONS = ("{name}", "{name}.json", "{stem}.patients.csv")
_OURS = (".lock", ".writer", ".partial")

_Stamp = tuple[int, int]  # size, and time of the last change


@contextlib.contextmanager
def delivered(path: Path | str, kind: str = "folder") -> Iterator[Path]:
    """A path of this machine to write an output to: a local path itself, or a copy of what lies under an address.

    What was written there is stored under the address when the block ends without an error; after an error nothing is
    stored. Where the store fails, the message tells where the copy is kept.

    Args:
        path: path or address.
        kind: key of `STORED`.

    Raises:
        ConfigError: No such kind.
        DataError: The store refuses, or another program has changed there what was written here.
        MissingExtraError: fsspec, or its part for this kind of address, is not installed.

    Examples:
        >>> with delivered("artifacts/runs", "runs") as folder:
        ...     folder.as_posix()
        'artifacts/runs'
    """
    if kind not in STORED:
        raise ConfigError(f"Got kind={kind!r}, expected one of {', '.join(STORED)}.")
    path = disk_path(path) or path
    if not is_address(path):
        yield Path(path)
        return
    stored = StoredFile.at(str(path).rstrip("/"), DataError)
    inside = stored if kind == "file" else stored / "ball"
    inside.require_writable()
    make_folder(copies_folder(), DataError)
    top = copies_folder().resolve()
    clear_partial(top)
    with contextlib.ExitStack() as held:
        kept = top / f"out-{secrets.token_hex(4)}"
        folder = partial_of(kept)
        if kind == "kept":
            kept = folder = top / f"out-{stored.token[:16]}"
            held.enter_context(_alone(folder, stored.shown))
        copy = _Copy(inside, folder / stored.name, kind, folder.with_name(f"{folder.name}.json"))
        try:
            make_folder(folder, DataError)
            copy.fetch()
            with called(folder, stored.shown.rpartition("/")[0]):
                yield copy.path
        except BaseException:
            if kind != "kept":
                shutil.rmtree(folder, ignore_errors=True)
            raise
        folder.replace(kept)  # a copy that is worth keeping, where it cannot be stored
        replace(copy, path=kept / stored.name).store()
        shutil.rmtree(kept, ignore_errors=True)
        copy.note.unlink(missing_ok=True)


@contextlib.contextmanager
def _alone(folder: Path, shown: str) -> Iterator[None]:
    """Hold a folder of copies that outlives commands: one of this machine at a time writes there."""
    from filelock import FileLock, Timeout  # slow to import, and seldom needed

    try:
        with FileLock(f"{folder}.lock", timeout=0):
            yield
    except Timeout as error:
        raise DataError(f"Another command of this machine writes to {shown}. Wait until it has ended.") from error


@dataclass(frozen=True)
class _Copy:
    """What lies under an address, on this machine.

    Attributes:
        stored: the file under the address, or any file in its folder.
        path: the file or folder of this machine.
        kind: key of `STORED`.
        note: file that tells an interrupted command what was fetched.
        versions: file below the folder of `path`, or of its own name -> version in the store when it was fetched.
        stamps: such a file -> its state when it was fetched.
    """

    stored: StoredFile
    path: Path
    kind: str
    note: Path
    versions: dict[str, str] = field(default_factory=dict)
    stamps: dict[str, _Stamp | None] = field(default_factory=dict)

    @property
    def top(self) -> Path:
        """The folder that names of files begin at."""
        return self.path.parent if self.kind == "file" else self.path

    def fetch(self) -> None:
        """Fetch what the address holds, as far as a check or the command itself may look at it."""
        if self.kind == "runs":
            for name in filter(_is_plain, self._folder().listed(deep=False)):
                make_folder(self.path / name, DataError)  # a name that is taken
            return
        if self.kind == "file":
            names = [form.format(name=self.path.name, stem=self.path.stem) for form in _COMPANIONS]
        else:
            names = self._folder().listed(deep=True)
        self.versions.update({name: self.stored.beside(name).version() for name in names})
        before = self._noted()
        for name, version in self.versions.items():
            path = self._path(name)
            if version and (before.get(name) != version or not path.exists()):
                make_folder(path.parent, DataError)
                self.stored.beside(name).get(path)
                self.stamps[name] = _stamp(path)
        for name in set(before) - set(self.versions):  # somebody has removed it meanwhile
            self._path(name).unlink(missing_ok=True)
        if self.kind == "kept":
            self.note.write_text(json.dumps(self.versions), encoding="utf-8")

    def store(self) -> None:
        """Store what is new or was changed, and remove what the command has removed.

        Raises:
            DataError: The store refuses, or holds something else than it did.
        """
        where = f" What was written is in {self.path}: copy it, or run the command again."
        present = {path.relative_to(self.top).as_posix(): path for path in self.top.rglob("*") if self._is_output(path)}
        changed = [name for name, path in present.items() if self.stamps.get(name) != _stamp(path)]
        changed.sort(key=lambda name: (name.rpartition("/")[2] in _LAST, -name.count("/"), name))
        removed = [name for name, version in self.versions.items() if version and not self._path(name).exists()]
        for name in (*changed, *removed):
            self.stored.beside(name).require_version(self.versions.get(name, ""), where)
        new: list[StoredFile] = []
        try:
            for name in changed:
                there = self.stored.beside(name)
                there.put(present[name], self.versions.get(name, ""), refused=where, changed=where)
                new += [] if self.versions.get(name) else [there]
        except BaseException:
            for there in reversed(new):  # what makes it known was stored last
                with contextlib.suppress(Exception):
                    there.remove()
            raise
        for name in removed:
            self.stored.beside(name).remove()

    def _folder(self) -> StoredFile:
        base, shown = (text.rpartition("/")[0] for text in (self.stored.base, self.stored.shown))
        return replace(self.stored, base=base, shown=shown)

    def _path(self, name: str) -> Path:
        """The copy of a file; names of a store lead nowhere else."""
        if not _is_plain(name):
            raise DataError(f"{self.stored.beside(name).shown} has no name of a file here. Give another address.")
        return self.top / PurePosixPath(name)

    def _noted(self) -> dict[str, str]:
        try:
            return {str(name): str(version) for name, version in json.loads(self.note.read_text("utf-8")).items()}
        except (OSError, ValueError, AttributeError):
            return {}

    def _is_output(self, path: Path) -> bool:
        return path.is_file() and not path.name.endswith(_OURS)


def _is_plain(name: str) -> bool:
    return "\\" not in name and all(part not in ("..", ".", "") for part in name.split("/"))


def _stamp(path: Path) -> _Stamp:
    return path.stat().st_size, path.stat().st_mtime_ns
