"""The Softmax layer, along one axis or several, with or without a mask."""

import tensorflow as tf
from keras import layers

from keras_backprop.registry import backward_rule
from keras_backprop.rule import Gradients


@backward_rule(layers.Softmax, joins=True)
def softmax(call, dy):
    """y = eˣ / Σ eˣ        dx = y·(dy − Σ y·dy)

    Masked out, y is 0 and so is dx: also where nothing along the axis is left.
    """
    axis = call.op.axis if isinstance(call.op.axis, int) else list(call.op.axis)
    return Gradients(softmax_back(call.output, dy, axis), *[None] * (len(call.inputs) - 1))


def softmax_back(y, dy, axis):
    """dx = y·(dy − Σ y·dy)"""
    return y * (dy - tf.reduce_sum(y * dy, axis, keepdims=True))
