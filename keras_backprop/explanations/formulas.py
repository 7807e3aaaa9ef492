"""How links are written, from the formulas that their rules carry. Writing only: every value comes from the record.

A rule without a formula, and another rule in the place of one that has one, is named and has no "=".
"""

import re
from fractions import Fraction
from typing import Any

import numpy as np

from keras_backprop.explanations.link import text_of
from keras_backprop.explanations.notation import derivative, latex_number
from keras_backprop.explanations.through_time import weight_gradient
from keras_backprop.formula import Formula, LossFormula, RecurrentFormula, evaluate, latex


def function_of(link: Any) -> Any:
    """The function behind a link's operation: of a Keras loss the function it wraps."""
    return getattr(link.op, "fn", link.op)


def activation(link: Any) -> str:
    """y = f(x) as LaTeX, for the right-hand side."""
    x = link.input_symbols[0]
    if isinstance(link.formula, Formula) and link.formula.value:
        return latex(link.formula.value, {**_numbers(link.options), "x": x.latex})
    return rf"{text_of(name_of(link))}({x.latex})"


def local_derivative(link: Any) -> str | None:
    """dy/dx as LaTeX; None where the rule does not say."""
    x, y = link.input_symbols[0], link.output_symbols[0]
    if x is None or y is None or not isinstance(link.formula, Formula) or link.formula.derivative is None:
        return None
    return latex(link.formula.derivative, {**_numbers(link.options), "x": x.latex, "y": y.latex})


def template(expression: str, options: Any) -> str:
    """A derivative as LaTeX with `{x}` and `{y}` for what goes in and comes out."""
    escaped = latex(expression, {**_numbers(options), "x": "@x@", "y": "@y@"}).replace("{", "{{").replace("}", "}}")
    return escaped.replace("@x@", "{x}").replace("@y@", "{y}")


LETTERS = {
    "kernel": "W",
    "bias": "b",
    "gamma": "gamma",
    "beta": "beta",
    "embeddings": "E",
    "scale": "gamma",
    "alpha": "alpha",
}
"""The letters of weights in the formulas of rules."""

_OF_LAYERS = {
    "h": r"\hat{x}", "gamma": r"\gamma", "beta": r"\beta", "alpha": r"\alpha",
    "dP": derivative("E", "P"), "dS": derivative("E", "S"),
}  # fmt: skip


def value(link: Any) -> str | None:
    """What a link computes, as LaTeX; None where its rule does not say."""
    formula = link.formula
    if not isinstance(formula, Formula) or not formula.value or None in link.input_symbols[: len(_letters(link))]:
        return None
    if formula.value == "a + b":
        return " + ".join(symbol.latex for symbol in link.input_symbols)
    parts = [rf",\quad {letter} = {_latex(link, text)}" for letter, text in formula.parts if letter[0] != "d"]
    return _latex(link, formula.value) + "".join(parts)


def gradient(link: Any, letter: str, upstream: str) -> str | None:
    """A link's ∂E/∂(an input or a weight) by its letter as LaTeX, by the formula of its rule; None where it does not say."""
    formula = link.formula
    if isinstance(formula, RecurrentFormula):
        return weight_gradient(link, letter)
    if not isinstance(formula, Formula) or letter not in formula.gradients:
        return None
    written = _latex(link, formula.gradients[letter], dy=upstream)
    if letter != next(iter(formula.gradients)):
        return written
    parts = [(name, text) for name, text in formula.parts if name[0] == "d"]
    return written + "".join(rf",\quad {_OF_LAYERS[name]} = {_latex(link, text, dy=upstream)}" for name, text in parts)


def letter_of(link: Any, position: int) -> str:
    """The letter of an input in the formula of its link's rule."""
    letters = _letters(link)
    return letters[min(position, len(letters) - 1)]


def _letters(link):
    formula = link.formula
    if getattr(formula, "inputs", ""):
        return list(formula.inputs)
    return ["a", "b"] if isinstance(formula, Formula) and "a" in formula.gradients else ["x"]


def _latex(link, expression, **more):
    """An expression of a link's formula in its symbols; what it says of weights that the layer has not is left out."""
    weights = {LETTERS[name]: symbol for name, symbol in link.weight_symbols.items() if name in LETTERS}
    if link.weights or link.kind == "layer":
        for letter in ("b", "beta"):
            if letter not in weights and letter not in _letters(link):
                expression = re.sub(rf" \+ {letter}\b", "", expression)
        expression = expression if "gamma" in weights else expression.replace("gamma*", "")
    named = {letter: symbol.latex for letter, symbol in weights.items() if len(symbol.letter) == 1}
    named |= {letter_of(link, n): s.latex for n, s in enumerate(link.input_symbols) if s is not None}
    y = link.output_symbols[0].latex if link.output_symbols[0] is not None else "y"
    return latex(expression, {**_OF_LAYERS, **_numbers(link.options), **named, "y": y, **more})


