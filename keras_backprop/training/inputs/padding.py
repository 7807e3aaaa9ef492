"""What logs say of a batch: those that a plan draws are filled up to a fixed size with rows of weight 0, which come last."""

import contextlib
import functools
from typing import Any

import keras
import tensorflow as tf

from keras_backprop import _keras
from keras_backprop.example_scale import weights_for


class Shown:
    """A batch of a training step as its logs are to see it.

    Args:
        model: the model that is trained.
        x, y, sample_weight: the batch, nested tensors.
        filled: bool, whether rows may fill it up.
    """

    def __init__(self, model: Any, x: Any, y: Any, sample_weight: Any, filled: bool) -> None:
        self._model, self._batch, self._filled = model, (x, y, sample_weight), filled and sample_weight is not None

    @functools.cached_property
    def size(self) -> Any:
        """The number of examples, a scalar tensor. Asked after the forward pass: a batch without any is the model's affair."""
        x, _, sample_weight = self._batch
        if self._filled:
            return _rows(sample_weight)
        return tf.shape(next(tensor for tensor in keras.tree.flatten(x) if tensor is not None))[0]

    def part_losses(self) -> Any:
        """A context for the forward pass: the logs of the losses of several outputs leave out what fills the batch up."""
        return _part_losses(self._model, self._batch[2]) if self._filled else contextlib.nullcontext()

    def loss(self, result: Any) -> Any:
        """The error of the batch: a mean over its examples, and penalties as they are."""
        if not self._filled:
            return result.loss
        factor = result.example_scale.padding_factor(self.size)
        penalties = [tf.cast(loss, result.loss.dtype) for loss in self._model.losses]
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        penalty = tf.add_n(penalties) / replicas if penalties else tf.zeros([], result.loss.dtype)
        return (result.loss - penalty) * tf.cast(factor, result.loss.dtype) + penalty

    def metrics(self, result: Any) -> Any:
        """What `compute_metrics` returns for it."""
        x, y, sample_weight = self._batch
        seen = x, y, result.y_pred, sample_weight
        if self._filled:
            seen = x, y, result.y_pred, weights_for(result.y_pred, sample_weight)
            seen = keras.tree.map_structure(lambda a: a if a is None else a[: self.size], seen)
        x, y, y_pred, sample_weight = seen
        return self._model.compute_metrics(x, y, y_pred, sample_weight=sample_weight)


def _rows(sample_weight):
    """How many rows come before those that fill up a batch: an int32 scalar tensor."""
    present = 0
    for weights in keras.tree.flatten(sample_weight):
        if weights is not None:
            some = tf.reduce_any(tf.reshape(weights, [tf.shape(weights)[0], -1]) != 0, 1)
            present = tf.maximum(present, tf.reduce_max(tf.where(some, tf.range(1, tf.size(some) + 1), 0)))
    return present


@contextlib.contextmanager
def _part_losses(model, sample_weight):
    """For the duration of the block, the logs of the losses of several outputs leave out the rows that fill up a batch."""
    compiled = _keras.compiled_loss(model)
    trackers = getattr(compiled, "metrics", None) or ()
    with contextlib.ExitStack() as stack:
        for entry, tracker in zip(_keras.loss_entries(compiled), trackers, strict=False):
            update, reduction = _keras.current(tracker, "update_state"), getattr(entry.loss, "reduction", None)

            def shown(value, sample_weight=None, update=update, reduction=reduction, weights=sample_weight):
                count = tf.cast(_rows(weights), tf.float32)
                given = next(w for w in keras.tree.flatten(weights) if w is not None)
                size = tf.cast(tf.shape(given)[0], tf.float32)
                factor = 1.0 if reduction in ("sum", "mean_with_sample_weight") else size / tf.maximum(count, 1)
                return update(value * tf.cast(factor, value.dtype), sample_weight=count)

            stack.enter_context(_keras.replaced(tracker, update_state=shown))
        yield
