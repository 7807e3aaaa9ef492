"""How links are written, from the formulas that their rules carry. Writing only: every value comes from the record.

A rule without a formula, and another rule in the place of one that has one, is named and has no "=".
"""

import re
from typing import Any

import numpy as np

from keras_backprop.explanations.observing.link import text_of
from keras_backprop.explanations.writing.notation import derivative, latex_factor, latex_number
from keras_backprop.explanations.writing.through_time import weight_gradient
from keras_backprop.formula import Formula, RecurrentFormula
from keras_backprop.formula_latex import latex
from keras_backprop.formula_zeros import without


def function_of(link: Any) -> Any:
    """The function behind a link's operation: of a Keras loss the function it wraps."""
    return getattr(link.op, "fn", link.op)


def activation(link: Any) -> str:
    """y = f(x) as LaTeX, for the right-hand side."""
    x = link.input_symbols[0]
    if isinstance(link.formula, Formula) and link.formula.value:
        return (
            str(value(link))
            if link.formula.parts
            else latex(link.formula.value, {**numbers(link.options), "x": x.latex})
        )
    return rf"{text_of(name_of(link))}({x.latex})"


def local_derivative(link: Any) -> str | None:
    """dy/dx as LaTeX; None where the rule does not say."""
    x, y = link.input_symbols[0], link.output_symbols[0]
    if x is None or y is None or not isinstance(link.formula, Formula) or link.formula.derivative is None:
        return None
    return latex(link.formula.derivative, {**numbers(link.options), "x": x.latex, "y": y.latex})


def template(expression: str, options: Any) -> str:
    """A derivative as LaTeX with `{x}` and `{y}` for what goes in and comes out; where it has neither, as LaTeX that is ready."""
    written = latex(expression, {**numbers(options), "x": "@x@", "y": "@y@"})
    if "@" not in written:
        return written
    escaped = written.replace("{", "{{").replace("}", "}}")
    return escaped.replace("@x@", "{x}").replace("@y@", "{y}")


def filled(text: str, **names: str) -> str:
    """A template with names, as LaTeX, put in; one that has an exponent already in braces, where another follows."""
    for letter, name in names.items():
        if "^" in name:
            text = text.replace(f"{{{letter}}}^", f"{{{{{{{letter}}}}}}}^")
    return text.format(**names)


LETTERS = {
    "kernel": "W",
    "depthwise_kernel": "D",
    "pointwise_kernel": "P",
    "bias": "b",
    "gamma": "gamma",
    "beta": "beta",
    "embeddings": "C",
    "scale": "gamma",
    "alpha": "alpha",
}
"""The letters of weights in the formulas of rules."""

_OF_LAYERS = {
    "h": r"\hat{x}", "gamma": r"\gamma", "beta": r"\beta", "alpha": r"\alpha",
    **{f"d{letter}": derivative("E", letter) for letter in "PSuzMAB"},
    "r": r"\frac{1}{\sigma}", "s": r"\sigma", "mu": r"\mu",
}  # fmt: skip


def value(link: Any, position: int = 0) -> str | None:
    """What a link computes, of several outputs the one at a position, as LaTeX; None where its rule does not say."""
    formula = link.formula
    if not isinstance(formula, Formula) or not any(link.input_symbols):
        return None
    if formula.outputs:
        return _latex(link, formula.outputs[position][1]) if position < len(formula.outputs) else None
    if not formula.value:
        return None
    if formula.value == "a + b":
        return " + ".join(_input(link, n) for n in range(len(link.input_symbols)))
    parts = [rf",\quad {_several(letter)} = {_latex(link, text)}" for letter, text in formula.parts if letter[0] != "d"]
    return _latex(link, formula.value) + "".join(parts)


def _several(letters):
    """The letters of the parts of a tensor: u, v as [u v]."""
    return "[" + r"\;\, ".join(letters.split(", ")) + "]" if "," in letters else letters


