"""`fit` that runs whole epochs in one compiled call where it can, and is Keras's own where it cannot."""

import functools
import inspect
import pathlib
import time
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from keras_backprop import _keras
from keras_backprop.rule import MissingRuleError
from keras_backprop.training import callbacks as needs
from keras_backprop.training import xla
from keras_backprop.training.epochs import CAPACITY, CompiledEpochs
from keras_backprop.training.examples import Examples, NotInMemoryError
from keras_backprop.training.pace import GROWTH, Pace
from keras_backprop.training.update import unwrapped

LOOPS = 8
"""So many compiled loops, for data of different sizes, are kept for the next `fit`."""

# What the compiled loop takes the place of, or relies on. A model that redefines one of them gets the loop in Python.
_STEPS = ("train_step", "test_step", "make_train_function", "make_test_function")
_KERAS = (
    "metrics",
    "compute_metrics",
    "get_metrics_result",
    "reset_metrics",
    "evaluate",
    "_get_metrics_result_or_logs",
)


@dataclass(frozen=True)
class FitPath:
    """Which way `fit` took, and why: `model.fit_path` after `fit`.

    Attributes:
        compiled: bool, whole epochs ran in compiled calls; else Keras's own loop ran, batch by batch.
        reason: str.
        epochs_per_execution: int, the largest number of epochs that may share a call; 0 for Keras's loop.
        jit_compile: bool, the calls were compiled with XLA.
    """

    compiled: bool
    reason: str
    epochs_per_execution: int = 0
    jit_compile: bool = False

    def __str__(self):
        if not self.compiled:
            return f"batch by batch, in Keras's own loop: {self.reason}"
        xla = ", with XLA" if self.jit_compile else ""
        return f"whole epochs compiled, up to {self.epochs_per_execution} in one call{xla}: {self.reason}"


class CompiledFit:
    """A mixin for a Keras model: `fit` with data in memory runs epochs in compiled calls."""

    # Of the Keras model that this is mixed into.
    run_eagerly: Any
    jit_compile: Any
    optimizer: Any
    built: Any
    trainable_variables: Any
    _distribute_strategy: Any

    epochs_per_execution: Any = "auto"
    fit_path: Any = None
    _jit_compile_auto = False
    _compiled_epochs: Any = None

    def compile(self, *args, epochs_per_execution="auto", **kwargs):
        """As `keras.Model.compile`, and one argument more.

        Args:
            epochs_per_execution: "auto", an int ≥ 1 or None. How many epochs of `fit` at most share one compiled call, if the
                data lie in memory; a call takes about 0.2 s. "auto" decides by the callbacks: each sees the model as it is at
                the end of its own epoch. With a number, callbacks are called after a call, for each of its epochs in
                order, and see the model as it is after the last. None: Keras's own loop, batch by batch.

        Raises:
            ValueError: another `epochs_per_execution`.
        """
        is_count = isinstance(epochs_per_execution, int) and not isinstance(epochs_per_execution, bool)
        if epochs_per_execution not in ("auto", None) and not (is_count and epochs_per_execution >= 1):
            raise ValueError(
                f'`epochs_per_execution` must be "auto", a whole number of epochs, or None. Received: {epochs_per_execution!r}'
            )
        super().compile(*args, **kwargs)  # type: ignore[misc]
        self.epochs_per_execution = epochs_per_execution
        bound = inspect.signature(keras.Model.compile).bind(self, *args, **kwargs)
        self._jit_compile_auto = bound.arguments.get("jit_compile", "auto") == "auto"
        self._compiled_epochs = None

    def get_compile_config(self):
        config = super().get_compile_config()  # type: ignore[misc]
        if config and self.epochs_per_execution != "auto":
            config["epochs_per_execution"] = self.epochs_per_execution
        return config

    def compile_from_config(self, config):
        if not type(self).compile.__module__.startswith("keras_backprop."):
            super().compile_from_config(config)  # type: ignore[misc]  # Keras says what to do about it
            return
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.optimizer is not None and self.built:
            self.optimizer.build(self.trainable_variables)

    @functools.wraps(keras.Model.fit)
    def fit(self, *args, **kwargs):
        bound = inspect.signature(keras.Model.fit).bind(self, *args, **kwargs)
        bound.apply_defaults()
        arguments = dict(bound.arguments)
        del arguments["self"]
        self.fit_path = None
        try:
            run = _Run(self, **arguments)
        except _NotCompiledError as reason:
            self.fit_path = FitPath(False, str(reason))
            return super().fit(**arguments)  # type: ignore[misc]
        self.fit_path = run.path
        return run()


class _Loops:
    """The compiled loops of a model, by the sizes of the data. An object, lest TensorFlow save them with the model."""

    def __init__(self, train_function):
        self.train_function, self.by_sizes = train_function, {}


class _NotCompiledError(Exception):
    """The compiled loop does not serve this `fit`. The message says why."""


