"""What the passes of a trial may change: variables of the model, of its metrics, and whatever else operations keep."""

import contextlib
import gc
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_backprop import _keras, _tensorflow


class State:
    """Variables and random numbers, which are before each pass in the block what they were before it, and after it too.

    Args:
        model: a model that is built.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        variables = {id(v): v for v in _owned_by(model)}.values()
        self._own = [(v, keras.ops.copy(v.value)) for v in variables]
        self._taken = _tensorflow.Resources(variables)
        self._after: list = []  # for each pass, dict: number of a variable -> array, of those that are others then
        self._drawn = self._repeats = False
        self._repeat: Any = None
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "State":
        self._repeat = self._stack.enter_context(_tensorflow.random_numbers_repeated())  # until `put_back` has run, too
        self._stack.callback(self.put_back)
        self._stack.enter_context(self._taken)
        return self

    def __exit__(self, *exception: Any) -> Any:
        return self._stack.__exit__(*exception)

    def put_back(self, metrics_are_far_off: bool = False) -> None:
        """Set all variables to what they were; those of metrics far from it, if wanted. Random numbers begin anew."""
        far_off = self._numbers(self._model.metrics_variables) if metrics_are_far_off else ()
        for variable, value in self._variables():
            variable.assign(value)
            if _number(variable) in far_off and tf.as_dtype(variable.dtype).is_floating:
                variable.assign(value + tf.cast(1e4, value.dtype))
        self._repeats = self._repeats or self._taken.draws
        if self._repeats:
            self._repeat()
        self._taken.draws = False

    def note(self) -> None:
        """Note what a pass has made of them."""
        pairs = [(_number(v), *map(_array, (v.value, before))) for v, before in self._variables()]
        self._after.append({number: now for number, now, before in pairs if not _same(now, before)})
        self._drawn = self._taken.draws

    def random_numbers_were_drawn(self) -> bool:
        """Whether the last pass drew some, of which the next will draw others."""
        seeds = self._numbers(_keras.seeds_in(self._model)) | self._taken.generators
        return self._drawn or not seeds.isdisjoint(self._after[-1])

    def require_nothing_kept(self) -> None:
        """Raise a `ValueError` for what keeps something else after each of the passes up to now, which are of other examples.

        States of random numbers, and counts of steps, are the same after each. What a metric keeps is reported, as the loss is,
        and may depend on the examples, as long as no gradient depends on it.
        """
        if self._taken.changed() or self._kept():
            gc.collect()  # what a step has made and dropped may be there still
        changed = self._taken.changed()
        if changed:
            raise ValueError(
                f"A step changes a table or a queue, by the operations {sorted(changed)}: what it keeps there of the "
                "examples gets no noise, and the trained model would tell about them. Let a layer or a loss only look up what "
                "is in a table before training."
            )
        paths = {number: v.path for v in _owned_by(self._model) for number in _tensorflow.numbers_of(v)}
        for variable in self._kept():
            raise ValueError(
                f"What '{paths.get(_number(variable), variable.path)}' keeps from step to step depends on the examples, and no "
                "noise is added to it: the trained model would tell about them. Let a layer keep nothing of them, or compute it "
                "on public data before training."
            )

    def _kept(self):
        """The variables that are not the same after each of the passes."""
        metrics, kept = self._numbers(self._model.metrics_variables), []
        for variable, before in self._variables():
            number = _number(variable)
            values = [after.get(number, _array(before)) for after in self._after]
            if number not in metrics and not all(_same(values[0], another) for another in values):
                kept.append(variable)
        return kept

    def _variables(self):
        """Pairs of a variable and its value before: the model's own, and others that operations have taken."""
        return [*self._own, *self._taken.variables()]

    def _numbers(self, variables):
        return {number for variable in variables for number in _tensorflow.numbers_of(variable)}


def _owned_by(model):
    # Weights too: `SpectralNormalization` assigns to its layer's kernel.
    return [*model.variables, *model.metrics_variables]


def _number(variable):
    """One of those by which a variable is known, always the same."""
    return min(_tensorflow.numbers_of(variable))


def _array(value):
    return keras.ops.convert_to_numpy(keras.ops.copy(value))  # of variables of several replicas, too


def _same(value, other):
    return np.array_equal(value, other, equal_nan=value.dtype != object)
