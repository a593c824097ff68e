"""Every error that `ball` raises on purpose, under one root.

    BallError                  catch this to catch all of them
    ├── ConfigError            a setting is unknown or out of range
    ├── DataError              the images or a table beside them cannot be used
    │   ├── ImageError         one image cannot be decoded (collected, never fatal by itself)
    │   └── SplitError         a protocol cannot be carried out on these labels or groups
    ├── WeightsError           network weights are missing, damaged or of another architecture
    ├── CacheError             a cache is unreadable, incomplete or made with other settings
    │   └── CacheBusyError     another process is writing the cache
    └── MissingExtraError      an optional dependency is not installed

A message says what was got, what was expected and what to do next.
"""

import errno
import importlib.util
from collections.abc import Callable
from typing import ClassVar

__all__ = [
    "BallError",
    "CacheBusyError",
    "CacheError",
    "ConfigError",
    "DataError",
    "ImageError",
    "MissingExtraError",
    "SplitError",
    "WeightsError",
    "is_of_the_machine",
    "require_extra",
]


class BallError(Exception):
    """Root of all errors that `ball` raises on purpose; the command line prints it and exits with 2.

    Attributes:
        shown: what leaves keys of addresses out of a message; set by `config.paths`, which knows addresses.
    """

    shown: ClassVar[Callable[[str], str]] = str

    def __str__(self) -> str:
        """The message, without keys of addresses, which an option that takes none may have been given."""
        return type(self).shown(super().__str__())


class ConfigError(BallError):
    """A setting is unknown or out of range.

    Args:
        message: what was got, what was expected and what to do.
        option: name of the setting's field, if it is one setting; the command line adds the name of its flag.
    """

    def __init__(self, message: str, *, option: str = ""):
        super().__init__(message)
        self.option = option


class DataError(BallError):
    """The images, or a table beside them, cannot be used."""


class ImageError(DataError):
    """One image cannot be decoded; a run collects these and goes on."""


class SplitError(DataError):
    """A protocol cannot be carried out on these labels or groups."""


class WeightsError(BallError):
    """Network weights are missing, damaged or of another architecture."""


class CacheError(BallError):
    """A cache is unreadable, incomplete or made with other settings."""


class CacheBusyError(CacheError):
    """Another process is writing the cache."""


class MissingExtraError(BallError):
    """An optional dependency is not installed."""


def require_extra(module: str, extra: str, what: str) -> None:
    """Raise `MissingExtraError` where an optional package is not installed.

    Args:
        module: name of the package as it is imported.
        extra: extra of this project that installs it.
        what: subject of the message, such as "ONNX export".
    """
    if importlib.util.find_spec(module) is None:
        raise MissingExtraError(f"{what} needs the package {module}. Install it: pip install 'ball-features[{extra}]'")


# What a system says of a place, whatever is in the file that is read or written there.
_OF_THE_PLACE = (
    errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.EROFS, errno.ENOSPC, errno.EIO, errno.ELOOP, errno.ENOTDIR,
    errno.ESTALE, errno.EDQUOT, errno.EMFILE, errno.ENFILE,
)  # fmt: skip


def is_of_the_machine(error: BaseException) -> bool:
    """Whether a place or the memory is to blame for an error, and not the content of a file or a model."""
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _OF_THE_PLACE)
