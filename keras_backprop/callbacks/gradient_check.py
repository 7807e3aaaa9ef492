"""Cross-check the explicit gradients against the tape while `fit` runs."""

import numbers
import warnings
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_backprop import _keras
from keras_backprop.check.tolerances import RELATIVE_TOLERANCE


class GradientCheck(keras.callbacks.Callback):
    """Compares, on the current batch of every N-th step, the gradients that the optimizer receives with `tf.GradientTape`'s.

    The tape's gradients are computed inside the training step, from the same batch, the same weights and the same dropout
    masks, and change nothing: training goes on exactly as without the callback, only slower in the steps that check.

    Args:
        every: int ≥ 1, check the steps 0, every, 2·every, …
        tolerance: float, the largest difference that passes, relative to the largest entry of the tape's gradient;
            by default what the dtype of the model's computation allows.
        action: "raise" or "warn".

    Attributes:
        checked: int, the number of steps checked.
        max_error: float, the largest relative difference seen.

    Raises:
        ValueError: a nonsensical argument; a model that trains by the tape itself, or in a distribution strategy.
        ArithmeticError: (`action="raise"`) gradients differ, or are NaN or infinite by the tape as well, unless a loss scale
            is being looked for. Names the worst weight. Its update has been made already.
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
        self._limit = self.tolerance or RELATIVE_TOLERANCE[tf.as_dtype(model.compute_dtype).name] * 10
        self._paths = [v.path for v in model.trainable_variables]
        self._step = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._errors = tf.Variable(tf.zeros(len(self._paths), tf.float64), trainable=False)
        self._seen = 0
        if isinstance(getattr(model.__dict__.get("train_step"), "__self__", None), GradientCheck):
            del model.__dict__["train_step"]  # of a `fit` that was interrupted
        self._train_step = model.train_step
        model.__dict__["train_step"] = self._checked_step
        model.make_train_function(force=True)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        steps = int(self._step.numpy())
        checks = -(-steps // self.every)  # steps 0, every, … have been checked
        if checks == self._seen:
            return
        self.checked += checks - self._seen
        self._seen = checks
        errors = self._errors.numpy()
        if isinstance(self.model.optimizer, keras.optimizers.LossScaleOptimizer):
            errors = np.nan_to_num(errors)  # a loss scale lets gradients overflow until it is found
        worst = int(errors.argmax())  # NaN, if there is one
        error, subject = errors[worst], f"in step {steps}, the gradient of '{self._paths[worst]}'"
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
            self._restore()
            raise ArithmeticError(message)
        warnings.warn(message, stacklevel=3)

    def on_train_end(self, logs: Any = None) -> None:
        self._restore()

    def _restore(self):
        if self.model.__dict__.pop("train_step", None) is not None:
            self.model.make_train_function(force=True)

    def _checked_step(self, data):
        """The model's own step, and before it the tape's gradients on the same data."""
        model = self.model
        received = []
        apply_gradients = model.optimizer.apply_gradients

        def apply(pairs, *args, **kwargs):
            pairs = list(pairs)
            received.extend(pairs)
            due = tf.equal(self._step % self.every, 0)
            self._errors.assign(tf.cond(due, lambda: self._differences(data, pairs), lambda: self._errors + 0.0))
            self._step.assign_add(1)
            return apply_gradients(pairs, *args, **kwargs)

        # The check must see seeds and statistics as they are before the step: keep what they were.
        self._state = [(v, tf.identity(v.value)) for v in model.non_trainable_variables]
        with _keras.replaced(model.optimizer, apply_gradients=apply):
            return self._train_step(data)

    def _differences(self, data, pairs):
        """The largest difference of each weight's gradient from the tape's, relative to its largest entry."""
        model = self.model
        x, y, sample_weight = _keras.unpack_x_y_sample_weight(data[:3] if isinstance(data, tuple) else data)
        weights = [v for _, v in pairs]
        values = [tf.identity(v.value) for v in weights]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(values)
            mapping = [*zip(weights, values, strict=True), *self._state]
            with _keras.StatelessScope(mapping, collect_losses=True):
                y_pred = model(x, **_keras.training_argument(model, True))
                loss = _keras.compute_loss(model, x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=True)
            loss = model.optimizer.scale_loss(loss)
        return tf.stack([
            _difference(explicit, reference)
            for (explicit, _), reference in zip(pairs, tape.gradient(loss, values), strict=True)
        ])  # fmt: skip


def _difference(explicit, reference):
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
    difference = tf.where(overflow[0] | overflow[1], tf.constant(float("inf"), tf.float64), difference)
    return tf.where(overflow[0] & overflow[1], tf.constant(float("nan"), tf.float64), difference)
