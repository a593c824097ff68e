"""Run `ball` as `python -m ball_features`."""

from ball_features.cli import main

__all__: list[str] = []

main()
