"""`keras.ops` that normalise: subtract a mean, divide by a norm, scale and shift.

Letters: μ, σ² the mean and variance; r = 1/√(σ² + ε); x̂ = (x − μ)·r; "mean" without index is over the normalised axes.
The layers of the same names use these functions. Derived in docs/derivations/layer_normalization.md.
"""

import keras
import tensorflow as tf

from keras_backprop import kernels
from keras_backprop._keras import ops
from keras_backprop.registry import backward_rule, forward_rule
from keras_backprop.rule import Gradients
from keras_backprop.rules.layers.core import times_transposed
from keras_backprop.rules.precision import single_precision_or_more


@forward_rule(ops.LayerNorm)
def layer_norm_forward(op, x, gamma=None, beta=None):
    """y = γ·x̂ + β. Saved: x̂, r."""
    x_hat, saved = standardize(single_precision_or_more(x), axes_of(op.axis, x), op.epsilon, op.rms_scaling)
    gamma, beta = (None if v is None else aligned(v, x_hat, saved["axes"]) for v in (gamma, beta))
    y = x_hat if gamma is None else x_hat * gamma
    return tf.cast(y if beta is None or op.rms_scaling else y + beta, x.dtype), saved | {"gamma": gamma}


@forward_rule(ops.RMSNorm)
def rms_norm_forward(op, x, scale=None):
    """y = γ·x̂, x̂ = x·r, r = 1/√(mean x² + ε). Saved: x̂, r."""
    x_hat, saved = divide_by_root_mean_square(single_precision_or_more(x), axes_of(op.axis, x), op.epsilon)
    gamma = None if scale is None else tf.cast(scale, x_hat.dtype)
    return tf.cast(x_hat if gamma is None else x_hat * gamma, x.dtype), saved | {"gamma": gamma}


@backward_rule(ops.LayerNorm, ops.RMSNorm, broadcasts=True)
def layer_norm(call, dy):
    """y = γ·x̂ + β        dγ = dy·x̂        dβ = dy        dx = r·(γ·dy − mean(γ·dy) − x̂·mean(γ·dy·x̂))

    RMSNorm subtracts no mean: dx = r·(γ·dy − x̂·mean(γ·dy·x̂)).
    """
    saved = call.saved
    dy = tf.cast(dy, saved["x_hat"].dtype)
    shift = call.arguments.get("beta")
    scale = call.arguments["gamma" if "gamma" in call.arguments else "scale"]
    gradients = [lambda: standardize_back(dy, saved)]
    if tf.is_tensor(scale):
        gradients.append(lambda: _summed(dy * saved["x_hat"], scale, saved["aligned"]))
    if tf.is_tensor(shift):
        gradients.append(None if call["rms_scaling"] else lambda: _summed(dy, shift, saved["aligned"]))
    return Gradients(*gradients)


@backward_rule(ops.BatchNorm, broadcasts=True)
def batch_norm(call, dy):
    """y = γ·x̂ + β        dx = γ·r·dy        dμ = −γ·r·Σ dy        dσ² = −½r²·γ·Σ dy·x̂        dγ = Σ dy·x̂        dβ = Σ dy"""
    x, axis = call.input, call["axis"]
    mean, variance = call.arguments["mean"], call.arguments["variance"]
    gamma = call.arguments["scale"]
    r = tf.math.rsqrt(variance + call["epsilon"])
    scale = r if gamma is None else r * gamma
    dbeta = sum_but(axis, dy)
    dgamma = r * sum_but(axis, dy * (x - along(mean, x, axis)))
    by_name = {
        "x": lambda: dy * along(scale, x, axis),
        "mean": lambda: -scale * dbeta,
        "variance": lambda: -0.5 * scale * r * dgamma,
        "offset": dbeta,
        "scale": dgamma,
    }
    return Gradients(*[by_name[name] for name, value in call.arguments.items() if tf.is_tensor(value)])


@backward_rule(ops.Moments)
def moments(call, dy):
    """μ = mean x, σ² = mean (x − μ)²        dx = (dμ + 2·dσ²·(x − μ))/k over the k values of a mean"""
    x, axes = call.input, call["axes"]
    dmean, dvariance = dy
    if not call["keepdims"]:
        dmean, dvariance = (_expanded(v, x, axes) for v in dy)
    x = single_precision_or_more(x)
    count = tf.cast(tf.size(x) / tf.size(dmean), x.dtype)
    dmean, dvariance = (tf.cast(v, x.dtype) / count for v in (dmean, dvariance))
    centred = x - tf.reduce_mean(x, axes, keepdims=True)
    return Gradients(dmean + 2 * dvariance * centred)


@backward_rule(ops.Normalize, applies=lambda op: op.order == 2 or isinstance(op.axis, int))
def normalize(call, dy):
    """y = x/max(‖x‖ₖ, ε)        dx = (dy − Σ(dy·y)·y·|y|ᵏ⁻²)/‖x‖ₖ, or dy/ε where the norm is below ε"""
    epsilon = keras.backend.epsilon() if call["epsilon"] is None else call["epsilon"]
    return Gradients(normalize_back(call.input, call.output, dy, call["axis"], call["order"], epsilon))


