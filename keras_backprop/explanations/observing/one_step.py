"""One training step of a model as it would be: with the rules and the gradients that it was compiled with."""

from typing import Any

import tensorflow as tf

from keras_backprop import scopes
from keras_backprop.backward_pass import backward_pass
from keras_backprop.gradients.update import held, made_gradients
from keras_backprop.training.plans import plan_of

__all__ = ["apply", "gradients_for", "pass_of"]


def pass_of(model: Any, x: Any, y: Any, sample_weight: Any, of_inputs: bool = False) -> Any:
    """The `Backward` of a training step, with the rules of `compile(rules=…)`."""
    with scopes.entered_for(model):
        return backward_pass(model, x, y, sample_weight, of_inputs=of_inputs)


def gradients_for(model: Any, result: Any) -> list:
    """What the optimizer is given: the gradients, or what `compile(gradients=…)` makes of them."""
    function = getattr(model, "compiled_gradients", None)
    if function is None:
        return result.gradients
    state = [(v, tf.identity(v)) for v in getattr(function, "variables", ())]  # a private plan counts its steps
    try:
        return made_gradients(getattr(plan_of(model), "of_no_step", function), result)
    finally:
        for variable, value in state:
            variable.assign(value)


def apply(model: Any, optimizer: Any, gradients: list, weights: list) -> None:
    """The update, with what `compile(gradients=…)` holds put back."""
    averages = getattr(getattr(optimizer, "inner_optimizer", optimizer), "use_ema", False)
    gradients, put_back = held(getattr(model, "compiled_gradients", None), gradients, weights, averages)
    optimizer.apply(gradients, weights)
    put_back()
