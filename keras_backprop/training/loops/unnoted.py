"""Steps of which no observer notes anything: the same step without what observers write.

An observer that notes every so-many-th step only may say so. Then the compiled loop holds the step twice, and one that nobody
notes is what it is where nobody looks on. To keep all tensors of a step for a loop of no turns took a tenth of a step of small
operations.
"""

from typing import Any

import tensorflow as tf

from keras_backprop.training.loops.steps import Operations


def unnoted(model: Any, step: Any, logs: bool) -> Any:
    """The `Operations` of a step that nobody notes; None if observers note each.

    One that does not has `notes` and `until_noted()`: see `BackwardObserver`.

    Args:
        model: a Keras model.
        step: a `tf.ConcreteFunction`.
        logs: bool, as `Operations` takes it.
    """
    variables = [v for one in _sometimes(model) for v in one.notes]
    used = {id(x) for x in step.captured_inputs}
    return Operations(step, logs, variables) if any(id(v.handle) in used for v in variables) else None


def until_noted(model: Any) -> tf.Tensor:
    """How many of the next steps no observer notes, an integer tensor."""
    return tf.reduce_min(tf.stack([tf.cast(one.until_noted(), tf.int32) for one in _sometimes(model)]))


def _sometimes(model):
    return [one for one in model._observers if getattr(one, "notes", None)]
