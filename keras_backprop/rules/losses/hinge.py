"""Hinge losses: no error beyond a margin. The labels 0 and 1 count as −1 and 1 if a batch has no others."""

import tensorflow as tf
from keras import losses

from keras_backprop.registry import backward_rule
from keras_backprop.rule import Gradients
from keras_backprop.rules.losses.adjoints import mean_back


def signed_labels(t):
    binary = tf.reduce_all((t == 0) | (t == 1))
    return tf.where(binary, 2 * t - 1, t)


@backward_rule(losses.hinge, broadcasts=True)
def hinge(call, dy):
    """y = mean max(1 − t·a, 0)        da = −dy·t/k where 1 − t·a ≥ 0"""
    t, a = signed_labels(call.inputs[0]), call.inputs[1]
    margin = 1 - t * a
    return Gradients(None, -mean_back(dy, margin) * t * tf.cast(margin >= 0, a.dtype))


@backward_rule(losses.squared_hinge, broadcasts=True)
def squared_hinge(call, dy):
    """y = mean max(1 − t·a, 0)²        da = −dy·2·max(1 − t·a, 0)·t/k"""
    t, a = signed_labels(call.inputs[0]), call.inputs[1]
    margin = tf.nn.relu(1 - t * a)
    return Gradients(None, -2 * mean_back(dy, margin) * margin * t)


@backward_rule(losses.categorical_hinge, broadcasts=True)
def categorical_hinge(call, dy):
    """y = max(max (1−t)·a − Σ t·a + 1, 0)        da = dy·((1−t)·[(1−t)·a is the largest] − t) where that is ≥ 0

    Several that are the largest share the gradient equally.
    """
    t, a = call.inputs[:2]
    wrong = (1 - t) * a
    largest = tf.reduce_max(wrong, -1, keepdims=True)
    error = largest - tf.reduce_sum(t * a, -1, keepdims=True) + 1
    chosen = tf.cast(tf.equal(wrong, largest), a.dtype)
    share = chosen / tf.reduce_sum(chosen, -1, keepdims=True)
    return Gradients(None, dy[..., None] * tf.cast(error >= 0, a.dtype) * ((1 - t) * share - t))