def normalize_back(x, y, dy, axis, order, epsilon):
    """The gradient of x/max(‖x‖, ε) in the norm of that order; finite at x = 0, where it is dy/ε."""
    bound = tf.cast(tf.constant(1 / epsilon, tf.float64), x.dtype)
    if order == 2:
        r, slope = tf.math.rsqrt(tf.reduce_sum(tf.square(x), axis, keepdims=True)), y
    else:
        r = tf.reduce_sum(tf.abs(x) ** order, axis, keepdims=True) ** (-1 / order)
        slope = tf.sign(y) * tf.abs(y) ** (order - 1)
    r, inside = tf.minimum(r, bound), tf.cast(r <= bound, x.dtype)
    along_x = tf.reduce_sum(dy * y, axis, keepdims=True) * inside
    return r * (dy - slope * along_x)


def axes_of(axis, x):
    """The normalised axes as a sorted list of numbers from 0."""
    return sorted(a % len(x.shape) for a in ([axis] if isinstance(axis, int) else axis))


def standardize(x, axes, epsilon, rms_scaling=False):
    """x̂ = (x − μ)·r, and what `standardize_back` needs. With Keras's `rms_scaling` x̂ = x·r, σ² nonetheless the variance."""
    mean = tf.reduce_mean(x, axes, keepdims=True)
    about_constant, centred = (x - mean,) * 2 if rms_scaling else centre(x, mean)  # there Keras takes `ops.var`
    r = tf.math.rsqrt(tf.reduce_mean(tf.square(about_constant), axes, keepdims=True) + _or_default(epsilon))
    x_hat = (x if rms_scaling else centred) * r
    slope = centred * r if rms_scaling else x_hat  # r changes by −r²·slope/k as x does
    return x_hat, {"x_hat": x_hat, "r": r, "slope": slope, "axes": axes, "centred": not rms_scaling, "aligned": axes}


def centre(x, mean):
    """x − μ twice: for the variance, with μ held constant as `tf.nn.moments` does it, and for all else.

    They are one tensor to whoever does not differentiate them. In a graph a user's `tf.gradients` may, and what is differentiated
    once more then has Keras's second derivatives. No rule needs that.
    """
    if tf.executing_eagerly():
        return (x - mean,) * 2

    @tf.custom_gradient
    def depends_on(difference, mean):
        summed = [axis for axis, size in enumerate(mean.shape) if size == 1]
        return difference, lambda dy: (dy, -tf.reduce_sum(dy, summed, keepdims=True))

    about_constant = x - tf.stop_gradient(mean)
    return about_constant, depends_on(about_constant, mean)


def divide_by_root_mean_square(x, axes, epsilon):
    """x̂ = x·r with r = 1/√(mean x² + ε), and what `standardize_back` needs. Keras aligns γ with the last axes."""
    r = tf.math.rsqrt(tf.reduce_mean(tf.square(x), axes, keepdims=True) + _or_default(epsilon))
    saved = {"x_hat": x * r, "r": r, "slope": x * r, "axes": axes, "centred": False}
    return saved["x_hat"], saved | {"aligned": [len(x.shape) - 1]}


def standardize_back(dy, saved):
    """dx̂ = γ·dy        dx = r·(dx̂ − mean dx̂ − x̂·mean(dx̂·x̂))"""
    gamma, axes = saved["gamma"], saved["axes"]
    through_statistics = saved["slope"] * _mean(dy * saved["x_hat"], gamma, axes)
    if saved["centred"]:
        through_statistics += _mean(dy, gamma, axes)
    return saved["r"] * ((dy if gamma is None else dy * gamma) - through_statistics)


def aligned(v, x, axes):
    """γ or β where it broadcasts against x along the normalised axes."""
    v = tf.cast(v, x.dtype)
    if len(v.shape) == len(x.shape) or axes == [len(x.shape) - 1]:
        return v
    return tf.reshape(v, [x.shape[axis] if axis in axes else 1 for axis in range(len(x.shape))])


def sum_but(axis, x):
    """Σ x over all axes but one."""
    if axis % len(x.shape) == len(x.shape) - 1 > 0:
        return kernels.bias_grad(x)
    x = tf.reduce_sum(x, list(range(axis % len(x.shape) + 1, len(x.shape))))  # first what lies together
    return tf.reduce_sum(x, list(range(len(x.shape) - 1)))


def along(v, x, axis):
    """A vector where it broadcasts against x along an axis."""
    return tf.reshape(v, [-1 if i == axis % len(x.shape) else 1 for i in range(len(x.shape))])


def _mean(p, gamma, axes):
    """mean(γ·p) over the axes: by one matrix-vector product, which writes nothing of the size of p, where that serves."""
    if gamma is None:
        return tf.reduce_mean(p, axes, keepdims=True)
    size = p.shape[-1]
    if axes == [len(p.shape) - 1] and size is not None and gamma.shape.num_elements() == size:
        return times_transposed(p, tf.reshape(gamma, [1, size]) / size)
    return tf.reduce_mean(p * gamma, axes, keepdims=True)


def _summed(p, v, axes):
    """p summed to the shape of v, unless v broadcasts: then the sweep sums."""
    last = [len(p.shape) - 1]
    if axes == last and v.shape.rank == 1 and v.shape[0] == p.shape[-1] and last != [0]:
        return kernels.bias_grad(p)
    if axes == last or v.shape.rank == p.shape.rank:
        return p
    return tf.reshape(tf.reduce_sum(p, [axis for axis in range(len(p.shape)) if axis not in axes]), tf.shape(v))


def _expanded(v, x, axes):
    """A sum over some axes with its axes of size 1 restored."""
    axes = axes_of(axes, x)
    return tf.reshape(v, [1 if axis in axes else tf.shape(x)[axis] for axis in range(len(x.shape))])


def _or_default(epsilon):
    return keras.backend.epsilon() if epsilon is None else epsilon
