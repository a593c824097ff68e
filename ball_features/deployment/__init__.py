"""A fitted run to predictions on new images."""
