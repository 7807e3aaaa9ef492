"""Whole epochs in compiled calls, several in one where nobody acts between them."""

import time
from typing import Any

import keras
import tensorflow as tf

from keras_backprop.training.callbacks import bounds, own_beginnings
from keras_backprop.training.guarded import Guarded, guard_of
from keras_backprop.training.inputs.batches import Batches
from keras_backprop.training.interrupts import heard_meanwhile
from keras_backprop.training.loops import steps
from keras_backprop.training.loops.pace import GROWTH, Pace
from keras_backprop.training.loops.served import require_no_stream
from keras_backprop.training.path import FitPath, NotCompiledError
from keras_backprop.training.plans import drawing
from keras_backprop.training.snapshot import Snapshot

NONE = -1
"""The number of no epoch."""


class WholeEpochs:
    """Runs the epochs of a `fit` whose data lie in memory.

    Args:
        run: the `Run`.
        limit: int, how many epochs may share a call.

    Attributes:
        begins_apart: bool, whether an epoch begins in Python, where its metrics are to be reset.
    """

    def __init__(self, run, limit):
        self.run, self.limit = run, limit
        self.model, self.train, self.callbacks = run.model, run.data.train, run.callbacks
        self.validation: Any = None if run.validates_apart else run.data.validation
        self.bounds, self.pace = bounds(run.callbacks.callbacks), Pace()
        self.begins_apart, self.begun = own_beginnings(run.callbacks), NONE
        self.before: Any = None
        self.loop: Any = None
        self.served: Any = None
        guard = guard_of(self.model)
        self._guarded = None if guard is None else Guarded(self, guard)

    def __call__(self, first):
        """Run one epoch or several, and tell the callbacks of each. Returns the number of the next epoch, and the last logs.

        What nobody has been told of is given back: when a callback raises or ends the training, and when Ctrl-C comes.

        Raises:
            NotCompiledError: before a step has been made.
        """
        self._take_loop(first)
        told, self.before = first, None
        self.begun = first if self.begins_apart else NONE
        try:
            results = self._some_epochs(first)
            ending = self.model.stop_training  # said by a thread or a signal: in which epoch, nobody knows
            for epoch, logs in enumerate(results, first):
                if epoch > first:
                    self.callbacks.on_epoch_begin(epoch)
                told = epoch + 1
                if self.run.validates(epoch):  # the bar names what it hears first, and that is training
                    self.run.show_progress(self.train.steps, {name: logs[name] for name in self.loop.trained})
                if self.run.validates(epoch) and not self.validated_inside:
                    logs.update({f"val_{name}": value for name, value in self.run.validation().items()})
                self.callbacks.on_epoch_end(epoch, logs)
                if self.model.stop_training and not ending:
                    break
        except BaseException:
            self._give_back(told)
            raise
        self._give_back(told)
        return told, logs

    def _take_loop(self, epoch):
        model, run = self.model, self.run
        # Keras traces the test step at the end of the first epoch that validates. What could have changed by then?
        inside = self.validation is not None and (self.limit > 1 or run.validates(epoch))
        served = model.train_function, model.test_function if inside else None
        if served == self.served:
            return
        seed, traced = run.draw_seed(), False

        def make(jit_compile):
            nonlocal traced
            parts = [(self.train.batches(run.shuffle, jit_compile), steps.train_step(model, self.train.batch)), None]
            traced = True
            if inside:
                validation = Batches(self.validation, for_xla=jit_compile)
                test = steps.test_step(model, self.validation.batch)
                require_no_stream(test, jit_compile)
                parts[1] = validation, test
            loop = model._loops.epochs(*parts, jit_compile)
            if jit_compile:  # which XLA does in the first call
                heard_meanwhile(loop, self.train, self.validation, seed, (0, 0), (0, 0), NONE, [], {})
            self.variables = [v for part in parts if part is not None for v in part[1].graph.variables]
            return loop

        try:
            self.loop = run.take(make)
        except NotCompiledError:
            if not (inside and traced):
                raise
            inside, self.validation, self.limit = False, None, 1
            run.reason += ", and validation is apart"
            self.loop = run.take(make)
        self.served = model.train_function, model.test_function if inside else None
        model.fit_path = FitPath(True, run.reason, self.limit, run.jit_compile)

    def _give_back(self, told):
        """Undo the epochs of the last call after those that the callbacks have been told of."""
        if self.before is None or told == self.run_to:
            return
        with drawing(self.model):
            self.before.restore()
            if told > self.run_from:
                self._call((self.run_from, told), (0, self.train.steps))

    def _some_epochs(self, epoch):
        """Run one epoch or several in a row. Returns the logs of each."""
        run_steps, ending = self.train.steps, self.model.stop_training
        left = self.train.steps_left
        if left < run_steps:
            self.train.require_budget()
        if ending:  # Keras, too, looks after the first execution
            run_steps = min(self.model.steps_per_execution, run_steps)
        work = run_steps + (self.validation.steps if self.validation is not None else 0)
        if work <= self.pace.steps and run_steps <= left:
            count = min(self.limit, self.pace.steps // work, self.run.epochs - epoch)
            count = max(1, min(count, left // run_steps))
            if ending or not self.loop.repeatable:
                count = 1
            if count == 1:
                return self._call((epoch, epoch + 1), (0, run_steps))
            self.run_from, self.run_to = epoch, epoch + count
            self.before = Snapshot(self.model, self.variables)
            logs = self._call((epoch, epoch + count), (0, run_steps))
            self.run_to = epoch + len(logs)
            return logs
        first = 0
        while True:
            last = min(first + self.pace.steps, run_steps, first + self.train.steps_left)
            if last == first:
                self.train.require_budget()
            logs = self._call((epoch, epoch + 1), (first, last), finished=last == run_steps)
            if last == run_steps or (self.model.stop_training and not ending):  # a thread or a signal has said so
                return logs
            self.run.show_progress(last, logs[0])
            first = last

    def _call(self, epochs, which, finished=True):
        with drawing(self.model):
            return (self._guarded or self.call)(epochs, which, finished)

    def call(self, epochs, which, finished=True):
        """Run epochs, or some steps of one, in one compiled call. Returns the logs of each epoch.

        Args:
            epochs, which: (first, last) of the epochs, and of the steps of each, last excluded.
            finished: bool, whether the epoch ends with these steps, so that validation may be due.
        """
        self.validated_inside = finished and self._validates_inside()
        validated = [self.validated_inside and self.run.validates(epoch) for epoch in range(*epochs)]
        start = time.perf_counter()
        logs = self.loop(
            self.train, self.validation, self.run.draw_seed(), epochs, which, self.begun, validated, self.bounds
        )
        work = len(logs) * (which[1] - which[0])
        if any(validated[: len(logs)]):
            self.model.stop_evaluating = False  # as `evaluate` leaves it
            work += sum(validated[: len(logs)]) * self.validation.steps
        self.pace.took(work, time.perf_counter() - start)
        return logs

    def _validates_inside(self):
        """Whether validation is part of the compiled epoch: nobody wants to act around it, and it is short."""
        return self.loop.validates and self.validation.steps <= GROWTH * self.pace.steps

    def take(self, epoch, first, last):
        """Take steps of an epoch again: nobody is told of them, and no pace is learnt from them."""
        if first == last:
            if first == 0 and epoch != self.begun:
                self.model.reset_metrics()
            return
        seed = self.run.draw_seed()
        self.loop(self.train, self.validation, seed, (epoch, epoch + 1), (first, last), self.begun, [False], {})

    def batch(self, epoch, step):
        """A batch of tensors as the loop takes it, and the numbers of its examples in the data, an array."""
        batches, tensors, seed = self.loop.train_batches, self.train.tensors, self.run.draw_seed()

        @tf.function(autograph=False, jit_compile=self.run.jit_compile)
        def order(seeds):  # XLA draws other numbers
            return batches.order(tensors, seeds)

        indices = (
            order(tf.constant([seed[0], seed[1] + epoch], tf.int32)) if batches.shuffle else tf.range(self.train.n)
        )
        indices = indices[step * self.train.batch_size : (step + 1) * self.train.batch_size]
        batch = keras.tree.map_structure(lambda x: None if x is None else tf.gather(x, indices), tensors[:3])
        return batch, keras.ops.convert_to_numpy(indices)
