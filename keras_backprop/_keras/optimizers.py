"""Names of ours for what optimizers keep under private ones: an update in fewer operations writes into the same slots."""

from typing import Any


def index_of(optimizer: Any, variable: Any) -> int:
    """The place of a variable in the optimizer's lists of slots."""
    return optimizer._get_variable_index(variable)


def moments_of(optimizer: Any, index: int) -> tuple:
    """Adam's two moving averages, of the gradient and of its square, at a place: two `keras.Variable`."""
    return optimizer._momentums[index], optimizer._velocities[index]


def calls_of(optimizer: Any) -> Any:
    """How many times gradients were applied: `iterations` counts those that an accumulation has gathered as one."""
    return optimizer._iterations
