"""One call of `fit`: Keras's loop over the epochs, with whole epochs in compiled calls."""

import time
from typing import Any

import keras
import tensorflow as tf

from keras_backprop import _keras
from keras_backprop.rule import MissingRuleError
from keras_backprop.training import callbacks as needs
from keras_backprop.training import xla
from keras_backprop.training.drawn import DrawnExamples, plan_of
from keras_backprop.training.epochs import CAPACITY
from keras_backprop.training.examples import Examples, NotInMemoryError
from keras_backprop.training.guarded import guard_of, guarded
from keras_backprop.training.pace import GROWTH, Pace
from keras_backprop.training.path import FitPath, NotCompiledError
from keras_backprop.training.snapshot import LARGEST, Snapshot, size
from keras_backprop.training.stock import require_stock_behaviour


class Run:
    """One call of `fit`.

    Args:
        model: a Keras model with `CompiledFit` mixed in.
        arguments: dict, all arguments of `keras.Model.fit`.

    Raises:
        NotCompiledError: before anything has happened.
    """

    def __init__(self, model, arguments):
        self.model, self.arguments = model, dict(arguments)
        self.epochs, self.initial_epoch = arguments["epochs"], arguments["initial_epoch"]
        self._require_passes_over_the_data()
        if not model.compiled:
            raise NotCompiledError("the model is not compiled")
        require_stock_behaviour(model)
        self.train, self.validation = self._examples(**arguments)
        self._look_at(arguments["callbacks"])
        self.shuffle, self.seed, self.pace = bool(arguments["shuffle"]), None, Pace()
        self.before: Any = None
        self.train_function: Any = None
        self.served: Any = None
        self.point: Any = None  # of `guarded.py`

    def _require_passes_over_the_data(self):
        given = self.arguments
        validates = given["validation_data"] is not None or bool(given["validation_split"])
        if given["steps_per_epoch"] is not None or (validates and given["validation_steps"] is not None):
            raise NotCompiledError("the number of steps is given, so an epoch is not one pass over the data")
        if self.epochs <= self.initial_epoch:
            raise NotCompiledError("there is no epoch to run")
        if given["shuffle"] == "batch":
            raise NotCompiledError('shuffle="batch"')

    def _examples(
        self, x, y, batch_size, validation_split, validation_data, class_weight, sample_weight, validation_batch_size,
        validation_freq, **_,
    ):  # fmt: skip
        """The training and the validation examples."""
        try:
            if validation_split and validation_data is None:
                (x, y, sample_weight), validation_data = _keras.train_validation_split(
                    (x, y, sample_weight), validation_split=validation_split
                )
            plan, validation = plan_of(self.model), None
            if plan is None:
                positions = bool(self.model._recorders)
                train = Examples(x, y, sample_weight, batch_size, class_weight, positions=positions)
            else:
                train = DrawnExamples(
                    self.model, plan, x, y, sample_weight, class_weight, positions=bool(self.model._recorders)
                )
            if validation_data is not None:
                x, y, sample_weight = _keras.unpack_x_y_sample_weight(validation_data)
                validation = Examples(x, y, sample_weight, validation_batch_size or batch_size, beside=train)
                self.model._should_eval(0, validation_freq)
        except NotInMemoryError as reason:
            raise NotCompiledError(str(reason)) from None
        except Exception as error:  # whatever is wrong with the data: Keras's own loop says so
            raise NotCompiledError(f"Keras refuses the data: {error}") from error
        return train, validation

    def _look_at(self, callbacks):
        """What the callbacks allow."""
        flat = keras.tree.flatten(getattr(callbacks, "callbacks", callbacks))
        flat = [callback for callback in flat if callback is not None]
        for callback in flat:
            if needs.acts_on_batches(callback, self.validation is not None):
                raise NotCompiledError(f"the callback {type(callback).__name__} acts on batches")
        self.validates_apart = self.validation is not None and any(map(needs.acts_on_validation, flat))
        self.acting = [type(callback).__name__ for callback in flat if needs.acts_on_epochs(callback)]
        self.bounds = needs.bounds(flat)

    def __call__(self):
        """Train. Returns the `History`."""
        model, callbacks = self.model, self._callback_list()
        model.stop_training = False
        try:
            self._take_train_function()
        except NotCompiledError as reason:  # the callbacks have changed the model in `set_model`
            return self._in_keras_loop(reason, callbacks=callbacks)
        callbacks.on_train_begin()
        epoch = model._initial_epoch or self.initial_epoch
        while epoch < self.epochs:
            callbacks.on_epoch_begin(epoch)
            try:
                self._take_loop(epoch)
            except NotCompiledError as reason:
                return self._go_on_in_keras_loop(reason, epoch)
            epoch, logs = self._run_and_tell(epoch)
            if model.stop_training:
                break
        if isinstance(model.optimizer, keras.optimizers.Optimizer) and self.epochs > 0:
            model.optimizer.finalize_variable_values(model.trainable_weights)
        callbacks.on_train_end(logs=logs)
        return model.history

    def _run_and_tell(self, first):
        """Run one epoch or several, and tell the callbacks of each. Returns the number of the next epoch, and the last logs.

        What nobody has been told of is given back: when a callback raises or ends the training, and when Ctrl-C comes.
        """
        told, self.before = first, None
        try:
            results = self._some_epochs(first)
            ending = self.model.stop_training  # said by a thread or a signal: in which epoch, nobody knows
            for epoch, logs in enumerate(results, first):
                if epoch > first:
                    self.callbacks.on_epoch_begin(epoch)
                told = epoch + 1
                if self._validates(epoch) and not self.validated_inside:
                    logs.update({f"val_{name}": value for name, value in self._validate().items()})
                self.callbacks.on_epoch_end(epoch, logs)
                if self.model.stop_training and not ending:
                    break
        except BaseException:
            self._give_back(told)
            raise
        self._give_back(told)
        return told, logs

    def _give_back(self, told):
        """Undo the epochs of the last call after those that the callbacks have been told of."""
        if self.before is None or told == self.run_to:
            return
        self.before.restore()
        if told > self.run_from:
            self._call((self.run_from, told), (0, self.train.steps))

    def _callback_list(self):
        callbacks, verbose = self.arguments["callbacks"], self.arguments["verbose"]
        if not isinstance(callbacks, keras.callbacks.CallbackList):
            callbacks = keras.callbacks.CallbackList(
                callbacks, add_history=True, add_progbar=verbose != 0, verbose=verbose, epochs=self.epochs,
                steps=self.train.steps, model=self.model,
            )  # fmt: skip
        self.callbacks = callbacks
        return callbacks

    def _take_train_function(self):
        """Have Keras make the function that would train, and look at the model as it is then."""
        model = self.model
        require_stock_behaviour(model)
        model.make_train_function()
        self.train_function, self.served = model.train_function, None
        self.limit, self.reason = CAPACITY, "the data lie in memory"
        if model.epochs_per_execution != "auto":
            self.limit = min(CAPACITY, model.epochs_per_execution)
            self.reason += f", epochs_per_execution={model.epochs_per_execution}"
        elif self.acting:
            self.limit = 1
            self.reason += f", and {', '.join(self.acting)} may act after every epoch"
        if self.limit > 1 and not getattr(
            plan_of(model), "repeatable", True
        ):  # an epoch that nobody is told of is run again
            self.limit = 1
            self.reason += ", and random numbers come from a generator that was given"
        if self.validates_apart and self.limit > 1:
            self.limit = 1
            self.reason += ", and a callback acts around validation"

    def _take_loop(self, epoch):
        """Find or make the loop that runs this epoch.

        It is here that the model's steps are traced, if they have not been: as in Keras's loop, after the callbacks have heard
        of the beginning of training and of the epoch.

        Raises:
            NotCompiledError: before the epoch has begun.
        """
        model = self.model
        if model.train_function is not self.train_function:  # a callback has compiled the model anew
            self._take_train_function()
        # Keras traces the test step at the end of the first epoch that validates. What could have changed by then?
        inside = self.validation is not None and not self.validates_apart
        inside = inside and (self.limit > 1 or self._validates(epoch))
        served = model.train_function, model.test_function if inside else None
        if served == self.served:
            return
        examples = self.train, self.validation if inside else None
        self.jit_compile = self._uses_xla()
        try:
            try:
                self.loop = model._loops.epochs(*examples, self.shuffle, self.jit_compile)
            except tf.errors.OpError as error:
                if not self.jit_compile:
                    raise
                if model.jit_compile:
                    raise NotCompiledError(f"XLA cannot compile it as a loop: {error.message}") from error
                self.jit_compile = False  # XLA was our idea: it must not be a reason to fail
                self.loop = model._loops.epochs(*examples, self.shuffle, self.jit_compile)
        except (MissingRuleError, NotCompiledError):
            raise
        except Exception as error:
            raise NotCompiledError(f"it cannot be traced as a loop: {type(error).__name__}: {error}") from error
        if self.seed is None:  # two integers from TensorFlow's global generator, as Keras's shuffling draws from it
            self.seed = tf.random.uniform([2], 0, 2**31 - 1, tf.int32).numpy().tolist() if self.shuffle else [0, 0]
        self.served = model.train_function, model.test_function if inside else None
        if self.limit > 1 and model.epochs_per_execution == "auto" and size(model) > LARGEST:
            self.limit = 1
            self.reason += ", and a copy of the model, to undo epochs that nobody is told of, would be large"
        model.fit_path = FitPath(True, self.reason, self.limit, self.jit_compile)

    def _uses_xla(self):
        model, steps = self.model, (self.epochs - self.initial_epoch) * self.train.steps
        if model.jit_compile or not model._jit_compile_auto or plan_of(model) is not None:
            return bool(model.jit_compile)
        return xla.pays(model, self.train.batch_size, steps)

    def _some_epochs(self, epoch):
        """Run one epoch or several in a row. Returns the logs of each."""
        steps, ending = self.train.steps, self.model.stop_training
        if self.train.steps_left < steps:
            self.train.require_budget()
        if ending:  # Keras, too, looks after the first execution
            steps = min(self.model.steps_per_execution, steps)
        work = steps + (self.validation.steps if self.validation is not None else 0)
        if work <= self.pace.steps and steps <= self.train.steps_left:
            count = min(self.limit, self.pace.steps // work, self.epochs - epoch)
            count = max(1, min(count, self.train.steps_left // steps))
            if count == 1:
                return self._call((epoch, epoch + 1), (0, steps))
            self.run_from, self.run_to = epoch, epoch + count
            self.before = Snapshot(self.model)
            logs = self._call((epoch, epoch + count), (0, steps))
            self.run_to = epoch + len(logs)
            return logs
        first = 0
        while True:
            last = min(first + self.pace.steps, steps, first + self.train.steps_left)
            if last == first:
                self.train.require_budget()
            logs = self._call((epoch, epoch + 1), (first, last), finished=last == steps)
            if last == steps or (self.model.stop_training and not ending):  # a thread or a signal has said so
                return logs
            self._show_progress(last, logs[0])
            first = last

    def _call(self, epochs, steps, finished=True):
        guard = guard_of(self.model)
        return self.call(epochs, steps, finished) if guard is None else guarded(self, guard, epochs, steps, finished)

    def call(self, epochs, steps, finished=True):
        """Run epochs, or some steps of one, in one compiled call. Returns the logs of each epoch."""
        self.validated_inside = finished and self._validates_inside()
        validated = [self.validated_inside and self._validates(epoch) for epoch in range(*epochs)]
        start = time.perf_counter()
        logs = self.loop(self.train, self.validation, self.seed, epochs, steps, validated, self.bounds)
        work = len(logs) * (steps[1] - steps[0])
        if any(validated):
            work += sum(validated[: len(logs)]) * self.validation.steps
        self.pace.took(work, time.perf_counter() - start)
        return logs

    def _validates(self, epoch):
        return self.validation is not None and self.model._should_eval(epoch, self.arguments["validation_freq"])

    def _validates_inside(self):
        """Whether validation is part of the compiled epoch: nobody wants to act around it, and it is short."""
        return self.loop.validates and self.validation.steps <= GROWTH * self.pace.steps

    def _validate(self):
        """Validation in calls of its own."""
        self.callbacks.on_test_begin()
        loop = self.model._loops.validation(self.validation, self.jit_compile)
        first, pace = 0, Pace()
        while first < self.validation.steps:
            last = min(first + pace.steps, self.validation.steps)
            start = time.perf_counter()
            logs = loop(self.validation, first, last)
            pace.took(last - first, time.perf_counter() - start)
            first = last
        self.callbacks.on_test_end(logs)
        return logs

    def _show_progress(self, steps, logs):
        for callback in self.callbacks.callbacks:
            if isinstance(callback, keras.callbacks.ProgbarLogger):
                callback.on_train_batch_end(steps - 1, logs)

    def _in_keras_loop(self, reason, **changed):
        self.model.fit_path = FitPath(False, str(reason))
        return self.model._fit_batch_by_batch(**{**self.arguments, **changed})

    def _go_on_in_keras_loop(self, reason, epoch):
        """Keras's loop from here on, to callbacks that have heard of the beginning of training and of this epoch."""
        model, callbacks = self.model, self.callbacks
        stop, first_epoch, begin_epoch = model.stop_training, model._initial_epoch, callbacks.on_epoch_begin

        def on_train_begin(logs=None):
            model.stop_training = stop  # Keras has set it to False
            model._initial_epoch = epoch

        def on_epoch_begin(number, logs=None):
            model._initial_epoch = first_epoch
            if number != epoch:
                begin_epoch(number, logs)

        with _keras.replaced(callbacks, on_train_begin=on_train_begin, on_epoch_begin=on_epoch_begin):
            return self._in_keras_loop(reason, callbacks=callbacks)
