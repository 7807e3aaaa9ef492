"""What the TensorBoard callback shows of a model, the graph of its layers; and what it costs at each batch."""

import contextlib
import json

import keras
import tensorflow as tf

from keras_backprop import _keras


@contextlib.contextmanager
def graphs_of_layers(model, callbacks):
    """For the duration of the block, TensorBoard callbacks write the graph of the model's layers.

    Keras's writes it of a model whose class is called Sequential or Functional, and TensorBoard reads it by these names.
    """
    with contextlib.ExitStack() as stack:
        for callback in keras.tree.flatten(getattr(callbacks, "callbacks", callbacks)):
            if isinstance(callback, keras.callbacks.TensorBoard) and _keras.graph_of(model) is not None:
                write = _writer(model, callback)
                stack.enter_context(_keras.replaced(callback, _write_keras_model_summary=write))
        yield


@contextlib.contextmanager
def silent_at_batches(callbacks):
    """For the duration of the block, TensorBoard callbacks make no summaries of batches that nobody records.

    Keras's makes one of each log of every batch and TensorFlow throws it away, which takes as long as the step of a small model.
    """
    with contextlib.ExitStack() as stack:
        for callback in keras.tree.flatten(getattr(callbacks, "callbacks", callbacks)):
            if getattr(type(callback), "on_train_batch_end", None) is keras.callbacks.TensorBoard.on_train_batch_end:
                stack.enter_context(_keras.replaced(callback, on_train_batch_end=_told_of(callback)))
        yield


def _told_of(callback):
    tell = callback.on_train_batch_end

    def told(batch, logs=None):
        tell(batch, logs if tf.summary.should_record_summaries() else None)

    return told


def _writer(model, callback):
    def write():
        with _keras.train_writer(callback).as_default():
            _keras.keras_model_summary("keras", _AsStock(model), step=0)

    return write


class _AsStock:
    def __init__(self, model):
        self._model = model

    def to_json(self):
        description = json.loads(self._model.to_json())
        stock = keras.Sequential if isinstance(self._model, keras.Sequential) else _keras.Functional
        module = "keras" if stock is keras.Sequential else stock.__module__
        registered = None if stock is keras.Sequential else stock.__name__
        description.update(module=module, class_name=stock.__name__, registered_name=registered)
        return json.dumps(description)