def loss(link: Any) -> str | None:
    """The error as LaTeX, with the number of examples and outputs in its factor; None where the rule does not say."""
    formula = link.formula
    if not isinstance(formula, LossFormula) or None in link.input_symbols[:2]:
        return None
    T, a = link.input_symbols[:2]
    coefficient, n, k = uniform_coefficient(link), len(link.inputs[1]), link.inputs[1].shape[-1]
    names = {**_numbers(_plain_options(link)), "T": _target(formula, T.latex), "a": a.latex}
    term = latex(formula.shown or formula.term, names)
    count = int(np.size(link.inputs[1]))
    sign, term = ("-", term[1:]) if term.startswith("-") else ("", term)
    over, term = "" if formula.row else r"\sum ", _whole(term)
    if coefficient is None:
        return rf"{sign}\sum_n c_n \cdot {_factor_of(formula, 1, k)}{over}{term}"
    positions = link.outputs[0].size / n if n else 1  # of a sequence: the mean is over these as well
    whole = np.isclose(coefficient * n * positions, 1)
    if not whole and not np.isclose(coefficient, 1):
        return rf"{sign}{latex_number(coefficient)} \cdot {_factor_of(formula, 1, k)}{over}{term}"
    front = _factor_of(formula, round(n * positions) if whole else 1, k)
    if formula.row and n > 1:
        return rf"{sign}{front}\sum_n {term}"
    return rf"{sign}{front}{term}" if count == 1 else rf"{sign}{front}{over}{term}"


def error_of_examples(link: Any) -> str | None:
    """The error of every example as LaTeX; None where the rule does not say."""
    formula = link.formula
    if not isinstance(formula, LossFormula) or None in link.input_symbols[:2]:
        return None
    T, a = (symbol.latex for symbol in link.input_symbols[:2])
    names = {**_numbers(_plain_options(link)), "T": _target(formula, T), "a": a}
    term, k = latex(formula.shown or formula.term, names), link.inputs[1].shape[-1]
    sign, term = ("-", term[1:]) if term.startswith("-") else ("", term)
    over = "" if formula.row or k == 1 else r"\sum "
    return rf"{sign}{_factor_of(formula, 1, k)}{over}{_whole(term)}"


def weighted(link: Any) -> str | None:
    """How an error or a penalty enters E, as LaTeX: 1/3 · Σ e₁; None where its parts have different weights."""
    coefficient, symbol = uniform_coefficient(link), link.output_symbols[0]
    if coefficient is None or symbol is None:
        return None
    return _times(coefficient, (r"\sum " if np.size(link.outputs[0]) > 1 else "") + symbol.latex).format()


def _factor_of(formula, n, k):
    """½, and one over the number of examples and of outputs: 1/(2·3)."""
    below = [Fraction(formula.factor).limit_denominator(10**6).denominator, n, k if formula.mean else 1]
    below = [str(number) for number in below if number != 1]
    above = Fraction(formula.factor).limit_denominator(10**6).numerator
    if not below:
        return "" if above == 1 else rf"{above} \cdot "
    return rf"\frac{{{above}}}{{{(chr(92) + 'cdot ').join(f'{number} ' for number in below).strip()}}} \cdot "


def loss_gradient(link: Any) -> str | None:
    """∂E/∂a (or ∂E/∂z, where the loss is computed from the logits) as LaTeX; None where the rule does not say."""
    T, symbol = link.input_symbols[0], link.input_symbols[-1]
    text = loss_gradient_template(link)
    if text is None or T is None or symbol is None:
        return None
    a = link.input_symbols[1].latex if link.input_symbols[1] is not None else symbol.latex
    return text.format(T=T.latex, a=a)


def loss_gradient_template(link: Any) -> str | None:
    """The same with `{T}` and `{a}` for targets and predictions."""
    formula = link.formula
    if not isinstance(formula, LossFormula):
        return None
    slope = _slope(link)
    if slope is None:
        return None
    names = {**_numbers(_plain_options(link)), "T": _target(formula, "@T@"), "a": "@a@"}
    product = latex(slope, names).replace("{", "{{").replace("}", "}}").replace("@T@", "{T}").replace("@a@", "{a}")
    coefficient = uniform_coefficient(link)
    if coefficient is None:
        sign = "-" if product.startswith("-") else ""
        return _times(_of_slope(link), rf"{sign}c_n \cdot {_whole(product.removeprefix('-'))}")
    return _times(coefficient * _of_slope(link), product)


