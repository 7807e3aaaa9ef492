"""The chain with LaTeX formulas in the notation of the worked example, and the numbers put in."""

import re

from keras_backprop.explanations.writing.breaking import ONE_LINE, broken, visible
from keras_backprop.explanations.writing.matrix_chain import matrix_chain
from keras_backprop.explanations.writing.notation import (
    A_FEW_ROWS,
    FEW,
    bracketed,
    brief,
    decimals_of_change,
    derivative,
    gradient_of,
    is_small,
    latex_array,
    latex_factor,
    latex_number,
    precision,
)
from keras_backprop.explanations.writing.optimizers import NAMES
from keras_backprop.explanations.writing.rows import Shown, backward_rows, forward_rows, given_rows
from keras_backprop.explanations.writing.scalar_chain import factors_of, scalar_chain
from keras_backprop.explanations.writing.text import (
    headline,
    inside_text,
    of_all,
    of_example,
    remarks,
    single_weights,
    which,
)
from keras_backprop.explanations.writing.time_rows import general_rows, step_rows

IN_TABLES = 40
"""So wide is a formula in a table before it is cut in two, between which the line may end."""


def to_markdown(explanation, digits=None, example=None, units=None, flavor=None):
    """Forward table, factors, gradients, update."""
    view = Shown(explanation, example, units)
    with precision(digits):
        scalars = scalar_chain(explanation)
        parts = [f"# {headline(explanation, example)}"]
        if not scalars:
            parts += ["## Given", _rows(given_rows(explanation, view))]
        parts += ["## Forward", _rows(forward_rows(explanation, view))]
        parts += _inside_the_layers(explanation, example)
        parts += _through_time(explanation, example)
        parts += _factors(scalars, flavor) if scalars else _backward(explanation, view, example)
        parts += remarks(explanation)
        if not scalars and example is None and units is None:
            matrices = matrix_chain(explanation)
            parts += ["## The gradients", *(_matrix_product(one, flavor) for one in matrices)] if matrices else []
        parts += [f"## Update ({explanation.optimizer})", *update_formula(explanation, flavor)]
        header = ("weight", "path", "before", "gradient", "after")
        parts.append(table(header, map(_update, [*explanation.weights, *explanation.frozen])))
    return "\n\n".join(parts) + "\n"


def _inside_the_layers(explanation, example):
    inside = [(f"`{path}`", what, text) for path, what, text in inside_text(explanation, example)]
    return ["## Inside the layers", table(("link", "", ""), inside)] if inside else []


def _through_time(explanation, example):
    """The formulas of a time step of recurrent layers, and the numbers of every one."""
    parts = []
    general = [(f"`{path}`" if path else "", what, _math(line)) for path, what, line in general_rows(explanation)]
    if general:
        parts += ["## In every time step $t$", table(("link", "", "formula"), general)]
    steps = [
        (_math(name), _math(made.removeprefix("= ")) if made else "", value, f"{_math(of)} = {dx}" if dx else "")
        for name, made, value, of, dx in step_rows(explanation, example)
    ]
    if steps:
        parts += ["## Step by step through time", table(("", "formula", "value", "gradient"), steps)]
    return parts


def _factors(scalars, flavor):
    """Of a network of one unit in each layer: every factor, and every gradient as their product."""
    rows = [
        (_math(f.name), _math(f.formula) if f.formula else "", _math(latex_number(f.value)))
        for f in factors_of(scalars)
    ]
    factors = table(("factor", "formula", "value"), rows)
    products = [_scalar_product(product, flavor) for product in scalars]
    return ["## The chain, factor by factor", factors, "## The gradients", *products]


def _backward(explanation, view, example):
    """Link by link, and of a small network weight by weight."""
    parts = [
        f"## Backward, the last link first{of_all(explanation, example)}",
        _rows(backward_rows(explanation, view)),
    ]
    singles = [
        (_math(_tex(name)), " ".join(map(_math, broken(_tex(sums), IN_TABLES))))
        for name, sums in single_weights(explanation, example)
    ]
    if singles:
        heading = f"## The gradients, weight by weight{of_example(example)}"
        parts += [heading, table(("gradient", "products"), singles)]
    return parts


