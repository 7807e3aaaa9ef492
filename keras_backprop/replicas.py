"""Means over the batch of all replicas of a `tf.distribute` strategy.

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


def batch_size_per_replica(n):
    """The number of examples in the whole batch over the number of replicas; `n` itself where there is one or none."""
    context = _several_replicas()
    if context is None:
        return n
    return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.cast(n, tf.float32)) / context.num_replicas_in_sync


def _several_replicas():
    context = tf.distribute.get_replica_context()
    return None if context is None or context.num_replicas_in_sync == 1 else context
