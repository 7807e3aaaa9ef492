"""Many epochs in one compiled function: shuffling, batching, steps, metrics, validation, and when to hand control back.

Keras makes two tf.data iterators an epoch, which cost 20 ms, and returns to Python after every step. Here the examples lie in
memory and a loop inside one `tf.function` takes the batches from them. What it runs are the model's own `train_step` and
`test_step`, so the numbers are those of the loop in Python.
"""

import math
from typing import Any

import tensorflow as tf

from keras_backprop import _keras
from keras_backprop.training.batches import Batches
from keras_backprop.training.executor import is_small, never_waits, one_thread

CAPACITY = 256
"""The largest number of epochs in one call: it returns as many rows of logs."""


class CompiledEpochs:
    """The loop over the epochs of a model, compiled for data of certain sizes.

    Args:
        model: a compiled and built Keras model.
        train, validation: `Examples`; validation may be None.
        shuffle: bool, visit the training examples in a new order every epoch.
        jit_compile: bool, compile with XLA.

    Attributes:
        jit_compile: bool.
    """

    def __init__(self, model, train, validation, shuffle, jit_compile):
        self.model = model
        self.names = list(model.get_metrics_result())
        self._train_names = len(self.names)
        self.train = Batches(train, shuffle, fixed_sizes=jit_compile)
        self.validation: Any = None if validation is None else Batches(validation, fixed_sizes=jit_compile)
        if validation is not None:
            self.names += [f"val_{name}" for name in self.names]
        # One thread has no fused kernels, which round once instead of twice: in half precision one would see it, and double
        # precision is for those who want the last digits.
        others = ("float16", "bfloat16", "float64")
        self._in_one_thread = not jit_compile and all(x.compute_dtype not in others for x in model._flatten_layers())
        self._small = True
        self.jit_compile = jit_compile
        self._compile()

    def _compile(self):
        self._run_epochs = tf.function(self._epochs, autograph=False, jit_compile=self.jit_compile)
        self._run_validation = tf.function(self._validation, autograph=False, jit_compile=self.jit_compile)

    def trace(self, *arguments):
        """Trace what a call with these arguments would run, and run nothing."""
        with one_thread(self._in_one_thread):
            function = self._run_epochs.get_concrete_function(*self._tensors(*arguments))
        if self._in_one_thread and not never_waits(function):  # what it calls has been traced for one thread, too
            self._in_one_thread = False
            self._compile()
            self._run_epochs.get_concrete_function(*self._tensors(*arguments))
        self._in_one_thread = self._in_one_thread and self._small

    def __call__(self, *arguments):
        """Run epochs, or some steps of one epoch.

        Args:
            train, validation: `Examples` of the sizes given to the constructor.
            seed: two integers, which with the number of an epoch determine its order of the examples.
            epochs: (first, last), the epochs to run, last excluded; at most `CAPACITY`.
            steps: (first, last), which steps of each epoch, last excluded.
            validated: list of bool, whether to validate at the end of each of the epochs.
            bounds: dict, name of a log -> float. The loop ends after the first epoch in which this log is at or below the
                bound, or is NaN.

        Returns:
            list of dict name -> float, the logs of each epoch that was run.
        """
        with one_thread(self._in_one_thread):
            rows, count = self._run_epochs(*self._tensors(*arguments))
        validated, rows = arguments[5], rows.numpy()[: int(count)].tolist()
        names = self.names[: self._train_names]
        return [
            dict(zip(self.names if val else names, row, strict=False))
            for row, val in zip(rows, validated, strict=False)
        ]

    def validate(self, validation, first, last):
        """Run the steps first, …, last − 1 of validation. Returns the logs so far, without "val_", a dict of float."""
        with one_thread(self._in_one_thread):
            row = self._run_validation(validation.tensors, tf.constant(first), tf.constant(last))
        return dict(zip(self.names, row.numpy().tolist(), strict=False))

    def _tensors(self, train, validation, seed, epochs, steps, validated, bounds):
        return (
            train.tensors,
            None if validation is None else validation.tensors,
            tf.constant(seed, tf.int32),
            tf.constant([*epochs, *steps], tf.int32),
            tf.constant([*validated, *[False] * (CAPACITY - len(validated))]),
            tf.constant([bounds.get(name, -math.inf) for name in self.names], tf.float64),
        )

    def _epochs(self, train, validation, seed, span, validated, bounds):
        first_epoch, last_epoch, first, last = tf.unstack(span)

        def epoch(number, rows, reached):
            self._reset(first == 0)  # the later parts of an epoch go on with its metrics
            order = self.train.order(tf.stack([seed[0], seed[1] + number]))
            self.train.run(self._train_step, train, order, first, last)
            row = self._logs()
            if self.validation is not None:
                row = tf.concat([row, self._validated(validation, validated[number - first_epoch])], 0)
            rows = tf.tensor_scatter_nd_update(rows, [[number - first_epoch]], row[None])
            reached = tf.reduce_any((row <= bounds) | (tf.math.is_nan(row) & (bounds > -math.inf)))
            return number + 1, rows, reached

        start = (first_epoch, tf.zeros([CAPACITY, len(self.names)], tf.float64), tf.constant(False))
        number, rows, _ = tf.while_loop(lambda number, _, reached: (number < last_epoch) & ~reached, epoch, start)
        return rows, number - first_epoch

    def _validated(self, validation, wanted):
        """The logs of validation, NaN where it is not wanted."""
        nothing = tf.fill([len(self.names) // 2], tf.constant(math.nan, tf.float64))
        return _if(wanted, lambda: self._validation(validation, 0, self.validation.steps), nothing)

    def _validation(self, validation, first, last):
        self._reset(tf.equal(first, 0))
        self.validation.run(self._test_step, validation, None, first, last)
        return self._logs()

    def _train_step(self, batch):
        self._measured(self.model.train_step, batch, self.train.size)

    def _test_step(self, batch):
        self._measured(self.model.test_step, batch, self.validation.size)

    def _measured(self, step, batch, size):
        """Run a step, and note whether its operations are small."""
        graph = tf.compat.v1.get_default_graph()
        before = len(graph.get_operations())
        with _keras.replaced(self.model, get_metrics_result=dict):  # of every step; asked for at the end of the epoch
            step(batch)
        self._small = self._small and is_small(graph.get_operations()[before:], size)

    def _reset(self, wanted):
        if not all(
            type(metric).reset_state.__module__.startswith("keras.") for metric in _with_inner(self.model.metrics)
        ):
            _if(
                wanted, lambda: self.model.reset_metrics() or 0, tf.constant(0)
            )  # it may have state that Keras knows nothing of
            return
        variables = [v for metric in self.model.metrics for v in metric.variables]
        before = [tf.identity(v.value) for v in variables]
        self.model.reset_metrics()
        for variable, old in zip(variables, before, strict=True):
            variable.assign(tf.where(wanted, variable.value, old))

    def _logs(self):
        return tf.stack([tf.cast(x, tf.float64) for x in self.model.get_metrics_result().values()])


def _with_inner(metrics):
    for metric in metrics:
        yield metric
        yield from _with_inner(getattr(metric, "metrics", ()))


def _if(wanted, function, otherwise):
    """`function()` or a tensor, as a loop of at most one turn: unlike `tf.cond` it runs in one thread (see `executor.py`)."""
    return tf.while_loop(lambda due, _: due, lambda *_: (tf.constant(False), function()), (wanted, otherwise))[1]
