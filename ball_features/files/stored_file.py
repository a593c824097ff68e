"""One file under an address of fsspec, such as s3://bucket/all.h5: looked up, fetched, and stored whole.

Keys and passwords are fsspec's affair; no text of ours shows them.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any, Self

from ball_features.config.paths import shown_address, whole_address
from ball_features.errors import BallError, require_extra
from ball_features.files.replacement import whole_file
from ball_features.files.user_folder import user_folder

__all__ = ["StoredFile", "copies_folder", "is_certain", "make_folder"]

# What stores say of a version of a file, by names in which case and signs differ.
_MARKS = frozenset(
    (
        "size etag generation version versionid checksum contentmd5 md5 md5hash sha sha256 crc datetime created "
        "lastmodified lastmodifiedtime lastwritetime modified modificationtime modify mtime timemodified updated"
    ).split()
)


@dataclass(frozen=True)
class StoredFile:
    """A file under an address, or the folder that files lie in.

    Attributes:
        system: file system of fsspec.
        base: path in it.
        shown: address without keys.
        error: kind of the errors that are raised.
        token: digest of the whole address, 64 hexadecimal digits: files that differ in a query or a user differ in it.
    """

    system: Any
    base: str
    shown: str
    error: type[BallError]
    token: str

    @classmethod
    def at(cls, path: Path | str, error: type[BallError]) -> Self:
        """Look up a file system.

        Raises:
            BallError: The store refuses, or its package is not installed; of the kind `error`.
            MissingExtraError: fsspec is not installed.
        """
        shown = shown_address(path)
        require_extra("fsspec", "remote", f"{shown}")
        import fsspec

        try:
            system, base = fsspec.core.url_to_fs(whole_address(path))
        except ImportError as missing:
            raise error(
                f"{shown} needs a package of fsspec for {shown.partition('://')[0]} addresses. Install it, such as "
                "s3fs for s3 or gcsfs for gs."
            ) from missing
        except Exception as other:  # stores raise errors of many kinds, whose texts may hold the address
            raise error(_refused(shown, other)) from None
        return cls(system, base, shown, error, sha256(whole_address(path).encode()).hexdigest())

    def __truediv__(self, name: str) -> Self:
        """A file below a folder."""
        base, shown = f"{self.base.rstrip('/')}/{name}", f"{self.shown.rstrip('/')}/{name}"
        return replace(self, base=base, shown=shown, token=self._token_of(name))

    def beside(self, name: str) -> Self:
        """A file in the same folder."""
        return replace(
            self,
            base=f"{self.base.rpartition('/')[0]}/{name}",
            shown=f"{self.shown.rpartition('/')[0]}/{name}",
            token=self._token_of(name),
        )

    def _token_of(self, name: str) -> str:
        return sha256(f"{self.token} {name}".encode()).hexdigest()

    @property
    def name(self) -> str:
        """The last part of the path, without what stands behind it."""
        return PurePosixPath(self.shown).name

    def version(self) -> str:
        """What tells one version of the file from another; "" where there is none."""

        def look() -> str:
            self.system.invalidate_cache()
            try:
                about = self.system.info(self.base)
            except FileNotFoundError:
                return ""
            if about.get("type") == "directory":
                raise self.error(f"Got the folder {self.shown}, expected the name of a file.")
            return " ".join(f"{name}={about[name]}" for name in sorted(about) if _is_mark(name, about[name]))

        return self.asked(look)

    def listed(self, *, deep: bool) -> list[str]:
        """Paths of the files below a folder; unless deep, names of its own entries, folders among them."""

        def look() -> list[str]:
            self.system.invalidate_cache()
            try:
                if self.system.info(self.base).get("type") != "directory":
                    raise self.error(f"Got the file {self.shown}, expected the name of a folder.")
                if deep:
                    found = list(self.system.find(self.base))
                else:
                    found = self.system.ls(self.base, detail=False)
            except FileNotFoundError:
                return []
            top = self.base.rstrip("/") + "/"
            return [path.rstrip("/").removeprefix(top) for path in found if path.startswith(top) and path != top]

        return self.asked(look)

    def read(self, most: int) -> bytes:
        """The content of a file, or its first bytes, one more than `most`, where it has more."""
        size = self.system.info(self.base).get("size")
        if size is not None and size <= most:
            return self.system.cat_file(self.base)
        with self.system.open(self.base, "rb") as file:  # a server may say nothing of the size, and never end
            return file.read(most + 1)

    def get(self, path: Path) -> None:
        """Fetch the file; `path` appears whole."""
        with whole_file(path) as partial:
            self.asked(lambda: self.system.get_file(self.base, str(partial.path)))

    def require_writable(self) -> None:
        """Raise an error before the work where the store takes no new file, or the file would lie in a saved model."""
        self._require_outside_bundles()
        probe = self._partial()

        def attempt() -> None:
            self._make_folder()
            self.system.pipe_file(probe, b"ball")
            self.system.rm_file(probe)

        self.asked(attempt)

    def _require_outside_bundles(self) -> None:
        """As `outputs.require_outside_bundles`; a folder that may not be looked into counts as none."""
        self.system.invalidate_cache()
        for place, folder in enumerate(PurePosixPath(self.base).parents):
            marks = ("bundle.json",) if place == 0 else ("bundle.json", "reference.safetensors")
            if folder.name and all(self.system.exists(f"{folder}/{mark}") for mark in marks):
                shown = self.shown.rsplit("/", place + 1)[0]
                raise self.error(
                    f"{shown} holds a saved model, which further files would damage. Give another address."
                )

    def put(self, path: Path, version: str, *, refused: str = "", changed: str = "") -> None:
        """Store a file of this machine: under a temporary name, then moved, where nothing else has come meanwhile.

        Args:
            path: the file.
            version: what the store must hold, "" for nothing: compared when all but the move is done.
            refused: end of the message where the store refuses.
            changed: end of the message where it holds something else.
        """
        partial = self._partial()

        def attempt() -> None:
            self.require_version(version, changed)
            self._make_folder()
            self.system.put_file(str(path), partial)
            try:
                self.require_version(version, changed)
                self.system.mv(partial, self.base)
            except BaseException:
                with contextlib.suppress(Exception):
                    self.system.rm_file(partial)
                raise

        self.asked(attempt, refused)

    def require_version(self, version: str, more: str = "") -> None:
        """Raise an error, with more behind it, where the store holds something else."""
        if self.version() != version:
            raise self.error(f"{self.shown} was changed by another program meanwhile, and stays as it is.{more}")

    def remove(self) -> None:
        """Remove the file."""
        self.asked(lambda: self.system.rm_file(self.base))

    def remove_folder(self) -> None:
        """Remove a folder that is empty, in file systems that have folders."""
        if self._has_folders:
            self.asked(lambda: self.system.rmdir(self.base))

    def asked(self, ask: Callable[[], Any], more: str = "") -> Any:
        """What a store answers; its own errors become ours, without their text."""
        try:
            return ask()
        except BallError:
            raise
        except Exception as error:  # stores raise errors of many kinds, whose texts may hold the address
            raise self.error(_refused(self.shown, error, more)) from None

    def _partial(self) -> str:
        return f"{self.base}.{secrets.token_hex(4)}.partial"

    @property
    def _has_folders(self) -> bool:
        kind = self.system.protocol
        return "file" in ([kind] if isinstance(kind, str) else kind)

    def _make_folder(self) -> None:
        """Make the folder of a file in file systems that have folders."""
        if self._has_folders:
            self.system.makedirs(str(PurePosixPath(self.base).parent), exist_ok=True)


def is_certain(version: str) -> bool:
    """Whether a version of `StoredFile.version` tells more than a size, which another file may have too."""
    return any(not mark.lower().startswith("size=") for mark in version.split())


def _is_mark(name: Any, value: Any) -> bool:
    return value is not None and re.sub("[^a-z0-9]", "", str(name).lower()) in _MARKS


def _refused(shown: str, error: Exception, more: str = "") -> str:
    return f"{shown} cannot be used ({type(error).__name__}). Check the address and your access.{more}"


def copies_folder() -> Path:
    """The folder of this machine for copies of what lies under addresses; it need not exist."""
    return user_folder() / "remote"


def make_folder(folder: Path, error: type[BallError]) -> None:
    """Make a folder for copies; where that fails, raise an error of this kind."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as failed:
        raise error(
            f"{folder} cannot be made ({failed.strerror}). It keeps copies of files under addresses; XDG_CACHE_HOME "
            "names another place."
        ) from failed
