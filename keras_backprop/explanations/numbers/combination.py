"""Sums, differences, products and the like of tensors of one shape, number by number."""

from typing import Any

import numpy as np

from keras_backprop.explanations.numbers.agreement import agrees
from keras_backprop.explanations.numbers.nodes import Edge
from keras_backprop.explanations.numbers.positions import flat, node_of
from keras_backprop.formula import Formula
from keras_backprop.formula_value import evaluate

__all__ = ["combined"]

ELEMENTWISE = {
    "a + b", "a - b", "a*b", "a/b", "a**b", "(a + b)/2", "(a + b)/inputs", "max(a, b)", "min(a, b)", "log(exp(a) + exp(b))",
    "sqrt(a**2 + b**2)", "arctan2(a, b)", "a - b*floor(a/b)",
}  # fmt: skip
"""Formulas of which every number depends on those at its own place only: no `cross`, `summed`, product of matrices."""

_COMPUTED = {"a + b": np.add, "a - b": np.subtract, "a*b": np.multiply}
_TEXTS = {"dy": "1", "-dy": "-1"}


def combined(link: Any, sources: list, plain: bool) -> Any:
    """The node of a link that combines several nodes number by number.

    Args:
        link: the `Link`.
        sources: list, for each input its `Node`, or None.
        plain: bool, as for `node_of`.

    Returns:
        The `Node`, with its edges; None where it is no such link, or its formula does not give the record's gradients.
    """
    formula = link.formula
    if not isinstance(formula, Formula) or formula.value not in ELEMENTWISE or None in sources or link.weights:
        return None
    if any(value.shape != link.outputs[0].shape for value in link.inputs) or link.upstream[0] is None:
        return None
    if len(sources) != 2 and "*" in formula.gradients["a"]:
        return None
    node = node_of(link.output_symbols[0], link.outputs[0], plain)
    values = {
        **link.options, "y": node.value, "dy": np.ones_like(node.value), "a": sources[0].value, "b": sources[-1].value,
        "inputs": len(sources),
    }  # fmt: skip
    for position, (source, dx) in enumerate(zip(sources, link.downstream, strict=True)):
        expression = formula.gradients["a" if position == 0 else "b"]
        local = evaluate(expression, values) * np.ones_like(node.value)
        if dx is not None and not agrees(local * flat(link.upstream[0]), flat(dx)):
            return None
        text = rf"\frac{{1}}{{{len(sources)}}}" if expression == "dy/inputs" else _TEXTS.get(expression, "")
        edge = Edge(source, local=local, text=text, rule=link.rule)
        edge.beside = {"dy*b": (sources[-1],), "dy*a": (sources[0],)}.get(expression, ())
        node.edges.append(edge)
    if formula.value in _COMPUTED:
        function = _COMPUTED[formula.value]
        node.compute = lambda *xs: function.reduce(xs) if function is not np.subtract else xs[0] - xs[1]
    return node
