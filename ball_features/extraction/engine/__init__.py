"""Fast forward passes, private to stage 1."""
