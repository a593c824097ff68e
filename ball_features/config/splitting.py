"""Protocols by name: how images are divided into those that train, validate and test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["LADDER", "LEARNING_CURVE", "PROTOCOLS", "Protocol", "protocol_help"]

LADDER = "ladder"  # climbs through several protocols; see `runs.ladder`
LEARNING_CURVE = "learning-curve"  # hold-outs with ever more training images; see `runs.learning_curve`


@dataclass(frozen=True)
class Protocol:
    """A protocol.

    Attributes:
        name: key of `PROTOCOLS`.
        scheme: "holdout" (a random draw), "folds" (cross-validation), "leave-out" (each group in turn is the test set),
            or "given" (a column names the part or the fold of each image).
        phrase: explanation in a few words, for help texts.
        column: column that forms the groups if the user names none; "" for a protocol without groups.
        fallback: column in its place where the table lacks it, or "".
    """

    name: str
    scheme: Literal["holdout", "folds", "leave-out", "given"]
    phrase: str
    column: str = ""
    fallback: str = ""


PROTOCOLS: dict[str, Protocol] = {
    own.name: own
    for own in (
        Protocol("holdout", "holdout", "at random"),
        Protocol("cv", "folds", "cross-validation"),
        Protocol("group-cv", "folds", "cross-validation of whole groups", "group", "patient"),
        Protocol("block-cv", "folds", "cross-validation of runs of neighbouring files", "block", "group"),
        Protocol("patient-cv", "folds", "cross-validation of whole patients", "patient"),
        Protocol("leave-group-out", "leave-out", "each series in turn", "series", "group"),
        Protocol("leave-site-out", "leave-out", "each hospital or scanner in turn", "site"),
        Protocol("given", "given", "the column split: train, val and test, or folds", "split"),
    )
}


def protocol_help() -> str:
    """The protocols with their explanations, for help texts."""
    return ", ".join(f"{own.name} ({own.phrase})" for own in PROTOCOLS.values())
