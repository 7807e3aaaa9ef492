"""One plan of several workers: all draw from the chief's secret, so that they draw the same batches and noise."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_backprop import processes


def agree(plan: Any, strategy: Any) -> None:
    """Let every worker have the chief's secret, and see that all stand at the same step. Every worker must call it.

    Args:
        plan: a `Plan`.
        strategy: a `tf.distribute.Strategy`.

    Raises:
        NotImplementedError: the random numbers are those of a generator, of which each worker has another.
        ValueError: the workers have taken different numbers of steps.
    """
    if not processes.across_workers(strategy):
        return
    if not plan.repeatable:
        raise NotImplementedError(
            "Several workers draw the same numbers from one secret, which the chief's operating system gives them: a "
            f"generator on each would draw others. Received: generator={plan._generator!r}. Leave `generator` out."
        )
    mine = [keras.ops.convert_to_numpy(v) for v in (plan._count, plan._randomness.key)]
    count, key = _summed(strategy, mine, of_the_chief=True)
    (others,) = _summed(strategy, [np.int64(count != mine[0])])
    if others:  # said on every worker: those that went on would wait for the others
        raise ValueError(
            f"The plan of this worker has counted {mine[0]} steps, that of the chief {count}, and not all have "
            "the same. Load the same model on every worker, or let `keras.callbacks.BackupAndRestore` resume."
        )
    plan._randomness.key.assign(key)


def _summed(strategy, values, of_the_chief=False):
    """The sums over all replicas, of arrays of whole numbers; or what the first was given, to which the others add zeros."""

    @tf.function
    def summed():
        def one():
            context = tf.distribute.get_replica_context()
            counts = tf.equal(context.replica_id_in_sync_group, 0) if of_the_chief else True
            return [context.all_reduce(tf.distribute.ReduceOp.SUM, tf.cast(counts, tf.int64) * v) for v in values]

        return [strategy.experimental_local_results(value)[0] for value in strategy.run(one)]

    return [value.numpy() for value in summed()]
