"""Activation functions: y = f(x). What is given is the local derivative dy/dx, except where a whole axis takes part.

Where the derivative can be written in the output alone it is: the output is kept anyway. Where it cannot, it repeats the
forward pass's own expressions, which a compiled step computes once. At kinks the value is TensorFlow's.
"""

import math

import keras
import tensorflow as tf
from keras import activations

from keras_backprop import kernels
from keras_backprop._keras import activations as symbolic
from keras_backprop._keras import ops
from keras_backprop.registry import backward_rule, elementwise, forward_rule
from keras_backprop.rule import Gradients


def one_where(condition, x):
    """1 where the condition holds, else 0, as numbers of x's dtype."""
    return tf.cast(condition, x.dtype)


# The rectifiers.


def relu_derivative(x, y, negative_slope, max_value, threshold):
    """y = x above the threshold, capped at max_value; negative_slope·(x − threshold) below it.

    At the threshold the derivative is 0, with one exception: a plain leaky relu has its negative slope there. At the cap it
    is 1, with one exception: relu6.
    """
    if negative_slope and max_value is None and threshold == 0:
        return leaky_relu_derivative(x, y, negative_slope)
    limit = tf.cast(threshold, x.dtype)
    passes = x > limit
    if max_value is not None:
        passes &= x < 6 if max_value == 6 and threshold == 0 else x <= tf.cast(max_value, x.dtype)
        passes &= x >= 0
    above = one_where(passes, x)
    return above + negative_slope * one_where(x < threshold, x) if negative_slope else above


def relu_product(x, y, dy, negative_slope, max_value, threshold):
    if not negative_slope and max_value is None and threshold == 0:
        return kernels.relu_grad(y, dy)
    if not negative_slope and max_value == 6 and threshold == 0:
        return kernels.relu6_grad(y, dy)
    if negative_slope and max_value is None and threshold == 0:
        return kernels.leaky_relu_grad(x, dy, negative_slope)
    return dy * relu_derivative(x, y, negative_slope, max_value, threshold)


def leaky_relu_derivative(x, y, negative_slope):
    """dy/dx = 1 for x > 0, else the slope, which TensorFlow's kernel keeps in single precision."""
    return tf.where(x > 0, tf.ones_like(x), tf.cast(negative_slope, x.dtype))


def leaky_relu_product(x, y, dy, negative_slope):
    return kernels.leaky_relu_grad(x, dy, negative_slope)


elementwise(ops.Relu, lambda x, y: one_where(y > 0, y), fused=lambda x, y, dy: kernels.relu_grad(y, dy), needs="y")
elementwise(activations.relu, symbolic.ReLU, relu_derivative, fused=relu_product, needs="y")
elementwise(activations.leaky_relu, ops.LeakyRelu, leaky_relu_derivative, fused=leaky_relu_product)
elementwise(
    activations.relu6,
    ops.Relu6,
    lambda x, y: one_where((y > 0) & (y < 6), y),
    fused=lambda x, y, dy: kernels.relu6_grad(y, dy),
    needs="y",
)
elementwise(
    activations.threshold, ops.Threshold, lambda x, y, threshold: one_where(x > tf.constant(threshold, x.dtype), x)
)


# Exponential on the left: f(x) = α·(eˣ − 1) for x ≤ 0, so that dy/dx = y + α there.


def elu_derivative(x, y, alpha):
    """y = x for x > 0, else α·(eˣ − 1)        dy/dx = 1, else y + α"""
    return tf.where(x > 0, tf.ones_like(x), y + alpha)


def elu_product(x, y, dy, alpha):
    return kernels.elu_grad(y, dy) if alpha == 1 else dy * elu_derivative(x, y, alpha)


def _selu_derivative(x, y):
    """y = λx for x ≥ 0, else λα·(eˣ − 1)        dy/dx = λ, else y + λα"""
    scale, scale_alpha = 1.0507009873554805, 1.7580993408473768
    return tf.where(y < 0, y + scale_alpha, scale * tf.ones_like(x))


def _celu_derivative(x, y, alpha):
    """y = max(x, 0) + α·(e^{min(x, 0)/α} − 1)        dy/dx = [x ≥ 0] + [x ≤ 0]·(y/α + 1), hence 2 at 0, as TensorFlow has it"""
    return one_where(x >= 0, x) + tf.where(x <= 0, y / alpha + 1, tf.zeros_like(x))


