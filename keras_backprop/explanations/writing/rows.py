"""The chain line by line: which link, which formula, which value. Text and Markdown are written from these."""

import re
from collections import Counter
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_backprop.explanations.observing.asked import place, places
from keras_backprop.explanations.observing.link import Symbol, text_of
from keras_backprop.explanations.observing.names import is_conversion
from keras_backprop.explanations.writing import error_formulas, formulas
from keras_backprop.explanations.writing.notation import derivative, gradient_of
from keras_backprop.formula import RecurrentFormula
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


class Shown:
    """Which examples and units are shown.

    Args:
        explanation: the `Explanation`.
        example: int from 0, the only one to show; None for all.
        units: list of ints from 0, those to show of every layer; None for all.

    Raises:
        IndexError: there is no such example.
        TypeError: `units` are no whole numbers.
    """

    def __init__(self, explanation, example=None, units=None):
        self.count, self.example, self.units = explanation.examples, example, units
        if example is not None:
            place("example", example, self.count)
        if units is not None:
            widest = max(
                link.outputs[0].shape[-1] for link in explanation.links if link.outputs and link.outputs[0].ndim >= 2
            )
            self.units = places("units", units, widest)

    def of(self, array):
        """The part of a tensor, examples first, that is shown."""
        array = np.asarray(array)
        if self.example is not None and array.ndim and len(array) == self.count:
            array = array[self.example : self.example + 1]
        if self.units is not None and array.ndim >= 2:
            array = array[..., [unit for unit in self.units if unit < array.shape[-1]]]
        return array


def given_rows(explanation, view=None):
    """The inputs and the targets."""
    view, rows, seen = view or Shown(explanation), [], set()
    for link in shown(explanation):
        for symbol, value in zip(link.input_symbols, link.inputs, strict=True):
            if symbol is not None and symbol.letter in "xT" and symbol not in seen:
                seen.add(symbol)
                word = "input" if symbol.letter == "x" else "target"
                rows.append(Row(word, symbol.latex, view.of(value)))
    if not any(symbol.letter == "T" for symbol in seen):  # an error of one's own, followed operation by operation
        for count, target in enumerate(explanation.targets, start=1):
            symbol = Symbol("T", count if len(explanation.targets) > 1 else None)
            rows.append(Row("target", symbol.latex, view.of(target)))
    return sorted(rows, key=lambda row: row.path)


def forward_rows(explanation, view=None):
    """What every link computes, in forward order, and last the error E."""
    view = view or Shown(explanation)
    rows, losses = [], [link for link in shown(explanation) if link.kind == "loss"]
    penalties = any(link.kind == "regularizer" for link in explanation.links)
    for link in shown(explanation):
        if link.kind == "loss" and len(losses) == 1 and not penalties and _enters_as_it_is(explanation, link):
            rows.append(Row(link.path, f"E = {error_formulas.loss(link) or _called(link)}", explanation.loss))
            return rows
        if link.kind == "op" and not any(link.input_symbols):
            continue  # of constants only
        for symbol, value in _named_outputs(link):
            made = error_formulas.error_of_examples(link) if link.kind == "loss" else None
            position = link.output_symbols.index(symbol)
            rows.append(Row(link.path, f"{symbol.latex} = {made or _forward(link, position)}", view.of(value)))
    rows.append(Row("error", f"E = {_total(explanation)}", explanation.loss))
    return rows


def _enters_as_it_is(explanation, *ends):
    """Whether E is the sum of these errors and penalties, each with the weight that is its upstream gradient."""
    if any(not link.upstream or link.upstream[0] is None for link in ends):
        return len(ends) == 1  # nothing depends on it, or its parts are unknown
    total = sum(float(np.sum(link.upstream[0] * np.asarray(link.outputs[0], "float64"))) for link in ends)
    return bool(np.isclose(total, explanation.loss, rtol=1e-3, atol=1e-6)) or not np.isfinite(total)


def _total(explanation):
    """The weighted sum of all errors and penalties, if it is E, as LaTeX."""
    ends = [link for link in shown(explanation) if link.kind in ("loss", "regularizer")]
    parts = [error_formulas.weighted(link) for link in ends]
    if not parts or None in parts:
        return r"\text{all errors and penalties, weighted and added}"
    if not _enters_as_it_is(explanation, *ends):
        return r"\text{what is made of all errors and penalties}"
    return " + ".join(map(str, parts))


def backward_rows(explanation, view=None):
    """What every link makes of the gradient, the last link first."""
    view = view or Shown(explanation)
    parts = (zip(link.input_symbols, link.downstream, strict=True) for link in shown(explanation))
    uses = Counter(symbol for link in parts for symbol, dx in link if dx is not None)
    uses.update({weight.symbol: weight.uses - uses[weight.symbol] for weight in explanation.weights})
    rows = []
    for link in reversed(shown(explanation)):
        made = _loss_rows(link, uses) if link.kind == "loss" else _link_rows(link, uses)
        rows += [row._replace(value=view.of(row.value)) for row in made]
        for name, gradient in link.weight_gradients.items():
            symbol = link.weight_symbols.get(name, Symbol(f"{link.path}/{name}"))
            sign = _equals(uses[symbol])
            formula = weight_formula(link, name)
            rows.append(Row(link.path, _line(gradient_of(symbol), sign, formula, link), gradient))
    return rows


def shown(explanation):
    """The links that compute something: without changes of dtype and the reading of weights."""
    hidden = (WeightRead, keras.layers.Activation)
    return [link for link in explanation.links if not isinstance(link.op, hidden) and not is_conversion(link.op)]


def is_dense(link):
    """Whether the link is z = x·W + b of all units."""
    return isinstance(link.op, keras.layers.Dense) and link.z is not None


