"""How the error is written, its gradient, and both as functions: from the `LossFormula` of the rule that ran."""

from fractions import Fraction
from typing import Any

import numpy as np

from keras_backprop.explanations.writing.formulas import numbers
from keras_backprop.explanations.writing.notation import latex_number
from keras_backprop.formula import LossFormula
from keras_backprop.formula_latex import latex
from keras_backprop.formula_value import evaluate, with_parts


def loss(link: Any) -> str | None:
    """The error as LaTeX, with the number of examples and outputs in its factor; None where the rule does not say."""
    formula = link.formula
    if not isinstance(formula, LossFormula) or None in link.input_symbols[:2]:
        return None
    T, a = link.input_symbols[:2]
    coefficient, n, k = uniform_coefficient(link), len(link.inputs[1]), link.inputs[1].shape[-1]
    names = _letters(link, T.latex, a.latex)
    term = latex(formula.shown or formula.term, names)
    where = _parts(formula, names)
    count = int(np.size(link.inputs[1]))
    sign, term = ("-", term[1:]) if term.startswith("-") else ("", term)
    over = "" if formula.row else r"\sum "
    alone = formula.row and coefficient == 1 and formula.factor == 1 and np.size(link.outputs[0]) == 1
    term = term if alone else _whole(term)
    if coefficient is None:
        inner = over if count > n else ""
        return rf"{sign}\sum_n c_n \cdot {_factor_of(formula, 1, k)}{inner}{term}{where}"
    positions = link.outputs[0].size / n if n else 1  # of a sequence: the mean is over these as well
    whole = np.isclose(coefficient * n * positions, 1)
    if not whole and not np.isclose(coefficient, 1):
        return rf"{sign}{latex_number(coefficient)} \cdot {_factor_of(formula, 1, k)}{over}{term}{where}"
    front = _factor_of(formula, round(n * positions) if whole else 1, k)
    if formula.row and np.size(link.outputs[0]) > 1:
        return rf"{sign}{front}\sum_n {term}{where}"
    return rf"{sign}{front}{term}{where}" if count == 1 else rf"{sign}{front}{over}{term}{where}"


def error_of_examples(link: Any) -> str | None:
    """The error of every example as LaTeX; None where the rule does not say."""
    formula = link.formula
    if not isinstance(formula, LossFormula) or None in link.input_symbols[:2]:
        return None
    names = _letters(link, *(symbol.latex for symbol in link.input_symbols[:2]))
    term, k = latex(formula.shown or formula.term, names), link.inputs[1].shape[-1]
    sign, term = ("-", term[1:]) if term.startswith("-") else ("", term)
    over = "" if formula.row or k == 1 else r"\sum "
    return rf"{sign}{_factor_of(formula, 1, k)}{over}{_whole(term)}{_parts(formula, names)}"


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
    names, coefficient = _letters(link, "@T@", "@a@"), uniform_coefficient(link)
    product, where = _template(latex(slope, names)), _template(_parts(formula, names, slope=True))
    if formula.couples:  # c_n stands in it already
        share = {} if coefficient is None else {"c": _share(coefficient)}
        return product + _template(_parts(formula, {**names, **share}, slope=True))
    if coefficient is None:
        sign = "-" if product.startswith("-") else ""
        return _times(_of_slope(link), rf"{sign}c_n \cdot {_whole(product.removeprefix('-'))}") + where
    return _times(coefficient * _of_slope(link), product) + where


def _share(coefficient):
    """A coefficient as a number: a fraction where it is a simple one."""
    return _times(coefficient, "1").format().removesuffix(r" \cdot 1")


def _template(text):
    return text.replace("{", "{{").replace("}", "}}").replace("@T@", "{T}").replace("@a@", "{a}")


def _letters(link, T, a):
    """What the letters of a loss's formula are in LaTeX."""
    return {
        **numbers(plain_options(link)),
        "epsilon": r"\varepsilon",
        **_OF_LOSSES,
        "T": _target(link.formula, T),
        "a": a,
    }


