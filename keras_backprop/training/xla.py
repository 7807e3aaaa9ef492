"""Whether XLA is worth its compilation on a CPU. What was measured is in docs/speed.md."""

import math

import keras
from keras import layers

from keras_backprop import _keras
from keras_backprop.layers import BackpropDense
from keras_backprop.registry import rule_for

_DENSE = (layers.Dense, BackpropDense)
_RECURRENT = (layers.SimpleRNN, layers.LSTM, layers.GRU)
_CELLS = (layers.SimpleRNNCell, layers.LSTMCell, layers.GRUCell)

LARGEST_PRODUCT = 2**20
"""With so many multiplications (batch · entries of a kernel) at most, XLA was faster than TensorFlow's kernel."""

LARGEST_RECURRENT_PRODUCT = 2**18
"""The same in a loop over time."""

DEEPEST = 16
"""So many layers with kernels are the most: XLA's compilation takes time for each of them."""

STEPS, RECURRENT_STEPS = 20_000, 5_000
"""After so many steps the compilation, of one to ten seconds, has been gained back."""


def pays(model, batch_size, steps):
    """Whether a training of so many steps, in a compiled loop, is over sooner with XLA. See `worth_compiling`."""
    recurrent = any(type(layer) in _RECURRENT for layer in _keras.layers_in(model))
    return steps >= (RECURRENT_STEPS if recurrent else STEPS) and worth_compiling(model, batch_size)


def worth_compiling(model, batch_size=32):
    """Whether XLA makes a compiled loop of training steps faster on a CPU.

    So it is for chains of small dense and recurrent layers: nothing is computed, only the layers' types and the sizes of their
    kernels are looked at. Any other layer that computes, a convolution, attention, a table, a layer of the user's own, makes the
    answer no; so does one that draws random numbers, because XLA draws others than stock Keras would. On a GPU the question does
    not arise: there Keras uses XLA anyway.

    Args:
        model: a built Keras model.
        batch_size: int, the number of examples of a step.

    Returns:
        bool. False for a model that is not built.
    """
    models = [layer for layer in _keras.layers_in(model) if isinstance(layer, keras.Model)]
    parts = [layer for layer in _keras.layers_in(model) if not isinstance(layer, keras.Model)]
    recurrent = any(type(layer) in _RECURRENT for layer in parts)
    products = sum(type(layer) in (*_DENSE, *_RECURRENT) for layer in parts)
    largest = LARGEST_RECURRENT_PRODUCT if recurrent else LARGEST_PRODUCT
    return (
        model.built
        and all(map(_is_graph_of_layers, models))
        and 0 < products <= DEEPEST
        and all(type(layer) in (*_DENSE, *_RECURRENT, *_CELLS) or _joins(layer) for layer in parts)
        and not any(getattr(layer, "dropout", 0) or getattr(layer, "recurrent_dropout", 0) for layer in parts)
        and all(batch_size * math.prod(weight.shape) <= largest for weight in model.trainable_weights)
    )


def _joins(layer):
    """Whether a layer is a few elementwise passes, or lets others run that are looked at themselves."""
    rule = rule_for(layer)
    return rule is not None and rule.joins


def _is_graph_of_layers(model):
    """Whether a model has no `call` of its own, and no operations between its layers."""
    graph = _keras.graph_of(model)
    return graph is not None and all(isinstance(operation, layers.Layer) for operation in graph.operations)