elementwise(activations.elu, ops.Elu, elu_derivative, fused=elu_product, needs="y")
elementwise(activations.selu, ops.Selu, _selu_derivative, fused=lambda x, y, dy: kernels.selu_grad(y, dy), needs="y")
elementwise(activations.celu, ops.Celu, _celu_derivative)
elementwise(activations.exponential, lambda x, y: y, needs="y")


# Sigmoids: they rise from one level to another.

elementwise(activations.linear, lambda x, y: tf.ones_like(y), fused=lambda x, y, dy: dy, needs="y")
elementwise(
    activations.sigmoid,
    ops.Sigmoid,
    lambda x, y: y * (1 - y),
    fused=lambda x, y, dy: kernels.sigmoid_grad(y, dy),
    needs="y",
)
elementwise(
    activations.tanh,
    ops.Tanh,
    lambda x, y: 1 - tf.square(y),
    fused=lambda x, y, dy: kernels.tanh_grad(y, dy),
    needs="y",
)
elementwise(
    activations.softsign,
    ops.Softsign,
    lambda x, y: tf.square(1 - tf.abs(y)),
    fused=lambda x, y, dy: kernels.softsign_grad(x, dy),
)
elementwise(
    activations.hard_sigmoid,
    ops.HardSigmoid,
    lambda x, y: one_where((x > -3) & (x < 3), x) / 6,
    fused=lambda x, y, dy: kernels.relu6_grad(x + 3, dy / 6),
)
elementwise(activations.sparse_sigmoid, ops.SparseSigmoid, lambda x, y: 0.5 * one_where(tf.abs(x) < 1, x))
elementwise(activations.hard_tanh, ops.HardTanh, lambda x, y: one_where(tf.abs(x) <= 1, x))


# Bent lines: close to 0 or to x far from the origin.

elementwise(
    activations.softplus, ops.Softplus, lambda x, y: tf.sigmoid(x), fused=lambda x, y, dy: kernels.softplus_grad(x, dy)
)
elementwise(
    activations.log_sigmoid,
    ops.LogSigmoid,
    lambda x, y: tf.sigmoid(-x),
    fused=lambda x, y, dy: kernels.softplus_grad(-x, dy),
)
elementwise(activations.sparse_plus, ops.SparsePlus, lambda x, y: tf.clip_by_value(0.5 * (x + 1), 0.0, 1.0))


def _squareplus_derivative(x, y, b):
    """y = (x + r)/2, r = √(x² + b)        dy/dx = (1 + x/r)/2, ½ where x² overflows; 0 at x = b = 0"""
    root = tf.sqrt(tf.square(x) + keras.ops.convert_to_tensor(b, x.dtype))
    return tf.where(root > 0, 0.5 + 0.5 * tf.math.divide_no_nan(x, root), tf.zeros_like(x))


elementwise(activations.squareplus, ops.Squareplus, _squareplus_derivative)
elementwise(activations.tanh_shrink, ops.TanhShrink, lambda x, y: tf.square(tf.tanh(x)))  # far out x − y is rounding


def _shrink_derivative(x, y, threshold):
    """y = x (hard) or x ∓ threshold (soft) where |x| > threshold, else 0"""
    return one_where(tf.abs(x) > tf.constant(threshold, x.dtype), x)


elementwise(activations.soft_shrink, activations.hard_shrink, ops.SoftShrink, ops.HardShrink, _shrink_derivative)


# x times a gate: y = x·g(x), dy/dx = g + x·g′.


def _silu_derivative(x, y):
    """y = x·σ(x)        dy/dx = σ + y·(1 − σ)"""
    return _silu_of_gate(x, y, tf.sigmoid(x))


def _silu_of_gate(x, y, gate):
    return gate + kernels.sigmoid_grad(gate, x)


@forward_rule(activations.silu, ops.Silu)
def silu_forward(op, x):
    """y = x·σ(x). Saved: σ."""
    x = tf.convert_to_tensor(x)
    gate = tf.sigmoid(x)
    return x * gate, {"gate": gate}


def _hard_silu_derivative(x, y):
    """y = x·relu6(x + 3)/6        dy/dx = 0 for x ≤ −3, x/3 + ½ between, 1 for x ≥ 3"""
    return tf.where(tf.abs(x) < 3, x / 3 + 0.5, one_where(x > 0, x))


def _mish_derivative(x, y):
    """y = x·t, t = tanh(softplus(x))        dy/dx = t + x·(1 − t²)·σ(x)"""
    t = tf.tanh(tf.math.softplus(x))
    return t + x * (1 - tf.square(t)) * tf.sigmoid(x)


