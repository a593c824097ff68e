"""What ONNX Runtime would compute of a graph when it loads it, before any image is given."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

__all__ = ["FOLDING", "folds_much"]

FOLDING = ("ConstantFolding", "ConstantFoldingDQ")  # optimizers of ONNX Runtime
# Nodes that give no more than they are given, in a step over it.
_CHEAP = frozenset(
    "Cast Constant Flatten Identity Neg Reshape Shape Size Slice Sqrt Squeeze Transpose Unsqueeze".split()
)
_MOST = 10_000  # of these


def folds_much(model: Any) -> bool:
    """Whether constants of a graph are put to work that may take long: a loader cannot be stopped, a run can.

    Args:
        model: `onnx.ModelProto`, also without its weights.
    """
    found = list(_folded(model.graph, frozenset()))
    return bool(len(model.functions)) or len(found) > _MOST or not _CHEAP.issuperset(found)


def _folded(graph: Any, known: Iterable[str]) -> Iterable[str]:
    """Kinds of the nodes whose inputs are constants, in a graph and in those within it."""
    fixed = {
        *known,
        "",
        *(own.name for own in graph.initializer),
        *(own.values.name for own in graph.sparse_initializer),
    }
    fixed -= {own.name for own in graph.input} - {own.name for own in graph.initializer}
    for node in graph.node:
        inner = [part for own in node.attribute for part in ([own.g] if own.HasField("g") else own.graphs)]
        for part in inner:
            yield from _folded(part, fixed)
        if not inner and fixed.issuperset(node.input):
            yield node.op_type
            fixed.update(node.output)