_OF_LOSSES = {"c": "c_n", "du": "u'", "dv": "v'", "dS": r"\Delta"}


def _parts(formula, names, slope=False):
    """What the term is made of, or what the slope is made of besides."""
    parts = [(letter, text) for letter, text in formula.parts if (letter[0] == "d") == slope]
    return "".join(rf",\quad {names.get(letter, letter)} = {latex(text, names)}" for letter, text in parts)


def slope_function(link: Any) -> Any:
    """A function (values, predictions) -> ∂E/∂a or ∂E/∂z by the rule's formula, with T and the coefficients of the record."""
    slope = _slope(link) if isinstance(link.formula, LossFormula) else None
    return _slope_function(link, slope, _of_slope(link)) if slope is not None else None


def slope_by_predictions(link: Any, as_shown: bool = True) -> Any:
    """The same for ∂E/∂a of an error that was differentiated together with the activation that made a: as books or as Keras."""
    formula = link.formula
    if not from_logits(link) or not isinstance(formula, LossFormula):
        return None
    slope = (as_shown and formula.shown_slope) or formula.slope
    return _slope_function(link, slope, _of_slope(link, by_predictions=True))


def _slope_function(link, slope, numbers):
    formula = link.formula
    if not link.upstream or link.upstream[0] is None:
        return None
    coefficient = np.asarray(link.upstream[0], "float64").reshape(-1, 1) * numbers
    given = {**plain_options(link), "T": _targets(link), "c": coefficient}
    outside = 1.0 if formula.couples else coefficient

    def function(value, prediction):
        with np.errstate(all="ignore"):  # a probability of 0
            return outside * evaluate(slope, with_parts(formula.parts, {**given, "a": prediction}))

    return function


def error_function(link: Any) -> Any:
    """A function (predictions) -> E of this loss by the rule's formula; None where it does not say."""
    formula = link.formula
    if not isinstance(formula, LossFormula) or not link.upstream or link.upstream[0] is None:
        return None
    given, coefficient = (
        {**plain_options(link), "T": _targets(link)},
        np.asarray(link.upstream[0], "float64").reshape(-1, 1),
    )
    parts = [part for part in formula.parts if part[0][0] != "d"]
    share = formula.factor / (link.inputs[1].shape[-1] if formula.mean else 1)

    def rows(a):
        return np.sum(coefficient * share * evaluate(formula.term, with_parts(parts, {**given, "a": a})), -1)

    def error(a):
        return float(np.sum(rows(a)))

    error.rows = rows  # type: ignore[attr-defined]
    return error


def _targets(link):
    """The targets as numbers; of classes one hot."""
    targets = np.asarray(link.inputs[0], "float64")
    return np.eye(link.inputs[1].shape[-1])[targets.astype(int).reshape(-1)] if link.formula.classes else targets


def _slope(link):
    """The formula of the slope that this link used: by the logits, or by the predictions."""
    return link.formula.logits if from_logits(link) else link.formula.slope


def _of_slope(link, by_predictions=False):
    """The numbers before the slope, but for the upstream gradient."""
    formula, logits = link.formula, from_logits(link) and not by_predictions
    return formula.factor * (1.0 if logits else formula.times) / (link.inputs[1].shape[-1] if formula.mean else 1)


def together(link: Any) -> bool:
    """Whether a cross-entropy and the activation before it were differentiated together, and nothing comes to a besides."""
    return from_logits(link) and link.downstream[1] is None


def from_logits(link: Any) -> bool:
    """Whether a part of the gradient, at least, of what an activation makes into predictions was computed at once."""
    return link.kind == "loss" and any(dx is not None for dx in link.downstream[2:])  # with classes left out it is not


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


def plain_options(link: Any) -> dict:
    """The options of a loss that are numbers, with Keras's values of those that are not given."""
    options = {name: value for name, value in link.options.items() if isinstance(value, (int, float))}
    return {"epsilon": 1e-7, "delta": 1.0, **options}
