"""The run that a ladder replaces: files that a ladder has written go, and whatever else lies among them stays."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ball_features.config.paths import is_address, shareable_text
from ball_features.config.toml import FILE
from ball_features.errors import DataError
from ball_features.files import clear_partial, read_json
from ball_features.output_kinds import OUTPUTS, Output, is_own
from ball_features.runs.new_folder import free_folder

__all__ = ["FormerRun", "file_sums", "require_unread"]

# Files of a ladder, and how each is recognised where the run has no checksum of it.
_OWN = {
    "ladder.csv": Output(b"rung,model,kind,"),
    "splits.csv": Output(b"rung,path,label,group,"),
    "predictions.csv": Output(b"rung,model,repeat,fold,path,label,"),
    FILE: Output(b"# Settings of a run of `ball fit`"),
    "run.json": Output(b"{", ('"kept": true',)),
    "verdict.json": OUTPUTS["verdict"],
    "report.html": OUTPUTS["page"],
}
_LASTING = ("ladder.csv", "splits.csv", "predictions.csv", FILE)  # the others are written again, by `ball report` too


@dataclass(frozen=True)
class FormerRun:
    """A ladder that the same call made before.

    Attributes:
        folder: its folder.
        note: the user's note, or "".
        sums: name of a file -> hash of its content, of those that no command writes again.
    """

    folder: Path
    note: str
    sums: Mapping[str, object] = field(default_factory=dict)

    @classmethod
    def find(cls, folder: Path) -> FormerRun | None:
        """The ladder in a folder, if it is one that may be replaced."""
        try:
            details = read_json(folder / "run.json")
            if folder.is_symlink() or details.get("kept") is not True:
                return None
            note, sums = details.get("note", ""), details.get("files")
        except (OSError, ValueError, AttributeError):
            return None
        return cls(folder, note if isinstance(note, str) else "", sums if isinstance(sums, dict) else {})

    def _is_ours(self, path: Path) -> bool:
        """Whether a file with a name of the run's own is the one that was written there, or another one by now."""
        if path.is_symlink() or not path.is_file():
            return False
        if path.name in self.sums:
            return self.sums[path.name] == _sum(path)
        return not path.stat().st_size or is_own(path, _OWN[path.name])

    def make_room(self) -> Path | None:
        """Remove the files of the run; the folder with what is left in it gets a free name, which is returned.

        Raises:
            OSError: They cannot be removed.
        """
        clear_partial(self.folder)
        for name in _OWN:
            path = self.folder / name
            if self._is_ours(path):
                path.unlink()
        with contextlib.suppress(OSError):
            self.folder.rmdir()
            return None
        return self.folder.rename(free_folder(self.folder.parent, self.folder.name))

    def bring_back(self, aside: Path, new: Path) -> list[str]:
        """Move what `make_room` has set aside to where it lay.

        Args:
            aside: what `make_room` returned.
            new: folder of the new run.

        Returns:
            A note where something stays aside.
        """
        with contextlib.suppress(OSError):
            for path in list(aside.iterdir()) if new == self.folder else []:
                # A folder or a link under a name of the run's own would be in the way of the run.
                if path.name not in _OWN and not os.path.lexists(new / path.name):
                    path.rename(new / path.name)
            aside.rmdir()
            return []
        return [f"{aside} has files that lay in the run that was replaced, and that ball had not written there."]


def file_sums(folder: Path) -> dict[str, str]:
    """Hashes of the files of a ladder that no command writes again: name -> SHA-256."""
    return {name: _sum(folder / name) for name in _LASTING}


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require_unread(folder: Path, inputs: Iterable[Path | str]) -> None:
    """Raise `DataError` where a command reads a file that it would replace with the run in this folder."""
    for item in inputs:
        if is_address(item) or not (folder / "run.json").exists():
            continue
        path = Path(item).resolve()
        if path.parent == folder.resolve() and path.name in _OWN:
            raise DataError(
                f"{shareable_text(str(item))} is a file of the run that this command replaces. Give a copy of it that "
                "lies elsewhere, or another output folder."
            )