class _Run:
    """One call of `fit`.

    Raises:
        _NotCompiledError: before anything has happened.
    """

    def __init__(
        self, model, x, y, batch_size, epochs, verbose, callbacks, validation_split, validation_data, shuffle, class_weight,
        sample_weight, initial_epoch, steps_per_epoch, validation_steps, validation_batch_size, validation_freq,
    ):  # fmt: skip
        if not model.compiled:
            raise _NotCompiledError("the model is not compiled")
        _require_stock_behaviour(model)
        validates = validation_data is not None or bool(validation_split)
        if steps_per_epoch is not None or (validates and validation_steps is not None):
            raise _NotCompiledError("the number of steps is given, so an epoch is not one pass over the data")
        if epochs <= initial_epoch:
            raise _NotCompiledError("there is no epoch to run")
        if shuffle == "batch":
            raise _NotCompiledError('shuffle="batch"')
        self.model, self.epochs, self.initial_epoch = model, epochs, initial_epoch
        self.verbose, self.validation_freq = verbose, validation_freq
        try:
            if validation_split and validation_data is None:
                (x, y, sample_weight), validation_data = _keras.train_validation_split(
                    (x, y, sample_weight), validation_split=validation_split
                )
            self.train = Examples(x, y, sample_weight, batch_size, class_weight)
            self.validation: Any = None
            if validation_data is not None:
                x, y, sample_weight = _keras.unpack_x_y_sample_weight(validation_data)
                self.validation = Examples(x, y, sample_weight, validation_batch_size or batch_size, beside=self.train)
                model._should_eval(0, validation_freq)
        except NotInMemoryError as reason:
            raise _NotCompiledError(str(reason)) from None
        except Exception as error:  # whatever is wrong with the data: Keras's own loop says so
            raise _NotCompiledError(f"Keras refuses the data: {error}") from error
        self._look_at(callbacks)
        self.shuffle, self.seed = bool(shuffle), [0, 0]
        self.loop = self._loop()
        if self.shuffle:  # two integers from TensorFlow's global generator, as Keras's shuffling draws from it
            self.seed = tf.random.uniform([2], 0, 2**31 - 1, tf.int32).numpy().tolist()

    def _look_at(self, callbacks):
        """What the callbacks allow."""
        self.given = callbacks
        flat = (
            callbacks.callbacks
            if isinstance(callbacks, keras.callbacks.CallbackList)
            else keras.tree.flatten(callbacks)
        )
        flat = [callback for callback in flat if callback is not None]
        for callback in flat:
            if needs.acts_on_batches(callback, self.validation is not None):
                raise _NotCompiledError(f"the callback {type(callback).__name__} acts on batches")
        self.validates_apart = self.validation is not None and any(map(needs.acts_on_validation, flat))
        acting = [type(callback).__name__ for callback in flat if needs.acts_on_epochs(callback)]
        self.limit, reason = CAPACITY, "the data lie in memory"
        if self.model.epochs_per_execution != "auto":
            self.limit = min(CAPACITY, self.model.epochs_per_execution)
            reason += f", epochs_per_execution={self.model.epochs_per_execution}"
        elif acting:
            self.limit, reason = 1, f"{reason}, and {', '.join(acting)} may act after every epoch"
        if self.validates_apart and self.limit > 1:
            self.limit, reason = 1, f"{reason}, and a callback acts around validation"
        self.bounds, self.reason = needs.bounds(flat), reason

    def _loop(self):
        """The compiled loop, traced: a new one, or that of an earlier `fit` of the same shapes."""
        model, train, validation = self.model, self.train, self.validation
        model.make_train_function()  # Keras drops it when the model is compiled anew; ours goes with it
        if model._compiled_epochs is None or model._compiled_epochs.train_function is not model.train_function:
            model._compiled_epochs = _Loops(model.train_function)
        loops = model._compiled_epochs.by_sizes
        sizes = [None if one is None else (one.n, one.batch_size) for one in (train, validation)]
        try:
            model._symbolic_build(data_batch=keras.tree.map_structure(_specification(train.batch_size), train.tensors))
            if not model.trainable_variables:
                raise _NotCompiledError("there is nothing to train")
            jit_compile = self._uses_xla()
            key = (*sizes, self.shuffle, jit_compile)
            loop = loops.pop(key, None) or CompiledEpochs(model, train, validation, self.shuffle, jit_compile)
            nothing = (train, validation, self.seed, (0, 0), (0, 0), [], {})
            loop.trace(*nothing)
            if loop.jit_compile:
                try:
                    loop(*nothing)
                except tf.errors.OpError as error:
                    if model.jit_compile:
                        raise _NotCompiledError(f"XLA cannot compile it as a loop: {error.message}") from error
                    # XLA was our idea: it must not be a reason to fail.
                    loop = CompiledEpochs(model, train, validation, self.shuffle, jit_compile=False)
                    loop.trace(*nothing)
        except (MissingRuleError, _NotCompiledError):
            raise
        except Exception as error:
            raise _NotCompiledError(f"it cannot be traced as a loop: {type(error).__name__}: {error}") from error
        if len(loops) == LOOPS:
            loops.pop(next(iter(loops)))  # the one that was used the longest ago
        loops[key] = loop
        self.path = FitPath(True, self.reason, self.limit, loop.jit_compile)
        return loop

    def _uses_xla(self):
        model, steps = self.model, (self.epochs - self.initial_epoch) * self.train.steps
        if model.jit_compile or not model._jit_compile_auto:
            return bool(model.jit_compile)
        return xla.pays(model, self.train.batch_size, steps)

    def __call__(self):
        model, callbacks = self.model, self.given
        if not isinstance(callbacks, keras.callbacks.CallbackList):
            callbacks = keras.callbacks.CallbackList(
                callbacks, add_history=True, add_progbar=self.verbose != 0, verbose=self.verbose, epochs=self.epochs,
                steps=self.train.steps, model=model,
            )  # fmt: skip
        self.callbacks, self.pace, logs = callbacks, Pace(), None
        model.stop_training = False
        callbacks.on_train_begin()
        epoch = model._initial_epoch or self.initial_epoch
        while epoch < self.epochs:
            callbacks.on_epoch_begin(epoch)
            for number, logs in enumerate(self._some_epochs(epoch)):
                if number:
                    callbacks.on_epoch_begin(epoch)
                if self._validates(epoch) and not self.validated_inside:
                    logs.update({f"val_{name}": value for name, value in self._validate().items()})
                callbacks.on_epoch_end(epoch, logs)
                epoch += 1
                if model.stop_training:
                    break
            if model.stop_training:
                break
        if isinstance(model.optimizer, keras.optimizers.Optimizer) and self.epochs > 0:
            model.optimizer.finalize_variable_values(model.trainable_weights)
        callbacks.on_train_end(logs=logs)
        return model.history

    def _some_epochs(self, epoch):
        """Run one epoch or several in a row. Returns the logs of each."""
        steps = 1 if self.model.stop_training else self.train.steps  # Keras, too, looks after a batch
        work = steps + (self.validation.steps if self.validation is not None else 0)
        if work <= self.pace.steps:
            count = min(self.limit, self.pace.steps // work, self.epochs - epoch)
            return self._call((epoch, epoch + count), (0, steps))
        first = 0
        while True:
            last = min(first + self.pace.steps, steps)
            logs = self._call((epoch, epoch + 1), (first, last), finished=last == steps)
            if last == steps:
                return logs
            self._show_progress(last, logs[0])
            first = last

    def _call(self, epochs, steps, finished=True):
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
        return self.validation is not None and self.model._should_eval(epoch, self.validation_freq)

    def _validates_inside(self):
        """Whether validation is part of the compiled epoch: nobody wants to act around it, and it is short."""
        return (
            self.validation is not None
            and not self.validates_apart
            and self.validation.steps <= GROWTH * self.pace.steps
        )

    def _validate(self):
        """Validation in calls of its own."""
        self.callbacks.on_test_begin()
        first, pace = 0, Pace()
        while first < self.validation.steps:
            last = min(first + pace.steps, self.validation.steps)
            start = time.perf_counter()
            logs = self.loop.validate(self.validation, first, last)
            pace.took(last - first, time.perf_counter() - start)
            first = last
        self.callbacks.on_test_end(logs)
        return logs

    def _show_progress(self, steps, logs):
        for callback in self.callbacks.callbacks:
            if isinstance(callback, keras.callbacks.ProgbarLogger):
                callback.on_train_batch_end(steps - 1, logs)


def _specification(batch_size):
    return lambda x: None if x is None else tf.TensorSpec([batch_size, *x.shape[1:]], x.dtype)


def _require_stock_behaviour(model):
    if model.epochs_per_execution is None:
        raise _NotCompiledError("epochs_per_execution=None")
    if model.run_eagerly or tf.config.functions_run_eagerly():
        raise _NotCompiledError("it runs eagerly")
    if model._distribute_strategy is not None or tf.distribute.has_strategy():
        raise _NotCompiledError("it runs in a distribution strategy")
    for name in _STEPS + _KERAS:
        owner = next(cls for cls in type(model).__mro__ if name in vars(cls))
        if name in vars(model) or not (_is_stock_class(owner) and _is_stock(vars(owner)[name])):
            raise _NotCompiledError(f"the model has a `{name}` of its own")
    if type(unwrapped(model.optimizer)).__name__ == "ScheduleFreeAdamW":
        raise _NotCompiledError(
            "ScheduleFreeAdamW sets its momentum while it is built, which Keras's loop does in its step"
        )
    if keras.config.max_epochs() or keras.config.max_steps_per_epoch():
        raise _NotCompiledError("Keras limits the epochs or steps of every `fit` (`keras.config`)")


def _is_stock_class(cls):
    return cls in _CLASSES or cls.__module__.split(".")[0] == __name__.split(".")[0]


def _is_stock(method):
    """Whether a method or property is Keras's or this package's: not by its name, which a decorator may copy."""
    code = getattr(getattr(method, "fget", method), "__code__", None)
    return code is not None and any(pathlib.Path(code.co_filename).is_relative_to(folder) for folder in _FOLDERS)


_CLASSES = {*keras.Model.__mro__, *keras.Sequential.__mro__, *_keras.Functional.__mro__}
_FOLDERS = pathlib.Path(keras.__file__).parent, pathlib.Path(__file__).parents[1]
