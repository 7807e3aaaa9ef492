"""One plan of several workers: all draw batches and noise from the secret of the chief, and must have the same data."""

import hashlib
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_backprop import processes
from keras_backprop.failures import meet
from keras_backprop.privacy.past import UNKNOWN
from keras_backprop.privacy.randomness import GIVEN, SECRET

SOURCES = (SECRET, GIVEN, UNKNOWN)
"""Where a key can be from."""


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
    randomness = plan._randomness
    mine = [keras.ops.convert_to_numpy(v) for v in (plan._count, randomness.key)]
    counts, keys, sources = _of_all(strategy, [*mine, SOURCES.index(randomness.source_of_key)])
    if (counts != counts[0]).any():  # said on every worker: those that went on would wait for the others
        raise ValueError(
            f"The plan of this worker has counted {mine[0] / plan.parts:.12g} steps, that of the chief "
            f"{counts[0] / plan.parts:.12g}, and not all have the same. Load the same model on "
            "every worker, or let `keras.callbacks.BackupAndRestore` resume."
        )
    randomness.key.assign(keys[0])
    randomness.source_of_key = SOURCES[int(sources[0])]
    plan.past.goes_on_with(randomness.source)


def require_same_data(plan: Any, strategy: Any, data: Any) -> None:
    """See that every worker has the same examples in the same order: sizes, types, and `ROWS` rows that the secret chooses.

    Every worker must call it, after `agree`.

    Args:
        plan: a `Plan`.
        strategy: a `tf.distribute.Strategy`.
        data: list of tensors, the examples along their first axes.

    Raises:
        ValueError: they are others, and on which workers.
    """
    if not processes.across_workers(strategy):
        return
    key = keras.ops.convert_to_numpy(plan._randomness.key)
    digests = _of_all(strategy, digests_of(data, key))
    for what, of_all in zip(("sizes or dtypes", "rows"), digests, strict=True):
        others = of_all != of_all[0]
        if others.any():
            received = ", ".join(f"{tuple(a.shape)} {a.dtype.name}" for a in data)
            raise ValueError(
                f"The data of worker {_workers(others, strategy)} have other {what} than those of worker 0. All workers draw one "
                "batch, and each takes its part of it, so every worker must be given all examples in the same order: load them "
                f"alike, and neither shard nor shuffle them. Received on this worker: {received}"
            )


def _workers(which, strategy):
    """The numbers of the workers of some replicas, as text."""
    replicas = len(which) // processes.worker_count(strategy)
    return ", ".join(map(str, sorted({int(one) // replicas for one in np.flatnonzero(which)})))


ROWS = 256
"""So many rows are compared: another order, or another part of the data, does not pass; a few other rows may."""


def digests_of(data: Any, key: Any) -> list[Any]:
    """Of the sizes and dtypes of tensors, and of the bytes of some of their rows: two int64 numbers.

    Args:
        data: list of tensors with equal first axes.
        key: array of two int64, which chooses the rows.
    """
    sizes = repr([(a.shape.as_list(), a.dtype.name) for a in data]).encode()
    n = data[0].shape[0]
    rows = np.random.default_rng(key.view("uint64")).permutation(n)[:ROWS]
    taken = b"".join(tf.io.serialize_tensor(tf.gather(a, rows)).numpy() for a in data)
    return [np.frombuffer(hashlib.sha256(x).digest()[:8], "int64")[0] for x in (sizes, taken)]


def _of_all(strategy, values):
    """Arrays of whole numbers as all replicas have them, each with a first axis for the replicas, the chief's first."""

    @tf.function
    def gathered():
        def one():
            context = tf.distribute.get_replica_context()
            mine = tf.one_hot(context.replica_id_in_sync_group, context.num_replicas_in_sync, dtype=tf.int64)
            placed = [tf.reshape(mine, [-1] + [1] * np.ndim(v)) * tf.cast(v, tf.int64) for v in values]
            return [context.all_reduce(tf.distribute.ReduceOp.SUM, v) for v in placed]

        return [strategy.experimental_local_results(value)[0] for value in strategy.run(one)]

    meet(strategy)
    return [value.numpy() for value in gathered()]
