"""What makes the steps of a pass: a compiled loop around the function that Keras has made, or, failing that, the function."""

import contextlib
from typing import Any

import tensorflow as tf

from keras_backprop import _tensorflow
from keras_backprop.training.interrupts import heard_meanwhile
from keras_backprop.training.loops import steps
from keras_backprop.training.path import NotCompiledError


class Served:
    """Finds it, and finds it anew when the model's function is another: a callback may make it in the middle of an epoch.

    Args:
        run: the `Run`.
        kind: str, "train" or "test".
        source: a `Memory` or a `Stream`.
        batches: the `Batches` or `StreamBatches` of it.
        refused: function (a `NotCompiledError`, number of steps made in the epoch) called where there is no loop. What it
            raises is raised.
    """

    def __init__(self, run, kind, source, batches, refused):
        self.run, self.kind, self.source, self.batches, self.refused = run, kind, source, batches, refused
        self._function: Any = None
        self._serves: Any = None

    def __call__(self, step):
        """Returns a `CompiledSteps` or an `UncompiledSteps`, for an epoch in which `step` steps have been made."""
        model, name = self.run.model, f"{self.kind}_function"
        if self._serves is None or self._function is not getattr(model, name):
            try:
                self._serves = self.run.take(self._compiled)
            except NotCompiledError as reason:
                self.refused(reason, step)
                self._serves = UncompiledSteps(getattr(model, name))
            self._function = getattr(model, name)
        return self._serves

    def without_batch(self, step):
        """Do what Keras's loop does where a step begins and finds no batch, after `step` steps of an epoch."""
        if not self(step).without_batch() and self.source.error is None:  # else there may be more, after the error
            with contextlib.suppress(StopIteration, tf.errors.OutOfRangeError):
                getattr(self.run.model, f"{self.kind}_function")(self.source.iterator(step, 1))

    def _compiled(self, jit_compile):
        model, source, batches = self.run.model, self.source, self.batches
        traced = steps.train_step if self.kind == "train" else steps.test_step
        step = traced(model, source.batch)
        if self.kind == "test":
            require_no_stream(step, jit_compile)
        loop = model._loops.steps(batches, step, jit_compile)
        if jit_compile and batches.for_xla and not getattr(batches, "single", False):  # XLA compiles in the first call
            heard_meanwhile(loop, source.tensors, source.order, 0, 0)
        return loop


def require_no_stream(test_step, jit_compile):
    """See that a step of validation has no random operations with a stream of their own: `evaluate` goes on with it.

    Raises:
        NotCompiledError: it has.
    """
    if not jit_compile and _tensorflow.draws_by_itself(test_step.graph):
        raise NotCompiledError("it draws random numbers of a stream that `evaluate` goes on with")


class UncompiledSteps:
    """Calls Keras's own function, one execution at a time, in the place of a `CompiledSteps`.

    One execution is never undone, and none is left out of it: so nobody asks it for variables, or for a step without a batch.

    Args:
        function: the `train_function` or `test_function` of a model.
    """

    most = 1
    repeatable = False

    def __init__(self, function):
        self._function = function

    def taken(self, source, first, count):
        """What to call it with, and how many steps that will be."""
        return source.iterator(first, count), count

    def without_batch(self):
        """Which parts of the function need no batch only the function knows."""
        return False

    def __call__(self, iterator, order, first, last, finite=()):
        """Make the steps of an execution. Returns their number, and a list of the logs as the function returns them.

        Raises:
            StopIteration, tf.errors.OutOfRangeError: there is no more batch. Keras's iterator of epochs knows what that means.
        """
        return last - first, [self._function(iterator)]
