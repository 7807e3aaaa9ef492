"""Cross-check the explicit gradients against the tape while `fit` runs."""

import numbers
import warnings
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_backprop import _keras
from keras_backprop.callbacks.backprop_trainer import require_backprop_trainer
from keras_backprop.check.float64 import StateForgotten
from keras_backprop.check.tolerances import RELATIVE_TOLERANCE
from keras_backprop.observers import BackwardObserver


class GradientCheck(keras.callbacks.Callback):
    """Compares, on the current batch of every N-th step, the gradients of the backward pass with `tf.GradientTape`'s.

    The tape's gradients are computed inside the training step, from the same batch, the same weights and the same dropout
    masks, and change nothing: training goes on exactly as without the callback, only slower in the steps that check. What
    `compile(gradients=…)` makes of the gradients is not in the comparison.

    A `LossScaleOptimizer` skips steps whose gradients have overflowed, in one computation perhaps and not in the other. So
    nothing is said of what is NaN or infinite as long as the loss scale is above 1: every such step halves it.

    Args:
        every: int ≥ 1, check the steps 0, every, 2·every, …
        tolerance: float, the largest difference that passes, relative to the largest entry of the tape's gradient, or to a
            thousandth of the largest of all weights (a gradient that is zero by symmetry, of a bias in front of a batch
            normalisation for instance, is rounding noise);
            by default what the dtypes in which the layers compute allow.
        action: "raise" or "warn".

    Attributes:
        checked: int, the number of steps checked.
        max_error: float, the largest relative difference seen.

    Raises:
        ValueError: a nonsensical argument; a model that trains by the tape, or in a distribution strategy.
        ArithmeticError: (`action="raise"`) gradients differ, or are NaN or infinite by the tape as well. Names the worst weight.
            Its update has been made already.
    """

    def __init__(self, every: Any = 100, tolerance: Any = None, action: Any = "raise") -> None:
        super().__init__()
        if isinstance(every, bool) or not isinstance(every, numbers.Integral) or every < 1:
            raise ValueError(f"`every` must be a whole number of steps, 1 or more. Received: every={every!r}")
        if tolerance is not None and not (isinstance(tolerance, numbers.Real) and float(tolerance) > 0):
            raise ValueError(f"`tolerance` must be a positive number. Received: tolerance={tolerance!r}")
        if action not in ("raise", "warn"):
            raise ValueError(f'`action` must be "raise" or "warn". Received: action={action!r}')
        self.every, self.tolerance, self.action = int(every), tolerance, action
        self.checked, self.max_error = 0, 0.0
        self.backward_observer = _Comparison(self.every)

    first_batch = 1

    @property
    def batch_freq(self) -> int:
        """It looks at what has been found after the steps 1, every + 1, … (see `training/cadence.py`)."""
        return self.every

    def on_train_begin(self, logs: Any = None) -> None:
        model = self.model
        require_backprop_trainer(model, "there is nothing to check")
        if model.distribute_strategy.num_replicas_in_sync > 1:
            raise ValueError(
                "GradientCheck compares the gradients of one replica. Use it without a distribution strategy."
            )
        self.checked, self.max_error = 0, 0.0
        dtypes = {layer.compute_dtype for layer in _keras.layers_in(model)}
        self._limit = self.tolerance or 10 * max(RELATIVE_TOLERANCE.get(dtype, 0.0) for dtype in dtypes)
        self.backward_observer.reset()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        steps, errors, paths = self.backward_observer.read()
        checks = -(-steps // self.every)  # steps 0, every, … have been checked
        if checks == self.checked or not paths:
            return
        self.checked = checks
        worst = int(errors.argmax())  # NaN, if there is one
        error, subject = errors[worst], f"in step {steps}, the gradient of '{paths[worst]}'"
        if np.isnan(error):
            self._tell(
                f"{subject} is NaN or infinite, tf.GradientTape's as well: there is nothing to compare. Look for the layer in "
                "which that begins, for a learning rate that is too high, and for data that are no numbers."
            )
            return
        self.max_error = max(self.max_error, float(error))
        if error > self._limit:
            self._tell(
                f"{subject} differs from tf.GradientTape's by {error:.3g} of its largest entry (allowed: {self._limit:.3g}). "
                "`keras_backprop.check_gradients(model, x, y)` tells which rule is wrong."
            )

    def _tell(self, message):
        message = f"GradientCheck: {message}"
        if self.action == "raise":
            raise ArithmeticError(message)
        warnings.warn(message, stacklevel=3)


class _Comparison(BackwardObserver):
    """The largest difference of each weight's gradient from the tape's, in the steps that check.

    Args:
        every: int ≥ 1, check the steps 0, every, 2·every, …
    """

    def __init__(self, every: int) -> None:
        super().__init__()
        self.every = every
        self._before: dict = {}
        self._found: dict = {}  # paths of the weights -> variable of the differences: XLA knows no shapes that change
        self._step = tf.Variable(0, dtype=tf.int64, trainable=False, name="checked_steps")
        self._which = tf.Variable(-1, dtype=tf.int64, trainable=False, name="checked_weights")  # place in `_found`

    @property
    def variables(self) -> list[Any]:
        return [self._step, self._which, *self._found.values()]

    def reset(self) -> None:
        self._step.assign(0)
        self._which.assign(-1)

    def read(self) -> Any:
        """The number of steps so far; and of the last that checked, a difference for each weight, and the weights' paths."""
        which = int(self._which.numpy())
        paths, errors = ((), None) if which < 0 else list(self._found.items())[which]
        return int(self._step.numpy()), None if errors is None else errors.numpy(), paths

    def observe(self, link: Any) -> None:
        """It looks at gradients of weights, not at links."""

    def step_begins(self, model: Any, data: Any) -> None:
        """The tape must see seeds, statistics and what a layer assigns to its weights as they are before the step."""
        variables = (*model.trainable_variables, *_keras.states_in(model))
        self._before = {id(v): tf.identity(v.value) for v in variables}

    def before_update(self, update: Any) -> None:
        before, self._before = self._before, {}  # tensors of the graph that is being traced: not to be kept
        weights = update.result.weights
        if not weights:
            return
        paths = tuple(v.path for v in weights)
        if paths not in self._found:
            with tf.init_scope():
                errors = tf.Variable(tf.zeros([len(weights)], tf.float64), trainable=False, name="gradient_errors")
            self._found[paths] = errors
        variable = self._found[paths]
        due, unchanged = tf.equal(self._step % self.every, 0), variable.read_value()
        variable.assign(tf.cond(due, lambda: _differences(update, before), lambda: unchanged))
        self._which.assign(list(self._found).index(paths))
        self._step.assign_add(1)


def _differences(update, before):
    """Of each weight, relative to the largest entry of the tape's gradient. `before`: id of a variable -> its value."""
    model, weights, (x, y, sample_weight) = update.model, update.result.weights, update.batch
    values = [tf.identity(before.get(id(v), v.value)) for v in weights]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(values)
        with StateForgotten(before | {id(v): value for v, value in zip(weights, values, strict=True)}, {}):
            y_pred = model(x, **_keras.training_argument(model, True))
            loss = _keras.compute_loss(model, x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=True)
        loss = update.optimizer.scale_loss(loss)
    lowered = isinstance(update.optimizer, keras.optimizers.LossScaleOptimizer)
    may_overflow = update.result.scale > 1 if lowered else tf.constant(False)
    references = tape.gradient(loss, values)
    floor = 1e-3 * tf.reduce_max([_largest(g) for g in references])
    return tf.stack([
        _difference(explicit, reference, floor, may_overflow)
        for explicit, reference in zip(update.result.gradients, references, strict=True)
    ])  # fmt: skip


def _largest(gradient):
    """The largest absolute value, of numbers."""
    if gradient is None:
        return tf.constant(0.0, tf.float64)
    largest = tf.reduce_max(tf.abs(tf.cast(tf.convert_to_tensor(gradient), tf.float64)))
    return tf.where(tf.math.is_finite(largest), largest, 0)


def _difference(explicit, reference, floor, may_overflow):
    """The largest difference, relative to the largest entry; NaN where neither gradient is finite. None counts as zeros."""
    if explicit is None and reference is None:
        return tf.constant(0.0, tf.float64)
    explicit, reference = (
        tf.cast(tf.zeros_like(other) if g is None else tf.convert_to_tensor(g), tf.float64)
        for g, other in ((explicit, reference), (reference, explicit))
    )
    scale = tf.maximum(tf.maximum(tf.reduce_max(tf.abs(reference)), floor), 1e-30)
    overflow = [tf.reduce_any(~tf.math.is_finite(g)) for g in (explicit, reference)]
    difference = tf.reduce_max(tf.abs(explicit - reference)) / scale
    zero, inf, nan = (tf.constant(x, tf.float64) for x in (0.0, float("inf"), float("nan")))
    of_overflow = tf.where(may_overflow, zero, tf.where(overflow[0] & overflow[1], nan, inf))
    return tf.where(overflow[0] | overflow[1], of_overflow, difference)
