"""Validation between epochs, as Keras's `evaluate` does it, in compiled calls."""

import dataclasses
from typing import Any

from keras_backprop import _keras
from keras_backprop.training.callbacks import Listeners
from keras_backprop.training.inputs.batches import Batches
from keras_backprop.training.loops import steps
from keras_backprop.training.loops.passes import Memory, Pass
from keras_backprop.training.path import NotCompiledError
from keras_backprop.training.stock import has_own


class Validation:
    """Validates a model, with callbacks.

    Args:
        model: a Keras model.
        data: `Data` with validation data.
        callbacks: a Keras `CallbackList`.
        jit_compile: bool, compile with XLA.
    """

    def __init__(self, model, data, callbacks, jit_compile):
        self.model, self.data, self.callbacks, self.jit_compile = model, data, callbacks, jit_compile
        self._pass: Any = None
        self._compiled = True

    def __call__(self):
        """Returns the logs, a dict of float."""
        if not self._compiled or has_own(self.model, "evaluate"):
            return self.model.evaluate(callbacks=self.callbacks, **self.data.evaluate_arguments())
        if self._pass is None:
            self._pass = self._made()
        self._pass.source.reset()
        self.model.make_test_function()
        self.model.stop_evaluating = False
        self.callbacks.on_test_begin()
        self.model.reset_metrics()
        try:
            self._pass(0)
        except NotCompiledError as reason:
            return self._go_on_in_keras_loop(reason)
        logs = _keras.pythonify_logs(_keras.logs_of(self.model, self._pass.logs))
        self.callbacks.on_test_end(logs)
        return logs

    def _go_on_in_keras_loop(self, reason):
        """Keras's loop from now on. Callbacks have heard of the beginning, and of that of the first batch."""
        model, callbacks, begin_batch = self.model, self.callbacks, self.callbacks.on_test_batch_begin
        self._compiled, heard = False, [self._pass.listeners.any]
        model.fit_path = dataclasses.replace(
            model.fit_path, reason=f"{model.fit_path.reason}, and validation goes batch by batch: {reason}"
        )

        def on_test_batch_begin(number, logs=None):
            if not heard[0]:
                begin_batch(number, logs)
            heard[0] = False

        with (
            _keras.replaced(model, reset_metrics=lambda: None),
            _keras.replaced(callbacks, on_test_begin=lambda logs=None: None, on_test_batch_begin=on_test_batch_begin),
            self._pass.source.goes_on(),
        ):
            return self()

    def _made(self):
        if self.data.validation is not None:
            batches = Batches(self.data.validation, for_xla=self.jit_compile)
            source = Memory(self.data.validation, batches)
        else:
            source = self.data.validation_stream()
            batches = source.batches()

        def loop():
            return self.model._loops.steps(batches, steps.test_step(self.model, source.batch), self.jit_compile)

        listeners = Listeners(self.callbacks, "test")
        return Pass(self.model, source, loop, listeners, "stop_evaluating", lambda *_: None)
