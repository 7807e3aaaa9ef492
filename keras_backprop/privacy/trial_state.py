"""What the passes of a trial may change: variables of the model, of its metrics, and whatever else operations assign to."""

import contextlib
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_backprop import _keras, _tensorflow


class State:
    """Variables, what they were before the block, and are again after it.

    Args:
        model: a model that is built.
    """

    def __init__(self, model: Any) -> None:
        trainable, metrics = ({id(v) for v in vs} for vs in (model.trainable_variables, model.metrics_variables))
        states = {id(v): v for v in (*model.variables, *model.metrics_variables) if id(v) not in trainable}
        # Weights too: `SpectralNormalization` assigns to its layer's kernel.
        variables = (*states.values(), *model.trainable_variables)
        self._before: list = [(v, keras.ops.copy(v.value)) for v in variables]
        self._metrics, self._seeds = metrics, {id(v) for v in _keras.seeds_in(model)}
        self._after: list = []  # for each pass, what all are after it

    def __enter__(self) -> "State":
        return self

    def __exit__(self, *exception: Any) -> None:
        self.put_back()

    @contextlib.contextmanager
    def found(self) -> Any:
        """Find out which other variables are assigned to in the block."""
        assigned = _tensorflow.Assignments([v for v, _ in self._before])
        try:
            with assigned:
                yield
        finally:
            self._before += assigned.variables
            self.put_back()
        self._begun = [keras.ops.convert_to_numpy(value) for _, value in self._before]

    def put_back(self, metrics_are_far_off: bool = False) -> None:
        """Set all variables to what they were; those of metrics far from it, if wanted."""
        for variable, value in self._before:
            variable.assign(value)
            if metrics_are_far_off and id(variable) in self._metrics and tf.as_dtype(variable.dtype).is_floating:
                variable.assign_add(keras.ops.full_like(value, 1e4))

    def note(self) -> None:
        """Note what a pass has made of all of them."""
        now = (keras.ops.convert_to_numpy(keras.ops.copy(v.value)) for v, _ in self._before)
        self._after.append([was if _same(value, was) else value for value, was in zip(now, self._begun, strict=True)])

    def random_numbers_advanced(self) -> bool:
        """Whether layers drew random numbers in the last pass."""
        changes = zip(self._before, self._begun, self._after[-1], strict=True)
        return any(id(variable) in self._seeds and not _same(was, now) for (variable, _), was, now in changes)

    def require_nothing_kept(self) -> None:
        """Raise a `ValueError` for a variable of which the passes up to now, each of other examples, have made something else.

        Those of random numbers, and counts of steps, are the same after each. What a metric keeps is reported, as the loss is,
        and may depend on the examples, as long as no gradient depends on it.
        """
        for (variable, _), *values in zip(self._before, *self._after, strict=True):
            if id(variable) not in self._metrics and not all(_same(values[0], another) for another in values):
                raise ValueError(
                    f"What '{variable.path}' keeps from step to step depends on the examples, and no noise is added to it: the "
                    "trained model would tell about them. Let a layer keep nothing of them, or compute it on public data "
                    "before training."
                )


def _same(value, other):
    return np.array_equal(value, other, equal_nan=value.dtype != object)
