"""How the known functions and losses are written. Writing only: every value comes from the record."""

import keras
import numpy as np

from keras_backprop.explain.notation import latex_number
from keras_backprop.losses import half_mean_squared_error

_ACTIVATIONS = {  # function: (σ(z), its derivative), both as LaTeX
    keras.activations.sigmoid: (r"\sigma({z})", "{a}(1 - {a})"),
    keras.activations.tanh: (r"\text{{tanh}}({z})", r"1 - {a}^2"),
    keras.activations.linear: ("{z}", "1"),
    keras.activations.relu: (r"\text{{max}}(0, {z})", "[{z} > 0]"),
    keras.activations.softplus: (r"\text{{log}}(1 + \text{{exp}}({z}))", r"\sigma({z})"),
    keras.activations.silu: (r"{z} \cdot \sigma({z})", r"\sigma({z}) + {a}(1 - \sigma({z}))"),
}

_SQUARED = {half_mean_squared_error: 0.5, keras.losses.mean_squared_error: 1.0}

_PER_OUTPUT = (keras.losses.binary_crossentropy, *_SQUARED)  # their value is a mean over the last axis


def function_of(link):
    """The function behind a link's operation: of a Keras loss the function it wraps."""
    return getattr(link.op, "fn", link.op)


def activation(link):
    """y = f(x) as LaTeX, for the right-hand side."""
    x, y = link.input_symbols[0], link.output_symbols[0]
    if _plain_relu(link) and _key(link) in _ACTIVATIONS:
        return _ACTIVATIONS[_key(link)][0].format(z=x.latex, a=y.latex)
    return rf"\text{{{_name(link)}}}({x.latex})"


def local_derivative(link):
    """dy/dx as LaTeX; None where there is no short way to write it."""
    x, y = link.input_symbols[0], link.output_symbols[0]
    if x is None or y is None or not _plain_relu(link) or _key(link) not in _ACTIVATIONS:
        return None
    return _ACTIVATIONS[_key(link)][1].format(z=x.latex, a=y.latex)


def loss(link):
    """The error as LaTeX. Half the squared error of a single output is ½·(T − a)²."""
    T, a = link.input_symbols[:2]
    factor, count = _SQUARED.get(function_of(link)), int(np.size(link.inputs[1]))
    if factor is None or uniform_coefficient(link) != 1 / np.size(link.outputs[0]):
        return rf"\text{{{_name(link)}}}({T.latex}, {a.latex})"
    square = f"({T.latex} - {a.latex})^2"
    if count == 1:
        return rf"\frac{{1}}{{2}} \cdot {square}" if factor == 0.5 else square
    return rf"\frac{{1}}{{{round(count / factor)}}} \cdot \sum {square}"


def loss_gradient(link):
    """∂E/∂a (or ∂E/∂z, where the loss is computed from the logits) as LaTeX; None for losses without a short form."""
    function, logits = function_of(link), len(link.inputs) > 2
    T, symbol = link.input_symbols[0], link.input_symbols[-1]
    coefficient = uniform_coefficient(link)
    if coefficient is None or T is None or symbol is None:
        return None
    if function in _PER_OUTPUT:
        coefficient /= link.inputs[1].shape[-1]
    if function in _SQUARED:
        return _times(2 * _SQUARED[function] * coefficient, f"({T.latex} - {symbol.latex})", negative=True)
    if not logits or getattr(link.op, "_fn_kwargs", {}).get("label_smoothing"):
        return None
    a = link.input_symbols[1].latex
    if function in (keras.losses.binary_crossentropy, keras.losses.categorical_crossentropy):
        return _times(coefficient, f"({T.latex} - {a})", negative=True)
    if function is keras.losses.sparse_categorical_crossentropy:
        return _times(coefficient, rf"(\text{{one hot }}{T.latex} - {a})", negative=True)
    return None


def uniform_coefficient(link):
    """With which coefficient every example's error enters E, if all have the same; else None."""
    dy = link.upstream[0] if link.upstream else None
    if dy is None or not dy.size or np.any(dy != dy.flat[0]):
        return None
    return float(dy.flat[0])


def _times(coefficient, product, negative):
    sign, whole = "-" if negative else "", round(1 / coefficient) if coefficient else 0
    if coefficient == 1:
        return sign + product
    if whole > 1 and abs(coefficient * whole - 1) < 1e-6:  # 1/32, of the mean over 32 examples
        return rf"{sign}\frac{{1}}{{{whole}}} \cdot {product}"
    return rf"{sign}{latex_number(coefficient)} \cdot {product}"


def _key(link):
    return link.op if callable(link.op) and _hashable(link.op) else None


def _plain_relu(link):
    """A relu with other options than its defaults is another function; as a layer's activation it has none."""
    return link.kind == "activation"


def _hashable(op):
    try:
        return hash(op) is not None
    except TypeError:
        return False


def _name(link):
    name = getattr(function_of(link), "__name__", None) or link.rule
    return name.replace("_", r"\_")
