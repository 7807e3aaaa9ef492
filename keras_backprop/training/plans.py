"""Plans: what `compile(gradients=…)` was given if it draws the batches as well, which `privacy.Plan` does.

A plan has a `sampler`, and what else `fit` asks of a `privacy.Plan`. Gradients alone are made by any function.
"""

import contextlib
from typing import Any

import keras
import numpy as np

from keras_backprop import _keras


def plan_of(model) -> Any:
    """What draws the batches of a model's training, or None."""
    gradients = getattr(model, "compiled_gradients", None)
    return gradients if hasattr(gradients, "sampler") else None


def drawing(model):
    """In the block, a plan's batches are those that `fit` draws; not so where it is a callback's turn."""
    plan = plan_of(model)
    return contextlib.nullcontext() if plan is None else plan.past.being_drawn()


def require_plans_own(plan, arguments):
    """Raise a `ValueError` if `fit` is given what a plan decides."""
    size, expected = arguments["batch_size"], plan.sampler.expected
    if size not in (None, expected):
        raise ValueError(
            f"How many examples a step takes is the plan's to say: expected_batch_size={expected}. Received: "
            f"batch_size={size}. Leave "
            "`batch_size` out; to hold fewer of them in memory at a time, give the optimizer `gradient_accumulation_steps`."
        )
    if arguments["steps_per_epoch"] is not None:
        raise ValueError(
            "With a plan an epoch is one pass over the examples, as many steps as the plan says. Leave `steps_per_epoch` out."
        )


def require_weights(model, sample_weight):
    """Raise a `ValueError` where one example's sample weight could make the sum that all errors are divided by 0 or NaN."""
    losses = _keras.losses_of(_keras.compiled_loss(model)) or keras.tree.flatten(model.loss)  # before it is built
    given = [w for w in keras.tree.flatten(sample_weight) if w is not None]
    if not any(getattr(loss, "reduction", None) == "mean_with_sample_weight" for loss in losses):
        return
    for weights in map(keras.ops.convert_to_numpy, given):
        wrong = weights[~(np.isfinite(weights) & (weights >= 0))]
        if wrong.size:
            raise ValueError(
                'With the reduction "mean_with_sample_weight" all errors are divided by the sum of the sample weights, which '
                "must be finite and not negative: otherwise one example decides on what all others contribute. Received: "
                f"{wrong.flat[0]}"
            )
