"""Run `ball` from a checkout: `python cli.py extract ...`."""

from ball_features.cli import main

main()
