"""A worker whose training ends with an error tells the others, which would else wait for it in their next all-reduce."""

import contextlib
import itertools
import time

import tensorflow as tf

from keras_backprop import _tensorflow
from keras_backprop.processes import across_workers, own_task, tasks

GRACE = 20.0
"""So many seconds the others may take to come to the same error: then nobody waits, and the cluster can train on."""

OF_OTHERS = (tf.errors.AbortedError, tf.errors.UnavailableError)
"""What a collective operation ends with because of another worker."""

_trainings = itertools.count()


@contextlib.contextmanager
def told_to_others(strategy):
    """In the block, which is a training, an error is told to the other workers: their collective operations end with it, unless
    they come to an error of their own.

    Args:
        strategy: a `tf.distribute.Strategy`.
    """
    if not across_workers(strategy) or not _tensorflow.is_coordinated():
        yield
        return
    training = next(_trainings)
    try:
        yield
    except BaseException as error:
        tell(error, training, own_task(strategy), tasks(strategy))
        raise


def tell(error, training, own, everybody):
    """Tell of an error, and end what the others wait in.

    Args:
        error: an exception.
        training: int, the number of the training in which it came, the same on all workers.
        own: (type, id) of this worker.
        everybody: list of those of all workers.
    """
    _tensorflow.note_for_all(_key(training, own), type(error).__name__)
    if isinstance(error, OF_OTHERS):
        return
    deadline = time.monotonic() + (GRACE if isinstance(error, Exception) else 0)  # Ctrl-C waits for nobody
    others = [task for task in everybody if task != own]
    if not all(_tensorflow.is_noted(_key(training, task), deadline - time.monotonic()) for task in others):
        kind, number = own
        _tensorflow.end_collectives(
            f"The training of {kind} {number} has ended with an error, {type(error).__name__}: {error}. Mend it there, and "
            "start all workers again."
        )


def _key(training, task):
    kind, number = task
    return f"keras_backprop/errors/{training}/{kind}/{number}"