def update_formula(explanation, flavor):
    """How the optimizer makes the new weights, its constants, and what else it does."""
    formula = explanation.update
    if formula is None:
        return
    for group in formula.groups:
        if formula.others:
            yield f"Of {which(explanation, group)}:"
        yield display([line.replace(r"\leftarrow", r"&\leftarrow") for line in group.latex()], flavor)
        if len(group.numbers) > 2 or group.remarks:
            numbers = [f"${NAMES.get(n, n)} = {latex_number(v)}$" for n, v in group.numbers.items()]
            yield ", ".join([*numbers, *group.words, *group.remarks])


def _scalar_product(product, flavor):
    """∂E/∂w₂ = −(T − a₂) · a₂(1 − a₂) · a₁ = 0.4653 · 0.2037 · 0.6023 = 0.0571"""
    formulas = r" \cdot ".join(bracketed(f.formula or f.name) for f in product.factors)
    values = r" \cdot ".join(latex_factor(f.value) for f in product.factors)
    if product.penalty:
        formulas += f" + {derivative('R', product.symbol.latex)}"
        values += f" + {latex_factor(product.penalty)}"
    return _equation(gradient_of(product.symbol), [formulas, values, latex_number(product.gradient)], flavor)


def _matrix_product(product, flavor):
    """∂E/∂W₂ = a₁ᵀ (−(T − a₂) ⊙ a₂(1 − a₂)) = the same in numbers = the gradient"""
    return _equation(
        gradient_of(product.symbol), [product.formula, product.numbers, latex_array(product.gradient)], flavor
    )


def _equation(left, sides, flavor):
    """On one line, or aligned over several where it is long."""
    if visible(" = ".join([left, *sides])) <= ONE_LINE:
        return display([" = ".join([left, *sides])], flavor)
    return display(aligned(left, sides), flavor)


def aligned(left, sides):
    """left = side = side …, each side on lines of its own."""
    lines = []
    for position, side in enumerate(sides):
        first, *rest = broken(side)
        lines += [f"{'' if position else left} &= {first}".lstrip(), *(rf"&\quad {part}" for part in rest)]
    return lines


def display(lines, flavor=None):
    """Formulas on lines of their own, aligned at `&`; as a block of mathematics of a flavor of Markdown.

    Raises:
        ValueError: an unknown flavor.
    """
    if flavor not in (None, "github"):
        raise ValueError(f'`flavor` must be None or "github". Received: {flavor!r}')
    if len(lines) == 1:
        body = lines[0] if "pmatrix" in lines[0] else lines[0].replace("&", "")
    else:
        body = "\\begin{aligned}\n" + " \\\\\n".join(lines) + "\n\\end{aligned}"
    return f"```math\n{body}\n```" if flavor == "github" else f"$$\n{body}\n$$"


def _rows(rows):
    cells = [(f"`{row.path}`", _math(row.formula), _value(row.value, A_FEW_ROWS)) for row in rows]
    return table(("link", "formula", "value"), cells)


def _value(array, few=FEW):
    return _math(latex_array(array)) if is_small(array) else brief(array, few=few)


def _update(weight):
    symbol = _math(weight.symbol.latex) if str(weight.symbol) != weight.path else ""
    gradient = "none" if weight.gradient is None else _value(weight.gradient)
    gradient = gradient if weight.trained else "frozen: not trained"
    with precision(decimals_of_change(weight.value, weight.updated)):
        return symbol, f"`{weight.path}`", _value(weight.value), gradient, _value(weight.updated)


def _tex(text):
    """Numbers of a terminal as LaTeX."""
    text = re.sub(r"(-?\d[\d.]*)e(-?\d+)", r"\1\\cdot 10^{\2}", text.replace(" · ", r" \cdot "))
    return re.sub(r" \(w([₀-₉]+)\)", lambda m: rf"\;(w_{{{m[1].translate(_DIGITS)}}})", text)


_DIGITS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")


def _math(formula):
    return f"${formula}$"


def table(header, rows):
    """A table of Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", r"\vert ") if "$" in cell else cell for cell in line) + " |"
        for line in lines
    )