def gradient(link: Any, letter: str, upstream: str) -> str | None:
    """A link's ∂E/∂(an input or a weight) by its letter as LaTeX, by the formula of its rule; None where it does not say."""
    formula = link.formula
    if isinstance(formula, RecurrentFormula):
        return weight_gradient(link, letter)
    if not isinstance(formula, Formula) or letter not in formula.gradients:
        return None
    zeros = {f"d{of[0]}" for of, dy in zip(formula.outputs, link.upstream, strict=False) if dy is None}
    parts = []
    for name, text in formula.parts if letter == next(iter(formula.gradients)) or zeros else ():
        left = without(text, zeros) if zeros else text
        zeros |= {name} if left == "0" else set()
        parts += [(name, left)] if name[0] == "d" and left != "0" else []
    expression = formula.gradients[letter]
    written = _latex(link, without(expression, zeros) if zeros else expression, dy=upstream)
    if not _of_examples_only(link, letter):
        written = written.replace(r"\sum_n ", r"\sum ")
    if letter != next(iter(formula.gradients)):
        return written
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


def _input(link, n):
    """How an input is called; a constant of one number is that number."""
    symbol, value = link.input_symbols[n], link.inputs[n]
    if symbol is not None:
        return symbol.latex
    single = np.size(value) == 1 and np.asarray(value).dtype.kind in "iuf"
    return latex_factor(np.ravel(value)[0]) if single else r"\text{constant}"


def _latex(link, expression, **more):
    """An expression of a link's formula in its symbols; what it says of weights that the layer has not is left out."""
    weights = {LETTERS[name]: symbol for name, symbol in link.weight_symbols.items() if name in LETTERS}
    if link.weights or link.kind == "layer":
        for letter in ("b", "beta"):
            if letter not in weights and letter not in _letters(link):
                expression = re.sub(rf" \+ {letter}\b", "", expression)
        expression = expression if "gamma" in weights else expression.replace("gamma*", "")
    named = {letter: symbol.latex for letter, symbol in weights.items() if len(symbol.letter) == 1}
    named |= {letter: _input(link, n) for n, letter in enumerate(_letters(link)) if n < len(link.input_symbols)}
    for (letter, _), symbol in zip(getattr(link.formula, "outputs", ()), link.output_symbols, strict=False):
        named |= {letter: symbol.latex, f"d{letter}": derivative("E", symbol.latex)}
    y = link.output_symbols[0].latex if link.output_symbols[0] is not None else "y"
    return latex(expression, {**_OF_LAYERS, **_count(link), **numbers(link.options), **named, "y": y, **more})


def _of_examples_only(link, letter):
    """Whether the gradient of a weight is a sum over the examples, and not over positions as well that share the weight."""
    weight = next((w for name, w in link.weights.items() if LETTERS.get(name) == letter), None)
    return weight is None or not link.outputs or np.size(weight) == np.prod(np.shape(link.outputs[0])[1:])


def _count(link):
    """k, of how many numbers a mean is; nothing where windows are of different sizes."""
    if hasattr(link.op, "pool_size"):
        return {} if link.op.padding == "same" else {"k": str(int(np.prod(link.op.pool_size)))}
    if link.kind != "op" and "Global" not in type(link.op).__name__:
        return {}
    count, rest = divmod(np.size(link.inputs[0]), max(np.size(link.outputs[0]), 1))
    return {"k": str(count)} if count and not rest else {}


def numbers(options):
    """The options as they stand in a formula: numbers."""
    plain = {n: v for n, v in options.items() if isinstance(v, (int, float)) and not isinstance(v, bool)}
    return {n: latex_number(v) for n, v in plain.items() if n not in ("T", "a", "x", "y")}


def name_of(link: Any) -> str:
    """What a function or operation is called."""
    function = function_of(link)
    return getattr(function, "__name__", None) or (link.rule if link.kind != "op" else link.path.rsplit("/", 1)[-1])
