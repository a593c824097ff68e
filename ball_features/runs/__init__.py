"""One module a command (fit, compare, tune, ladder), and the run that it leaves: written, read back."""
