"""How a rule is written: its formulas as text that can be evaluated, and from that text the LaTeX.

    Formula("sigmoid(x)", "y*(1 - y)")      latex("y*(1 - y)", {"y": "a_2"}) is a_2(1 - a_2)

A formula is an attribute of the backward function of a rule (`Rule.formula`): another function in its place never shows it. The
text is Python's syntax, with the letters of `rules/README.md`; a condition counts 1 where it holds and 0 elsewhere. The tests
evaluate every formula and compare it with its rule.
"""

import ast
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = ["Cases", "Formula", "LossFormula", "RecurrentFormula", "evaluate", "latex", "written"]


class _Conditional:
    """What holds under conditions: `when`, option -> the value that it must have, or a function of it that says so."""

    when: dict

    def of(self, options: Any) -> Any:
        """This formula, if it is that for a call with these options (a dict); else None."""

        def holds(name, wanted):
            return wanted(options.get(name)) if callable(wanted) else options.get(name, wanted) == wanted

        return self if all(holds(*condition) for condition in self.when.items()) else None


@dataclass(frozen=True)
class Formula(_Conditional):
    """A layer, an operation or an activation.

    Attributes:
        value: str, y; of `x` (several inputs: `a`, `b`), the weights and the options. "" where there is no short way to write it.
        derivative: str, dy/dx of an elementwise function, of `x` and `y`; else None.
        gradients: dict, name -> str: `{"x": …}` is dx; of `dy`, the inputs and the weights.
        when: dict, option -> the value that it must have for the formula to hold; "class" -> the name of the operation's class,
            where others share the rule.
        inputs: str, the letters of the inputs in their order, where they are others than `x`, or `a` and `b`: "qkv".
        parts: tuple of (letter, expression), in order, what the other expressions are made of: `(("P", "softmax(q @ k.T)"),)`.
            One that begins with d is a gradient, and is of `dy`.
    """

    value: str
    derivative: str | None = None
    gradients: dict = field(default_factory=dict)
    when: dict = field(default_factory=dict)
    inputs: str = ""
    parts: tuple = ()


@dataclass(frozen=True)
class LossFormula(_Conditional):
    """A loss: factor · the sum, or the mean, over the k outputs of a term in `T` and `a`.

    Attributes:
        term: str.
        slope: str, the derivative of the term by a, but for `times`.
        times: float, a factor of the slope.
        factor: float, before the sum.
        mean: bool, a mean over the outputs and no sum.
        row: bool, the term is of all outputs already: neither mean nor sum.
        logits: str or None, the derivative by z where the loss is computed from the logits that a softmax or sigmoid made a of.
        classes: bool, the targets are numbers of classes; T in the formulas is then one hot.
        shown: str, the term as books write it, where a sums to 1 or another number is understood; else as it is.
        when: dict, option -> the value that it must have for the formula to hold.
    """

    term: str
    slope: str
    times: float = 1.0
    factor: float = 1.0
    mean: bool = True
    logits: str | None = None
    classes: bool = False
    shown: str = ""
    row: bool = False
    when: dict = field(default_factory=dict)


@dataclass(frozen=True)
class RecurrentFormula(_Conditional):
    """A recurrent layer: one time step forward, and one backward.

    The letters: `x` goes in, `h0` and `c0` are the states of the step before, `h` and `c` those after; `dh` and `dc` are their
    gradients; `phi` and `sigma` are the activations, `phi1` and `sigma1` their derivatives.

    Attributes:
        forward: tuple of (letters, expression), in order. Several letters, "i, f", name the parts of what the expression gives.
        backward: tuple of the same, in order. `dh0` and `dc0` are what goes to the step before.
        gradients: dict, letter -> what one step adds to the gradient of that weight; "x" -> that of the step's input.
        factor: (letter, expression), the shortest way from step to step: ∂h/∂h0, or ∂c/∂c0 and what else goes past the gates.
        when: dict, option -> the value that it must have for the formula to hold.
    """

    forward: tuple
    backward: tuple
    gradients: dict
    factor: tuple
    when: dict = field(default_factory=dict)


class Cases(tuple):
    """Several formulas of one rule: that which holds for a call's options is its formula."""

    def of(self, options: Any) -> Any:
        """The formula for a call with these options (a dict); None for none."""
        return next((formula for formula in self if formula.of(options) is not None), None)


def written(formula: Any) -> Callable[[Any], Any]:
    """A decorator: the formula of a rule's backward function."""

    def decorator(function):
        function.formula = formula
        return function

    return decorator


