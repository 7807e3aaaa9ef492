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
"""What a collective operation ends with because of another worker; a remote file system does so, too."""

ONCE = 0.5
"""So many seconds at a time are waited for a note."""

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
    grace = GRACE if isinstance(error, Exception) else 0.0  # Ctrl-C waits for nobody
    try:
        _tensorflow.note_for_all(_key(training, own), type(error).__name__)
    except tf.errors.OpError:  # there is no service any more, or a note of an earlier start
        grace = 0.0
    deadline = time.monotonic() + grace
    others = [_key(training, task) for task in everybody if task != own]
    enough = any if isinstance(error, OF_OTHERS) else all  # one is the cause; or all have come to errors of their own
    while not enough(_tensorflow.is_noted(key, min(ONCE, deadline - time.monotonic())) for key in others):
        if time.monotonic() >= deadline:
            _end(error, *own)
            break


def _end(error, kind, number):
    with contextlib.suppress(tf.errors.OpError):  # the error stays the worker's own where nobody can be told
        _tensorflow.end_collectives(
            f"The training of {kind} {number} has ended with an error, {type(error).__name__}: {error}. Mend it there, and "
            "start all workers again."
        )


def _key(training, task):
    kind, number = task
    return f"keras_backprop/errors/{training}/{kind}/{number}"
