"""How a rule is written: its formulas as text that can be evaluated, and from that text the LaTeX.

    Formula("sigmoid(x)", "y*(1 - y)")      latex("y*(1 - y)", {"y": "a_2"}) is a_2(1 - a_2)

A formula is an attribute of the backward function of a rule (`Rule.formula`): another function in its place never shows it. The
text is Python's syntax, with the letters of `rules/README.md`; a condition counts 1 where it holds and 0 elsewhere. The tests
evaluate every formula and compare it with its rule.
"""

import ast
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = ["Formula", "LossFormula", "evaluate", "latex", "written"]


@dataclass(frozen=True)
class Formula:
    """A layer, an operation or an activation.

    Attributes:
        value: str, y; of `x` (several inputs: `a`, `b`), the weights and the options. "" where there is no short way to write it.
        derivative: str, dy/dx of an elementwise function, of `x` and `y`; else None.
        gradients: dict, name -> str: `{"x": …}` is dx; of `dy`, the inputs and the weights.
        when: dict, option -> the value that it must have for the formula to hold; "class" -> the name of the operation's class,
            where others share the rule.
    """

    value: str
    derivative: str | None = None
    gradients: dict = field(default_factory=dict)
    when: dict = field(default_factory=dict)

    def holds(self, options: Any) -> bool:
        """Whether this is the formula for a call with these options (a dict)."""
        return all(options.get(name, value) == value for name, value in self.when.items())


@dataclass(frozen=True)
class LossFormula:
    """A loss: factor · the sum, or the mean, over the k outputs of a term in `T` and `a`.

    Attributes:
        term: str.
        slope: str, the derivative of the term by a, but for `times`.
        times: float, a factor of the slope.
        factor: float, before the sum.
        mean: bool, a mean over the outputs and no sum.
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
    when: dict = field(default_factory=dict)

    def holds(self, options: Any) -> bool:
        """Whether this is the formula for a loss with these options (a dict)."""
        return all(options.get(name, value) == value for name, value in self.when.items())


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


_FUNCTIONS: dict[str, Any] = {
    "sigmoid": _sigmoid, "tanh": np.tanh, "exp": np.exp, "log": np.log, "sqrt": np.sqrt, "abs": np.abs, "sign": np.sign,
    "max": np.maximum, "min": np.minimum, "cosh": np.cosh, "softmax": _softmax, "pi": math.pi,
    "softplus": lambda x: np.logaddexp(0.0, x),
    "Phi": lambda x: 0.5 * (1 + np.vectorize(math.erf)(np.asarray(x) / math.sqrt(2))),
    "total": lambda x: np.sum(x, -1, keepdims=True), "mean": lambda x: np.mean(x, -1, keepdims=True),
    "examples": lambda x: np.sum(x, 0), "average": lambda x: np.mean(x, 0, keepdims=True),
    "largest": lambda x: np.max(x, -1, keepdims=True),
    "window": lambda x: x, "spread": lambda x: x, "norm": lambda x: np.sqrt(np.sum(np.square(x))),
    "rms": lambda x: np.sqrt(np.mean(np.square(x))),
}  # fmt: skip

_OPERATORS = {
    "sigmoid": r"\sigma", "tanh": r"\tanh", "exp": r"\exp", "log": r"\log", "max": r"\max", "min": r"\min", "cosh": r"\cosh",
    "Phi": r"\Phi", "softmax": r"\mathrm{softmax}", "softplus": r"\mathrm{softplus}", "sign": r"\mathrm{sign}",
    "mean": r"\mathrm{mean}", "average": r"\mathrm{mean}_n", "largest": r"\max", "window": r"\mathrm{window}",
    "spread": r"\mathrm{spread}", "onehot": r"\mathrm{onehot}",
}  # fmt: skip

_COMPARED = {ast.Gt: ">", ast.Lt: "<", ast.GtE: r"\geq", ast.LtE: r"\leq", ast.Eq: "="}

SUM, SIGN, PRODUCT, ATOM = 1, 2, 3, 5


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
        return rf"{_in(node.value, names, ATOM)}^\top", ATOM
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
    name, arguments = node.func.id, ", ".join(_write(one, names)[0] for one in node.args)
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
