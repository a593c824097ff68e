"""The command line: options to a configuration, one call, its result printed. Nothing is decided here.

One module a command. `derive` makes the flags of a command from the records that its function takes.
"""

from ball_features.cli.root import app, main

__all__ = ["app", "main"]
