"""Numbers, arrays and formulas in writing. A formula is written once, in LaTeX; `plain` makes it readable in a terminal."""

import contextlib
import contextvars
import math
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

FEW = 6  # so many values are written out
A_FEW_ROWS = 12  # and so many where a line has nothing else: four examples of three units
ENTRIES = 3  # of more values the first ones

_PLAIN = {
    r"\partial ": "∂", r"\cdot": "·", r"\odot": "⊙", r"\sigma": "σ", r"\sum": "Σ", r"\sum_n": "Σₙ", r"\sumₜ": "Σₜ", r"c_n": "cₙ",
    r"^\top": "ᵀ", r"^{*}": "*", r"^2": "²", r"^3": "³",
    r"\mathrel{+}=": "+=", r"\left": "", r"\right": "", r"\Phi": "Φ", r"\alpha": "α", r"\operatorname": "", r"\,": " ",
    r"\;": " ", r"\to": "→", r"\_": "_", "-": "−", r"\geq": "≥", r"\leq": "≤", r"\sqrt": "√", r"\delta": "δ", r"\pi": "π",
    r"\eta": "η", r"\beta": "β", r"\varepsilon": "ε",
    r"\hat{x}": "x̂", r"\gamma": "γ", r"\mathrm{mean}_n": "meanₙ", r"\varphi": "φ", r"\Delta": "Δ",
    r"\lambda": "λ", r"\prime": "′", r"\mu": "μ",
    r"\prod": "Π", r"\lfloor ": "⌊", r" \rfloor": "⌋", r"\times": "×",
    r"\rho": "ρ", r"\Vert ": "‖", r" \Vert": "‖", r"\leftarrow": "←", r"\quad": "  ",
}  # fmt: skip


_digits: contextvars.ContextVar = contextvars.ContextVar("digits", default=None)


@contextlib.contextmanager
def precision(digits: Any) -> Iterator[None]:
    """Within the block, numbers are written with so many decimals (an int); None leaves it as it is.

    Raises:
        ValueError: `digits` is no whole number from 1 to 17.
    """
    if digits is not None and (
        not isinstance(digits, (int, np.integer)) or isinstance(digits, bool) or not 1 <= digits <= 17
    ):
        raise ValueError(f"`digits` must be a whole number of decimals, from 1 to 17. Received: {digits!r}")
    token = _digits.set(digits if digits is not None else _digits.get())
    try:
        yield
    finally:
        _digits.reset(token)


def decimals_of_change(before: Any, after: Any) -> int | None:
    """In how many decimals the smallest change of a weight shows; None where four, or those that are asked for, do."""
    before, after = np.asarray(before), np.asarray(after)
    changes = np.abs(after.astype("float64") - before.astype("float64"))
    changed = (changes > 0) & np.isfinite(changes)
    hidden = changed & (np.round(before, 4) == np.round(after, 4)) & (np.abs(after) >= 0.01)
    if _digits.get() is not None or after.size > FEW or not np.any(hidden):
        return None
    changes = changes[changed]
    largest = float(np.max(np.abs(after), where=np.isfinite(after), initial=1e-3))
    carried = (7 if after.dtype.itemsize <= 4 else 15) - math.ceil(math.log10(largest))  # decimals that the type has
    wanted = min(1 - math.floor(math.log10(float(changes.min()))), carried, 9)
    return wanted if wanted > 4 else None


