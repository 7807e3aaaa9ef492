"""Cross-check the explicit gradients against the tape while `fit` runs."""

import numbers
import warnings
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_backprop import _keras
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
        tolerance: float, the largest difference that passes, relative to the largest entry of the tape's gradient;
            by default what the dtypes in which the layers compute allow.
        action: "raise" or "warn".

    Attributes:
        checked: int, the number of steps checked.
        max_error: float, the largest relative difference seen.

    Raises:
        ValueError: a nonsensical argument; a model that trains by the tape itself, or in a distribution strategy.
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
        if type(model).train_step is keras.Model.train_step:
            raise ValueError(
                f"The model '{model.name}' ({type(model).__name__}) trains by the tape itself: there is nothing to check. "
                "Train `keras_backprop.BackpropModel.from_keras(model)`."
            )
        if model.distribute_strategy.num_replicas_in_sync > 1:
            raise ValueError(
                "GradientCheck compares the gradients of one replica. Use it without a distribution strategy."
            )
        self.checked, self.max_error = 0, 0.0
        dtypes = {layer.compute_dtype for layer in _keras.layers_in(model)}
        self._limit = self.tolerance or 10 * max(RELATIVE_TOLERANCE.get(dtype, 0.0) for dtype in dtypes)
        self.backward_observer.reset()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        steps, errors = self.backward_observer.read()
        checks = -(-steps // self.every)  # steps 0, every, … have been checked
        if checks == self.checked or not len(errors):
            return
        self.checked = checks
        worst = int(errors.argmax())  # NaN, if there is one
        error, subject = errors[worst], f"in step {steps}, the gradient of '{self.backward_observer.paths[worst]}'"
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

    Attributes:
        paths: list of str, of the weights.
    """

    def __init__(self, every: int) -> None:
        super().__init__()
        self.every = every
        self.paths: list[str] = []
        self._state: list = []
        self._step = tf.Variable(0, dtype=tf.int64, trainable=False, name="checked_steps")
        self._errors = tf.Variable(tf.zeros([0], tf.float64), shape=[None], trainable=False, name="gradient_errors")

    @property
    def variables(self) -> list[Any]:
        return [self._step, self._errors]

    def reset(self) -> None:
        self._step.assign(0)
        self._errors.assign(tf.zeros([0], tf.float64))

    def read(self) -> Any:
        """The number of steps so far, and an array of one difference for each weight: of the last step that checked."""
        return int(self._step.numpy()), self._errors.numpy()

    def observe(self, link: Any) -> None:
        """It looks at gradients of weights, not at links."""

    def step_begins(self, model: Any, data: Any) -> None:
        """The tape must see seeds and statistics as they are before the step: keep what they were."""
        self._state = [(v, tf.identity(v.value)) for v in model.non_trainable_variables]

    def before_update(self, update: Any) -> None:
        state, self._state = self._state, []  # tensors of the graph that is being traced: not to be kept
        weights = update.result.weights
        if not weights:
            return
        self.paths = [v.path for v in weights]
        due, unchanged = tf.equal(self._step % self.every, 0), self._errors.read_value()
        errors = tf.cond(due, lambda: _differences(update, state), lambda: unchanged)
        self._errors.assign(errors)
        self._step.assign_add(1)


def _differences(update, state):
    """Of each weight, relative to the largest entry of the tape's gradient. `state`: pairs of what is no weight and its value."""
    model, weights, (x, y, sample_weight) = update.model, update.result.weights, update.batch
    values = [tf.identity(v.value) for v in weights]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(values)
        mapping = [*zip(weights, values, strict=True), *state]
        with _keras.StatelessScope(mapping, collect_losses=True):
            y_pred = model(x, **_keras.training_argument(model, True))
            loss = _keras.compute_loss(model, x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=True)
        loss = update.optimizer.scale_loss(loss)
    lowered = isinstance(update.optimizer, keras.optimizers.LossScaleOptimizer)
    may_overflow = update.result.scale > 1 if lowered else tf.constant(False)
    return tf.stack([
        _difference(explicit, reference, may_overflow)
        for explicit, reference in zip(update.result.gradients, tape.gradient(loss, values), strict=True)
    ])  # fmt: skip


def _difference(explicit, reference, may_overflow):
    """The largest difference, relative to the largest entry; NaN where neither gradient is finite. None counts as zeros."""
    if explicit is None and reference is None:
        return tf.constant(0.0, tf.float64)
    explicit, reference = (
        tf.cast(tf.zeros_like(other) if g is None else tf.convert_to_tensor(g), tf.float64)
        for g, other in ((explicit, reference), (reference, explicit))
    )
    scale = tf.maximum(tf.reduce_max(tf.abs(reference)), 1e-30)
    overflow = [tf.reduce_any(~tf.math.is_finite(g)) for g in (explicit, reference)]
    difference = tf.reduce_max(tf.abs(explicit - reference)) / scale
    zero, inf, nan = (tf.constant(x, tf.float64) for x in (0.0, float("inf"), float("nan")))
    of_overflow = tf.where(may_overflow, zero, tf.where(overflow[0] & overflow[1], nan, inf))
    return tf.where(overflow[0] | overflow[1], of_overflow, difference)
