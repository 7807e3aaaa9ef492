"""Training on several devices and machines with `tf.distribute`: what Keras's trainer leaves undone for it.

Keras trains under `MirroredStrategy`, but its `fit` fails under `MultiWorkerMirroredStrategy` before the first update: it
averages a batch in order to find out its shape, and averages the logs, which are numbers, over their first axis. Both are put
right here by overriding our trainer's own methods. And of several workers one writes the files, the chief.
"""

import contextlib
import functools
import itertools
import pathlib
import tempfile
from typing import Any

import keras
import tensorflow as tf

from keras_backprop import _keras
from keras_backprop.failures import meet
from keras_backprop.processes import across_workers, is_chief
from keras_backprop.training.inputs.drawn import arguments_for_keras

SUPPORTED = (tf.distribute.MirroredStrategy, tf.distribute.MultiWorkerMirroredStrategy, tf.distribute.OneDeviceStrategy)
"""Strategies whose replicas hold all weights and take every step together."""


_Trainer: Any = object  # what it is mixed into: of Keras, without types


class DistributedTrainer(_Trainer):
    """What a trainer does under a distribution strategy. A mixin: put it before a Keras model class."""

    @property
    def distribute_strategy(self):
        """The strategy in whose scope the model was created.

        Raises:
            NotImplementedError: a strategy that is not one of `SUPPORTED`.
        """
        strategy = super().distribute_strategy
        none = _keras.strategy_of(self) is None and not tf.distribute.has_strategy()
        if not none and not isinstance(strategy, SUPPORTED):
            raise NotImplementedError(
                f"Training under {type(strategy).__name__} is not supported (model '{self.name}'): its replicas do not take "
                "every step together. Use `tf.distribute.MirroredStrategy` for the devices of one machine, "
                "`tf.distribute.MultiWorkerMirroredStrategy` for several machines."
            )
        return strategy

    def _fit_batch_by_batch(self, **arguments):
        """Keras's loop."""
        return _keras.fit_batch_by_batch(self, **arguments_for_keras(self, arguments))

    def save(self, filepath, *args, **kwargs):
        """As `keras.Model.save`. Every worker must call it; the chief writes the file."""
        with self._written_by_the_chief(filepath) as path, _keras.saving_once_prepared():
            return super().save(path, *args, **kwargs)

    def save_weights(self, filepath, *args, **kwargs):
        """As `keras.Model.save_weights`. Every worker must call it; the chief writes the file."""
        with self._written_by_the_chief(filepath) as path, _keras.saving_once_prepared():
            return super().save_weights(path, *args, **kwargs)

    @contextlib.contextmanager
    def _written_by_the_chief(self, filepath):
        """The path to write to. The others write as well, for all must take part in reading weights, but to no avail."""
        if is_chief(self.distribute_strategy):
            yield filepath
        else:
            with tempfile.TemporaryDirectory() as folder:
                yield pathlib.Path(folder) / pathlib.PurePath(filepath).name

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        """Under a strategy, build what is not built yet for a batch as one replica gets it."""
        if _keras.strategy_of(self) is None:
            return
        # Here already: to draw a batch is a collective operation, for all are asked whether they have one.
        meet(self.distribute_strategy)
        if iterator is not None:
            _, _, batches = next(iter(iterator))
            data_batch = next(batches)
        self._build_for(data_batch)

    def _build_for(self, batch):
        strategy = self.distribute_strategy
        with strategy.scope():
            of_one = keras.tree.map_structure(lambda x: strategy.experimental_local_results(x)[0], batch)
            _keras.build_all(self, of_one)

    def _make_function(self, step_function):
        """A compiled step of all replicas."""
        strategy = self.distribute_strategy
        if strategy.num_replicas_in_sync == 1:
            return super()._make_function(step_function)
        if self.jit_compile:
            raise NotImplementedError(
                f"XLA cannot compile a training step of several replicas: compile the model '{self.name}' with "
                "`jit_compile=False`."
            )
        function = super()._make_function(
            _with_first_axes(step_function) if across_workers(strategy) else step_function
        )
        if self.steps_per_execution == 1:
            return function

        @functools.wraps(function)
        def step_by_step(iterator):  # TensorFlow's all-reduce does not work in a compiled loop of steps
            return function(itertools.chain([next(iterator)], iterator))

        return step_by_step


def _with_first_axes(step_function):
    """Keras averages the logs of several workers over their first axis: give every value one."""

    @functools.wraps(step_function)
    def step(data):
        return keras.tree.map_structure(lambda value: tf.expand_dims(value, 0), step_function(data))

    return step
