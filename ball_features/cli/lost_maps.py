"""A file that is read through a memory map, and that is cut or cannot be read any more: told in words."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

__all__ = ["tell_of_lost_maps"]

_SAID = (
    b"Error: A file that was in use, most likely the cache, was cut by another program, or its disk or share failed. "
    b"Run the command again once it is whole.\n"
)
_held: list[Callable[..., object]] = []  # what C calls must not be collected


def tell_of_lost_maps() -> None:
    """End this process with a message and code 2 where a memory map has no file behind it; the system says nothing.

    Python's own handlers run after the instruction in hand, which does not end then.
    """
    if not hasattr(signal, "SIGBUS"):
        return
    import ctypes

    kind = ctypes.CFUNCTYPE(None, ctypes.c_int)

    def tell(number: int) -> None:
        os.write(2, _SAID)
        os._exit(2)

    handler = kind(tell)
    _held[:] = [handler]
    library = ctypes.CDLL(None)
    library.signal.argtypes, library.signal.restype = [ctypes.c_int, kind], ctypes.c_void_p
    library.signal(int(signal.SIGBUS), handler)
