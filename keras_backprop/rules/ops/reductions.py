"""Operations that sum up, average or select along axes: y = R(x)."""

import functools
import math

import tensorflow as tf

from keras_backprop._keras import ops
from keras_backprop.registry import backward_rule, not_differentiable, pullback
from keras_backprop.rule import Gradients
from keras_backprop.rules.precision import single_precision_or_more


def axes_of(call, rank=None):
    """The axes that are reduced, as a list of non-negative ints."""
    rank = len(call.input.shape) if rank is None else rank
    axis = call["axis"]
    if axis is None:
        return list(range(rank))
    return [a % rank for a in (axis if isinstance(axis, (list, tuple)) else [axis])]


def expanded(call, *values):
    """Values of y's shape with the reduced axes back as axes of size 1, so that they broadcast against x."""
    keepdims = call.arguments.get("keepdims", getattr(call.op, "keepdims", False))
    axes = axes_of(call)
    if keepdims or not axes:
        results = values
    elif len(axes) == 1:
        results = [tf.expand_dims(v, axes[0]) for v in values]
    else:
        results = [functools.reduce(tf.expand_dims, sorted(axes), v) for v in values]
    return results[0] if len(values) == 1 else results


def spread(call, dy):
    """dy repeated along the reduced axes."""
    return tf.broadcast_to(expanded(call, dy), tf.shape(call.input))


def share_of(call, dy):
    """dy over how many numbers go into each number of y: in single precision at least, for half knows no more than 65504."""
    wide = single_precision_or_more(dy)
    sizes = [call.input.shape[axis] for axis in axes_of(call)]
    count = math.prod(sizes) if None not in sizes else tf.size(call.input) / tf.maximum(tf.size(call.output), 1)
    return wide / tf.cast(count, wide.dtype)


# y = Σ x, or the sum of what is no NaN
pullback(ops.Sum, spread)
pullback(ops.Mean, lambda call, dy: spread(call, tf.cast(share_of(call, dy), dy.dtype)))
not_differentiable(
    ops.All, ops.Any, ops.Argmax, ops.Argmin, ops.Nanargmax, ops.Nanargmin, ops.CountNonzero, ops.Histogram, ops.Size,
    ops.Ndim,
)  # fmt: skip
not_differentiable(ops.Bincount, because="For sums of weights that have a gradient use `keras.ops.segment_sum`.")


@backward_rule(ops.Max, ops.Min, ops.Amax, ops.Amin)
def extreme(call, dy):
    """y = max x        dx = dy·[x = y]/(number of x that equal y)

    An `initial` value larger than all of x takes the whole gradient.
    """
    x = call.input
    y, dy = expanded(call, call.output, dy)
    taken = tf.cast(tf.equal(x, tf.cast(y, x.dtype)), x.dtype)
    dy = tf.math.divide_no_nan(dy, tf.reduce_sum(taken, axes_of(call), keepdims=True))
    return Gradients(taken * dy)


@backward_rule(ops.Ptp)
def peak_to_peak(call, dy):
    """y = max x − min x        dx = dy·[x = max]/(number of maxima) − dy·[x = min]/(number of minima)"""
    x, axes, dy = call.input, axes_of(call), expanded(call, dy)
    parts = []
    for reduced in (tf.reduce_max(x, axes, keepdims=True), tf.reduce_min(x, axes, keepdims=True)):
        taken = tf.cast(tf.equal(x, reduced), x.dtype)
        parts.append(taken * (dy / tf.reduce_sum(taken, axes, keepdims=True)))
    return Gradients(parts[0] - parts[1])


@backward_rule(ops.Prod)
def product(call, dy):
    """y = ∏ x        dxᵢ = dy·∏ of the others: those before i times those behind i (no division, x may be 0)"""
    return Gradients(expanded(call, dy) * product_of_the_others(call.input, axes_of(call)))


def product_of_the_others(x, axes):
    """For each number the product of all others along the axes."""
    order = axes + [i for i in range(len(x.shape)) if i not in axes]
    moved = tf.transpose(x, order)
    rows = tf.reshape(moved, tf.concat([[-1], tf.shape(moved)[len(axes) :]], 0))
    before = tf.math.cumprod(rows, axis=0, exclusive=True)
    behind = tf.math.cumprod(rows, axis=0, exclusive=True, reverse=True)
    others = tf.reshape(before * behind, tf.shape(moved))
    return tf.transpose(others, [order.index(i) for i in range(len(order))])


