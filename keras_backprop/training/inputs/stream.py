"""Data that come batch by batch: tf.data, a `PyDataset`, a generator, or arrays that do not fit in memory.

Keras's own iterator of epochs decides what an epoch is, and makes the iterators over the batches: as many, and as often, as
in its own loop, because each may draw another order from a data set that shuffles. Our loop has a compiled function take some
batches out of them, and another one run the steps on these: taking may wait, for the threads of tf.data or for Python, and what
runs in one thread may not.
"""

import contextlib
import itertools
from typing import Any

import keras
import tensorflow as tf

from keras_backprop import _keras, _tensorflow
from keras_backprop.training.loops import steps

CHUNK = 2**26
"""So many bytes of batches are taken at a time at most, if they are not one batch."""

_numbers = itertools.count()


class StreamBatches:
    """Batches that have been taken out of an iterator. See `batches.Batches`, whose place it takes.

    They lie in a list for each component, of tensors whose shapes may differ.

    Args:
        dataset: a `tf.data.Dataset`.
    """

    never_waits, for_xla, single, order_specification = True, False, False, None
    size = 32  # for the question whether a step is small; unknown

    def __init__(self, dataset):
        self._spec = dataset.element_spec
        components = tf.nest.flatten(steps.specification(dataset), expand_composites=True)
        self._components = [x for x in components if x is not None]
        self.specification = tuple(tf.TensorSpec([], tf.variant) for _ in self._components)
        self.kind = ("stream", tf.data.IteratorSpec(self._spec))
        self._batch = steps.specification(dataset)
        self._name = f"{__name__}.{next(_numbers)}"
        self._take: Any = None

    def take(self, iterator, count):
        """Take so many batches, or those that there still are.

        Returns:
            The batches, of `specification`; how many they are; how many bytes; and the error that ended it, or None.
        """
        if self._take is None:
            function = tf.function(self._taken, autograph=False)
            self._take = function.get_concrete_function(tf.data.IteratorSpec(self._spec), tf.TensorSpec([], tf.int32))
        try:
            lists, found, size = self._take(iterator, tf.constant(count))
            return tuple(lists), int(found), int(size), None
        except Exception as error:  # whatever the data raise
            return *self._staged(), 0, error

    def _staged(self):
        """The batches that had been taken when an error came, and how many they are."""
        found = int(self._stage(tf.raw_ops.StageSize))
        lists = self._empty(tf.constant(found))
        for number in range(found):
            batch = self._stage(tf.raw_ops.Unstage)
            lists = [
                tf.raw_ops.TensorListSetItem(input_handle=y, index=number, item=x)
                for y, x in zip(lists, batch, strict=True)
            ]
        return tuple(lists), found

    def run(self, step, lists, order, first, last, state=(), goes_on=None, origin=None):
        """As `Batches.run`, on the batches that have been taken."""
        origin = first if origin is None else origin

        def one(number, *state):
            given = iter([_item(x, number - origin, spec) for x, spec in zip(lists, self._components, strict=True)])
            flat = tf.nest.flatten(self._batch, expand_composites=True)
            values = [None if spec is None else next(given) for spec in flat]
            batch = tf.nest.pack_sequence_as(self._batch, values, expand_composites=True)
            return number + 1, *step(number, batch, *state)

        def ready(number, *state):
            return number < last if goes_on is None else (number < last) & goes_on(*state)

        loop = tf.while_loop(ready, one, (tf.convert_to_tensor(first), *state))
        return loop[0], tuple(loop[1:])

    def _stage(self, operation, values=None):
        """An operation on the stage on which the batches of a call are until it ends: what it would return, an error loses."""
        given = {"dtypes": [x.dtype for x in self._components]} if values is None else {"values": values}
        with tf.device("cpu:0"):
            return operation(shared_name=self._name, **given)

    def _taken(self, iterator, count):
        def one(number, _, size, *lists):
            optional = iterator.get_next_as_optional()
            found = optional.has_value()

            def put():
                batch = keras.tree.map_structure(
                    lambda x: None if isinstance(x, tf.experimental.Optional) else x, optional.get_value()
                )
                flat = [x for x in tf.nest.flatten(batch, expand_composites=True) if x is not None]
                with tf.control_dependencies([self._stage(tf.raw_ops.Stage, flat)]):
                    more = [tf.size(x, tf.int64) * max(x.dtype.size or 8, 1) for x in flat]
                return (size + tf.add_n(more), *(
                    tf.raw_ops.TensorListSetItem(input_handle=y, index=number, item=x)
                    for y, x in zip(lists, flat, strict=True)
                ))  # fmt: skip

            after = tf.cond(found, put, lambda: (size, *lists))
            return number + tf.cast(found, tf.int32), found, *after

        with tf.control_dependencies([self._stage(tf.raw_ops.StageClear)]):  # of a call that was interrupted
            start = (tf.constant(0), tf.constant(True), tf.constant(0, tf.int64), *self._empty(count))
        number, _, size, *lists = tf.while_loop(lambda number, going, *_: (number < count) & going, one, start)
        with tf.control_dependencies([number]):
            self._stage(tf.raw_ops.StageClear)
        return lists, number, size

    def _empty(self, count):
        """Lists for so many batches."""
        return [
            tf.raw_ops.TensorListReserve(element_shape=_dimensions(spec), num_elements=count, element_dtype=spec.dtype)
            for spec in self._components
        ]


