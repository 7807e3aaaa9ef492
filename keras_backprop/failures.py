"""A worker whose training ends with an error tells the others, which would else wait for it in their next all-reduce."""

import contextlib
import contextvars
import itertools
import time
from typing import Any

import tensorflow as tf

from keras_backprop import _tensorflow
from keras_backprop.processes import across_workers, own_task, tasks

GRACE = 20.0
"""So many seconds the others may take to come to the same error (then nobody waits, and the cluster can train on), or to come
to a meeting. After them a collective operation waits, which ends where a process has died."""

OF_OTHERS = (tf.errors.AbortedError, tf.errors.UnavailableError)
"""What a collective operation ends with because of another worker; a remote file system does so, too."""

ONCE = 0.5
"""So many seconds at a time are waited for a note."""

ROUND_TRIP = 0.1
"""So many at least, also for one that is there: it is with the process that offers the service, on another machine perhaps."""

_numbers = itertools.count()
_training: Any = contextvars.ContextVar("training", default=None)


@contextlib.contextmanager
def told_to_others(strategy):
    """In the block, which is a training, an error is told to the other workers: their collective operations end with it, unless
    they come to an error of their own.

    Args:
        strategy: a `tf.distribute.Strategy`.
    """
    # TensorFlow offers the service wherever workers train together; an evaluator has none, and nobody who waits for it.
    if not across_workers(strategy) or not _tensorflow.is_coordinated():
        yield
        return
    training = Training(next(_numbers), own_task(strategy), tasks(strategy))
    token = _training.set(training)
    try:
        yield
    except BaseException as error:
        with contextlib.suppress(Exception):  # whatever becomes of it: the error of the training comes out
            training.tell(error)
        raise
    finally:
        _training.reset(token)


def meet(strategy):
    """Before a collective operation of a training, see that no other worker has ended with an error: this one need not begin it.

    Args:
        strategy: a `tf.distribute.Strategy`. All of its workers must come here, the same number of times.

    Raises:
        tf.errors.AbortedError: another worker has, and what it says.
    """
    training = _training.get()
    if training is not None and across_workers(strategy):
        training.meet()


class Training:
    """What the workers note for each other in one training.

    Args:
        number: int, of the training, the same on all workers.
        own: (type, id) of this worker.
        everybody: list of those of all workers.
    """

    def __init__(self, number, own, everybody):
        self.number, self.own, self.others = number, own, [task for task in everybody if task != own]
        self._meetings = itertools.count()
        self._heard: Any = None  # what another worker has said

    def meet(self):
        """Wait for the others; see the function of this name."""
        with contextlib.suppress(tf.errors.OpError):  # there is no service any more
            self._wait_at(f"meeting {next(self._meetings)}")
        if self._heard:
            raise tf.errors.AbortedError(None, None, self._heard)

    def _wait_at(self, place):
        """Until all have come there, or an error is heard of."""
        self._note(place, "here")
        deadline = time.monotonic() + GRACE
        for task in self.others:
            while not self._noted(place, task, ONCE):
                self._heard = self._heard or next(
                    filter(None, (self._noted("error", one) for one in self.others)), None
                )
                if self._heard or time.monotonic() >= deadline:
                    return

    def tell(self, error):
        """Tell of an error, and end what the others wait in."""
        kind, number = self.own
        said = self._heard or (  # the cause, from whomever one hears it
            f"The training of {kind} {number} has ended with an error, {_text_of(error)}. Mend it there, and start all "
            "workers again."
        )
        known = False
        try:
            with contextlib.suppress(tf.errors.OpError):  # there is no service any more, or a note of an earlier start
                self._note("error", said)
                known = self._is_known(error)
        finally:  # Ctrl-C, too: it waits for nobody
            if not known:
                with contextlib.suppress(tf.errors.OpError):  # it stays this worker's own where nobody can be told
                    _tensorflow.end_collectives(said)

    def _is_known(self, error):
        """Whether the others have ended as well, so that none waits."""
        deadline = time.monotonic() + (GRACE if isinstance(error, Exception) else 0.0)
        # One is the cause; or all have come to errors of their own.
        enough = any if isinstance(error, OF_OTHERS) else all
        while True:
            seconds = min(ONCE, deadline - time.monotonic())
            if enough(self._noted("error", task, seconds) for task in self.others):
                return True
            if time.monotonic() >= deadline:
                return False

    def _note(self, what, value):
        _tensorflow.note_for_all(self._key(what, self.own), value)

    def _noted(self, what, task, seconds=0.0):
        return _tensorflow.noted(self._key(what, task), max(seconds, ROUND_TRIP))

    def _key(self, what, task):
        kind, number = task
        return f"keras_backprop/{self.number}/{kind}/{number}/{what}"


def _text_of(error):
    """Type and message, as text that can be sent."""
    try:
        text = f"{type(error).__name__}: {error}"
    except Exception:  # of its own `__str__`
        text = type(error).__name__
    return text.encode("utf-8", "replace").decode()
