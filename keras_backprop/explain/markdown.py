"""The chain with LaTeX formulas in the notation of the worked example, and the numbers put in."""

from keras_backprop.explain.matrix_chain import matrix_chain
from keras_backprop.explain.notation import (
    bracketed,
    brief,
    gradient_of,
    is_small,
    latex_array,
    latex_factor,
    latex_number,
)
from keras_backprop.explain.rows import backward_rows, forward_rows
from keras_backprop.explain.scalar_chain import factors_of, scalar_chain
from keras_backprop.explain.text import headline


def to_markdown(explanation):
    """Forward table, factors, gradients, update."""
    scalars, matrices = scalar_chain(explanation), matrix_chain(explanation)
    parts = [f"# {headline(explanation)}", "## Forward", _rows(forward_rows(explanation))]
    if scalars:
        rows = [(_math(f.name), _math(f.formula), _math(latex_number(f.value))) for f in factors_of(scalars)]
        parts += ["## The chain, factor by factor", table(("factor", "formula", "value"), rows)]
        parts += ["## The gradients", *map(_scalar_product, scalars)]
    else:
        parts += ["## Backward, the last link first", _rows(backward_rows(explanation))]
    if matrices and not scalars:
        parts += ["## The gradients", *map(_matrix_product, matrices)]
    header = ("weight", "path", "before", "gradient", "after")
    parts += [f"## Update ({explanation.optimizer})", table(header, map(_update, explanation.weights))]
    return "\n\n".join(parts) + "\n"


def _scalar_product(product):
    """∂E/∂w₂ = −(T − a₂) · a₂(1 − a₂) · a₁ = 0.4653 · 0.2037 · 0.6023 = 0.0571"""
    formulas = r" \cdot ".join(bracketed(f.formula) for f in product.factors)
    values = r" \cdot ".join(latex_factor(f.value) for f in product.factors)
    return _display(gradient_of(product.symbol), formulas, values, latex_number(product.gradient))


def _matrix_product(product):
    """∂E/∂W₂ = a₁ᵀ (−(T − a₂) ⊙ a₂(1 − a₂)) = the same in numbers = the gradient"""
    return _display(gradient_of(product.symbol), product.formula, product.numbers, latex_array(product.gradient))


def _display(*sides):
    return "$$\n" + " = ".join(sides) + "\n$$"


def _rows(rows):
    cells = [(f"`{row.path}`", _math(row.formula), _value(row.value)) for row in rows]
    return table(("link", "formula", "value"), cells)


def _value(array):
    return _math(latex_array(array)) if is_small(array) else brief(array)


def _update(weight):
    symbol = _math(weight.symbol.latex) if str(weight.symbol) != weight.path else ""
    gradient = "none" if weight.gradient is None else _value(weight.gradient)
    return symbol, f"`{weight.path}`", _value(weight.value), gradient, _value(weight.updated)


def _math(formula):
    return f"${formula}$"


def display(lines, flavor=None):
    """Formulas on lines of their own, aligned at `&`; as a block of mathematics of a flavor of Markdown.

    Raises:
        ValueError: an unknown flavor.
    """
    if flavor not in (None, "github"):
        raise ValueError(f'`flavor` must be None or "github". Received: {flavor!r}')
    body = lines[0].replace("&", "") if len(lines) == 1 else "\\begin{aligned}\n" + " \\\\\n".join(lines) + "\n\\end{aligned}"
    return f"```math\n{body}\n```" if flavor == "github" else f"$$\n{body}\n$$"


def table(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
