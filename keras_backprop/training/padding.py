"""Batches of a fixed size, in which rows of weight 0 come last to fill them up: what is shown in logs is of the others."""

import contextlib

import keras
import tensorflow as tf

from keras_backprop import _keras


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


@contextlib.contextmanager
def part_losses(model, sample_weight):
    """For the duration of the block, the logs of the losses of several outputs leave out the rows that fill up a batch."""
    compiled = _keras.compiled_loss(model)
    trackers = getattr(compiled, "metrics", None) or ()
    with contextlib.ExitStack() as stack:
        for entry, tracker in zip(_keras.loss_entries(compiled), trackers, strict=False):
            update, reduction = _keras.current(tracker, "update_state"), getattr(entry.loss, "reduction", None)

            def shown(value, sample_weight=None, update=update, reduction=reduction, weights=sample_weight):
                count = tf.cast(rows(weights), tf.float32)
                given = next(w for w in keras.tree.flatten(weights) if w is not None)
                size = tf.cast(tf.shape(given)[0], tf.float32)
                factor = 1.0 if reduction in ("sum", "mean_with_sample_weight") else size / tf.maximum(count, 1)
                return update(value * tf.cast(factor, value.dtype), sample_weight=count)

            stack.enter_context(_keras.replaced(tracker, update_state=shown))
        yield


def shown_loss(model, result, count):
    """The error of a batch without the rows that fill it up: a mean over the others, and penalties as they are."""
    factor = result.example_scale.padding_factor(count)
    penalties = [tf.cast(loss, result.loss.dtype) for loss in model.losses]
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    penalty = tf.add_n(penalties) / replicas if penalties else tf.zeros([], result.loss.dtype)
    return (result.loss - penalty) * tf.cast(factor, result.loss.dtype) + penalty
