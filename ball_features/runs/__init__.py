"""One module a command: fit, compare, tune, ladder; a run stored and read."""