def scalar(link):
    """Whether the dense layer has one input, one unit, and the batch one example: all factors are numbers."""
    return is_dense(link) and link.inputs[0].size == 1 and link.outputs[0].size == 1


def weight_formula(link, name):
    """How a link's contribution to a weight's gradient comes about, as LaTeX; None where the rule does not say."""
    if not is_dense(link) and link.kind == "layer" and link.input_symbols[0] is not None:
        letter = formulas.LETTERS.get(name.rsplit(".", 1)[-1], name)
        return formulas.gradient(link, name if isinstance(link.formula, RecurrentFormula) else letter, _upstream(link))
    if not is_dense(link) or name not in ("kernel", "bias") or link.formula is None:
        return None
    x, dz = _latex(link.input_symbols[0]), gradient_of(link.output_symbols[0])
    if name == "bias":
        over = r"\sum_n" if np.ndim(link.outputs[0]) == 2 else r"\sum"  # of a sequence over its positions as well
        return dz if link.outputs[0].size == link.outputs[0].shape[-1] else rf"{over} {dz}"
    return rf"{dz} \cdot {x}" if scalar(link) else rf"{x}^\top {dz}"


def _line(gradient, sign, formula, link):
    """An equation; where the rule has no formula, the rule is named and there is no "="."""
    if formula:
        return f"{gradient} {sign} {formula}"
    rule = text_of(link.rule) if link.rule != "tensorflow" else text_of(f"of TensorFlow for {link.op.name}")
    return rf"{gradient}\text{{, by the rule }}{rule}"


def _forward(link, position):
    if is_dense(link):
        W, b = link.weight_symbols["kernel"], link.weight_symbols.get("bias")
        product = rf"{_latex(link.input_symbols[0])} \cdot {W.latex}"
        return product if b is None else f"{product} + {b.latex}"
    one_output = not getattr(link.formula, "outputs", ())
    if one_output and len(link.input_symbols) == 1 and link.input_symbols[0] is not None and not link.weights:
        return formulas.activation(link)
    return formulas.value(link, position) or _called(link)


def _called(link):
    """The name of what a link does, and of what."""
    arguments = ", ".join(_latex(symbol) for symbol in link.input_symbols[:2] if symbol is not None)
    name = type(link.op).__name__ if link.kind == "layer" else formulas.name_of(link)
    return f"{text_of(name)}({arguments})"


def _loss_rows(link, uses):
    rows = []
    for symbol, dx in zip(link.input_symbols, link.downstream, strict=True):
        if dx is not None and symbol is not None:
            line = _line(gradient_of(symbol), _equals(uses[symbol]), error_formulas.loss_gradient(link), link)
            if error_formulas.together(link):
                activation = "softmax" if "categorical" in link.rule else "sigmoid"
                line += rf"\text{{  ({activation} and cross entropy together)}}"
            rows.append(Row(link.path, line, dx))
    return rows


def _link_rows(link, uses):
    rows = []
    local = link.local_derivative if link.upstream and link.upstream[0] is not None else None
    if local is not None and link.input_symbols[0] is not None:
        name = derivative(link.output_symbols[0].latex, link.input_symbols[0].latex)
        short = formulas.local_derivative(link)
        rows.append(Row(link.path, f"{name} = {short}" if short else name, local))
    for position, (symbol, dx) in enumerate(zip(link.input_symbols, link.downstream, strict=True)):
        if dx is not None and symbol is not None:
            line = _line(gradient_of(symbol), _equals(uses[symbol]), _downstream(link, position, local), link)
            rows.append(Row(link.path, line, dx))
    return rows


def _downstream(link, position, local):
    symbol = link.input_symbols[position]
    if is_dense(link):
        if link.formula is None:
            return None
        W, dz = link.weight_symbols["kernel"].latex, gradient_of(link.output_symbols[0])
        return rf"{dz} \cdot {W}" if scalar(link) else rf"{dz} {W}^\top"
    if local is not None:
        times = r"\cdot" if local.size == 1 else r"\odot"
        return rf"{_upstream(link)} {times} {derivative(link.output_symbols[0].latex, symbol.latex)}"
    letter = "x" if isinstance(link.formula, RecurrentFormula) and position == 0 else formulas.letter_of(link, position)
    return formulas.gradient(link, letter, _upstream(link))


def _outputs(link):
    """(symbol, value) of the outputs that the error depends on; of all, where it depends on none."""
    outputs = list(zip(link.output_symbols, link.outputs, strict=True))
    used = [output for output, dy in zip(outputs, link.upstream, strict=True) if dy is not None]
    return used or outputs


def _named_outputs(link):
    """Those, and what stands in the formula of the gradient besides: the eigenvectors in that of the eigenvalues."""
    used = _outputs(link)
    if len(used) == len(link.outputs) or not getattr(link.formula, "outputs", ()):
        return used
    lines = " ".join(_downstream(link, n, None) or "" for n, dx in enumerate(link.downstream) if dx is not None)
    symbols = {symbol for symbol, _ in used}
    return [
        (symbol, value)
        for symbol, value in zip(link.output_symbols, link.outputs, strict=True)
        if symbol in symbols or re.search(rf"(?<![A-Za-z\\]){re.escape(symbol.latex)}(?!\d)", lines)
    ]


def _upstream(link):
    return ", ".join(gradient_of(symbol) for symbol, _ in _outputs(link))


def _equals(uses):
    """Where a quantity is used several times, its gradient is a sum: each use adds its part."""
    return r"\mathrel{+}=" if uses > 1 else "="


def _latex(symbol):
    return r"\text{constant}" if symbol is None else symbol.latex
