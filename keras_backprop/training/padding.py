"""Batches of a fixed size, in which rows of weight 0 come last to fill them up: what is shown in logs is of the others."""

import keras
import tensorflow as tf


def rows(sample_weight):
    """How many rows come before those that fill up a batch: an int32 scalar tensor."""
    present = 0
    for weights in keras.tree.flatten(sample_weight):
        if weights is not None:
            some = tf.reduce_any(tf.reshape(weights, [tf.shape(weights)[0], -1]) != 0, 1)
            present = tf.maximum(present, tf.reduce_max(tf.where(some, tf.range(1, tf.size(some) + 1), 0)))
    return present


def first(count, structure):
    """The first rows of all tensors of a structure."""
    return keras.tree.map_structure(lambda a: a if a is None else a[:count], structure)


def shown_loss(model, result, count):
    """The error of a batch without the rows that fill it up: a mean over the others, and penalties as they are."""
    factor = result.example_scale.padding_factor(count)
    penalties = [tf.cast(loss, result.loss.dtype) for loss in model.losses]
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    penalty = tf.add_n(penalties) / replicas if penalties else tf.zeros([], result.loss.dtype)
    return (result.loss - penalty) * tf.cast(factor, result.loss.dtype) + penalty
