"""Steps that are taken back: an observer may object to a step of a compiled call, which is then undone and left out.

To withhold an update inside the compiled loop would cost more than the update itself. So nothing in the loop is conditional: an
observer notes the first step that it objects to, the model goes back to a copy from before the call, takes the steps before
that one again, and the observer is asked what to do.
"""

import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_backprop.training.snapshot import Snapshot, read

SECONDS = 2.0
"""For so long steps are taken before the model is copied again; at a fault, so many are taken again."""


def guard_of(model):
    """The observer of a model that may object to steps, or None: one with a method `judge`."""
    return next((one for one in model._observers if hasattr(one, "judge")), None)


def guarded(run, guard, epochs, steps, finished):
    """As `WholeEpochs.call`, without the steps that a guard objects to.

    A step after which a weight is not finite is objected to as well. A guard has an attribute `keep`, how many steps before one
    it wants to look at, and these methods, in which `position` counts the steps of the training:

    * `reset()`, before a call; `objection()`, the number of the first step since then that it objects to, or None;
    * `passed(position, weights)`, after a call without one; `weights()` is the largest |entry| of each weight, a dict;
    * `look(model, batch, position)`, at a step shortly before one;
    * `judge(model, batch, indices, epoch, step, position, broken)`, which says "pass", "skip" or "stop", or raises; `broken` is
      said of a step that it let pass, and that breaks a weight.
    """
    first, last = steps
    while True:
        start, before = _point_of_return(run, guard, epochs, first)
        logs = run.call(epochs, (first, last), finished)
        number = guard.objection()
        whole = last == run.train.steps or epochs[1] - epochs[0] > 1
        made = run.point[-1] if run.point is not None and run.point[1] == start else time.perf_counter()
        due = whole or time.perf_counter() - made >= SECONDS
        weights: Any = _weights(run) if number is None and due else None
        if number is None and (weights is None or _are_finite(weights)):
            passed = _position(run, epochs[0] + len(logs) - 1, last)
            guard.passed(passed, lambda read=weights: _extremes(read or _weights(run)))
            run.point = None if whole else (epochs[0], start, last, before, made)
            return logs
        before.restore()
        run.point = None
        if number is None:
            number = len(logs) * (last - start) - 1
        epoch, step = epochs[0] + number // (last - start), start + number % (last - start)
        if epoch > epochs[0]:  # the epochs before it are told first; it comes again in the next call
            _look_back(run, guard, epochs[0], epoch, last, step)
            before.restore()
            logs = run.call((epochs[0], epoch), (first, last), finished)
            if _sound(run):
                return logs
            before.restore()
            epochs = epochs[0], epoch
            continue
        step, verdict = _taken_back(run, guard, before, epoch, start, step)
        if verdict == "stop":
            run.model.stop_training = True
        if verdict == "stop" or step + 1 == last:
            run.validated_inside = False
            return [_logs(run)]
        epochs, first = (epoch, epoch + 1), step + 1


def _point_of_return(run, guard, epochs, first):
    """The step from which on steps can be taken again, and the copy of the model before it.

    It is that of an earlier call of the epoch, if the call goes on where that one ended and nobody acted in between: a copy of a
    large model takes as long as a part of a step.
    """
    if run.point is not None:
        epoch, start, end, before, made = run.point
        if (epoch, end) == (epochs[0], first) and time.perf_counter() - made < SECONDS:
            return start, before
    guard.reset()
    return first, Snapshot(run.model, run.variables)


def _look_back(run, guard, first_epoch, epoch, last, step):
    """Have the guard look at the steps before a step of an epoch, as far as they are in whole epochs before it."""
    start = max(0, (epoch - first_epoch) * last - max(0, guard.keep - step))
    for number in range(0, start - start % last, last):
        _take(run, first_epoch + number // last, 0, last)
    _take(run, first_epoch + start // last, 0, start % last)
    for number in range(start, (epoch - first_epoch) * last):
        _look_and_take(run, guard, first_epoch + number // last, number % last)


def _look_and_take(run, guard, epoch, step):
    guard.look(run.model, _batch(run, epoch, step)[0], _position(run, epoch, step))
    _take(run, epoch, step, step + 1)


def _taken_back(run, guard, before, epoch, first, step):
    """Take the steps of an epoch from `first` on and before `step`, and ask the guard about this one.

    Returns:
        The number of the step, an earlier one if that has broken a weight already; and what the guard says.
    """
    near = max(first, step - guard.keep)
    _take(run, epoch, first, near)
    for number in range(near, step):
        _look_and_take(run, guard, epoch, number)
    if not _sound(run):  # an earlier step has broken a weight, and the loss shows it now
        before.restore()
        if _sound(run):
            step = _first_breaking(run, epoch, first, step)
            before.restore()
            return _taken_back(run, guard, before, epoch, first, step)
        _take(run, epoch, first, first)
        step = first
    verdict = guard.judge(run.model, *_batch(run, epoch, step), epoch, step, _position(run, epoch, step))
    if verdict == "pass" and _breaks(run, epoch, step):
        position = _position(run, epoch, step)
        verdict = guard.judge(run.model, *_batch(run, epoch, step), epoch, step, position, broken=True)
    return step, verdict


def _first_breaking(run, epoch, first, last):
    """The first of some steps of an epoch after which a weight is not finite; after the last of them one is."""
    while last - first > 1:
        here, middle = Snapshot(run.model, run.variables), (first + last) // 2
        _take(run, epoch, first, middle)
        if _sound(run):
            first = middle
        else:
            here.restore()
            last = middle
    return first


def _breaks(run, epoch, step):
    """Take a step. Whether a weight is not finite after it; then it is taken back."""
    here = Snapshot(run.model, run.variables)
    _take(run, epoch, step, step + 1)
    if _sound(run):
        return False
    here.restore()
    return True


def _position(run, epoch, step):
    return epoch * run.train.steps + step


def _sound(run):
    """Whether all weights are finite."""
    return _are_finite(_weights(run))


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


def _weights(run):
    values = {v.path: read(v).numpy() for v in run.model.trainable_variables if tf.as_dtype(v.dtype).is_floating}
    return {path: x if x.dtype.itemsize > 2 else x.astype("float32") for path, x in values.items()}


def _take(run, epoch, first, last):
    if first == last:
        if first == 0 and epoch != run.begun:
            run.model.reset_metrics()
        return
    run.loop(run.train, run.validation, run.seed, (epoch, epoch + 1), (first, last), run.begun, [False], {})


def _batch(run, epoch, step):
    """A batch of tensors as the loop takes it, and the numbers of its examples in the data, an array."""
    batches, tensors = run.loop.train_batches, run.train.tensors

    @tf.function(autograph=False, jit_compile=run.jit_compile)
    def order(seed):  # XLA draws other numbers
        return batches.order(tensors, seed)

    numbers = None if not batches.shuffle else order(tf.constant([run.seed[0], run.seed[1] + epoch], tf.int32))
    indices = (tf.range(run.train.n) if numbers is None else numbers)[
        step * run.train.batch_size : (step + 1) * run.train.batch_size
    ]
    batch = keras.tree.map_structure(lambda x: None if x is None else tf.gather(x, indices), tensors[:3])
    return batch, keras.ops.convert_to_numpy(indices)


def _logs(run):
    return {name: float(value) for name, value in run.model.get_metrics_result().items()}
