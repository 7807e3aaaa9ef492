"""Whether XLA is worth its compilation on a CPU. What was measured is in docs/speed.md."""

import math

from keras import layers

_PRODUCTS = (layers.Dense, layers.SimpleRNN, layers.LSTM, layers.GRU)
_CELLS = (layers.SimpleRNNCell, layers.LSTMCell, layers.GRUCell)
_AROUND = (
    layers.InputLayer, layers.Identity, layers.Activation, layers.ReLU, layers.LeakyReLU, layers.ELU, layers.Softmax,
    layers.Dropout, layers.GaussianNoise, layers.GaussianDropout, layers.Flatten, layers.Reshape, layers.Permute,
    layers.RepeatVector, layers.Concatenate, layers.Add, layers.Subtract, layers.Multiply, layers.Average,
    layers.Rescaling, layers.Normalization, layers.BatchNormalization, layers.LayerNormalization,
    layers.ActivityRegularization, layers.Masking, layers.Bidirectional, layers.TimeDistributed,
)  # fmt: skip

LARGEST_KERNEL = 2**14
"""A kernel of so many entries, 128 × 128, is the largest for which XLA was the faster one."""

DEEPEST = 16
"""So many layers with kernels are the most: XLA's compilation takes time for each of them."""


def worth_compiling(model):
    """Whether XLA makes training of the model faster on a CPU by more than its compilation takes.

    So it is for chains of small dense and recurrent layers: nothing is computed, only the layers' types and the sizes of their
    kernels are looked at. Any other layer that computes, a convolution, attention, a table, a layer of the user's own, makes the
    answer no. On a GPU the question does not arise: there Keras uses XLA anyway.

    Args:
        model: a built Keras model.

    Returns:
        bool. False for a model that is not built.
    """
    parts = [layer for layer in model._flatten_layers() if layer is not model and not _is_model(layer)]
    products = [layer for layer in parts if type(layer) in _PRODUCTS]
    return (
        model.built
        and 0 < len(products) <= DEEPEST
        and all(type(layer) in _PRODUCTS + _CELLS + _AROUND for layer in parts)
        and all(_size(weight) <= LARGEST_KERNEL for weight in model.trainable_weights)
    )


def _is_model(layer):
    """Whether a layer is only a graph of others."""
    return type(layer).__name__ in ("Functional", "Sequential") and type(layer).__module__.startswith("keras.")


def _size(weight):
    return math.prod(weight.shape)