def _dimensions(spec):
    """A shape as the operations on lists take it."""
    if spec.shape.rank is None:
        return tf.constant(-1)
    return tf.constant([-1 if d is None else d for d in spec.shape], tf.int32)


def _item(list_, index, spec):
    item = tf.raw_ops.TensorListGetItem(
        input_handle=list_, index=index, element_shape=_dimensions(spec), element_dtype=spec.dtype
    )
    item.set_shape(spec.shape)
    return item


class Stream:
    """The batches that Keras's iterator of epochs gives.

    Data may depend on what is trained: a `map` that calls the model, a generator that asks it to predict. A batch of such data
    must not be made before the step before it, so each is taken alone.

    Args:
        epochs: function that returns a Keras `TFEpochIterator`.

    Attributes:
        batch: nested `tf.TypeSpec`, of a batch.
        steps: int, the number of steps of an epoch; None while it is unknown.
        most: int, so many batches are to be taken at a time at most. One, until it is known how large they are.
        error: Exception that the data have raised when batches were taken last, or None.
    """

    order = None
    most = 1
    error: Any = None

    def __init__(self, epochs):
        self._first: Any = None
        self._uses = _tensorflow.Uses()
        with self._uses.noting():  # Keras takes the first batches of a generator for their shapes
            self.epochs = epochs()
        self._uses.note_operations(_keras.dataset_of(self.epochs))
        self.batch = steps.specification(_keras.dataset_of(self.epochs))

    @property
    def steps(self):
        return self.epochs.num_batches

    def batches(self):
        return StreamBatches(_keras.dataset_of(self.epochs))

    def reset(self):
        self.epochs.reset()

    def take(self, loop, first, count):
        """Some batches for a loop. Returns them, and how many they are."""
        lists, found, size, self.error = loop.source.take(self._iterator, count)
        if self._uses.any_of(loop.changed):
            self.most = 1
        elif found and not self.error:
            self.most = max(1, CHUNK * found // max(size, 1))
        return lists, found

    def iterator(self, first, count):
        """What gives Keras's function its batches, those that have not been taken."""
        del first, count
        return self._iterator

    @contextlib.contextmanager
    def epoch(self, number):
        """A context in which the batches of one epoch are taken. A `StopIteration` in it says that there are no more."""
        del number
        with self.epochs.catch_stop_iteration(), self._uses.noting_python():
            self._steps = iter(self.epochs)
            self._at = 0
            yield
        self._first = None

    def goes_on(self):
        """A context in which Keras's loop goes on with the epoch that has begun, if one has. No batch of it has been taken."""
        begun = None if self._first is None else itertools.chain([self._first], _keras.steps_to_come(self.epochs))
        return _keras.epoch_goes_on(self.epochs, begun)

    def room(self, step):
        """How many steps can be made without asking Keras again, when `step` have been made; 0 at the end of the epoch."""
        execution = self.epochs.steps_per_execution
        while self._at <= step:
            try:
                begin, _, self._iterator = taken = next(self._steps)
            except StopIteration:
                return 0
            self._first = self._first or taken
            self._at = begin + execution
        in_all = _keras.batches_in_all(self.epochs)
        given = self.epochs.steps_per_epoch  # of which Keras makes whole executions
        known = -(-given // execution) * execution if given else in_all
        if not known or known < 0:
            return None
        room = known - step
        if in_all:
            room = min(room, in_all - _keras.steps_seen(self.epochs) + execution)
        return max(room, 1)
