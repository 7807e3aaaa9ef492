"""Steps of which no observer notes anything, and those that one notes: the same step without what observers write, and with it.

An observer that notes every so-many-th step only may say so. Then the compiled loop holds the step twice, and one that nobody
notes is what it is where nobody looks on. To keep all tensors of a step for a loop of no turns took a tenth of a step of small
operations, and a turn of it more than the rest of the step.
"""

from typing import Any

import tensorflow as tf

from keras_backprop import _tensorflow
from keras_backprop.training.loops.steps import Operations


def unnoted_and_noted(model: Any, step: Any, logs: bool) -> Any:
    """The `Operations` of a step that nobody notes, and of one that somebody notes; None if observers note each.

    None, too, if the step has random operations that keep their place in a stream to themselves: two copies would draw the same.

    One that does not has `notes` and `until_noted()`: see `BackwardObserver`. Where it is the only one, what it does once if it
    is due needs no condition in a step that is noted.

    Args:
        model: a Keras model.
        step: a `tf.ConcreteFunction`.
        logs: bool, as `Operations` takes it.
    """
    observers = _sometimes(model)
    variables = [v for one in observers for v in one.notes]
    used = {id(x) for x in step.captured_inputs}
    if not any(id(v.handle) in used for v in variables) or _tensorflow.draws_by_itself(step.graph):
        return None
    due = variables if len(observers) == 1 else []
    unnoted = Operations(step, logs, without=variables, substituted=True)  # for observers that note each step
    return unnoted, Operations(step, logs, due=due, substituted=True)


def until_noted(model: Any) -> tf.Tensor:
    """How many of the next steps no observer notes, an integer tensor."""
    return tf.reduce_min(tf.stack([tf.cast(one.until_noted(), tf.int32) for one in _sometimes(model)]))


def _sometimes(model):
    return [one for one in model._observers if getattr(one, "notes", None)]