def _with_digits(value, digits):
    """So many decimals; of small numbers so many significant digits less one."""
    size = abs(value)
    if size < min(0.1, 10.0 ** (1 - digits)) or size >= 1e9:
        mantissa, _, exponent = f"{value:.{max(digits - 1, 1)}e}".partition("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    return f"{value:.{digits}f}".rstrip("0").rstrip(".")


def number(value):
    """Four decimals, fewer where they say all (0.45, 1); of small numbers three significant digits. See `precision`."""
    value = float(value)
    size = abs(value)
    if _digits.get() is not None and np.isfinite(value) and size:
        return _with_digits(value, _digits.get())
    if size == 0:
        return "0"
    if not np.isfinite(value):
        return f"{value:g}"
    if value == round(value) and size < 1e5:
        return f"{value:.0f}"
    if 1e-4 <= size < 100 and abs(round(value, 4) - value) <= 1e-7 * size:
        return f"{round(value, 4):.6g}"
    if size < 0.01 or size >= 1e5:
        mantissa, _, exponent = f"{value:.3g}".partition("e")
        return f"{mantissa}e{int(exponent)}" if exponent else mantissa
    return f"{value:.4f}" if size < 100 else f"{value:.6g}"


def latex_number(value):
    """The same for a formula: 1.2e-5 as a power of ten."""
    mantissa, _, exponent = number(value).partition("e")
    return rf"{mantissa}\cdot 10^{{{exponent}}}" if exponent else mantissa


def latex_factor(value):
    """A number among other factors: in brackets where it is negative."""
    text = latex_number(value)
    return rf"({text})" if value < 0 or "cdot" in text else text


def brief(array, with_shape=True, few=FEW):
    """All values of a small tensor; of a large one its shape, its norm and the first entries."""
    array = np.asarray(array)
    if not array.size:
        return "none of these units"
    if array.size == 1:
        return number(array.reshape(()))
    if array.size <= few:
        return _bracketed(array)
    entries = " ".join(number(value) for value in array.ravel()[:ENTRIES])
    text = f"‖·‖ {number(norm(array))} [{entries} …]"
    return f"{shape(array)} {text}" if with_shape else text


def shape(array):
    """`(32×128)`"""
    return "(" + "×".join(map(str, np.shape(array))) + ")"


def norm(array):
    """The Euclidean norm, as a float."""
    return float(np.sqrt(np.sum(np.square(np.asarray(array, dtype="float64")))))


def is_small(array):
    """Whether a tensor is written out in a formula: a number, or a matrix of at most 4 × 4."""
    return (np.ndim(array) <= 2 and max(np.shape(array), default=1) <= 4) or np.size(array) == 1


def latex_array(array):
    """A small matrix in round brackets, a single number without."""
    array = np.asarray(array)
    if not array.size:
        return r"\text{none of these units}"
    if array.size == 1:
        return latex_number(array.reshape(()))
    rows = r" \\ ".join(" & ".join(map(latex_number, row)) for row in np.atleast_2d(array))
    return rf"\begin{{pmatrix}}{rows}\end{{pmatrix}}"


def gradient_of(symbol):
    """∂E/∂symbol as LaTeX."""
    return derivative("E", symbol.latex)


def derivative(of, by):
    """∂of/∂by as LaTeX."""
    return rf"\frac{{\partial {of}}}{{\partial {by}}}"


def bracketed(formula):
    """A formula as a factor: a sum needs brackets."""
    depth = 0
    for position, character in enumerate(formula):
        depth += (character in "({[") - (character in ")}]")
        if depth == 0 and character in "+-" and position > 0:
            return rf"\left({formula}\right)"
    return formula


def plain(latex):
    """A formula of this package in Unicode: `\\frac{\\partial E}{\\partial w_2}` is ∂E/∂w₂."""
    text = re.sub(r"(\^\{\(\d+\))\\prime\}(_(?:\{[\d,]+\}|\d))?", r"\1}\2′", latex).replace(r"^{\prime}", "′")
    text = re.sub(
        r"(?<!\\)_t(?![a-z])", "ₜ", re.sub(r"(\\(?:varphi|sigma|delta)|\bb)'", r"\1′", text.replace("_{t-1}", "ₜ₋₁"))
    )
    text = re.sub(r"\^\{([ifgour]),(\(\d+\))\}", lambda m: m[1].translate(_GATES) + f"^{{{m[2]}}}", text)
    text = re.sub(r"\^(?:\{([ifgour]+)\}|([ifgour]))(?![a-z])", lambda m: (m[1] or m[2]).translate(_GATES), text)
    text = re.sub(r"(?<!\\)_(?:\{([\d,]+)\}|(\d))", lambda m: (m[1] or m[2]).translate(_SUBSCRIPTS), text)
    text = re.sub(r"\^\{\((\d+)\)\}", lambda m: f"⁽{m[1].translate(_SUPERSCRIPTS)}⁾", text)
    for source, target in sorted(_PLAIN.items(), key=lambda pair: -len(pair[0])):
        text = text.replace(source, target)
    text = re.sub(r"\\(?:text|mathrm|mathbf)\{([^{}]*)\}", r"\1", text)
    text = re.sub(r"\^\{([^{}]*)\}", r"^(\1)", text)
    while (match := _FRACTION.search(text) or _ROOT.search(text)) is not None:
        if match.re is _ROOT:
            made = "√" + (match[1] if re.fullmatch(r"\w+", match[1]) else f"({match[1]})")
        else:
            made = "/".join(map(_side, match.groups()))
        made = f"({made})" if text.startswith("ᵀ", match.end()) else made
        text = text[: match.start()] + made + text[match.end() :]
    return re.sub(r"\{([^{}]*)\}", r"\1", text).replace("\\", "").replace("\N{NO-BREAK SPACE}", "_")


_FRACTION = re.compile(r"\\frac\{([^{}]*)\}\{([^{}]*)\}")


_ROOT = re.compile(r"√\{([^{}]*)\}")


def _side(text):
    """One side of a fraction on one line."""
    alone = re.fullmatch(r"[−-]?[^\s]+|\([^()]*\)", text) or (text.startswith("∂") and " " not in text)
    return text if alone else f"({text})"


_GATES = str.maketrans("ifgour", "ⁱᶠᵍᵒᵘʳ")
_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def _bracketed(array):
    if array.ndim <= 1:
        return "[" + " ".join(number(value) for value in np.atleast_1d(array)) + "]"
    return "[" + " ".join(map(_bracketed, array)) + "]"


def columns(cells):
    """Rows of cells as lines with aligned columns."""
    if not cells:
        return []
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  " + "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
    ]