def evaluate(expression: str, values: dict) -> Any:
    """The number that a formula's text gives, with NumPy.

    Args:
        expression: str, a formula.
        values: dict, letter -> array or number.

    Raises:
        NameError: a letter has no value.
    """
    return eval(compile(expression, "<formula>", "eval"), {"__builtins__": {}}, {**_FUNCTIONS, **values})


def _softmax(z):
    powers = np.exp(z - np.max(z, -1, keepdims=True))
    return powers / np.sum(powers, -1, keepdims=True)


def _sigmoid(x):
    return 0.5 * (1 + np.tanh(0.5 * np.asarray(x)))


def _orthogonal(x, a, b, c, steps):
    """The Newton–Schulz iteration of Muon: x with all its singular values near 1."""
    x = x / (np.sqrt(np.sum(np.square(x))) + 1e-7)
    for _ in range(int(steps)):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x


def _trust(w, d):
    """‖w‖/‖d‖, 1 where one of the two is 0."""
    sizes = np.sqrt(np.sum(np.square(w))), np.sqrt(np.sum(np.square(d)))
    return sizes[0] / sizes[1] if all(sizes) else 1.0


_FUNCTIONS: dict[str, Any] = {
    "sigmoid": _sigmoid, "tanh": np.tanh, "exp": np.exp, "log": np.log, "sqrt": np.sqrt, "abs": np.abs, "sign": np.sign,
    "max": np.maximum, "min": np.minimum, "cosh": np.cosh, "softmax": _softmax, "pi": math.pi,
    "softplus": lambda x: np.logaddexp(0.0, x),
    "Phi": lambda x: 0.5 * (1 + np.vectorize(math.erf)(np.asarray(x) / math.sqrt(2))),
    "total": lambda x: np.sum(x, -1, keepdims=True), "mean": lambda x: np.mean(x, -1, keepdims=True),
    "examples": lambda x: np.sum(x, 0), "average": lambda x: np.mean(x, 0, keepdims=True),
    "largest": lambda x: np.max(x, -1, keepdims=True),
    "window": lambda x: x, "spread": lambda x: x, "norm": lambda x: np.sqrt(np.sum(np.square(x))),
    "rms": lambda x: np.sqrt(np.mean(np.square(x))), "rows": lambda x: np.mean(x, -1), "columns": lambda x: np.mean(x, -2),
    "outer": lambda x, y: x[..., :, None] * y[..., None, :], "longest": lambda x: max(np.shape(x)), "orthogonal": _orthogonal,
    "trust": _trust, "parts": lambda z, k: np.split(np.asarray(z), int(k), -1), "join": lambda *x: np.concatenate(x, -1),
    "stack": lambda *x: np.stack(x),
    "length": lambda x: np.sqrt(np.sum(np.square(x), -1, keepdims=True)), "classes": lambda x: np.shape(x)[-1],
    "head": lambda dy, x: dy[..., : np.shape(x)[-1]], "tail": lambda dy, x: dy[..., -np.shape(x)[-1] :],
    "sin": np.sin, "cos": np.cos, "tan": np.tan, "sinh": np.sinh, "arctan": np.arctan,
}  # fmt: skip

_OPERATORS = {
    "sigmoid": r"\sigma", "tanh": r"\tanh", "exp": r"\exp", "log": r"\log", "max": r"\max", "min": r"\min", "cosh": r"\cosh",
    "Phi": r"\Phi", "softmax": r"\mathrm{softmax}", "softplus": r"\mathrm{softplus}", "sign": r"\mathrm{sign}",
    "mean": r"\mathrm{mean}", "average": r"\mathrm{mean}_n", "largest": r"\max", "window": r"\mathrm{window}",
    "spread": r"\mathrm{spread}", "onehot": r"\mathrm{onehot}", "rows": r"\mathrm{mean}_{\mathrm{rows}}",
    "columns": r"\mathrm{mean}_{\mathrm{columns}}", "rms": r"\mathrm{rms}", "norm": r"\mathrm{norm}",
    "head": r"\mathrm{first\ columns}", "tail": r"\mathrm{last\ columns}", "sin": r"\sin",
    "cos": r"\cos", "tan": r"\tan", "sinh": r"\sinh", "arctan": r"\arctan",
    "phi": r"\varphi", "phi1": r"\varphi'", "sigma": r"\sigma", "sigma1": r"\sigma'",
    "longest": r"\mathrm{longest\ side}", "orthogonal": r"\mathrm{orthogonal}",
}  # fmt: skip

_COMPARED = {ast.Gt: ">", ast.Lt: "<", ast.GtE: r"\geq", ast.LtE: r"\leq", ast.Eq: "="}

SUM, SIGN, PRODUCT, ATOM = 1, 2, 3, 5
_NUMBER = re.compile(r"\d+(\.\d+)?")


