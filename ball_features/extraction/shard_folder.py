"""The folder of the shards of an extraction on a cluster, which lies beside its output until they are merged."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ball_features.cache import SHARD, forget, read_cache
from ball_features.config.paths import is_address, shown_path
from ball_features.errors import CacheError
from ball_features.files import StoredFile
from ball_features.outputs import require_folder

__all__ = ["ShardFolder"]

_SHARD = re.compile(r"([1-9][0-9]*)-of-([1-9][0-9]*)\.h5")
_BESIDE = re.compile(r"\.?([1-9][0-9]*-of-[1-9][0-9]*\.h5)\.(lock|writer|.+\.partial)")  # what its writer leaves


@dataclass(frozen=True)
class ShardFolder:
    """A folder of shards.

    Attributes:
        path: its path, or its address.
    """

    path: Path

    @classmethod
    def beside(cls, out: Path) -> ShardFolder:
        """The folder of an output, a path or an address.

        Raises:
            CacheError: It is a link, or its store refuses.
            DataError: The folder of the output cannot be written to.
        """
        folder = cls(out.with_name(f".{out.name}.shards"))
        if is_address(out):
            StoredFile.at(out, CacheError).require_writable()
            return folder
        require_folder(out.parent, "output file")
        if folder.path.is_symlink():
            raise CacheError(f"{folder.path} is a link, and files in what it leads to would be replaced. Remove it.")
        return folder

    def files(self, parts: int) -> list[Path]:
        """Paths or addresses of so many shards; the folder is there then."""
        if not is_address(self.path):
            require_folder(self.path, "output file")
        return [self.path / f"{number}-of-{parts}.h5" for number in range(1, parts + 1)]

    def begun(self, images: int) -> int:
        """Number of shards of the earlier run that got furthest; 0 if there is none to go on with.

        The nodes may be others now, and with another number of shards all would be computed again.
        """
        done: Counter[int] = Counter()
        for _, parts, count in self._shards():
            if parts <= images:
                done[parts] += count
        return max(done, key=lambda parts: (done[parts], parts), default=0)

    def remove(self, log: Callable[[str], None]) -> None:
        """Remove the shards of all runs and what their writers left, and the folder, unless it holds anything else."""
        for name, _, _ in [*self._shards()]:
            self._unlink(name)
            forget(self.path / name)
        names = self._names()
        for name in names:
            beside = _BESIDE.fullmatch(name)
            if beside and beside[1] not in names:
                self._unlink(name)
        if self._names():
            log(f"{shown_path(self.path)} stays: it holds files that are no shards.")
        elif is_address(self.path):
            self._stored.remove_folder()
        else:
            self.path.rmdir()

    def _shards(self) -> Iterator[tuple[str, int, int]]:
        """(name, number of shards, images done) of each shard that an extraction wrote, whoever made it."""
        for name in sorted(self._names()):
            named = _SHARD.fullmatch(name)
            if named is None or (not is_address(self.path) and (self.path / name).is_symlink()):
                continue
            with contextlib.suppress(CacheError):  # no cache, or one that no extraction could go on with
                cache = read_cache(self.path / name, embeddings=False)
                if list(cache.attributes.get(SHARD, ())) == [int(named[1]), int(named[2])]:
                    yield name, int(named[2]), int(cache.committed.sum())

    def _names(self) -> list[str]:
        if is_address(self.path):
            return self._stored.listed(deep=False)
        return [file.name for file in self.path.iterdir()] if self.path.is_dir() else []

    def _unlink(self, name: str) -> None:
        if is_address(self.path):
            (self._stored / name).remove()
        elif (self.path / name).is_file():
            (self.path / name).unlink(missing_ok=True)

    @property
    def _stored(self) -> StoredFile:
        return StoredFile.at(self.path, CacheError)