def slope_function(link: Any) -> Any:
    """A function (values, predictions) -> ∂E/∂a or ∂E/∂z by the rule's formula, with T and the coefficients of the record."""
    formula, slope = link.formula, _slope(link) if isinstance(link.formula, LossFormula) else None
    if slope is None or not link.upstream or link.upstream[0] is None:
        return None
    targets = np.asarray(link.inputs[0], "float64")
    if formula.classes:
        targets = np.eye(link.inputs[1].shape[-1])[targets.astype(int).reshape(-1)]
    coefficient = np.asarray(link.upstream[0], "float64").reshape(-1, 1) * _of_slope(link)
    options = _plain_options(link)
    return lambda value, prediction: coefficient * evaluate(slope, {**options, "T": targets, "a": prediction})


def error_function(link: Any) -> Any:
    """A function (predictions) -> E of this loss by the rule's formula; None where it does not say."""
    formula = link.formula
    if not isinstance(formula, LossFormula) or not link.upstream or link.upstream[0] is None:
        return None
    targets = np.asarray(link.inputs[0], "float64")
    if formula.classes:
        targets = np.eye(link.inputs[1].shape[-1])[targets.astype(int).reshape(-1)]
    coefficient, options = np.asarray(link.upstream[0], "float64").reshape(-1, 1), _plain_options(link)
    share = formula.factor / (link.inputs[1].shape[-1] if formula.mean else 1)

    def rows(a):
        return np.sum(coefficient * share * evaluate(formula.term, {**options, "T": targets, "a": a}), -1)

    def error(a):
        return float(np.sum(rows(a)))

    error.rows = rows  # type: ignore[attr-defined]
    return error


def _slope(link):
    """The formula of the slope that this link used: by the logits, or by the predictions."""
    logits = len(link.inputs) > 2
    return link.formula.logits if logits else link.formula.slope


def _of_slope(link):
    """The numbers before the slope, but for the upstream gradient."""
    formula, logits = link.formula, len(link.inputs) > 2
    return formula.factor * (1.0 if logits else formula.times) / (link.inputs[1].shape[-1] if formula.mean else 1)


def from_logits(link: Any) -> bool:
    """Whether a cross-entropy and the activation before it were differentiated together."""
    return link.kind == "loss" and len(link.inputs) > 2


def uniform_coefficient(link: Any) -> float | None:
    """With which coefficient every example's error enters E, if all have the same; else None."""
    dy = link.upstream[0] if link.upstream else None
    if dy is None or not dy.size or np.any(dy != dy.flat[0]):
        return None
    return float(dy.flat[0])


def has_weights(link: Any) -> bool:
    """Whether the errors of examples enter E with different weights, cₙ in the formulas."""
    weights = link.upstream and link.upstream[0] is not None
    return bool(weights) and isinstance(link.formula, LossFormula) and uniform_coefficient(link) is None


def _times(coefficient, product):
    sign = "-" if product.startswith("-") else ""
    if np.isclose(coefficient, 1):
        return product
    rest = _whole(product.removeprefix("-"))
    fraction = Fraction(coefficient).limit_denominator(1000)
    if 0 < abs(fraction.numerator) <= 100 and abs(float(fraction) / coefficient - 1) < 1e-6:
        number = str(fraction.numerator)
        if fraction.denominator > 1:
            number = rf"\frac{{{{{fraction.numerator}}}}}{{{{{fraction.denominator}}}}}"
        return rf"{sign}{number} \cdot {rest}"
    return rf"{sign}{latex_number(coefficient).replace('{', '{{').replace('}', '}}')} \cdot {rest}"


def _whole(product):
    """In brackets where it is a sum."""
    depth = 0
    for position, character in enumerate(product):
        depth += (character in "([") - (character in ")]")
        if depth == 0 and position and product[position : position + 3] in (" + ", " - "):
            return f"({product})"
    return product


def _target(formula, T):
    return rf"\text{{one hot }}{T}" if formula.classes else T


def _plain_options(link):
    options = {name: value for name, value in link.options.items() if isinstance(value, (int, float))}
    return {"epsilon": 1e-7, "delta": 1.0, **options}


def _numbers(options):
    """The options as they stand in a formula: numbers."""
    plain = {n: v for n, v in options.items() if isinstance(v, (int, float)) and not isinstance(v, bool)}
    return {n: latex_number(v) for n, v in plain.items() if n not in ("T", "a", "x", "y")}


def name_of(link: Any) -> str:
    """What a function or operation is called."""
    function = function_of(link)
    return getattr(function, "__name__", None) or (link.rule if link.kind != "op" else link.path.rsplit("/", 1)[-1])
