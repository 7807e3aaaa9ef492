"""One call of `fit`: Keras's loop over the epochs, with the steps in compiled calls."""

import contextlib
from typing import Any

import keras
import tensorflow as tf

from keras_backprop import _keras, _tensorflow
from keras_backprop.rule import MissingRuleError
from keras_backprop.training import callbacks as needs
from keras_backprop.training import xla
from keras_backprop.training.guarded import guard_of
from keras_backprop.training.handing_over import handed_over
from keras_backprop.training.inputs.data import Data
from keras_backprop.training.inputs.examples import Examples
from keras_backprop.training.interrupts import let_through, none_mistaken
from keras_backprop.training.loops import steps
from keras_backprop.training.loops.epochs import CAPACITY
from keras_backprop.training.loops.passes import Memory, Pass
from keras_backprop.training.loops.served import Served
from keras_backprop.training.loops.validation import Validation
from keras_backprop.training.loops.whole_epochs import WholeEpochs
from keras_backprop.training.path import FitPath, NotCompiledError
from keras_backprop.training.plans import plan_of
from keras_backprop.training.snapshot import LARGEST, size
from keras_backprop.training.stock import own_parts, require_traced_steps


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
        for name in ("epochs", "initial_epoch", "batch_size", "validation_batch_size"):
            if arguments[name] is not None and not hasattr(arguments[name], "__index__"):
                raise NotCompiledError(f"`{name}` is no integer")  # Keras's loop says what it thinks of it, and when
        if self.epochs <= self.initial_epoch:
            raise NotCompiledError("there is no epoch to run")
        if not model.compiled:
            raise NotCompiledError("the model is not compiled")
        require_traced_steps(model)
        self.shuffle, self.seed = bool(arguments["shuffle"]), None
        self.data = Data(model, self.arguments)
        self.callbacks: Any = None
        self.listeners: Any = None
        self.reason, self.jit_compile, self.validates_apart = "", False, False
        self.validation: Any = None
        self.train_function: Any = None
        self.run_epochs: Any = None  # function (first epoch) -> the next one and the logs, once it is chosen
        self.by_steps: Any = None  # the `Pass` over the data, if epochs run step by step

    def __call__(self):
        """Train. Returns the `History`."""
        model = self.model
        if not isinstance(self.data.train, Examples):
            self.data.train.reset()
        callbacks = self._callback_list()
        model.stop_training = False
        try:
            require_traced_steps(model)  # callbacks may have changed the model in `set_model`
        except NotCompiledError as reason:
            return self._in_keras_loop(reason)
        model.make_train_function()
        callbacks.on_train_begin()
        epoch, logs = _keras.first_epoch(model) or self.initial_epoch, None
        while epoch < self.epochs:
            let_through()
            if self.run_epochs is not None and self.listeners.outdated():
                self.run_epochs = None
            begun = getattr(self.run_epochs, "begins_apart", True)  # else the loop resets the metrics
            if begun:
                model.reset_metrics()
            callbacks.on_epoch_begin(epoch)
            try:
                another = model.train_function is not self.train_function
                if self.run_epochs is None or another or self.listeners.outdated():
                    self._choose()
                epoch, logs = self.run_epochs(epoch)
            except NotCompiledError as reason:
                heard = self.run_epochs == self._one_epoch and self.listeners.any
                with handed_over(self, epoch, begun, heard):
                    return self._in_keras_loop(reason)
            if model.stop_training:
                break
        if isinstance(model.optimizer, keras.optimizers.Optimizer) and self.epochs > 0:
            model.optimizer.finalize_variable_values(model.trainable_weights)
        _keras.forget_validation(model)
        callbacks.on_train_end(logs=logs)
        return model.history

    def _callback_list(self):
        callbacks, verbose = self.arguments["callbacks"], self.arguments["verbose"]
        if not isinstance(callbacks, keras.callbacks.CallbackList):
            callbacks = keras.callbacks.CallbackList(
                callbacks, add_history=True, add_progbar=verbose != 0, verbose=verbose, epochs=self.epochs,
                steps=self.data.train.steps, model=self.model,
            )  # fmt: skip
        self.callbacks = callbacks
        return callbacks

    def _choose(self):
        """Decide what runs the epochs: once the callbacks have spoken, and when one has compiled the model anew.

        Raises:
            NotCompiledError: before the epoch has begun.
        """
        model, in_memory, self.run_epochs = self.model, isinstance(self.data.train, Examples), None
        require_traced_steps(model)
        model.make_train_function()
        self.train_function = model.train_function
        self.listeners = needs.Listeners(self.callbacks, "train")
        self.reason, own = self.data.why, own_parts(model)
        if guard_of(model) is not None and (own or self.listeners.any or not in_memory):
            raise NotCompiledError(
                "an observer looks at every step, and more than whole epochs of data in memory is asked for"
            )
        self.jit_compile = self._uses_xla(in_memory and not own and not self.listeners.any)
        self.validation = Validation(self) if self.data.validates else None
        if in_memory and not own and not self.listeners.any:
            if not self._draws_by_itself():
                self.run_epochs = WholeEpochs(self, self._limit())
                return
            self.reason += ", and its steps draw random numbers of a stream that any later `fit` goes on with"
        if own:
            self.reason += f", the model has {', '.join(f'`{name}`' for name in own)} of its own"
        if self.listeners.acting:
            self.reason += f", and {', '.join(self.listeners.acting)} may act after batches"
        model.fit_path = FitPath(True, self.reason, 1, self.jit_compile, steps=True)
        self.run_epochs, self.by_steps = self._one_epoch, self._pass()

    def _draws_by_itself(self):
        """Whether the step has random operations that keep their place in a stream to themselves, such as `tf.random.uniform`.

        Every loop has its own copies of them. So all that such a model is trained with, with validation or without, takes one
        loop, that of single steps: else another `fit` would begin the stream anew, where stock Keras goes on with it.
        """
        if self.jit_compile or guard_of(self.model) is not None or self.model.epochs_per_execution != "auto":
            return False
        self.draw_seed()  # before the step is traced, as everywhere
        step = self.take(lambda jit_compile: steps.train_step(self.model, self.data.train.batch))
        return _tensorflow.draws_by_itself(step.graph)

    def _limit(self):
        """How many epochs may share a call, if the loop is that of whole epochs."""
        model = self.model
        limit, acting = CAPACITY, needs.acting_on_epochs(self.callbacks)
        if model.epochs_per_execution != "auto":
            limit = min(CAPACITY, model.epochs_per_execution)
            self.reason += f", epochs_per_execution={model.epochs_per_execution}"
        elif acting:
            limit = 1
            self.reason += f", and {', '.join(acting)} may act after every epoch"
        if limit > 1 and not getattr(plan_of(model), "repeatable", True):  # what nobody is told of is run again
            limit = 1
            self.reason += ", and random numbers come from a generator that was given"
        self.validates_apart = self.data.validates and (
            self.data.validation is None or needs.act_on_validation(self.callbacks)
        )
        if self.validates_apart and limit > 1:
            limit = 1
            self.reason += ", and validation is apart"
        if limit > 1 and model.epochs_per_execution == "auto" and size(model) > LARGEST:
            limit = 1
            self.reason += ", and a copy of the model, to undo epochs that nobody is told of, would be large"
        return limit

    def _uses_xla(self, whole_epochs):
        model = self.model
        if model.jit_compile or not model._jit_compile_auto or not whole_epochs or plan_of(model) is not None:
            return bool(model.jit_compile)
        return model.built and xla.pays(
            model, self.data.train.batch_size, (self.epochs - self.initial_epoch) * self.data.train.steps
        )

    @none_mistaken()
    def take(self, make):
        """A compiled loop, made by a function `make(jit_compile)`.

        It is here that the model's steps are traced, if they have not been: as in Keras's loop, after the callbacks have heard
        of the beginning of training, of the epoch, and of the batch.

        Raises:
            NotCompiledError: there is none.
        """
        try:
            try:
                with _keras.name_scopes_kept():
                    return make(self.jit_compile)
            except tf.errors.OpError as error:
                if not self.jit_compile:
                    raise
                if self.model.jit_compile:
                    raise NotCompiledError(f"XLA cannot compile it as a loop: {error.message}") from error
                self.jit_compile = False  # XLA was our idea: it must not be a reason to fail
                return make(False)
        except (MissingRuleError, NotCompiledError):
            raise
        except Exception as error:
            raise NotCompiledError(f"it cannot be traced as a loop: {type(error).__name__}: {error}") from error

    def draw_seed(self):
        """Two integers from TensorFlow's global generator, once, as Keras's shuffling draws from it."""
        if self.seed is None:
            drawn = self.shuffle and isinstance(self.data.train, Examples)
            self.seed = tf.random.uniform([2], 0, 2**31 - 1, tf.int32).numpy().tolist() if drawn else [0, 0]
        return self.seed

    def validates(self, epoch):
        """Whether this epoch ends with validation."""
        return self.data.validates and _keras.validates(self.model, epoch, self.arguments["validation_freq"])

    def show_progress(self, steps, logs):
        """Move the progress bar. It shows names in the order in which it first hears them: that of Keras's logs."""
        logs = _keras.pythonify_logs(logs)
        for callback in self.callbacks.callbacks:
            if isinstance(callback, keras.callbacks.ProgbarLogger):
                callback.on_train_batch_end(steps - 1, logs)

    def _pass(self):
        model, train = self.model, self.data.train
        if isinstance(train, Examples):
            batches = train.batches(self.shuffle, self.jit_compile)
            source = Memory(train, batches, self.draw_seed, getattr(plan_of(model), "repeatable", True))
        else:
            source, batches = train, train.batches()

        def refused(reason, step):
            if not step:
                raise reason
            # Keras's function makes the other steps of this epoch, and its loop the next one.

        served = Served(self, "train", source, batches, refused)
        made = 0 if self.by_steps is None else self.by_steps.made
        return Pass(model, source, served, self.listeners, "stop_training", self.show_progress, made)

    def _one_epoch(self, epoch):
        """Run an epoch step by step. Returns the number of the next one, and the logs."""
        model = self.model
        self.by_steps(epoch)
        logs = dict(_keras.logs_of(model, self.by_steps.logs))
        if self.validates(epoch):
            logs.update({f"val_{name}": value for name, value in self.validation().items()})
        self.callbacks.on_epoch_end(epoch, logs)
        return epoch + 1, logs

    def _in_keras_loop(self, reason):
        self.model.fit_path = FitPath(False, str(reason))
        with contextlib.ExitStack() as stack:
            if not isinstance(self.data.train, Examples):
                stack.enter_context(_keras.epochs_given(self.data.train.epochs))
                stack.enter_context(self.data.train.goes_on())
            return self.model._fit_batch_by_batch(**self.arguments | {"callbacks": self.callbacks})