def _gelu_derivative(x, y, approximate):
    """Exact: y = x·Φ(x), dy/dx = Φ + x·φ. Approximate: y = x·g, g = (1 + tanh u)/2 = σ(2u), u = √(2/π)·(x + c·x³).

    √½ and c are TensorFlow's: numbers of single precision, whatever the dtype of x.
    """
    gate, inner = _gelu_gate(x, approximate)
    return _gelu_of_gate(x, y, gate, inner, approximate)


def _gelu_gate(x, approximate):
    """y/x, and what it is a function of: u/x, or −√½·x."""
    if approximate:
        root = 0.7978845608028654
        slope = root + (root * tf.cast(0.044715, x.dtype)) * tf.square(x)
        return 0.5 + 0.5 * tf.tanh(x * slope), slope
    z = -tf.cast(0.7071067811865476, x.dtype) * x
    return 0.5 * tf.math.erfc(z), z


def _gelu_of_gate(x, y, gate, inner, approximate):
    if approximate:  # dg/dx = 2g·(1 − g)·du/dx: far out 0, until x² overflows, as in TensorFlow
        return gate + x * kernels.sigmoid_grad(gate, 6 * inner - 4 * 0.7978845608028654)
    return gate - inner * ((1 / math.sqrt(math.pi)) * tf.exp(-tf.square(inner)))


@forward_rule(activations.gelu, ops.Gelu)
def gelu_forward(op, x, approximate=False):
    """y = x·g. Saved: g, and what it is a function of."""
    x = tf.convert_to_tensor(x)
    gate, inner = _gelu_gate(x, getattr(op, "approximate", approximate))
    return x * gate, {"gate": gate, "inner": inner}


elementwise(activations.silu, ops.Silu, _silu_derivative, forward_and_derivative=(silu_forward, _silu_of_gate))
elementwise(activations.hard_silu, ops.HardSilu, _hard_silu_derivative)
elementwise(activations.mish, symbolic.Mish, _mish_derivative)
elementwise(activations.gelu, ops.Gelu, _gelu_derivative, forward_and_derivative=(gelu_forward, _gelu_of_gate))


@backward_rule(activations.glu, ops.Glu)
def glu(call, dy):
    """[a, b] = x, y = a·σ(b)        da = dy·σ(b)        db = dy·y·(1 − σ(b))"""
    axis = call["axis"]
    s = tf.sigmoid(tf.split(call.input, 2, axis)[1])
    return Gradients(tf.concat([dy * s, dy * call.output * (1 - s)], axis))


# A whole axis takes part.


@backward_rule(activations.softmax, ops.Softmax)
def softmax(call, dy):
    """y = eˣ / Σ eˣ        dx = y·(dy − Σ y·dy)"""
    y, axis = call.output, call["axis"]
    return Gradients(y * (dy - tf.reduce_sum(y * dy, axis=axis, keepdims=True)))


@backward_rule(activations.log_softmax, ops.LogSoftmax)
def log_softmax(call, dy):
    """y = x − log Σ eˣ        dx = dy − eʸ·Σ dy"""
    y, axis = call.output, call["axis"]
    return Gradients(dy - tf.exp(y) * tf.reduce_sum(dy, axis=axis, keepdims=True))


@backward_rule(activations.sparsemax, ops.Sparsemax)
def sparsemax(call, dy):
    """y = max(x − τ, 0), τ = (Σ c − 1)/k over the k largest x, c their cumulative sums, as Keras has it

    g = dy where x ≥ τ        dx = g − Σg·(k − rank)/k, the rank of the largest x being 0; 0 instead beyond the k largest
    """
    x, axis = call.input, call["axis"]
    ordered = tf.sort(x, axis, "DESCENDING")
    sums = tf.cumsum(ordered, axis)
    position = tf.cumsum(tf.ones_like(x), axis)
    inside = ordered - (sums - 1) / position > 0
    k = tf.reduce_sum(one_where(inside, x), axis, keepdims=True)
    threshold = (tf.reduce_sum(tf.where(inside, sums, tf.zeros_like(x)), axis, keepdims=True) - 1) / k
    g = tf.where(x - threshold >= 0, dy, tf.zeros_like(dy))
    rank = tf.argsort(tf.argsort(x, axis, "DESCENDING"), axis)
    weight = tf.nn.relu(k - tf.cast(rank, x.dtype)) / k
    return Gradients(g - tf.reduce_sum(g, axis, keepdims=True) * weight)
