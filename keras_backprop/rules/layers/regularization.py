"""Layers that disturb what goes through them in training, and are the identity otherwise.

A forward rule draws the layer's own random numbers: from its seed generator, once, by the same kernel. Saved: the factor m.
"""

import math

import keras
import tensorflow as tf
from keras import layers

from keras_backprop import _keras
from keras_backprop.registry import backward_rule, forward_rule, pullback
from keras_backprop.rule import Gradients

SPATIAL = (layers.SpatialDropout1D, layers.SpatialDropout2D, layers.SpatialDropout3D)


@forward_rule(layers.Dropout)
def dropout_forward(layer, inputs, training=False):
    """y = x·m, where m is 0 with probability `rate` and else 1/(1 − rate)."""
    if not training or layer.rate == 0:
        return inputs, {}
    return _scaled(inputs, dropout_mask(inputs, layer.rate, layer.noise_shape, layer.seed_generator))


@forward_rule(*SPATIAL)
def spatial_dropout_forward(layer, inputs, training=False):
    """y = x·m, one m for all positions of an example's channel."""
    if not training or layer.rate == 0:
        return inputs, {}
    return _scaled(inputs, dropout_mask(inputs, layer.rate, _keras.noise_shape(layer, inputs), layer.seed_generator))


@forward_rule(layers.GaussianDropout)
def gaussian_dropout_forward(layer, inputs, training=False):
    """y = x·m, m normal with mean 1 and variance rate/(1 − rate)."""
    if not training or layer.rate == 0:
        return inputs, {}
    deviation = math.sqrt(layer.rate / (1.0 - layer.rate))
    return _scaled(
        inputs, keras.random.normal(keras.ops.shape(inputs), 1.0, deviation, layer.compute_dtype, layer.seed_generator)
    )


@forward_rule(layers.AlphaDropout)
def alpha_dropout_forward(layer, inputs, training=False):
    """y = a·(x·k + α′·(1 − k)) + b, k = 0 with probability `rate`; a and b restore mean 0 and variance 1. Here m = a·k."""
    if not training or layer.rate == 0:
        return inputs, {}
    alpha = -1.6732632423543772848170429916717 * 1.0507009873554804934193349852946
    a = ((1 - layer.rate) * (1 + layer.rate * alpha**2)) ** -0.5
    b = -a * alpha * layer.rate
    shape = _keras.noise_shape(layer, inputs)
    kept = tf.cast(keras.random.uniform(shape, seed=layer.seed_generator) >= layer.rate, inputs.dtype)
    mask = a * kept
    return inputs * mask + ((a * alpha + b) - alpha * mask), {"mask": mask}


@backward_rule(layers.Dropout, *SPATIAL, layers.GaussianDropout, layers.AlphaDropout)
def dropout(call, dy):
    """y = x·m        dx = dy·m"""
    return Gradients(dy * call.saved["mask"] if "mask" in call.saved else dy)


# y = x + noise        dx = dy
pullback(layers.GaussianNoise, lambda call, dy: dy)

# y = x, and a penalty on it that is a link of its own        dx = dy
pullback(layers.ActivityRegularization, lambda call, dy: dy, joins=True)


def dropout_mask(x, rate, noise_shape, seed_generator):
    """The factor by which `keras.random.dropout` multiplies: the same draw, compared in the same way."""
    if rate == 1:
        return tf.zeros([], x.dtype)  # Keras draws nothing then
    shape = keras.ops.shape(x)
    if noise_shape is not None:
        shape = [shape[axis] if size is None else size for axis, size in enumerate(noise_shape)]
    random = keras.random.uniform(shape, dtype=x.dtype.name, seed=seed_generator)
    return tf.cast(random >= rate, x.dtype) * tf.constant(1 / (1 - rate), x.dtype)


def _scaled(x, mask):
    return x * mask, {"mask": mask}
