"""Preprocessing: what computes has a rule, what looks its input up has no derivative, what cuts or turns it is followed."""

import keras
import tensorflow as tf
from keras import layers

from keras_backprop import _keras
from keras_backprop.registry import composition, not_differentiable, pullback


def rescaling(call, dy):
    """y = s·x + o        dx = s·dy"""
    s = tf.cast(call.op.scale, dy.dtype)
    if s.shape.rank and keras.config.image_data_format() == "channels_first":
        s = tf.reshape(s, [*s.shape, *[1] * (3 - s.shape.rank)])
    return s * dy


def normalization(call, dy):
    """y = (x − μ)/σ        dx = dy/σ        inverted: y = μ + σ·x, dx = σ·dy        σ at least Keras's ε"""
    layer = call.op
    deviation = tf.sqrt(tf.convert_to_tensor(layer.variance))  # in the statistics' own dtype, as Keras takes it
    deviation = tf.cast(tf.maximum(deviation, tf.cast(keras.backend.epsilon(), deviation.dtype)), dy.dtype)
    return dy * deviation if layer.invert else dy / deviation


pullback(layers.Rescaling, rescaling, rowwise=True, joins=True)
pullback(layers.Normalization, normalization, joins=True)


@composition(layers.Pipeline)
def pipeline(record, layer, inputs, training=True, mask=None):
    """y = fₖ(… f₁(x))"""
    for one in layer.layers:
        options = {"mask": mask} if _keras.takes_mask(one) else {}
        if _keras.takes_training(one) and training is not None:
            options["training"] = training
        inputs = record.run(one, inputs, **options)
        mask = _keras.masks_of(inputs)
    return inputs


not_differentiable(
    layers.Discretization, layers.HashedCrossing, layers.Hashing, layers.IntegerLookup, layers.StringLookup,
    layers.TextVectorization,
)  # fmt: skip
