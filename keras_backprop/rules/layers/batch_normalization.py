"""BatchNormalization. Derived in docs/derivations/batch_normalization.md.

Letters: μ, σ² the mean and the variance of each channel; r = 1/√(σ² + ε); x̂ = (x − μ)·r; Σ over everything but the channels,
k values of each.
"""

import math

import keras
import tensorflow as tf
from keras import layers

from keras_backprop import _keras, kernels
from keras_backprop.registry import backward_rule, forward_rule
from keras_backprop.rule import Gradients
from keras_backprop.rules.layers.normalization import unsummed
from keras_backprop.rules.ops.normalization import along, sum_but
from keras_backprop.rules.precision import single_precision_or_more
from keras_backprop.weight_gradients import Combination, Total

COUPLED = "the mean and the variance of the batch couple its examples (BatchNormalization in training)"


@forward_rule(layers.BatchNormalization)
def batch_normalization_forward(layer, inputs, training=None, mask=None):
    """y = γ·x̂ + β, in training with the statistics of the batch. Saved: the statistics, x − μ; or what the kernel saves."""
    if not (training and layer.trainable):
        saved = {"mean": tf.identity(layer.moving_mean), "variance": tf.identity(layer.moving_variance)}
        return type(layer).call(layer, inputs, training=training, mask=mask), saved
    if mask is not None and len(mask.shape) != len(inputs.shape) - 1:
        return type(layer).call(layer, inputs, training=training, mask=mask), {}  # raises Keras's own error
    if _kernel_applies(layer, inputs, mask):
        return _kernel_forward(layer, inputs)
    x, axis, statistics = single_precision_or_more(inputs), layer.axis, _keras.BatchStatistics(layer)
    mean, variance = (tf.reshape(v, [-1]) for v in statistics.moments(x, mask))
    r = tf.math.rsqrt(variance + layer.epsilon)
    gamma = tf.cast(layer.gamma, x.dtype) if layer.scale else None
    beta = tf.cast(layer.beta, x.dtype) if layer.center else None
    saved = {"mean": mean, "r": r, "renorm": None}
    if getattr(layer, "renorm", False):
        *saved["renorm"], mean, variance = statistics.renormalized(mean, variance)
        gamma, beta = statistics.composed(*saved["renorm"], gamma, beta, x.dtype)
        statistics.update_renormalization(mean, variance)
    else:
        _update_moving_statistics(layer, mean, variance, x.dtype)
    saved.update(scale=r if gamma is None else r * gamma, centred=x - along(mean, x, axis))
    y = saved["centred"] * along(saved["scale"], x, axis)
    y = y if beta is None else y + along(beta, x, axis)
    return tf.cast(y, layer.compute_dtype), saved


def _couples(call):
    return COUPLED if {"reserve", "centred"} & call.saved.keys() else None


@backward_rule(layers.BatchNormalization, couples=_couples, joins=True)
def batch_normalization(call, dy):
    """y = γ·x̂ + β        dβ = Σ dy        dγ = Σ dy·x̂        dx = γ·r·(dy − dβ/k − x̂·dγ/k)

    In inference, or frozen, μ and σ are constants: dx = γ·r·dy.
    """
    layer, saved = call.op, call.saved
    if "reserve" in saved:
        dy = tf.reshape(dy, tf.shape(saved["x"]))
        dx, dgamma, dbeta = kernels.fused_batch_norm_grad(
            saved["x"], dy, saved["gamma"], layer.epsilon, saved["reserve"]
        )
        dx = tf.reshape(dx, tf.shape(call.input))
    else:
        dy = single_precision_or_more(dy)
        if "centred" not in saved:
            return _with_constant_statistics(call, dy)
        dx, dgamma, dbeta = _through_statistics(call, dy)
    return Gradients(
        dx,
        *[None] * (len(call.inputs) - 1),
        gamma=Total(dgamma, COUPLED) if layer.scale else None,
        beta=Total(dbeta, COUPLED) if layer.center else None,
    )


def _through_statistics(call, dy):
    """dx = γ·r·dy + (dμ + 2·dσ²·(x − μ))/k        dσ² = −½·γ·r²·dγ        dμ = −γ·r·dβ

    Batch renormalisation, y = γ·(x̂·ρ + d) + β with ρ and d held constant, has γ·ρ in the place of γ.
    """
    saved, axis = call.saved, call.op.axis
    r, scale, centred = saved["r"], saved["scale"], saved["centred"]
    dbeta, dgamma = sum_but(axis, dy), r * sum_but(axis, dy * centred)
    share, shortfall, (sum_dy, sum_dy_x_hat) = _share_of_a_mean(call, dbeta, dgamma)
    twice_dvariance = -scale * r * sum_dy_x_hat
    dmean = -scale * sum_dy - twice_dvariance * saved["mean"] * shortfall
    if saved["renorm"] is not None:
        correction, shift = saved["renorm"]
        dgamma = correction * dgamma + shift * dbeta

    def dx():
        through = centred * along(twice_dvariance, dy, axis) + along(dmean, dy, axis)
        return along(scale, dy, axis) * dy + share * through

    return dx, dgamma, dbeta


