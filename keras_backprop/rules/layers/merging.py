"""Layers that merge several inputs into one.

An input of lower rank gets axes of size 1 after the batch axis, as Keras does it. Inputs are broadcast against each other.
"""

import keras
import tensorflow as tf
from keras import layers

from keras_backprop import _keras
from keras_backprop.registry import backward_rule
from keras_backprop.rule import Gradients
from keras_backprop.rules.ops.normalization import normalize_back


def lifted(x, rank):
    """x with axes of size 1 after the batch axis."""
    for _ in range(rank - len(x.shape)):
        x = tf.expand_dims(x, 1)
    return x


def lowered(dx, x):
    """dx of the output's rank summed over the axes that x was given; what is broadcast besides is the sweep's affair."""
    extra = len(dx.shape) - len(x.shape)
    return tf.reduce_sum(dx, range(1, 1 + extra)) if extra > 0 else dx


def mask_of(x, rank):
    """The Keras mask of an input, against the output; None for an input that was given axes and so lost its mask."""
    mask = _keras.get_keras_mask(x) if len(x.shape) == rank else None
    return None if mask is None else tf.expand_dims(mask, -1)


@backward_rule(layers.Add, broadcasts=True, joins=True)
def add(call, dy):
    """y = Σ xᵢ        dxᵢ = dy"""
    return Gradients(*[lowered(dy, x) for x in call.inputs])


@backward_rule(layers.Subtract, broadcasts=True, joins=True)
def subtract(call, dy):
    """y = a − b        da = dy        db = −dy"""
    a, b = call.inputs
    return Gradients(lowered(dy, a), lambda: -lowered(dy, b))


@backward_rule(layers.Average, broadcasts=True, joins=True)
def average(call, dy):
    """y = Σ xᵢ / k        dxᵢ = dy / k"""
    share = dy / len(call.inputs)
    return Gradients(*[lowered(share, x) for x in call.inputs])


@backward_rule(layers.Multiply, broadcasts=True, joins=True)
def multiply(call, dy):
    """y = Π xᵢ        dxᵢ = dy·Π xⱼ over j ≠ i        A masked xᵢ counts as 1; where all are masked y is 0."""
    rank = len(call.output.shape)
    masks = [mask_of(x, rank) for x in call.inputs]
    xs = [_where(m, lifted(x, rank), 1) for m, x in zip(masks, call.inputs, strict=True)]
    if all(m is not None for m in masks):
        dy = _where(_any(masks), dy, 0)
    before, after = [dy], [None]  # dy·x₁⋯xᵢ₋₁ and xᵢ₊₁⋯x_k
    for x in xs[:-1]:
        before.append(before[-1] * x)
    for x in xs[:0:-1]:
        after.insert(0, x if after[0] is None else after[0] * x)
    dxs = [b if a is None else b * a for b, a in zip(before, after, strict=True)]
    return Gradients(*[lowered(_where(m, dx, 0), x) for m, dx, x in zip(masks, dxs, call.inputs, strict=True)])


@backward_rule(layers.Maximum, layers.Minimum, broadcasts=True)
def maximum(call, dy):
    """y = max xᵢ (or min)        dxᵢ = dy where xᵢ is the first that equals y, else 0

    A masked xᵢ does not count; where all are masked y = x₁.
    """
    y, rank = call.output, len(call.output.shape)
    dxs, open_ = [], tf.ones((), tf.bool)
    for x in call.inputs:
        mask = mask_of(x, rank)
        hit = open_ & tf.equal(lifted(x, rank), y)
        hit = hit if mask is None else hit & mask
        open_ &= ~hit
        dxs.append(tf.where(hit, dy, tf.zeros_like(dy)))
    if all(mask_of(x, rank) is not None for x in call.inputs):
        dxs[0] = tf.where(open_, dy, dxs[0])
    return Gradients(*[lowered(dx, x) for dx, x in zip(dxs, call.inputs, strict=True)])


@backward_rule(layers.Dot)
def dot(call, dy):
    """y = Σₖ a…ₖ…·b…ₖ…        da = Σ dy·b        db = Σ dy·a        normalised: through a/‖a‖, b/‖b‖"""
    a, b = call.inputs
    axes = call.op.axes if isinstance(call.op.axes, (list, tuple)) else [call.op.axes] * 2
    i, j = axes[0] % len(a.shape), axes[1] % len(b.shape)
    unit_a, unit_b = (keras.ops.normalize(a, i), keras.ops.normalize(b, j)) if call.op.normalize else (a, b)
    of_a, of_b = _letters("nabcdef", a, i), _letters("nuvwxyz", b, j)
    of_y = of_a.replace("k", "") + of_b.replace("k", "")[1:]
    dy = dy if len(of_y) > 1 else tf.squeeze(dy, 1)  # Keras gives the product of two vectors an axis

    def back(equation, other, x, unit, axis):
        dx = tf.einsum(equation, dy, other)
        return normalize_back(x, unit, dx, axis, 2, keras.backend.epsilon()) if call.op.normalize else dx

    return Gradients(
        lambda: back(f"{of_y},{of_b}->{of_a}", unit_b, a, unit_a, i),
        lambda: back(f"{of_y},{of_a}->{of_b}", unit_a, b, unit_b, j),
    )


@backward_rule(layers.Concatenate, joins=True)
def concatenate(call, dy):
    """y = [x₁, x₂, …]        [dx₁, dx₂, …] = dy"""
    return Gradients(*split_like(dy, call.inputs, call.op.axis))


def split_like(dy, inputs, axis):
    """The pieces of dy along an axis, one for each of the inputs that were concatenated."""
    sizes = [x.shape[axis] for x in inputs]
    if None in sizes:
        sizes = tf.stack([tf.shape(x)[axis] for x in inputs])
    return tf.split(dy, sizes, axis=axis)


def _where(mask, x, otherwise):
    return x if mask is None else tf.where(mask, x, tf.constant(otherwise, x.dtype))


def _any(masks):
    """Where at least one mask is True."""
    combined = masks[0]
    for mask in masks[1:]:
        combined |= mask
    return combined


def _letters(letters, x, contracted):
    """The axes of x by letters, the contracted one called k."""
    names = list(letters[: len(x.shape)])
    names[contracted] = "k"
    return "".join(names)
