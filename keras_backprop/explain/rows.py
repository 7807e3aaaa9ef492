"""The chain line by line: which link, which formula, which value. Text and Markdown are written from these."""

from collections import Counter
from typing import Any, NamedTuple

from keras_backprop.explain import formulas
from keras_backprop.explain.link import Symbol, escaped
from keras_backprop.explain.names import is_conversion
from keras_backprop.explain.notation import derivative, gradient_of
from keras_backprop.rule import WeightRead


class Row(NamedTuple):
    """One line.

    Attributes:
        path: str, the link's path.
        formula: str, LaTeX.
        value: array.
    """

    path: str
    formula: str
    value: Any


def forward_rows(explanation):
    """What every link computes, in forward order, and last the error E."""
    rows, losses = [], [link for link in shown(explanation) if link.kind == "loss"]
    penalties = any(link.kind == "regularizer" for link in explanation.links)
    for link in shown(explanation):
        if link.kind == "loss" and len(losses) == 1 and not penalties:
            rows.append(Row(link.path, f"E = {formulas.loss(link)}", explanation.loss))
            return rows
        for symbol, value in _outputs(link):
            rows.append(Row(link.path, f"{symbol.latex} = {_forward(link)}", value))
    rows.append(Row("error", r"E = \text{all errors and penalties, weighted and added}", explanation.loss))
    return rows


def backward_rows(explanation):
    """What every link makes of the gradient, the last link first."""
    parts = (zip(link.input_symbols, link.downstream, strict=True) for link in shown(explanation))
    uses = Counter(symbol for link in parts for symbol, dx in link if dx is not None)
    uses.update({weight.symbol: weight.uses - uses[weight.symbol] for weight in explanation.weights})
    rows = []
    for link in reversed(shown(explanation)):
        rows += _loss_rows(link, uses) if link.kind == "loss" else _link_rows(link, uses)
        for name, gradient in link.weight_gradients.items():
            symbol = link.weight_symbols.get(name, Symbol(f"{link.path}/{name}"))
            sign = _equals(uses[symbol])
            rows.append(Row(link.path, f"{gradient_of(symbol)} {sign} {weight_formula(link, name)}", gradient))
    return rows


def shown(explanation):
    """The links that compute something: without changes of dtype and the reading of weights."""
    return [link for link in explanation.links if not isinstance(link.op, WeightRead) and not is_conversion(link.op)]


def is_dense(link):
    """Whether the link is z = x·W + b."""
    return link.z is not None


def scalar(link):
    """Whether the dense layer has one input, one unit, and the batch one example: all factors are numbers."""
    return is_dense(link) and link.inputs[0].size == 1 and link.outputs[0].size == 1


def weight_formula(link, name):
    """How a link's contribution to a weight's gradient comes about, as LaTeX."""
    if not is_dense(link) or name not in ("kernel", "bias"):
        return rf"\text{{{escaped(link.rule)}}}({_upstream(link)})"
    x, dz = _latex(link.input_symbols[0]), gradient_of(link.output_symbols[0])
    if name == "bias":
        return dz if link.outputs[0].size == link.outputs[0].shape[-1] else rf"\sum {dz}"
    return rf"{dz} \cdot {x}" if scalar(link) else rf"{x}^\top {dz}"


def _forward(link):
    if is_dense(link):
        W, b = link.weight_symbols["kernel"], link.weight_symbols.get("bias")
        product = rf"{_latex(link.input_symbols[0])} \cdot {W.latex}"
        return product if b is None else f"{product} + {b.latex}"
    if link.kind == "activation":
        return formulas.activation(link)
    name = getattr(formulas.function_of(link), "__name__", type(link.op).__name__)
    arguments = ", ".join(_latex(symbol) for symbol in link.input_symbols if symbol is not None)
    return rf"\text{{{escaped(name)}}}({arguments})"


def _loss_rows(link, uses):
    rows = []
    for symbol, dx in zip(link.input_symbols, link.downstream, strict=True):
        if dx is not None and symbol is not None:
            formula = formulas.loss_gradient(link) or rf"\text{{{escaped(link.rule)}}}(\text{{T}}, {_latex(symbol)})"
            rows.append(Row(link.path, f"{gradient_of(symbol)} {_equals(uses[symbol])} {formula}", dx))
    return rows


def _link_rows(link, uses):
    rows = []
    local = link.local_derivative if link.upstream and link.upstream[0] is not None else None
    if local is not None and link.input_symbols[0] is not None:
        name = derivative(link.output_symbols[0].latex, link.input_symbols[0].latex)
        short = formulas.local_derivative(link)
        rows.append(Row(link.path, f"{name} = {short}" if short else name, local))
    for symbol, dx in zip(link.input_symbols, link.downstream, strict=True):
        if dx is not None and symbol is not None:
            rows.append(
                Row(link.path, f"{gradient_of(symbol)} {_equals(uses[symbol])} {_downstream(link, symbol, local)}", dx)
            )
    return rows


def _downstream(link, symbol, local):
    if is_dense(link):
        W, dz = link.weight_symbols["kernel"].latex, gradient_of(link.output_symbols[0])
        return rf"{dz} \cdot {W}" if scalar(link) else rf"{dz} {W}^\top"
    if local is not None:
        times = r"\cdot" if local.size == 1 else r"\odot"
        return rf"{_upstream(link)} {times} {derivative(link.output_symbols[0].latex, symbol.latex)}"
    return rf"\text{{{escaped(link.rule)}}}({_upstream(link)})"


def _outputs(link):
    """(symbol, value) of the outputs that the error depends on; of all, where it depends on none."""
    outputs = list(zip(link.output_symbols, link.outputs, strict=True))
    used = [output for output, dy in zip(outputs, link.upstream, strict=True) if dy is not None]
    return used or outputs


def _upstream(link):
    return ", ".join(gradient_of(symbol) for symbol, _ in _outputs(link))


def _equals(uses):
    """Where a quantity is used several times, its gradient is a sum: each use adds its part."""
    return r"\mathrel{+}=" if uses > 1 else "="


def _latex(symbol):
    return r"\text{constant}" if symbol is None else symbol.latex
