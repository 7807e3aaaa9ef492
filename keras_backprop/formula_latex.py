"""A formula's text as LaTeX."""

import ast
import re
from typing import Any

__all__ = ["latex"]

_OPERATORS = {
    "sigmoid": r"\sigma", "tanh": r"\tanh", "exp": r"\exp", "log": r"\log", "max": r"\max", "min": r"\min", "cosh": r"\cosh",
    "Phi": r"\Phi", "softmax": r"\mathrm{softmax}", "softplus": r"\mathrm{softplus}", "sign": r"\mathrm{sign}",
    "mean": r"\mathrm{mean}", "average": r"\mathrm{mean}_n", "largest": r"\max", "smallest": r"\min",
    "window": r"\mathrm{window}",
    "spread": r"\mathrm{spread}", "onehot": r"\mathrm{onehot}", "rows": r"\mathrm{mean}_{\mathrm{rows}}",
    "columns": r"\mathrm{mean}_{\mathrm{columns}}", "rms": r"\mathrm{rms}", "norm": r"\mathrm{norm}",
    "head": r"\mathrm{first\ columns}", "tail": r"\mathrm{last\ columns}", "sin": r"\sin",
    "cos": r"\cos", "tan": r"\tan", "sinh": r"\sinh", "arctan": r"\arctan",
    "phi": r"\varphi", "phi1": r"\varphi'", "sigma": r"\sigma", "sigma1": r"\sigma'",
    "middle": r"\mathrm{middle\ columns}", "arcsin": r"\arcsin", "arccos": r"\arccos", "arsinh": r"\mathrm{arsinh}",
    "arcosh": r"\mathrm{arcosh}", "artanh": r"\mathrm{artanh}", "erf": r"\mathrm{erf}",
    "channels": r"\mathrm{each\ channel}", "repeated": r"\mathrm{repeated}", "padded": r"\mathrm{padded}",
    "cropped": r"\mathrm{cropped}", "permuted": r"\mathrm{permuted}", "same": r"\mathrm{same}",
    "different": r"\mathrm{different}", "likelihood": r"\mathrm{likelihood}", "occupancy": r"\mathrm{occupancy}",
    "where": r"\mathrm{where}", "arctan2": r"\mathrm{arctan2}", "taken": r"\mathrm{taken}", "placed": r"\mathrm{put\ back}",
    "triangle": r"\mathrm{triangle}", "product_so_far": r"\mathrm{product\ so\ far}",
    "sum_so_far": r"\mathrm{sum\ so\ far}", "sum_from_here": r"\mathrm{sum\ from\ here\ on}", "det": r"\det",
    "differences": r"\mathrm{differences}", "pairs": r"\mathrm{pair\ sums}", "ascending": r"\mathrm{in\ ascending\ order}",
    "the_largest": r"\mathrm{the\ largest}", "cholesky": r"\mathrm{cholesky}", "pinv": r"\mathrm{pseudoinverse}",
    "half_lower": r"\mathrm{lower}_{1/2}", "eigenvalues": r"\mathrm{eigenvalues}", "eigenvectors": r"\mathrm{eigenvectors}",
    "orthonormal": r"\mathrm{Q\ of}", "triangular": r"\mathrm{R\ of}", "mirrored": r"\mathrm{lower\ mirrored}",
    "upper": r"\mathrm{upper}", "svd": r"\mathrm{SVD}", "singular": r"\mathrm{singular\ values}", "left": r"\mathrm{U\ of}",
    "right": r"\mathrm{V^\top\ of}", "both": r"\mathrm{symmetric\ sum}", "diag": r"\mathrm{diag}", "real": r"\mathrm{Re}",
    "imag": r"\mathrm{Im}", "half": r"\mathrm{first\ half}",
    "longest": r"\mathrm{longest\ side}", "orthogonal": r"\mathrm{orthogonal}",
}  # fmt: skip

_SUMS = {
    "product": r"\prod ", "total": r"\sum ", "whole": r"\sum ", "examples": r"\sum_n ", "over_features": r"\sum_i ",
    "over_keys": r"\sum_s ", "over_queries": r"\sum_t ",
}  # fmt: skip

