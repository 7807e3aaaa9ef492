"""Validation between epochs, as Keras's `evaluate` does it, in compiled calls where its step can be a loop."""

import dataclasses
from typing import Any

from keras_backprop import _keras
from keras_backprop.training.callbacks import Listeners
from keras_backprop.training.inputs.batches import Batches
from keras_backprop.training.loops.passes import Memory, Pass
from keras_backprop.training.loops.served import Served
from keras_backprop.training.stock import has_own


class Validation:
    """Validates a model, with callbacks.

    Args:
        run: the `Run`.
    """

    def __init__(self, run):
        self.run, self.model, self.data, self.callbacks = run, run.model, run.data, run.callbacks
        self._pass: Any = None
        self._refused = False

    def __call__(self):
        """Returns the logs, a dict of float."""
        if has_own(self.model, "evaluate"):
            return self.model.evaluate(callbacks=self.callbacks, **self.data.evaluate_arguments())
        if self._pass is None:
            self._pass = self._made()
        self._pass.source.reset()
        self.model.make_test_function()
        self.model.stop_evaluating = False
        self.callbacks.on_test_begin()
        self.model.reset_metrics()
        self._pass(0)
        logs = _keras.pythonify_logs(_keras.logs_of(self.model, self._pass.logs))
        self.callbacks.on_test_end(logs)
        return logs

    def _made(self):
        if self.data.validation is not None:
            batches = Batches(self.data.validation, for_xla=self.run.jit_compile)
            source = Memory(self.data.validation, batches)
        else:
            source = self.data.validation_stream()
            batches = source.batches()
        served = Served(self.run, "test", source, batches, self._note_refused)
        return Pass(self.model, source, served, Listeners(self.callbacks, "test"), "stop_evaluating", lambda *_: None)

    def _note_refused(self, reason, step):
        del step  # in the middle of a pass as well
        if not self._refused:
            path = self.model.fit_path
            self.model.fit_path = dataclasses.replace(
                path, reason=f"{path.reason}, and validation goes batch by batch: {reason}"
            )
        self._refused = True