def latex(expression: str, names: Any = None) -> str:
    """A formula's text as LaTeX.

    Args:
        expression: str, a formula.
        names: dict, letter -> LaTeX; other letters stand for themselves.
    """
    return _write(ast.parse(expression, mode="eval").body, names or {})[0]


def _write(node, names):
    """LaTeX, and how tightly it holds together."""
    if isinstance(node, ast.Name):
        return names.get(
            node.id, rf"\{node.id}" if node.id in ("pi", "alpha", "beta", "gamma", "mu") else node.id
        ), ATOM
    if isinstance(node, ast.Constant):
        return f"{node.value:g}" if isinstance(node.value, (int, float)) else str(node.value), ATOM
    if isinstance(node, ast.UnaryOp):
        return "-" + _in(node.operand, names, PRODUCT), SIGN
    if isinstance(node, ast.Attribute):  # W.T
        inner = _in(node.value, names, ATOM)
        return rf"{{{inner}}}^\top" if "^" in inner else rf"{inner}^\top", ATOM  # no two exponents on one letter
    if isinstance(node, ast.Compare):
        sides = [_write(side, names)[0] for side in (node.left, *node.comparators)]
        signs = [_COMPARED[type(one)] for one in node.ops]
        return "[" + sides[0] + "".join(f" {s} {x}" for s, x in zip(signs, sides[1:], strict=True)) + "]", ATOM
    if isinstance(node, ast.Subscript):  # E[k]
        return f"{_in(node.value, names, ATOM)}_{_braced(_write(node.slice, names)[0])}", ATOM
    if isinstance(node, ast.Call):
        return _write_call(node, names)
    assert isinstance(node, ast.BinOp)
    return _write_operation(node, names)


def _write_call(node, names):
    assert isinstance(node.func, ast.Name)
    name = node.func.id
    shown = node.args[:1] if name in ("orthogonal", "head", "tail") else node.args  # how many is said elsewhere
    arguments = ", ".join(_write(one, names)[0] for one in shown)
    if name == "trust":
        return r"\frac{\mathrm{norm}(w)}{\mathrm{norm}(d)}", ATOM
    if name == "outer":
        return rf"{_in(node.args[0], names, PRODUCT)} \cdot {_in(node.args[1], names, ATOM)}^\top", PRODUCT
    if name in ("join", "stack"):
        return "[" + r"\;\, ".join(_write(one, names)[0] for one in node.args) + "]", ATOM
    if name == "parts":
        return _write(node.args[0], names)
    if name == "classes":
        return "k", ATOM
    if name == "length":
        return rf"\Vert {arguments} \Vert", ATOM
    if name == "abs":
        return f"|{arguments}|", ATOM
    if name == "sqrt":
        return rf"\sqrt{{{arguments}}}", ATOM
    if name in ("total", "examples"):
        body = _in(node.args[0], names, PRODUCT)
        return (r"\sum " if name == "total" else r"\sum_n ") + body, PRODUCT
    return f"{_OPERATORS.get(name, name)}({arguments})", ATOM


def _write_operation(node, names):
    left, right = node.left, node.right
    if isinstance(node.op, ast.Add):
        return f"{_in(left, names, SUM)} + {_in(right, names, SIGN)}", SUM
    if isinstance(node.op, ast.Sub):
        sides = [_write(side, names)[0] for side in (left, right)]
        if isinstance(left, ast.Name) and all(_NUMBER.fullmatch(side) for side in sides):  # an option less a number
            return f"{float(sides[0]) - float(sides[1]):g}", ATOM
        return f"{_in(left, names, SUM)} - {_in(right, names, PRODUCT)}", SUM
    if isinstance(node.op, ast.Div):
        return rf"\frac{{{_write(left, names)[0]}}}{{{_write(right, names)[0]}}}", ATOM
    if isinstance(node.op, ast.Pow):
        return f"{_in(left, names, ATOM)}^{_braced(_write(right, names)[0])}", ATOM - 1
    if isinstance(node.op, ast.MatMult):
        return f"{_in(left, names, PRODUCT)} {_in(right, names, PRODUCT)}", PRODUCT
    first, second = _in(left, names, SIGN), _in(right, names, PRODUCT)
    if first == "1":
        return second, PRODUCT
    close = isinstance(left, ast.Name) and second.startswith("(") and left.id in ("x", "y", "a", "T")
    return first + ("" if close else r" \cdot ") + second, PRODUCT


def _in(node, names, tightness):
    """LaTeX as a part of something that holds together so tightly: in brackets where it would fall apart."""
    text, own = _write(node, names)
    return f"({text})" if own < tightness else text


def _braced(text):
    return text if len(text) == 1 else f"{{{text}}}"
