"""Numbers to something to read."""
