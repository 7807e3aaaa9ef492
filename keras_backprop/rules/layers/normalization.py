"""Layers that normalise every example by itself. Derived in docs/derivations/layer_normalization.md.

Letters: x̂ the normalised x; r what it was divided by, inverted; γ and β the scale and the shift; "mean" without index is
over the normalised axes, Σ over everything that the weight does not name.
"""

import math
import string

import tensorflow as tf
from keras import layers

from keras_backprop.registry import backward_rule, forward_rule
from keras_backprop.rule import Gradients
from keras_backprop.rules.ops.normalization import (
    centre,
    layer_norm_forward,
    normalize_back,
    rms_norm_forward,
    standardize_back,
)
from keras_backprop.rules.precision import single_precision_or_more
from keras_backprop.weight_gradients import Combination, Contraction, Total


@forward_rule(layers.LayerNormalization)
def layer_normalization_forward(layer, inputs):
    """y = γ·x̂ + β. Saved: x̂, r."""
    y, saved = layer_norm_forward(layer, inputs, layer.gamma, layer.beta)
    return tf.cast(y, layer.compute_dtype), saved


@backward_rule(layers.LayerNormalization, rowwise=True, joins=True)
def layer_normalization(call, dy):
    """y = γ·x̂ + β        dβ = Σ dy        dγ = Σ dy·x̂        dx = r·(γ·dy − mean(γ·dy) − x̂·mean(γ·dy·x̂))"""
    layer, saved = call.op, call.saved
    dy = tf.cast(dy, saved["x_hat"].dtype)
    return Gradients(
        lambda: standardize_back(dy, saved),
        gamma=_as_stored(layer.gamma, saved, saved["x_hat"], dy) if layer.gamma is not None else None,
        beta=_as_stored(layer.beta, saved, dy) if layer.beta is not None else None,
    )


def _as_stored(weight, saved, *factors):
    """The product, in the weight's shape: of axis=(1, -1) Keras stores the last axis first, and reads it the other way."""
    product = unsummed(saved["axes"], *factors)
    if [factors[0].shape[axis] for axis in saved["axes"]] == list(weight.shape):
        return product

    def stored(dW):
        examples = tf.shape(dW)[: len(dW.shape) - len(weight.shape)]
        return tf.ensure_shape(
            tf.reshape(dW, tf.concat([examples, weight.shape], 0)),
            [*dW.shape[: len(dW.shape) - len(weight.shape)], *weight.shape],
        )

    return Combination(stored, product)


@forward_rule(layers.RMSNormalization)
def rms_normalization_forward(layer, x):
    """y = γ·x̂, x̂ = x·r, r = 1/√(mean x² + ε). Saved: x̂, r."""
    return rms_norm_forward(layer, x, tf.convert_to_tensor(layer.scale))


@backward_rule(layers.RMSNormalization)
def rms_normalization(call, dy):
    """y = γ·x̂        dγ = Σ dy·x̂        dx = r·(γ·dy − x̂·mean(γ·dy·x̂))"""
    saved = call.saved
    dy = tf.cast(dy, saved["x_hat"].dtype)
    last = range(len(dy.shape) - len(call.op.scale.shape), len(dy.shape))
    return Gradients(lambda: standardize_back(dy, saved), scale=unsummed(list(last), saved["x_hat"], dy))


@backward_rule(layers.UnitNormalization, rowwise=True)
def unit_normalization(call, dy):
    """y = x/‖x‖        dx = (dy − y·Σ dy·y)/‖x‖"""
    return Gradients(normalize_back(call.input, call.output, dy, call.op.axis, 2, 1e-12))


@forward_rule(layers.GroupNormalization)
def group_normalization_forward(layer, inputs):
    """y = γ·x̂ + β with the statistics of each example's groups of channels. Saved: x − μ, γ·r.

    Everything happens in the shape (n, positions, groups, channels of a group, positions): a view, whichever the axis.
    """
    x = single_precision_or_more(inputs)
    shape = _grouped_shape(layer, x)
    x = tf.reshape(x, shape)
    about_constant, centred = centre(x, _mean_of_groups(x))
    r = tf.math.rsqrt(_mean_of_groups(tf.square(about_constant)) + layer.epsilon)
    gamma, beta = (
        None if v is None else tf.reshape(tf.cast(v, x.dtype), [1, 1, layer.groups, -1, 1])
        for v in (layer.gamma, layer.beta)
    )
    scale = r if gamma is None else r * gamma
    y = centred * scale if beta is None else centred * scale + beta
    y = tf.reshape(tf.cast(y, inputs.dtype), tf.shape(inputs))
    y.set_shape(inputs.shape)
    return tf.cast(y, layer.compute_dtype), {"centred": centred, "r": r, "gamma": gamma, "scale": scale}


@backward_rule(layers.GroupNormalization, rowwise=True)
def group_normalization(call, dy):
    """y = γ·x̂ + β        dβ = Σ dy        dγ = Σ dy·x̂        dx = γ·r·dy − r·(mean(γ·dy) + x̂·mean(γ·dy·x̂))

    Summing over the positions first leaves (n, channels): dβ and dγ of every example, and all that the means need.
    """
    layer, (centred, r, gamma, scale) = call.op, (call.saved[name] for name in ("centred", "r", "gamma", "scale"))
    dy = tf.reshape(tf.cast(dy, centred.dtype), tf.shape(centred))
    dbeta = tf.reduce_sum(dy, [1, 4], keepdims=True)
    dgamma = r * tf.reduce_sum(dy * centred, [1, 4], keepdims=True)

    def dx():
        values = tf.cast(tf.size(centred) / tf.size(r), dy.dtype)
        mean, mean_x_hat = (
            r * tf.reduce_sum(s if gamma is None else s * gamma, 3, keepdims=True) / values for s in (dbeta, dgamma)
        )
        return tf.reshape(dy * scale - (centred * (r * mean_x_hat) + mean), tf.shape(call.input))

    channels = [-1, call.input.shape[layer.axis]]
    return Gradients(
        dx,
        gamma=Contraction("c->c", tf.reshape(dgamma, channels)) if layer.scale else None,
        beta=Contraction("c->c", tf.reshape(dbeta, channels)) if layer.center else None,
    )


def unsummed(axes, *factors):
    """The weight gradient Σ ∏ factors over everything but the axes, which are those of the weight."""
    rank = len(factors[0].shape)
    if axes[0] == 0:
        others = [axis for axis in range(rank) if axis not in axes]
        return Total(tf.reduce_sum(math.prod(factors), others), "the weight's first axis is the batch")
    letters = "n" + string.ascii_lowercase[: rank - 1]
    weight = "".join(letters[axis] for axis in axes)
    operand = weight if letters.endswith(weight) else letters
    return Contraction(f"{','.join([operand] * len(factors))}->{weight}", *factors)


def _grouped_shape(layer, x):
    """(n, positions before the channels, groups, channels of a group, positions after them)"""
    axis, sizes = layer.axis % len(x.shape), tf.shape(x)
    before, after = x.shape[1:axis].num_elements(), x.shape[axis + 1 :].num_elements()
    after = tf.reduce_prod(sizes[axis + 1 :]) if after is None else after
    before = tf.reduce_prod(sizes[1:axis]) if before is None else before
    return [-1 if x.shape[0] is None else x.shape[0], before, layer.groups, x.shape[axis] // layer.groups, after]


def _mean_of_groups(x):
    """The mean over positions and the channels of a group, in two steps: the first reduces what lies together."""
    return tf.reduce_mean(tf.reduce_mean(x, [1, 4], keepdims=True), 3, keepdims=True)
