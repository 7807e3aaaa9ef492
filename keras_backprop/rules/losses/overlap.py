"""Losses of segmentation: one minus a ratio of overlap. I = Σ t·p is the overlap, over the axes given (None: all)."""

import keras
import tensorflow as tf
from keras import losses

from keras_backprop.registry import backward_rule
from keras_backprop.rule import Gradients
from keras_backprop.rules.losses.adjoints import sum_back


def _like(t, p):
    """The targets in the shape of the predictions, if they are broadcast against them."""
    return t if t.shape == p.shape else tf.broadcast_to(t, tf.broadcast_dynamic_shape(tf.shape(t), tf.shape(p)))


@backward_rule(losses.dice)
def dice(call, dy):
    """y = 1 − 2I/D, D = Σt + Σp + ε        dp = dy·2(I/D − t)/D"""
    t, p = call.inputs[:2]
    axis = call["axis"]
    overlap = tf.reduce_sum(t * p, axis)
    size = tf.reduce_sum(t, axis) + tf.reduce_sum(p, axis) + keras.backend.epsilon()
    return Gradients(None, sum_back(2 * dy / size, p, axis) * (sum_back(overlap / size, p, axis) - _like(t, p)))


@backward_rule(losses.tversky, broadcasts=True)
def tversky(call, dy):
    """y = 1 − I/D, D = I + α·Σ (1−p)·t + β·Σ p·(1−t) + ε        dp = dy·((t − α·t + β·(1−t))·I/D − t)/D"""
    t, p = _like(*call.inputs[:2]), call.inputs[1]
    axis, alpha, beta = call["axis"], call["alpha"], call["beta"]
    overlap = tf.reduce_sum(t * p, axis)
    missed, wrong = tf.reduce_sum((1 - p) * t, axis), tf.reduce_sum(p * (1 - t), axis)
    size = overlap + missed * alpha + wrong * beta + keras.backend.epsilon()
    dsize = t * (1 - alpha) + beta * (1 - t)
    return Gradients(None, sum_back(dy / size, p, axis) * (dsize * sum_back(overlap / size, p, axis) - t))
