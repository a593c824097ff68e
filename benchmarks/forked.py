"""Commands of `ball` as children of a process that has loaded its libraries, so that a run takes its own time alone."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

LIBRARIES = (
    *(
        "torch",
        "torchvision",
        "h5py",
        "numpy",
        "scipy.stats",
        "scipy.optimize",
        "scipy.ndimage",
        "sklearn.linear_model",
    ),
    *("sklearn.discriminant_analysis", "sklearn.neighbors", "sklearn.svm", "xgboost", "skops.io", "safetensors.torch"),
    *("PIL.Image", "rich.table", "rich.progress", "jinja2", "cv2", "joblib", "threadpoolctl", "simplejpeg", "filelock"),
    *("pyarrow.parquet", "ball_features.cli.root", "ball_features.extraction.extract", "ball_features.runs.assess"),
    *("ball_features.runs.evaluate", "ball_features.bundles.predictor", "ball_features.audit.findings"),
)
_NAMES = "FORKED_MODULES"  # variable that names a file for the modules that a command has imported


@dataclass(frozen=True)
class Ended:
    """A command that has ended.

    Attributes:
        code: exit code; negative for the number of a signal.
        said: its standard output and standard error.
        seconds: its running time.
    """

    code: int
    said: str
    seconds: float


def load() -> None:
    """Import what commands import; what is not installed is left out."""
    for name in LIBRARIES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def load_what(arguments: Sequence[str], log: Path) -> None:
    """Import what a command imports while it works, which a child finds out; its exit code does not matter."""
    names = log.with_name("modules")
    run(arguments, log, {_NAMES: str(names)})
    for name in names.read_text(encoding="utf-8").split() if names.exists() else ():
        if name not in sys.modules and not name.endswith("__main__"):
            with contextlib.suppress(Exception):  # a module that only its package can import
                importlib.import_module(name)


def begin(arguments: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> int:
    """Start a command in a child of this process; its process id.

    Args:
        arguments: command line without the name of the program.
        log: file for standard output and standard error.
        environment: further variables.
    """
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    handle = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    # Not closed with these, which the command replaces by its own.
    files = (os.fdopen(number, "wb", closefd=False) for number in (1, 2))
    sys.stdout, sys.stderr = (io.TextIOWrapper(file, line_buffering=True) for file in files)
    os.environ.update(environment or {})
    sys.argv = ["ball", *arguments]
    code = 3
    try:
        from ball_features.cli.root import main

        main()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
    except BaseException as error:  # the fault that is looked for
        print(f"Traceback: {error!r}")
    if _NAMES in os.environ:
        Path(os.environ[_NAMES]).write_text("\n".join(list(sys.modules)), encoding="utf-8")
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def end(pid: int, log: Path, start: float, *, most_s: float = 300.0) -> Ended:
    """Wait for a command; one that hangs is killed, with the code -SIGKILL and "hangs" in its words."""
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            break
        if time.perf_counter() - start > most_s:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return Ended(-signal.SIGKILL, f"hangs: {log.read_text(errors='replace')[-300:]}", most_s)
        time.sleep(0.005)
    code = os.waitstatus_to_exitcode(status)
    return Ended(code, log.read_text(errors="replace"), time.perf_counter() - start)


def run(arguments: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> Ended:
    """Run a command to its end."""
    start = time.perf_counter()
    return end(begin(arguments, log, environment), log, start)
