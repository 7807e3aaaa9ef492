"""`fit` that runs whole epochs in one compiled call where it can, and is Keras's own where it cannot."""

import contextlib
import functools
import inspect
from typing import Any

import keras

from keras_backprop import _keras
from keras_backprop.processes import is_chief
from keras_backprop.training import backup
from keras_backprop.training.interrupts import none_forgotten, raised_where_it_is_heard
from keras_backprop.training.loops.kept import Loops
from keras_backprop.training.path import FitPath, NotCompiledError
from keras_backprop.training.plans import plan_of, require_plans_own
from keras_backprop.training.run import Run
from keras_backprop.training.tensorboard import graphs_of_layers, silent_at_batches


class CompiledFit:
    """A mixin for a Keras model: `fit` with data in memory runs epochs in compiled calls."""

    # Of the Keras model that this is mixed into.
    run_eagerly: Any
    jit_compile: Any
    optimizer: Any
    built: Any
    trainable_variables: Any
    distribute_strategy: Any

    compiled_step: Any = True
    epochs_per_execution: Any = "auto"
    fit_path: Any = None
    _jit_compile_auto = False
    _loops: Any = None

    def compile(self, *args, epochs_per_execution="auto", **kwargs):
        """As `keras.Model.compile`, and `epochs_per_execution`, which the model's `compile` describes.

        Raises:
            ValueError: another `epochs_per_execution`.
        """
        is_count = isinstance(epochs_per_execution, int) and not isinstance(epochs_per_execution, bool)
        if epochs_per_execution not in ("auto", None) and not (is_count and epochs_per_execution >= 1):
            raise ValueError(
                f'`epochs_per_execution` must be "auto", a whole number of epochs, or None. Received: {epochs_per_execution!r}'
            )
        with _keras.choices_of_xla(self) as choices:
            super().compile(*args, **kwargs)  # type: ignore[misc]
        self.epochs_per_execution = epochs_per_execution
        self._jit_compile_auto = bool(choices)
        self._loops = Loops(self)

    def get_compile_config(self):
        config = super().get_compile_config()  # type: ignore[misc]
        if config and self.epochs_per_execution != "auto":
            config["epochs_per_execution"] = self.epochs_per_execution
        return config

    def compile_from_config(self, config):
        another = super().compile.__func__ is not _keras.Trainer.compile  # type: ignore[misc]
        if another or not type(self).compile.__module__.startswith("keras_backprop."):
            super().compile_from_config(config)  # type: ignore[misc]  # Keras says what to do about it
            return
        self.compile(**self._compile_arguments(config))
        if self.optimizer is not None and self.built:
            self.optimizer.build(self.trainable_variables)

    def _compile_arguments(self, config):
        return keras.saving.deserialize_keras_object(config)

    def test_step(self, data):
        """Keras's, or a copy of that of an equal model."""
        outputs = self._outputs_of_equal(data)
        return super().test_step(data) if outputs is None else outputs  # type: ignore[misc]

    def _outputs_of_equal(self, data):
        """What the step that is being traced returns, if that of an equal model has been traced; None else."""
        return None if self._loops is None else self._loops.traces.outputs(data)

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        self.fit_path = FitPath(False, "something that has been put around `keras.Model.fit` has not called it")
        with contextlib.ExitStack() as stack:
            stack.enter_context(raised_where_it_is_heard())
            stack.enter_context(none_forgotten())
            stack.enter_context(_keras.fit_replaced(CompiledFit, _fit))
            stack.enter_context(_keras.logs_that_can_be_interrupted())
            return super().fit(*args, **kwargs)  # type: ignore[misc]


functools.update_wrapper(CompiledFit.fit, _keras.fit)


def _fit(model, *args, **kwargs):
    """What takes the place of Keras's `fit`, inside of all that may have been put around it."""
    model.fit_path = None
    try:
        bound = inspect.signature(_keras.fit).bind(model, *args, **kwargs)
    except TypeError:  # which Keras's own says in its words
        return _keras.fit_batch_by_batch(model, *args, **kwargs)
    bound.apply_defaults()
    arguments = dict(bound.arguments)
    del arguments["self"]
    plan = plan_of(model)
    if plan is not None:
        plan.prepare(model)
        require_plans_own(plan, arguments)
    fitting = contextlib.nullcontext() if plan is None else plan.past.fitting()
    callbacks, chief = arguments["callbacks"], is_chief(model.distribute_strategy)
    with fitting, graphs_of_layers(model, callbacks), silent_at_batches(callbacks), backup.kept(callbacks, chief):
        try:
            run = Run(model, arguments)
        except NotCompiledError as reason:
            model.fit_path = FitPath(False, str(reason))
            return model._fit_batch_by_batch(**arguments)
        return run()
