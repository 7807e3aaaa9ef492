"""The formulas of a recurrent layer: one step forward, one backward, the sums over all, the factor from step to step."""

from typing import Any, NamedTuple

from keras_backprop.explanations.writing.notation import derivative
from keras_backprop.formula import RecurrentFormula
from keras_backprop.formula_latex import latex

__all__ = ["StepFormulas", "step_formulas", "weight_gradient"]

_BEFORE = "_{t-1}"
_NAMES = {
    "x": "x_t", "z": "z_t", "h": "h_t", "h0": "h" + _BEFORE, "c": "c_t", "c0": "c" + _BEFORE, "b2": "b'",
    "V": "U^{ur}", "Y": "U^g", "dz": r"\delta_t", "q": "q_t", "u": "u_t", "r": "r_t",
    **{letter: f"{letter}_t" for letter in "ifgok"},
    **{f"{kind}{gate}": f"{kind}^{gate}_t" for kind in "zpq" for gate in "ifgour"},
    **{f"dz{gate}": rf"\delta^{gate}_t" for gate in "ifgour"},
}  # fmt: skip
_WEIGHTS = {"kernel": "W", "recurrent_kernel": "U", "bias": "b"}


class StepFormulas(NamedTuple):
    """LaTeX of a recurrent layer's formulas.

    Attributes:
        forward: list of str, equations of one step.
        backward: list of str, equations of one step, from the gradients that come to it.
        sums: list of str, the gradients of the weights, sums over all steps.
        factor: str, the factor from step to step.
        functions: str, which functions φ and σ are.
        columns: str, which columns of the weights are whose gate's; "" without gates.
    """

    forward: list
    backward: list
    sums: list
    factor: str
    functions: str
    columns: str


def step_formulas(link: Any) -> StepFormulas | None:
    """The formulas of a recurrent layer's link; None where its rule does not say."""
    formula = link.formula
    if not isinstance(formula, RecurrentFormula):
        return None
    names = _names(link)
    cell = getattr(link.op, "cell", link.op)
    functions = {r"\varphi": cell.activation, r"\sigma": getattr(cell, "recurrent_activation", None)}
    return StepFormulas(
        [_equation(letters, _bias(expression, link), names) for letters, expression in formula.forward],
        [_equation(letters, expression, names) for letters, expression in formula.backward],
        [
            rf"{derivative('E', letter)} = {_summed(formula, letter, names)}"
            for letter in formula.gradients
            if letter != "x" and (letter != "b" or _has_bias(link))
        ],
        _factor(formula, names),
        r",\; ".join(rf"{sign} = \text{{{_name(f)}}}" for sign, f in functions.items() if f is not None),
        _columns(link),
    )


def _columns(link):
    """The columns of W, U and, where there is one, b, gate by gate: i 1, f 2, g 3, o 4."""
    gates, cell = link.formula.forward[0][0].split(", "), getattr(link.op, "cell", link.op)
    size = getattr(cell, "filters", None) or cell.units
    ends = [(n * size + 1, (n + 1) * size) for n in range(len(gates))]
    places = [str(first) if first == last else rf"{first}\text{{ to }}{last}" for first, last in ends]
    named = r",\; ".join(rf"{gate[-1]}\,{place}" for gate, place in zip(gates, places, strict=True))
    weights = "W, U, b" if _has_bias(link) else "W, U"
    return rf"\text{{columns of }}{weights}:\; {named}" if len(gates) > 1 else ""


def weight_gradient(link: Any, attribute: str) -> str | None:
    """∂E/∂W of a weight of a recurrent layer as LaTeX; "x": ∂E/∂x of a step. None where the rule does not say."""
    letter = _WEIGHTS.get(attribute.rsplit(".", 1)[-1], attribute)
    if letter not in link.formula.gradients:
        return None
    return _summed(link.formula, letter, _names(link))


def _summed(formula, letter, names):
    expression = formula.gradients[letter]
    if letter == "x":
        return latex(expression, names) + r"\text{ in every step}"
    written = latex(expression, names).replace(r"\sum_n ", "")
    return rf"\sum_t {written}"


def _names(link):
    one = names_of_gradients(link.formula)
    return {**_NAMES, **one}


def names_of_gradients(formula: RecurrentFormula) -> dict:
    """∂E/∂h, ∂E/∂c; and of what goes through the recurrent product of GRU δ′, or ∂E/∂q where q is a letter of its own."""
    own = any("q" in letters.split(", ") for letters, _ in formula.forward)
    names = {f"d{letter}": derivative("E", _NAMES[letter]) for letter in ("h", "c", "h0", "c0")}
    return names | {"dq": derivative("E", "q_t") if own else r"\delta'_t"}


def _equation(letters, expression, names):
    parts = [names.get(letter, letter) for letter in letters.split(", ")]
    left = parts[0] if len(parts) == 1 else "[" + r"\;\, ".join(parts) + "]"
    sign = r"\mathrel{+}=" if letters == "dc" else "="  # the part by h, besides that from the step after
    return f"{left} {sign} {_elementwise(expression.removeprefix('dc + ') if letters == 'dc' else expression, names)}"


def _elementwise(expression, names):
    return latex(expression, names).replace(r"\cdot", r"\odot")


def _bias(expression, link):
    return expression if _has_bias(link) else expression.replace(" + b2", "").replace(" + b", "")


def _has_bias(link):
    return any(name.rsplit(".", 1)[-1] == "bias" for name in link.weights)


def _factor(formula, names):
    letter, expression = formula.factor
    of, by = rf"\partial {letter}_t", rf"\partial {letter}_{{t-1}}"
    besides = "" if letter == "h" and ".T" in expression else r"\text{, besides the way through the gates}"
    return rf"\frac{{{of}}}{{{by}}} = {_elementwise(expression, names)}{besides}"


def _name(function):
    return getattr(function, "__name__", type(function).__name__).replace("_", " ")
