"""What the TensorBoard callback shows of a model: the graph of its layers, as it does of a stock model."""

import contextlib
import json

import keras

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