def _share_of_a_mean(call, *sums):
    """∂(mean)/∂x, what Σ(x − μ) falls short of 0 by relative to k·μ, and the sums over all that the mean is of.

    Masked out values have no share; and Keras divides by k + 10⁻⁷ there, so that Σ(x − μ) is not quite 0. A synchronized
    layer takes its mean over all replicas.
    """
    layer, mask = call.op, call.arguments["mask"]
    dtype = sums[0].dtype
    if mask is not None:
        weight = tf.cast(tf.cast(tf.expand_dims(mask, -1), tf.bool), dtype)
        weight = tf.broadcast_to(weight, tf.shape(call.input))
        count = sum_but(layer.axis, weight) + keras.backend.epsilon()
        return weight / along(count, weight, layer.axis), keras.backend.epsilon() / count, sums
    count = tf.cast(tf.size(call.input) / tf.size(sums[0]), dtype)
    replicas = tf.distribute.get_replica_context() if layer.synchronized else None
    if replicas is not None:
        count, *sums = (replicas.all_reduce(tf.distribute.ReduceOp.SUM, v) for v in (count, *sums))
    return 1 / count, 0.0, sums


def _with_constant_statistics(call, dy):
    """dx = γ·r·dy        dβ = Σ dy        dγ = Σ dy·x̂"""
    layer, x = call.op, single_precision_or_more(call.input)
    axis, (mean, variance) = layer.axis, (tf.cast(call.saved[name], x.dtype) for name in ("mean", "variance"))
    r = tf.math.rsqrt(variance + layer.epsilon)
    scale = r * tf.cast(layer.gamma, x.dtype) if layer.scale else r
    axes = [axis % len(x.shape)]
    dbeta = unsummed(axes, dy)
    # Σ dy·x̂ = r·(Σ dy·x − μ·Σ dy): x̂ itself is not needed.
    dgamma = Combination(lambda dy_x, dy: r * (dy_x - mean * dy), unsummed(axes, x, dy), dbeta)
    return Gradients(
        lambda: dy * along(scale, dy, axis),
        *[None] * (len(call.inputs) - 1),
        gamma=dgamma if layer.scale else None,
        beta=dbeta if layer.center else None,
    )


def _kernel_applies(layer, x, mask):
    """TensorFlow's kernel knows channels last and single precision or less; cuDNN's no smaller ε."""
    return (
        layer.axis % len(x.shape) == len(x.shape) - 1
        and mask is None
        and x.dtype in (tf.float16, tf.bfloat16, tf.float32)
        and x.dtype == layer.compute_dtype
        and layer.epsilon >= 1.001e-5
        and not (layer.synchronized or getattr(layer, "renorm", False))
        and math.prod(32 if size is None else size for size in x.shape) > _LARGE
    )


_LARGE = 2**16
"""So many numbers that passing over them takes longer than starting the kernel, which is 0.3 ms for a layer forward and back."""


def _kernel_forward(layer, inputs):
    """The kernel returns the unbiased variance of the batch, Keras keeps the biased one: (k − 1)/k of it."""
    channels = inputs.shape[-1]
    x = tf.reshape(inputs, [-1, 1, 1, channels])
    gamma = tf.cast(layer.gamma, tf.float32) if layer.scale else tf.ones([channels])
    beta = tf.cast(layer.beta, tf.float32) if layer.center else tf.zeros([channels])
    y, mean, variance, reserve = kernels.fused_batch_norm(x, gamma, beta, layer.epsilon)
    if not tf.executing_eagerly():
        y = _differentiated_as_keras_does(y, x, gamma, beta, layer.epsilon)
    k = tf.cast(tf.shape(x)[0], tf.float32)
    _update_moving_statistics(layer, mean, variance * ((k - 1) / k), tf.float32)
    y = tf.reshape(y, tf.shape(inputs))
    y.set_shape(inputs.shape)
    return y, {"x": x, "gamma": gamma, "reserve": reserve}


@tf.custom_gradient
def _differentiated_as_keras_does(y, x, gamma, beta, epsilon):
    """y. A user's `tf.gradients` that goes through it gets a gradient whose own derivatives are Keras's, not the kernel's."""

    def gradient(dy):
        wide = single_precision_or_more(x)
        mean, variance = tf.nn.moments(wide, [0, 1, 2], keepdims=True)
        composed = tf.cast(tf.nn.batch_normalization(wide, mean, variance, beta, gamma, epsilon), x.dtype)
        return None, *tf.gradients(composed, [x, gamma, beta], dy), None

    return y, gradient


def _update_moving_statistics(layer, mean, variance, dtype):
    for moving, value in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
        moving.assign(tf.cast(moving, dtype) * layer.momentum + value * (1.0 - layer.momentum))
