"""Many epochs in one compiled function: shuffling, batching, steps, metrics, validation, and when to hand control back.

Keras makes two tf.data iterators an epoch, which cost 20 ms, and returns to Python after every step. Here the examples lie in
memory and a loop inside one `tf.function` takes the batches from them. What it runs are the steps that Keras's loop would run
(see `steps.py`), so the numbers are those of the loop in Python.
"""

import math

import tensorflow as tf

from keras_backprop.training.loops.compiled import Compiled
from keras_backprop.training.stock import with_inner

CAPACITY = 256
"""The largest number of epochs in one call: it returns as many rows of logs."""


class CompiledEpochs(Compiled):
    """The loop over the epochs of a model, compiled for data of certain kinds.

    Args:
        model: a compiled Keras model, built by the tracing of its steps.
        train, validation: pairs of `Batches` and the traced step to run on them; validation may be None.
        jit_compile: bool, compile with XLA.

    Attributes:
        trained: list of str, the names of the logs of training. A metric whose result is a dict has one for all its numbers.
    """

    def __init__(self, model, train, validation, jit_compile):
        self.validates = validation is not None
        self._result = model.get_metrics_result()
        self.trained, self._numbers = list(self._result), [name for name, _ in _numbers_of(self._result)]
        super().__init__(model, [train, *([validation] if self.validates else [])], jit_compile)

    def __call__(self, train, validation, seed, epochs, steps, begun, validated, bounds):
        """Run epochs, or some steps of one epoch.

        Args:
            train, validation: `Examples` of the kinds given to the constructor.
            seed: two integers, which with the number of an epoch determine its order of the examples.
            epochs: (first, last), the epochs to run, last excluded; at most `CAPACITY`.
            steps: (first, last), which steps of each epoch, last excluded.
            begun: int, the number of the epoch that begins with the metrics as they are; all others reset them.
            validated: list of bool, whether to validate at the end of each of the epochs.
            bounds: dict, name of a log -> float. The loop ends after the first epoch in which this log is at or below the
                bound, or is NaN.

        Returns:
            list of dict name -> float, or dict of floats, the logs of each epoch that was run.
        """
        rows, count = self._call(
            train.tensors,
            validation.tensors if self.validates else None,
            tf.constant(seed, tf.int32),
            tf.constant([*epochs, *steps, begun], tf.int32),
            tf.constant([*validated, *[False] * (CAPACITY - len(validated))]),
            tf.constant([bounds.get(name, -math.inf) for name in self.names], tf.float64),
        )
        rows = rows.numpy()[: int(count)].tolist()
        return [self._named(row, val) for row, val in zip(rows, validated, strict=False)]

    def _named(self, row, validated):
        logs = _with_numbers(self._result, iter(row))
        if validated:
            logs.update(zip(self.names[len(self._numbers) :], row[len(self._numbers) :], strict=True))
        return logs

    @property
    def train_batches(self):
        """The `Batches` of training."""
        return self._parts[0][0]

    @property
    def names(self):
        """The names of the numbers in the logs of an epoch that validates."""
        return self._numbers + ([f"val_{name}" for name in self._numbers] if self.validates else [])

    def _specification(self):
        return (
            self._parts[0][0].specification,
            self._parts[1][0].specification if self.validates else None,
            tf.TensorSpec([2], tf.int32),
            tf.TensorSpec([5], tf.int32),
            tf.TensorSpec([CAPACITY], tf.bool),
            tf.TensorSpec([len(self.names)], tf.float64),
        )

    def _run(self, train, validation, seed, span, validated, bounds):
        first_epoch, last_epoch, first, last, begun = tf.unstack(span)
        batches = self._parts[0][0]

        def epoch(number, rows, reached):
            self._reset((first == 0) & (number != begun))  # the later parts of an epoch go on with its metrics
            order = batches.order(train, tf.stack([seed[0], seed[1] + number]))
            self._steps(0, train, order, first, last)
            row = self._logs()
            if self.validates:
                wanted = tf.gather(validated, number - first_epoch)  # a slice would make XLA compile for each `span`
                row = tf.concat([row, self._validated(validation, wanted)], 0)
            rows = tf.tensor_scatter_nd_update(rows, [[number - first_epoch]], row[None])
            reached = tf.reduce_any((row <= bounds) | (tf.math.is_nan(row) & (bounds > -math.inf)))
            return number + 1, rows, reached

        start = (first_epoch, tf.zeros([CAPACITY, len(self.names)], tf.float64), tf.constant(False))
        number, rows, _ = tf.while_loop(lambda number, _, reached: (number < last_epoch) & ~reached, epoch, start)
        return rows, number - first_epoch

    def _validated(self, examples, wanted):
        """The logs of validation, NaN where it is not wanted."""

        def validation():
            self._reset(tf.constant(True))
            self._steps(1, examples, None, 0, self._parts[1][0].steps(examples))
            return self._logs()

        return _if(wanted, validation, tf.fill([len(self._numbers)], tf.constant(math.nan, tf.float64)))

    def _reset(self, wanted):
        if not all(
            type(metric).reset_state.__module__.startswith("keras.") for metric in with_inner(self.model.metrics)
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
        return tf.stack([tf.cast(x, tf.float64) for _, x in _numbers_of(self.model.get_metrics_result())])


def _numbers_of(results):
    """Pairs (name, number) of the results of metrics, of which some may be dicts."""
    inner = [_numbers_of(x) if isinstance(x, dict) else [(name, x)] for name, x in results.items()]
    return [pair for pairs in inner for pair in pairs]


def _with_numbers(results, numbers):
    """Results of metrics with these numbers in their places."""
    return {name: _with_numbers(x, numbers) if isinstance(x, dict) else next(numbers) for name, x in results.items()}


def _if(wanted, function, otherwise):
    """`function()` or a tensor, as a loop of at most one turn: unlike `tf.cond` it runs in one thread (see `executor.py`)."""
    return tf.while_loop(lambda due, _: due, lambda *_: (tf.constant(False), function()), (wanted, otherwise))[1]
