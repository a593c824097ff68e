"""The command line: options to a configuration, one call, its result printed. Nothing is decided here.

One module a command, in the order in which `ball --help` lists them.
"""

# ruff: noqa: F401, I001
from ball_features.cli import (
    download,
    extract,
    segment,
    audit,
    fit,
    compare,
    tune,
    report,
    predict,
    serve,
    export,
    inspect,
    demo,
)
from ball_features.cli.root import app, main

__all__ = ["app", "main"]
