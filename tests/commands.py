"""Commands in processes of their own, forked from one that has imported the heavy libraries: each starts at once."""

import multiprocessing
import os
import subprocess
import sys
import tempfile
from multiprocessing.process import BaseProcess
from pathlib import Path

# What is imported once; no network is loaded and no thread started by that.
HEAVY = (
    "PIL.JpegImagePlugin", "PIL.PngImagePlugin", "cv2", "h5py", "pandas", "pydantic.type_adapter", "pydantic.types",
    "scipy.ndimage", "scipy.stats", "shellingham", "simplejpeg", "skops.io", "sklearn.covariance", "sklearn.ensemble",
    "sklearn.model_selection", "torch", "torchvision", "typer", "xgboost",
)  # fmt: skip
OWN = (
    "ball_features.deployment.answers", "ball_features.deployment.predict", "ball_features.runs.assess",
    "ball_features.runs.evaluate", "tests.warm",
)  # fmt: skip

# What a command may run first: what the fixtures `tiny_densenet` and `few_trees` do.
TINY_DENSENET = "from tests import tiny; tiny.register()"
FEW_TREES = "from ball_features.audit import indicators; indicators._TREES = 10"

__all__ = ["FEW_TREES", "TINY_DENSENET", "ball", "start"]


def ball(*arguments, cwd=None, env=None, before="", encoding="utf-8") -> subprocess.CompletedProcess[str]:
    """Run a command to its end.

    Args:
        arguments: the command's words after `ball`.
        cwd: folder to run it in.
        env: variables of its environment, added to those of the tests.
        before: Python code that it runs first.
        encoding: encoding of its streams.
    """
    words = [str(argument) for argument in arguments]
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("out", "err")]
        process = start(*words, cwd=cwd, env=env, before=before, files=files, encoding=encoding)
        process.join()
        out, err = (file.read_text(encoding=encoding) if file.is_file() else "" for file in files)
    return subprocess.CompletedProcess(words, process.exitcode or 0, out, err)


def start(*arguments, cwd=None, env=None, before="", files=(os.devnull, os.devnull), encoding="utf-8") -> BaseProcess:
    """Start a command and return its process; its standard output and error go to the two files."""
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload([*HEAVY, *OWN])
    environment = {**os.environ, **(env or {})}
    words = [str(argument) for argument in arguments]
    streams = [str(file) for file in files]
    process = context.Process(target=_run, args=(words, cwd, environment, before, streams, encoding))
    process.start()
    return process


def _run(
    words: list[str], cwd: str | None, environment: dict[str, str], before: str, files: list[str], encoding: str
) -> None:
    for number, file in enumerate(files, 1):
        opened = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdout, sys.stderr = (open(number, "w", 1, encoding=encoding, closefd=False) for number in (1, 2))
    os.environ.clear()
    os.environ.update(environment)
    if cwd is not None:
        os.chdir(cwd)
    exec(before, {})
    sys.argv = ["ball", *words]
    from ball_features.cli import main

    main()
