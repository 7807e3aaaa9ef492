"""Names of ours for what optimizers keep under private ones: an update in fewer operations writes into the same slots."""

from typing import Any

import keras


def build_optimizer(optimizer: Any, variables: list) -> None:
    """Build an optimizer under its name, as Keras does, or leave it as it was: without variables Keras builds none.

    Keras calls an optimizer built before its slots are made: one that Ctrl-C stops in between would fail in every later update.
    """
    if not variables:
        return
    parts = [part for part in (optimizer, getattr(optimizer, "inner_optimizer", None)) if part and not part.built]
    before = [list(part._variables) for part in parts]
    try:
        with keras.name_scope(optimizer.name, caller=optimizer):
            optimizer.build(variables)
    except BaseException:
        for part, its in zip(parts, before, strict=True):
            for variable in part._variables[len(its) :]:
                part._tracker.untrack(variable)
            part.built = False
        raise


def index_of(optimizer: Any, variable: Any) -> int:
    """The place of a variable in the optimizer's lists of slots."""
    return optimizer._get_variable_index(variable)


def moments_of(optimizer: Any, index: int) -> tuple:
    """Adam's two moving averages, of the gradient and of its square, at a place: two `keras.Variable`."""
    return optimizer._momentums[index], optimizer._velocities[index]


def is_scheduled(optimizer: Any) -> bool:
    """Whether the learning rate follows a schedule: `learning_rate` is its number of now."""
    return isinstance(getattr(optimizer, "_learning_rate", None), keras.optimizers.schedules.LearningRateSchedule)


def calls_of(optimizer: Any) -> Any:
    """How many times gradients were applied: `iterations` counts those that an accumulation has gathered as one."""
    return optimizer._iterations


def built_for(optimizer: Any) -> list:
    """The variables that the optimizer was built for, in the order of its slots."""
    return optimizer._trainable_variables


def accumulated(optimizer: Any, variable: Any) -> Any:
    """What gradient accumulation has gathered for a variable since the last update."""
    return optimizer._accumulated_gradients[optimizer._get_variable_index(variable)]


def clipped(optimizer: Any, gradients: list) -> list:
    """Gradients as `clipnorm`, `clipvalue` or `global_clipnorm` leave them."""
    return optimizer._clip_gradients(gradients)


def decays(optimizer: Any, variable: Any) -> bool:
    """Whether weight decay is for this variable: `exclude_from_weight_decay` may have said no."""
    return optimizer._use_weight_decay(variable)
