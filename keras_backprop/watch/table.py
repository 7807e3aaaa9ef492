"""Rows of figures in variables: written inside the compiled step, read between its calls."""

import contextlib
from concurrent import futures
from typing import Any

import numpy as np
import tensorflow as tf

from keras_backprop._tensorflow import value_of

LARGEST = 2**29
"""The most bytes that the figures of an epoch may take."""

USUAL = 2**24
"""So many bytes are taken at most for several epochs, and where nobody knows how many steps there will be."""


class Table:
    """A ring of rows, one for each step that is noted; each replica has its own.

    Args:
        layout: `Layout` of a row.
        rows: (int, int), how many steps are noted in an epoch, and how many epochs there are at most between two readings; None
            where nobody knows.
        strategy: the `tf.distribute.Strategy` in which the step runs.

    Raises:
        ValueError: so many rows are too large.
    """

    def __init__(self, layout: Any, rows: Any, strategy: Any) -> None:
        self.layout, self._read, self.lost = layout, 0, 0
        self._dtype = tf.float64 if layout.double else tf.float32
        capacity = self._held = self._capacity(rows)

        def make():
            with strategy.scope():
                # Its number of rows may grow for a longer epoch, under a step that has been traced.
                self._rows = variable(np.zeros((capacity + 1, layout.width)), self._dtype, [None, layout.width])
                self._steps = variable(np.zeros(capacity + 1), tf.int64, [None])
                self._capacity_, self._written = variable(capacity, tf.int64), variable(0, tf.int64)

        outside(make)

    @property
    def variables(self) -> list[Any]:
        """The variables that hold the rows."""
        return [self._rows, self._steps, self._capacity_, self._written]

    def write(self, row: Any, step: Any, wanted: Any = None) -> None:
        """Note a row.

        Args:
            row: tensor of shape `(layout.width,)`.
            step: integer tensor.
            wanted: None, or a boolean tensor: false for a row that goes nowhere.
        """
        capacity, written = local(self._capacity_), local(self._written)
        place = written % capacity
        if wanted is not None:
            place = tf.where(wanted, place, capacity)
        _put(local(self._rows), place, tf.cast(row, self._dtype))
        _put(local(self._steps), place, step)
        written.assign_add(1 if wanted is None else tf.cast(wanted, tf.int64))

    def read(self, before: Any = None, last: bool = False) -> Any:
        """The rows that have not been read, of steps before a given one.

        Args:
            before: int, or None for all rows.
            last: bool, only the last of them.

        Returns:
            The steps, shape `(rows,)`, and the rows, shape `(replicas, rows, width)`.
        """
        written, capacity = int(first_of(self._written)), self._held
        first = max(self._read, written - capacity)
        self.lost += 0 if last else first - self._read
        places = np.arange(first, written) % capacity
        steps = _rows(parts(self._steps)[0], places)
        count = len(steps) if before is None else int(np.searchsorted(steps, before))
        self._read = first + count
        chosen = slice(max(count - 1, 0) if last else 0, count)
        rows = [_rows(part, places[chosen]) for part in parts(self._rows)]
        return steps[chosen], np.stack(rows)

    def skip(self) -> None:
        """Leave out what has not been read."""
        self._read = int(first_of(self._written))

    def hold(self, rows: Any) -> None:
        """Make room for `rows` as in the constructor. To be called when everything has been read."""
        capacity = self._capacity(rows)
        if capacity <= self._held:
            return
        # More rows under the old capacity hold the old ring: the capacity counts when there is room for all of it.
        for part in parts(self._rows):
            part.assign(np.zeros((capacity + 1, self.layout.width), self._dtype.as_numpy_dtype))
        for part in parts(self._steps):
            part.assign(np.zeros(capacity + 1, "int64"))
        for part in parts(self._capacity_):
            part.assign(capacity)
        self._held = capacity

    def _capacity(self, rows):
        size = self.layout.width * self._dtype.size
        usual = max(USUAL // size, 16)
        if rows is None:
            return usual
        of_epoch, epochs = rows
        if of_epoch * size > LARGEST:
            raise ValueError(
                f"The figures of one epoch would take {of_epoch * size / 2**20:,.0f} MiB: {of_epoch:,} steps of "
                f"{self.layout.width:,} numbers each. Note fewer steps (`every`), fewer `quantities` or fewer `layers`."
            )
        # Epochs that share a call take a fraction of a second together.
        return max(of_epoch, min(of_epoch * epochs, usual))


def variable(value: Any, dtype: Any, shape: Any = None) -> Any:
    """A variable of which every replica has its own."""
    return tf.Variable(
        tf.constant(value, dtype), shape=shape, trainable=False, validate_shape=shape is None,
        synchronization=tf.VariableSynchronization.ON_READ, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
    )  # fmt: skip


def outside(function: Any) -> Any:
    """What a function returns when it runs outside of the graph that is being traced: in a thread that knows nothing of it."""
    with futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


def parts(value: Any) -> Any:
    """A variable's own variables, one for each replica of this process."""
    return getattr(value, "values", (value,))


def first_of(value: Any) -> Any:
    """The value of a variable in the first replica, an array or a number."""
    return value_of(parts(value)[0]).numpy()


def local(value: Any) -> Any:
    """The variable of the replica that is running."""
    own = parts(value)
    if len(own) == 1:
        return own[0]
    replica = tf.get_static_value(tf.distribute.get_replica_context().replica_id_in_sync_group)
    return own[int(replica) % len(own)]


def _rows(variable, places):
    """Some rows, an array: to read a variable that rows have been scattered into would copy all of it."""
    with tf.device(variable.device):
        return tf.raw_ops.ResourceGather(resource=variable.handle, indices=places, dtype=variable.dtype).numpy()


def _put(variable, place, value):
    with tf.device(variable.device) if tf.executing_eagerly() else contextlib.nullcontext():
        tf.raw_ops.ResourceScatterUpdate(resource=variable.handle, indices=place, updates=value)
