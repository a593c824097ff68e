"""The fast forward pass, private to stage 1."""
