"""Where a step turns non-finite: the first link, the direction, the operation, the examples and the likely cause.

The batch is run once more, operation by operation, with the weights of before the step. From a loss that is not finite the walk
goes back through the operations that ran, from a gradient that is not finite through the links of the backward pass, each time
to one whose result is not finite although all that went into it is. What is not finite and does not reach the loss or a gradient,
because somebody masks it on purpose, is never walked through.
"""

from typing import Any

import keras
import tensorflow as tf

from keras_backprop.backward_pass import backward
from keras_backprop.trainer import BackpropTrainer
from keras_backprop.training.plans import plan_of
from keras_backprop.training.snapshot import Snapshot
from keras_backprop.watch.backward_search import BackwardSearch
from keras_backprop.watch.causes import Circumstances, cause_of
from keras_backprop.watch.faults import FORWARD, OWN, UPDATE, Frame
from keras_backprop.watch.forward_search import ForwardSearch
from keras_backprop.watch.rerun import Rerun, extreme


def locate(model: Any, x: Any, y: Any = None, sample_weight: Any = None, frames: Any = (), broken: bool = False) -> Any:
    """Where a step on a batch turns non-finite. Leaves the model as it is.

    Args:
        model: a compiled Keras model, with the weights of before the step.
        x, y, sample_weight: the batch, tensors or arrays.
        frames: list of `Frame`, what is known of the steps before.
        broken: bool, whether the step is known to be not finite as it is compiled: then an operation at the edge of its domain is
            named, if nothing else can be.

    Returns:
        A `Fault`, or None: the loss, all gradients and the update are finite. A loss scale is left out, so that what overflows
        because of it is no fault.
    """
    before = Snapshot(model)
    try:
        step = Rerun(model, x, y, sample_weight, frames)
        return _fault(step) or ((_fault_of_weight(step) or ForwardSearch(step).suspect()) if broken else None)
    finally:
        before.restore()


def _fault(step):
    """The `Fault` of a `Rerun`, or None."""
    if not step.finite(step.result.loss):
        return ForwardSearch(step).of_loss()
    raw = step.result.gradients
    ours = isinstance(step.model, BackpropTrainer) and plan_of(step.model) is None
    make = step.model._part_of_step("make_gradients") if ours else None
    made = raw if make is None else make(step.result)
    bad = [v.path for v, g in zip(step.result.weights, made, strict=True) if not step.finite(g)]
    if bad and all(step.finite(g) for g in raw):
        return step.told(
            "compile(gradients=…)", OWN, "", "the function of `compile(gradients=…)` makes it of finite gradients",
            "look there for a division by a norm that is 0, or a logarithm or root of a gradient", weight=bad[0],
        )  # fmt: skip
    if bad:
        return BackwardSearch(step).of_weight(bad[0])
    return _fault_of_update(step, made) if make is not None else None


def _fault_of_weight(step):
    """A weight that is not finite before the step, and that the loss does not show."""
    weight = next((v for v in step.result.weights if not step.finite(v.value)), None)
    if weight is None:
        return None
    named = Circumstances("", [], None, weight.dtype, step.frames, named=("weight", weight.path))
    return step.told(step.reader_of(weight), FORWARD, "", *cause_of(named), weight=weight.path)


def _fault_of_update(step, gradients):
    """A fault of the optimizer, which makes a weight that is not finite of finite gradients."""
    model, weights = step.model, step.result.weights
    scaled = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    if not weights or scaled or not model.optimizer.built:
        return None
    before = [step.finite(v.value) for v in weights]
    largest = max(map(extreme, (v.value for v in weights)))
    model._part_of_step("update_weights")(gradients, weights)
    for v, fine in zip(weights, before, strict=True):
        if fine and not bool(tf.reduce_all(tf.math.is_finite(v.value))):
            cause = (
                "a learning rate that blows the weights up: the gradients are finite, the update is not (largest weight "
                f"before it {largest:.3g})"
            )
            return step.told(
                step.reader_of(v), UPDATE, "", cause, "lower the learning rate, or clip gradients", weight=v.path
            )
    return None


def extremes(model: Any, x: Any, y: Any = None, sample_weight: Any = None) -> Frame:
    """The `Frame` of a step that is not taken: the model stays as it is."""
    before = Snapshot(model)
    try:
        result = backward(model, x, y, sample_weight)
        pairs = [(v.path, v.value, g) for v, g in zip(result.weights, result.gradients, strict=True)]
        return Frame(
            -1,
            float(result.loss),
            {path: extreme(g) for path, _, g in pairs if g is not None},
            {path: extreme(value) for path, value, _ in pairs},
        )
    finally:
        before.restore()
