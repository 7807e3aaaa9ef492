"""Backups of a training under way: what `keras.callbacks.BackupAndRestore` leaves to chance when a process is killed.

Keras's callback writes the weights in place and the epoch after them: a process killed meanwhile leaves half a file, or the
weights of one epoch with the number of another. Several workers would write the same files. And after a backup in
mid-epoch (`save_freq=n`) Keras begins the epoch again, so that its first batches count twice. Here the chief writes the backup
beside the old one and renames it, and training goes on with the first batch that the backup has not seen.
"""

import contextlib
import json
import math
import os
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_backprop import _keras
from keras_backprop.training.plans import plan_of


@contextlib.contextmanager
def kept(callbacks, chief):
    """For the duration of the block, make the `BackupAndRestore` among `callbacks` do that.

    Args:
        callbacks: what `fit` takes: None, a callback, a list of them or a `keras.callbacks.CallbackList`.
        chief: bool, whether this process writes the files.
    """
    with contextlib.ExitStack() as stack:
        for callback in keras.tree.flatten(getattr(callbacks, "callbacks", callbacks)):
            if _keras.is_backup(callback):
                backup = _Backup(callback, chief)
                stack.enter_context(_keras.replaced(callback, _save_model=backup.save, _load_model=backup.load))
                if not chief:  # the chief deletes the backup
                    stack.enter_context(_keras.replaced(callback, on_train_end=lambda logs=None: None))
        yield


class _Backup:
    """What stands in for the reading and writing of a `BackupAndRestore`."""

    def __init__(self, callback, chief):
        self.callback, self.chief = callback, chief
        self.parts = _keras.BackupParts(callback)
        self.new_weights = os.path.join(callback.backup_dir, "new.weights.h5")
        self.new_state = self.parts.state_path + ".new"
        self.batches_to_skip = 0
        self.weights_were_readable = True

    def save(self):
        """Write weights, epoch, batches done and the state of the metrics; then let them take the place of the old."""
        callback, model, plan = self.callback, self.callback.model, plan_of(self.callback.model)
        if self.batches_to_skip:
            return  # the backup that we resumed from knows more
        batches_done: Any = 0
        if callback.save_freq != "epoch":  # the last of several steps an execution may lie behind the end of the epoch
            batches_done = min(self.parts.last_batch + 1, callback.params.get("steps") or math.inf)
        state = {
            "epoch": self.parts.epoch,
            "batch": self.parts.last_batch,
            "batches_done": batches_done,
            "seeds": _values(_seeds(model)),
            "gradients": _values(_of_gradients(model)),
            "past": None if plan is None else plan.state_of_past(),
            "metrics": _values(model.metrics_variables) if batches_done else [],
        }
        if self.chief:
            tf.io.gfile.makedirs(callback.backup_dir)
            if self._ended_between_renames():
                tf.io.gfile.rename(self.new_state, self.parts.state_path, overwrite=True)
        model.save_weights(self.new_weights, overwrite=True)  # reading them is for all workers, writing for the chief
        if not self.chief:
            return
        with tf.io.gfile.GFile(self.new_state, "w") as file:
            file.write(json.dumps(state))
        if callback.double_checkpoint:
            for path in (self.parts.weights_path, self.parts.state_path):
                if tf.io.gfile.exists(path):
                    tf.io.gfile.copy(path, path + ".bkp", overwrite=True)
        tf.io.gfile.rename(self.new_weights, self.parts.weights_path, overwrite=True)
        tf.io.gfile.rename(self.new_state, self.parts.state_path, overwrite=True)

    def load(self):
        """Restore weights and epoch, and have the first batches of the epoch skipped if the backup has seen them."""
        callback = self.callback
        try:
            self.parts.load()
        except OSError:  # Keras calls once more, after putting the backup of the backup in its place
            self.weights_were_readable = False
            raise
        path = self.parts.state_path
        if self.weights_were_readable and self._ended_between_renames():
            path = self.new_state
        if not tf.io.gfile.exists(path):
            return
        with tf.io.gfile.GFile(path) as file:
            state = json.loads(file.read())
        self.parts.epoch = state["epoch"]
        _keras.begin_at(callback.model, state["epoch"])
        if "seeds" not in state:
            return  # written by Keras alone
        _assign(_seeds(callback.model), state["seeds"])
        _assign(_of_gradients(callback.model), state.get("gradients", []))
        self.batches_to_skip = state["batches_done"]
        plan = plan_of(callback.model)
        if plan is not None:
            plan.restore_past(state.get("past"))
            plan.resumed(self.batches_to_skip)
        if self.batches_to_skip:
            self._skip(state["metrics"])

    def _ended_between_renames(self):
        """Whether the weights in place are newer than the epoch beside them."""
        return tf.io.gfile.exists(self.new_state) and not tf.io.gfile.exists(self.new_weights)

    def _skip(self, metrics):
        """Have `fit` pass over batches: for as long, another function stands in for the model's train function."""
        model, plan = self.callback.model, plan_of(self.callback.model)
        train_function = model.train_function

        def pass_over(iterator):
            for _ in range(min(model.steps_per_execution, self.batches_to_skip)):
                model._build_for(next(iterator))  # the metrics are not built before they have seen a batch
                self.batches_to_skip -= 1
            if not self.batches_to_skip:
                model.train_function = train_function
                if plan is not None:
                    plan.resumed(0)
            _assign(model.metrics_variables, metrics)
            return model.get_metrics_result()

        model.train_function = pass_over


def _seeds(model):
    """The states of the random number generators: variables of the model that Keras does not save with its weights."""
    others = {id(v) for v in model.weights + model.metrics_variables}
    return [v for v in model.variables if id(v) not in others]


def _of_gradients(model):
    """The state of what `compile(gradients=…)` was given."""
    return list(getattr(model.compiled_gradients, "variables", ()))


def _values(variables):
    return [keras.ops.convert_to_numpy(v).tolist() for v in variables]


def _assign(variables, values):
    for variable, value in zip(variables, values, strict=True):
        variable.assign(np.array(value, variable.dtype))
