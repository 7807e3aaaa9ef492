"""Replicas of a `tf.distribute` strategy: who they are, and means over the batch of all of them.

Each replica has a part of the batch, and the last batch of an epoch rarely divides evenly. A mean over each part, averaged over
the replicas, would give the examples of a small part more weight than the others.
"""

import tensorflow as tf


def divisor_over_replicas(divisor, mask=None):
    """What to divide by for a mean over the batch of all replicas.

    Args:
        divisor: scalar tensor, what this replica's mean over its own part divides by.
        mask: tensor or None. Its valid values have been given the weight total/valid, with the counts of this replica.

    Returns:
        A scalar tensor; `divisor` itself where there is one replica or none.
    """
    context = _several_replicas()
    if context is None:
        return divisor
    if mask is None:
        return context.all_reduce(tf.distribute.ReduceOp.SUM, divisor)
    valid = tf.reduce_mean(tf.cast(tf.cast(mask, tf.bool), divisor.dtype))
    return tf.math.divide_no_nan(context.all_reduce(tf.distribute.ReduceOp.SUM, divisor * valid), valid)


def several():
    """Whether this is one of several replicas."""
    return _several_replicas() is not None


def evened(value, divisor, mask=None):
    """A mean over this replica's part, as it is; its gradient will be that of the mean over all parts.

    Replicas wait for each other to know how large the parts are. They do so on the way back: on the way forth Keras runs the
    layers, and what replicas share of these is Keras's.
    """
    return tf.identity(value)


def factor_of(divisor, mask):
    """What a mean over this replica's part has to be multiplied by, for the replicas' average to be the mean over all."""
    divisor = tf.cast(divisor, tf.float32)
    count = _several_replicas().num_replicas_in_sync
    return tf.math.divide_no_nan(divisor * count, divisor_over_replicas(divisor, mask))


def _several_replicas():
    context = tf.distribute.get_replica_context()
    return None if context is None or context.num_replicas_in_sync == 1 else context


def on_several(model):
    """Whether a model is one of a distribution strategy, which has what it needs built before its first step."""
    return tf.distribute.has_strategy() or model.distribute_strategy is not tf.distribute.get_strategy()
