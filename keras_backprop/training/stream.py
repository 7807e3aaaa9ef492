"""Data that come batch by batch: tf.data, a `PyDataset`, a generator, or arrays that do not fit in memory.

Keras's own iterator of epochs decides what an epoch is, and makes the iterators over the batches: as many of them, and as often, as in
its own loop, because each may draw another order from a data set that shuffles. Our loop takes the batches out of them inside of
compiled calls.
"""

import contextlib

import keras
import tensorflow as tf

from keras_backprop.training import steps


class StreamBatches:
    """Takes batches out of an iterator and runs a step on each. See `batches.Batches`, whose place it takes.

    Args:
        dataset: a `tf.data.Dataset`.
    """

    never_waits, for_xla, order_specification = False, False, None
    size = 32  # unknown, and of no interest where several threads run anyway

    def __init__(self, dataset):
        self.specification = tf.data.IteratorSpec(dataset.element_spec)
        self.kind = ("stream", self.specification)

    def run(self, step, iterator, order, first, last, state=(), goes_on=None):
        """As `Batches.run`, and it ends where the data end."""

        def one(number, going, *state):
            optional = iterator.get_next_as_optional()
            found = optional.has_value()
            state = tf.cond(found, lambda: tuple(step(number, _batch(optional), *state)), lambda: state)
            going = found if goes_on is None else found & goes_on(*state)
            return number + tf.cast(found, tf.int32), going, *state

        loop = tf.while_loop(
            lambda number, going, *state: (number < last) & going, one, (tf.convert_to_tensor(first), True, *state)
        )
        return loop[0], tuple(loop[2:])


def _batch(optional):
    return keras.tree.map_structure(
        lambda x: None if isinstance(x, tf.experimental.Optional) else x, optional.get_value()
    )


class Stream:
    """The batches that Keras's iterator of epochs gives.

    Args:
        epochs: a Keras `TFEpochIterator`.

    Attributes:
        batch: nested `tf.TypeSpec`, of a batch.
        steps: int, the number of steps of an epoch; None while it is unknown.
    """

    order = None

    def __init__(self, epochs):
        self._begun = False
        self.epochs, self.batch = epochs, steps.specification(epochs._distributed_dataset)

    @property
    def steps(self):
        return self.epochs.num_batches

    def batches(self):
        return StreamBatches(self.epochs._distributed_dataset)

    def reset(self):
        self.epochs.reset()

    @contextlib.contextmanager
    def epoch(self, number):
        """A context in which the batches of one epoch are taken. A `StopIteration` in it says that there are no more."""
        del number
        with self.epochs.catch_stop_iteration():
            self._begun = True
            self._steps = iter(self.epochs)
            self._at = 0
            yield

    def end_epoch(self):
        """End an epoch of which no batch has been taken: Keras's loop begins it again."""
        if self._begun:
            self.epochs.reset()

    def room(self, step):
        """How many steps can be made without asking Keras again, when `step` have been made; 0 at the end of the epoch."""
        execution = self.epochs.steps_per_execution
        while self._at <= step:
            try:
                begin, _, self.tensors = next(self._steps)
            except StopIteration:
                return 0
            self._at = begin + execution
        known = self.epochs.steps_per_epoch or self.epochs._num_batches
        if not known or known < 0:
            return None
        room = known - step
        if self.epochs._num_batches:
            room = min(room, self.epochs._num_batches - self.epochs._steps_seen + execution)
        return max(room, 1)
