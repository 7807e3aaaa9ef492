"""What the compiled loops have in common: how they are traced, and how they are run."""

import copy
from typing import Any

import tensorflow as tf

from keras_backprop import _keras, _tensorflow
from keras_backprop.training.loops.executor import is_small, must_be_called, never_waits
from keras_backprop.training.loops.steps import Operations
from keras_backprop.training.loops.unnoted import unnoted_and_noted, until_noted


class Compiled:
    """A compiled loop over batches.

    Args:
        model: a compiled Keras model, built by the tracing of its steps.
        parts: list of (what the batches are taken from, a traced step to run on them).
        jit_compile: bool, compile with XLA.
        logs: bool, whether the logs that the steps return are wanted.

    Attributes:
        repeatable: bool, whether steps that are undone and made again draw the same random numbers.
    """

    _run: Any
    """What to trace …"""

    _specification: Any
    """… and for which arguments."""

    def __init__(self, model, parts, jit_compile, logs=False):
        self.jit_compile, self._wants_logs = jit_compile, logs
        self.repeatable = not any(_tensorflow.draws_by_itself(step.graph) for _, step in parts)
        self._belong_to(model, parts)
        self._called = [not batches.for_xla if jit_compile else must_be_called(step) for batches, step in parts]
        self._twice = (
            None if jit_compile or self._called[0] else unnoted_and_noted(model, parts[0][1], logs)
        )  # to XLA more code is more work
        # One thread has no fused kernels, which round once instead of twice: in half precision one would see it, and double
        # precision is for those who want the last digits. And none of oneDNN's, which only what is small does without.
        others = ("float16", "bfloat16", "float64")
        self._in_one_thread = (
            not jit_compile
            and not any(self._called)
            and all(x.compute_dtype not in others for x in _keras.layers_in(model))
            and all(batches.never_waits and never_waits(step) for batches, step in parts)
            and all(is_small(step.operations, batches.size) for batches, step in self._parts)
        )
        self._function = self._traced()
        if self._in_one_thread and not never_waits(self._function):  # the logs do
            self._in_one_thread = False
            self._function = self._traced()

    def _belong_to(self, model, parts):
        self.model = model
        substituted = not self.jit_compile
        self._parts = [
            (batches, Operations(step, self._wants_logs, substituted=substituted)) for batches, step in parts
        ]

    @property
    def captured(self):
        """What the loop takes besides its arguments, a list of tensors: handles of variables."""
        return self._function.captured_inputs

    def of_no_model(self):
        """The loop alone, to be kept for models that are alike."""
        alone = copy.copy(self)
        alone._belong_to(None, [])
        return alone

    def moved(self, model, parts, exchanged):
        """The same loop for a model that is alike.

        Args:
            model, parts: as above.
            exchanged: function (handles that the loop takes) -> those of this model.
        """
        other = copy.copy(self)
        other._belong_to(model, parts)
        other._function = _tensorflow.with_captures(self._function, exchanged(self.captured))
        return other

    def _traced(self):
        with _tensorflow.one_thread(self._in_one_thread):
            jit_compile = self.jit_compile and all(batches.for_xla for batches, _ in self._parts)
            function = tf.function(self._run, autograph=False, jit_compile=jit_compile)
            return function.get_concrete_function(*self._specification())

    def _call(self, *arguments):
        with _tensorflow.one_thread(self._in_one_thread):
            return self._function(*arguments)

    def _steps(self, part, tensors, order, first, last, state=(), goes_on=None, after=None):
        """Run steps on the batches first, …, last − 1.

        Args:
            state, goes_on: as `Batches.run` takes them.
            after: function (number of the step, its logs, *state) -> the new state.

        Returns:
            The number after that of the last step that was run, and the state.
        """
        batches, step = self._parts[part]
        lowered = not (self._in_one_thread or self.jit_compile)

        def run(step, start, end, state):
            def one(number, batch, *state):
                logs = step.call(batch) if self._called[part] else step.run(batch, lowered)
                return state if after is None else after(number, logs, *state)

            return batches.run(one, tensors, order, start, end, state, goes_on, origin=first)

        if part or self._twice is None:
            return run(step, first, last, state)
        unnoted, noted = self._twice

        def run_if_any(step, start, end, state):
            if not batches.single:
                return run(step, start, end, state)

            def turn(number, *state):
                number, state = run(step, number, end, state)
                return number, *state

            number, *state = tf.while_loop(lambda number, *_: number < end, turn, (start, *state))
            return number, tuple(state)

        def noted_and_before(number, *state):
            number, state = run_if_any(unnoted, number, tf.minimum(number + until_noted(self.model), last), state)
            number, state = run_if_any(noted, number, tf.minimum(number + 1, last), state)
            return number, *state

        def not_all(number, *state):
            return number < last if goes_on is None else (number < last) & goes_on(*state)

        number, *state = tf.while_loop(not_all, noted_and_before, (tf.convert_to_tensor(first), *state))
        return number, tuple(state)
