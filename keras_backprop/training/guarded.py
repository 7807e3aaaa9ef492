"""Steps that are taken back: an observer may object to a step of a compiled call, which is then undone and left out.

To withhold an update inside the compiled loop would cost more than the update itself. So nothing in the loop is conditional: an
observer notes the first step that it objects to, the model goes back to a copy from before the call, takes the steps before
that one again, and the observer is asked what to do.
"""

import time
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_backprop import _keras
from keras_backprop.training.snapshot import Snapshot, read

SECONDS = 2.0
"""For so long steps are taken before the model is copied again; at a fault, so many are taken again."""


def guard_of(model):
    """The observer of a model that may object to steps, or None: one with a method `judge`."""
    return next((one for one in model._observers if hasattr(one, "judge")), None)


class PointOfReturn(NamedTuple):
    """From where on steps of an epoch can be taken again.

    Attributes:
        epoch, first, last: the steps from `first` on and before `last` have been taken since.
        before: `Snapshot`, the model before them.
        made: float, when that was.
    """

    epoch: int
    first: int
    last: int
    before: Snapshot
    made: float


class Guarded:
    """Calls of whole epochs without the steps that a guard objects to.

    A step after which a weight is not finite is objected to as well. A guard has an attribute `keep`, how many steps before one
    it wants to look at, and these methods, in which `position` counts the steps of the training:

    * `reset()`, before a call; `objection()`, the number of the first step since then that it objects to, or None;
    * `passed(position, weights)`, after a call without one; `weights()` is the largest |entry| of each weight, a dict;
    * `look(model, batch, position)`, at a step shortly before one;
    * `judge(model, batch, indices, epoch, step, position, broken)`, which says "pass", "skip" or "stop", or raises; `broken` is
      said of a step that it let pass, and that breaks a weight.

    Args:
        whole: the `WholeEpochs`.
        guard: the observer.
    """

    def __init__(self, whole, guard):
        self._whole, self._guard, self._model = whole, guard, whole.model
        self._point: Any = None

    def __call__(self, epochs, steps, finished=True):
        """As `WholeEpochs.call`."""
        whole, (first, last) = self._whole, steps
        while True:
            start, before = self._point_of_return(epochs, first)
            logs = whole.call(epochs, (first, last), finished)
            number = self._guard.objection()
            at_end = last == whole.train.steps or epochs[1] - epochs[0] > 1
            made = self._point.made if self._point is not None and self._point.first == start else time.perf_counter()
            due = at_end or time.perf_counter() - made >= SECONDS
            weights: Any = self._weights() if number is None and due else None
            if number is None and (weights is None or _are_finite(weights)):
                passed = self._position(epochs[0] + len(logs) - 1, last)
                self._guard.passed(passed, lambda read=weights: _extremes(read or self._weights()))
                self._point = None if at_end else PointOfReturn(epochs[0], start, last, before, made)
                return logs
            before.restore()
            self._point = None
            if number is None:
                number = len(logs) * (last - start) - 1
            epoch, step = epochs[0] + number // (last - start), start + number % (last - start)
            if epoch > epochs[0]:  # the epochs before it are told first; it comes again in the next call
                self._look_back(epochs[0], epoch, last, step)
                before.restore()
                logs = whole.call((epochs[0], epoch), (first, last), finished)
                if self._sound():
                    return logs
                before.restore()
                epochs = epochs[0], epoch
                continue
            step, verdict = self._taken_back(before, epoch, start, step)
            if verdict == "stop":
                self._model.stop_training = True
            if verdict == "stop" or step + 1 == last:
                whole.validated_inside = False
                return [_keras.pythonify_logs(self._model.get_metrics_result())]
            epochs, first = (epoch, epoch + 1), step + 1

    def _point_of_return(self, epochs, first):
        """The step from which on steps can be taken again, and the copy of the model before it.

        It is that of an earlier call of the epoch, if the call goes on where that one ended and nobody acted in between: a copy
        of a large model takes as long as a part of a step.
        """
        point = self._point
        goes_on = point is not None and (point.epoch, point.last) == (epochs[0], first)
        if goes_on and time.perf_counter() - point.made < SECONDS:
            return point.first, point.before
        self._guard.reset()
        return first, self._copy()

    def _look_back(self, first_epoch, epoch, last, step):
        """Have the guard look at the steps before a step of an epoch, as far as they are in whole epochs before it."""
        start = max(0, (epoch - first_epoch) * last - max(0, self._guard.keep - step))
        for number in range(0, start - start % last, last):
            self._whole.take(first_epoch + number // last, 0, last)
        self._whole.take(first_epoch + start // last, 0, start % last)
        for number in range(start, (epoch - first_epoch) * last):
            self._look_and_take(first_epoch + number // last, number % last)

    def _look_and_take(self, epoch, step):
        self._guard.look(self._model, self._whole.batch(epoch, step)[0], self._position(epoch, step))
        self._whole.take(epoch, step, step + 1)

    def _taken_back(self, before, epoch, first, step):
        """Take the steps of an epoch from `first` on and before `step`, and ask the guard about this one.

        Returns:
            The number of the step, an earlier one if that has broken a weight already; and what the guard says.
        """
        near = max(first, step - self._guard.keep)
        self._whole.take(epoch, first, near)
        for number in range(near, step):
            self._look_and_take(epoch, number)
        if not self._sound():  # an earlier step has broken a weight, and the loss shows it now
            before.restore()
            if self._sound():
                step = self._first_breaking(epoch, first, step)
                before.restore()
                return self._taken_back(before, epoch, first, step)
            self._whole.take(epoch, first, first)
            step = first
        verdict = self._guard.judge(
            self._model, *self._whole.batch(epoch, step), epoch, step, self._position(epoch, step)
        )
        if verdict == "pass" and self._breaks(epoch, step):
            position = self._position(epoch, step)
            verdict = self._guard.judge(
                self._model, *self._whole.batch(epoch, step), epoch, step, position, broken=True
            )
        return step, verdict

    def _first_breaking(self, epoch, first, last):
        """The first of some steps of an epoch after which a weight is not finite; after the last of them one is."""
        while last - first > 1:
            here, middle = self._copy(), (first + last) // 2
            self._whole.take(epoch, first, middle)
            if self._sound():
                first = middle
            else:
                here.restore()
                last = middle
        return first

    def _breaks(self, epoch, step):
        """Take a step. Whether a weight is not finite after it; then it is taken back."""
        here = self._copy()
        self._whole.take(epoch, step, step + 1)
        if self._sound():
            return False
        here.restore()
        return True

    def _position(self, epoch, step):
        return epoch * self._whole.train.steps + step

    def _sound(self):
        """Whether all weights are finite."""
        return _are_finite(self._weights())

    def _weights(self):
        values = {v.path: read(v).numpy() for v in self._model.trainable_variables if tf.as_dtype(v.dtype).is_floating}
        return {path: x if x.dtype.itemsize > 2 else x.astype("float32") for path, x in values.items()}

    def _copy(self):
        return Snapshot(self._model, self._whole.variables)


def _are_finite(weights):
    for value in weights.values():
        flat = value.ravel()
        with np.errstate(all="ignore"):  # the sum of squares is the fastest to say yes
            if not np.isfinite(np.dot(flat, flat)) and not np.isfinite(flat).all():
                return False
    return True


def _extremes(weights):
    """A dict, path of a weight -> its largest |entry|."""
    return {path: float(max(value.max(), -value.min())) for path, value in weights.items() if value.size}