@backward_rule(ops.Var)
def variance(call, dy):
    """y = mean (x − μ)²        dx = dy·2(x − μ)/k over k numbers        (what flows through μ adds up to 0)"""
    return Gradients(_centred(call, single_precision_or_more(call.input)) * expanded(call, 2 * share_of(call, dy)))


def _centred(call, x):
    """x − μ, spelled as in the forward pass: a compiled step computes it once."""
    return x - tf.reduce_mean(x, call["axis"], keepdims=True)


@backward_rule(ops.Std)
def standard_deviation(call, dy):
    """y = √(mean (x − μ)²)        dx = dy·(x − μ)/(k·y), and 0 where y = 0"""
    x, y = map(single_precision_or_more, (call.input, call.output))
    return Gradients(_centred(call, x) * expanded(call, tf.math.divide_no_nan(share_of(call, dy), y)))


@backward_rule(ops.Logsumexp)
def log_sum_exp(call, dy):
    """y = log Σ eˣ        dx = dy·eˣ⁻ᵐ/Σ eˣ⁻ᵐ: not dy·eˣ⁻ʸ, for an exponential makes much of the rounding of a large y"""
    powers = _powers(call, call.input)
    return Gradients(powers * expanded(call, dy / tf.reduce_sum(powers, call["axis"], keepdims=call["keepdims"])))


def _powers(call, x):
    """eˣ⁻ᵐ, m = max x where that is finite, else 0: spelled, as its sum is, as in the forward pass."""
    highest = tf.reduce_max(x, call["axis"], keepdims=True)
    return tf.exp(x - tf.where(tf.math.is_finite(highest), highest, tf.zeros([], x.dtype)))


@backward_rule(ops.Nansum, ops.Nanmean)
def nan_sum(call, dy):
    """y = Σ x over what is no NaN, or their mean        dx = dy, or dy/(their number); 0 where x is NaN"""
    x, dy = call.input, expanded(call, dy)
    valid = ~tf.math.is_nan(x)
    if isinstance(call.op, ops.Nanmean):
        if call["axis"] in ((), []):
            return Gradients(dy)
        dy = tf.math.divide_no_nan(dy, tf.reduce_sum(tf.cast(valid, dy.dtype), axes_of(call), keepdims=True))
    return Gradients(tf.where(valid, dy, tf.zeros([], dy.dtype)))


@backward_rule(ops.Nanmax, ops.Nanmin)
def nan_extreme(call, dy):
    """y = max x over what is no NaN        dx = dy·[x = y]/(number of x that equal y)"""
    return extreme(call, dy)


@backward_rule(ops.Nanprod)
def nan_product(call, dy):
    """y = ∏ x over what is no NaN        dxᵢ = dy·∏ of the others, 0 where x is NaN"""
    x = call.input
    valid = ~tf.math.is_nan(x)
    others = product_of_the_others(tf.where(valid, x, tf.ones([], x.dtype)), axes_of(call))
    return Gradients(tf.where(valid, expanded(call, dy) * others, tf.zeros([], x.dtype)))


@backward_rule(ops.Nanvar, ops.Nanstd)
def nan_variance(call, dy):
    """y = mean (x − μ)² over what is no NaN, or its root        dx = dy·2(x − μ)/k, or dy·(x − μ)/(k·y)"""
    x, axes = call.input, axes_of(call)
    y, dy = expanded(call, call.output, dy)
    valid = ~tf.math.is_nan(x)
    k = tf.reduce_sum(tf.cast(valid, x.dtype), axes, keepdims=True)
    numbers = tf.where(valid, x, tf.zeros([], x.dtype))
    centred = numbers - tf.math.divide_no_nan(tf.reduce_sum(numbers, axes, keepdims=True), k)
    divisor = k * y if isinstance(call.op, ops.Nanstd) else k / 2
    return Gradients(tf.where(valid, centred * tf.math.divide_no_nan(dy, divisor), tf.zeros([], x.dtype)))
