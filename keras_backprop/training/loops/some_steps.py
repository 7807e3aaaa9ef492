"""Some steps of one pass over the data in one compiled function, and the logs of each.

For callbacks that want to be called within an epoch, for steps of a user's own, for validation, and for data that come batch by
batch. What Keras does at the beginning and at the end of an epoch is left to Python.
"""

from typing import Any

import tensorflow as tf

from keras_backprop.training.loops.compiled import Compiled

ROWS = 256
"""A call returns the logs of so many steps, the last of which is the last step that was run."""


class CompiledSteps(Compiled):
    """The loop over some steps.

    Args:
        model: a compiled Keras model.
        source: what the batches are taken from, a `Batches` or a `StreamBatches`.
        step: the traced step to run on them.
        jit_compile: bool, compile with XLA.

    Attributes:
        names: list of str, of the logs.

    Raises:
        NotCompiledError: the step returns something else than a dict of numbers.
    """

    most = 2**31
    """So many steps can share a call."""

    def __init__(self, model, source, step, jit_compile):
        super().__init__(model, [(source, step)], jit_compile, logs=True)

    def taken(self, source, first, count):
        """What to call it with, for `count` steps from `first` on, and how many there are.

        Args:
            source: a `Memory` or a `Stream`.
        """
        return source.take(self, first, count)

    def __call__(self, tensors, order, first, last, finite=()):
        """Run the steps first, …, last − 1.

        Args:
            tensors: the source's, of its specification.
            order: the source's order of the examples, or None.
            finite: collection of names of logs: end after the first execution, of one step or of `steps_per_execution`, at whose
                end one of them is NaN or infinite.

        Returns:
            The number of steps that were run, and the logs, a list of dict name -> float, or of dicts in a dict where the step
            returns such: of every step if they are at most `ROWS`, else of the first ones and of the last.
        """
        watched = [name in finite for name in self.names]
        number, rows = self._call(tensors, order, tf.constant(first), tf.constant(last), tf.constant(watched, tf.bool))
        count, as_returned = int(number) - first, self._parts[0][1].as_returned
        rows = rows.numpy()[: min(count, ROWS)].tolist()
        return count, [as_returned(dict(zip(self.names, row, strict=True))) for row in rows]

    def _belong_to(self, model, parts):
        super()._belong_to(model, parts)
        self._idle: Any = None

    @property
    def variables(self):
        """The variables of the step, a list of `tf.Variable`."""
        return self._parts[0][1].variables

    @property
    def changed(self):
        """The numbers (`id`) of the handles of variables, tables and the like that the step changes, a set."""
        return self._parts[0][1].changed

    @property
    def source(self):
        """What it takes batches from: one like the one that a `fit` has made."""
        return self._parts[0][0]

    def without_batch(self):
        """Do what Keras's loop does where a step begins and finds no batch: the parts of the step that need none run.

        So it counts one more iteration at the end of a data set whose length it does not know; and not where XLA compiles a
        step as one, or where several share an execution.

        Returns:
            bool, whether that is all: a branch that needs the batch may have parts that do not, such as those that empty the
            accumulators of gradients.
        """
        if self.jit_compile or self.model.steps_per_execution > 1:
            return True
        step = self._parts[0][1]
        if step.has_parts_without_batch:
            return False
        if self._idle is None:
            self._idle = tf.function(lambda: step.run_without_batch(True), autograph=False).get_concrete_function()
        self._idle()
        return True

    @property
    def names(self):
        return self._parts[0][1].names

    def _specification(self):
        source = self._parts[0][0]
        scalar = tf.TensorSpec([], tf.int32)
        return (
            source.specification,
            source.order_specification,
            scalar,
            scalar,
            tf.TensorSpec([len(self.names)], tf.bool),
        )

    def _run(self, tensors, order, first, last, watched):
        execution = self.model.steps_per_execution  # Keras tells of the last of its steps

        def note(number, logs, rows, _):
            row = tf.stack([tf.cast(x, tf.float64) for x in logs]) if logs else tf.zeros([0], tf.float64)
            place = tf.minimum(number - first, ROWS - 1)
            told = tf.equal((number - first + 1) % execution, 0)
            ended = told & tf.reduce_any(watched & ~tf.math.is_finite(row))
            return tf.tensor_scatter_nd_update(rows, [[place]], row[None]), ended

        start = tf.zeros([ROWS, len(self.names)], tf.float64), tf.constant(False)
        number, (rows, _) = self._steps(0, tensors, order, first, last, start, lambda rows, ended: ~ended, note)
        return number, rows
