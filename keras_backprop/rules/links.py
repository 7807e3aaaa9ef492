"""The links that Keras puts between operations: casts, a weight that is read, a mean over the batch."""

import tensorflow as tf

from keras_backprop.registry import backward_rule, linear
from keras_backprop.replicas import batch_size_per_replica
from keras_backprop.rule import BatchMean, Conversion, Gradients, WeightRead

linear(Conversion, lambda call, dy: tf.cast(_reshaped(dy, call.input), call.input.dtype))
linear(
    BatchMean, lambda call, dy: tf.math.divide_no_nan(dy, tf.cast(batch_size_per_replica(call.saved["n"]), dy.dtype))
)


@backward_rule(WeightRead)
def weight_read(call, dy):
    """y = W        dW = dy"""
    return Gradients(weight=dy)


def _reshaped(dy, x):
    if dy.shape.rank == x.shape.rank:
        return dy
    return tf.reshape(dy, tf.shape(x))
