"""Names of ours for what callbacks keep under private ones: when they act, and what a killed worker resumes from."""

from typing import Any

import keras


def is_backup(callback: Any) -> bool:
    """Whether it is a `BackupAndRestore` that writes as Keras's does."""
    return getattr(type(callback), "_save_model", None) is keras.callbacks.BackupAndRestore._save_model


class BackupParts:
    """The private side of a `BackupAndRestore`.

    Attributes:
        load: function without arguments, Keras's own way to restore weights and epoch.
        weights_path, state_path: where it writes them.
    """

    def __init__(self, callback: Any) -> None:
        self._callback, self.load = callback, callback._load_model
        self.weights_path, self.state_path = callback._weights_path, callback._training_metadata_path

    @property
    def epoch(self) -> int:
        """The epoch of which the callback was told last."""
        return self._callback._current_epoch

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self._callback._current_epoch = epoch

    @property
    def last_batch(self) -> int:
        """The batch of which it was told last."""
        return self._callback._last_batch_seen


def is_empty(callback: Any, name: str) -> bool:
    """Whether a method is one of those that `keras.callbacks.Callback` defines to do nothing."""
    return getattr(getattr(callback, name), "_is_default", False) is True


def batches_since_saving(callback: Any) -> int:
    """How many batches a `ModelCheckpoint` or `BackupAndRestore` with `save_freq=n` has seen since it saved."""
    return callback._batches_seen_since_last_saving


def decides_on_saving(callback: Any) -> Any:
    """The method that a `ModelCheckpoint` or `BackupAndRestore` asks at a batch whether to save."""
    return callback._should_save_on_batch


def profiles(tensorboard: Any) -> bool:
    """Whether a `TensorBoard` is to profile some batches."""
    return tensorboard._should_trace


def train_writer(tensorboard: Any) -> Any:
    """The writer of what a `TensorBoard` says of training."""
    return tensorboard._train_writer


def is_better_when_larger(model: Any, name: str) -> bool:
    """Whether the metric that the logs know by a name says so of itself.

    Args:
        model: a compiled model.
        name: str, of the metric, with the name of an output in front where there are several.
    """
    named = {metric.name: metric for metric in model.metrics}
    compiled = getattr(model, "_compile_metrics", None)
    if compiled is not None and compiled.built:
        weighted = compiled._flat_weighted_metrics
        for word, lists in (("", compiled._flat_metrics), ("", weighted), ("weighted_", weighted)):
            for one in (one for one in lists if one is not None):
                output = f"{one.output_name}_" if one.output_name else ""
                for metric in one.metrics:
                    named.setdefault(f"{output}{word}{metric.name}", metric)
    return getattr(named.get(name), "_direction", None) == "up"
