"""Fitted models on disk, in files that cannot run code."""