_TRANSFORMS = {
    "fourier": "F", "fourier2": "F", "adjoint": "F^{*}", "adjoint2": "F^{*}", "unfourier2": "F^{-1}", "unadjoint2": "F^{-*}",
}  # fmt: skip
"""F is the matrix of a Fourier transform, F* its conjugate transpose."""

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
        letter = rf"\{node.id}" if node.id in ("pi", "alpha", "beta", "gamma", "mu") else node.id
        text = names.get(node.id, letter)
        return text, SIGN if text.startswith("-") else ATOM
    if isinstance(node, ast.Constant):
        if isinstance(node.value, complex):
            return r"\mathrm{i}", ATOM
        return f"{node.value:g}" if isinstance(node.value, (int, float)) else str(node.value), ATOM
    if isinstance(node, ast.UnaryOp):
        return "-" + _in(node.operand, names, PRODUCT), SIGN
    if isinstance(node, ast.Attribute):  # W.T
        inner = _in(node.value, names, ATOM)
        return _raised(inner, r"\top"), ATOM
    if isinstance(node, ast.Compare):
        sides = [_write(side, names)[0] for side in (node.left, *node.comparators)]
        signs = [_COMPARED[type(one)] for one in node.ops]
        return "[" + sides[0] + "".join(f" {s} {x}" for s, x in zip(signs, sides[1:], strict=True)) + "]", ATOM
    if isinstance(node, ast.Subscript):  # C[k]
        inner = _in(node.value, names, ATOM)
        return f"{f'{{{inner}}}' if '_' in inner else inner}_{_braced(_write(node.slice, names)[0])}", ATOM
    if isinstance(node, ast.Call):
        return _write_call(node, names)
    assert isinstance(node, ast.BinOp)
    return _write_operation(node, names)


def _write_call(node, names):
    assert isinstance(node.func, ast.Name)
    name = node.func.id
    shown = (
        node.args[:1] if name in ("orthogonal", "head", "middle", "tail") else node.args
    )  # how many is said elsewhere
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
    if name == "inverse":
        return _raised(_in(node.args[0], names, ATOM), "{-1}"), ATOM - 1
    if name == "floor":
        return rf"\lfloor {arguments} \rfloor", ATOM
    if name == "cross":
        return "(" + r" \times ".join(_in(one, names, PRODUCT) for one in node.args) + ")", ATOM
    if name == "summed":
        return r"\sum " + r" \cdot ".join(_in(one, names, PRODUCT) for one in node.args), PRODUCT
    if name in _TRANSFORMS:
        return rf"{_TRANSFORMS[name]} \cdot {_in(node.args[0], names, ATOM)}", PRODUCT
    if name == "each":
        return _write(node.args[0], names)
    if name == "over_pairs":
        return r"\sum_{t,s} " + r" \odot ".join(_in(one, names, PRODUCT) for one in node.args), PRODUCT
    if name == "sqrt":
        return rf"\sqrt{{{arguments}}}", ATOM
    if name in _SUMS:
        return _SUMS[name] + _in(node.args[0], names, PRODUCT), PRODUCT
    return f"{_OPERATORS.get(name, name)}({arguments})", ATOM


def _write_operation(node, names):
    left, right = node.left, node.right
    if isinstance(node.op, ast.Add):
        return f"{_in(left, names, SUM)} + {_in(right, names, PRODUCT)}", SUM
    if isinstance(node.op, ast.Sub):
        sides = [_write(side, names)[0] for side in (left, right)]
        if isinstance(left, ast.Name) and all(_NUMBER.fullmatch(side) for side in sides):  # an option less a number
            return f"{float(sides[0]) - float(sides[1]):g}", ATOM
        return f"{_in(left, names, SUM)} - {_in(right, names, PRODUCT)}", SUM
    if isinstance(node.op, ast.Div):
        return rf"\frac{{{_write(left, names)[0]}}}{{{_write(right, names)[0]}}}", ATOM
    if isinstance(node.op, ast.Pow):
        base, exponent = _in(left, names, ATOM), _write(right, names)[0]
        return (base, ATOM) if exponent == "1" else (_raised(base, _braced(exponent)), ATOM - 1)
    if isinstance(node.op, ast.MatMult):
        return f"{_in(left, names, PRODUCT)} {_in(right, names, PRODUCT)}", PRODUCT
    first, second = _in(left, names, SIGN), _in(right, names, PRODUCT)
    if first == "1":
        return second, PRODUCT
    factors = isinstance(left, ast.Name) and not isinstance(right, ast.Name)
    close = factors and second.startswith("(") and left.id in ("x", "y", "a", "T")
    return first + ("" if close else r" \cdot ") + second, PRODUCT


def _in(node, names, tightness):
    """LaTeX as a part of something that holds together so tightly: in brackets where it would fall apart."""
    text, own = _write(node, names)
    return f"({text})" if own < tightness else text


def _raised(base, exponent):
    """A base with an exponent; in braces where it has one, as a letter cannot have two."""
    return f"{{{base}}}^{exponent}" if "^" in base and not base.endswith(")") else f"{base}^{exponent}"


def _braced(text):
    return text if len(text) == 1 else f"{{{text}}}"
