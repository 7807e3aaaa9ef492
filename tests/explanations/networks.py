"""Networks to explain, and the figures of the worked example calculated with nothing but `math`."""

import math
from types import SimpleNamespace

import keras
import numpy as np

from keras_backprop.losses import HalfMeanSquaredError, HalfSquaredError


def worked_example(loss=None, optimizer=None, **options):
    """The worked example in stock Keras layers, float64. Returns (model, x, y)."""
    model = keras.Sequential(
        [
            keras.Input((1,), dtype="float64"),
            keras.layers.Dense(1, "sigmoid", name="hidden", dtype="float64", **options),
            keras.layers.Dense(1, "sigmoid", name="output", dtype="float64"),
        ],
        name="note",
    )
    model.set_weights([np.array(value) for value in ([[0.15]], [0.40], [[0.45]], [0.65])])
    model.compile(optimizer or keras.optimizers.SGD(0.4), loss=loss or HalfMeanSquaredError(dtype="float64"))
    return model, np.array([[0.1]]), np.array([[0.25]])


def by_hand(x=0.1, w1=0.15, b1=0.40, w2=0.45, b2=0.65, T=0.25, eta=0.4):
    """One iteration of the worked example, by hand."""
    z1 = x * w1 + b1
    a1 = 1 / (1 + math.exp(-z1))
    z2 = a1 * w2 + b2
    a2 = 1 / (1 + math.exp(-z2))
    dE_da2, da2_dz2, da1_dz1 = -(T - a2), a2 * (1 - a2), a1 * (1 - a1)
    dw2, db2 = dE_da2 * da2_dz2 * a1, dE_da2 * da2_dz2
    dw1, db1 = dE_da2 * da2_dz2 * w2 * da1_dz1 * x, dE_da2 * da2_dz2 * w2 * da1_dz1
    return SimpleNamespace(
        z1=z1, a1=a1, z2=z2, a2=a2, E=(T - a2) ** 2 / 2, dE_da2=dE_da2, da2_dz2=da2_dz2, da1_dz1=da1_dz1,
        dw1=dw1, db1=db1, dw2=dw2, db2=db2,
        w1_new=w1 - eta * dw1, b1_new=b1 - eta * db1, w2_new=w2 - eta * dw2, b2_new=b2 - eta * db2,
    )  # fmt: skip


def chain(*widths, activation="tanh", last="sigmoid", loss="mse", examples=1, **compiled):
    """A chain of dense layers. Returns (model, x, y)."""
    dense = keras.layers.Dense
    hidden = [dense(width, activation, bias_initializer="random_normal") for width in widths[1:-1]]
    model = keras.Sequential([keras.Input((widths[0],)), *hidden, dense(widths[-1], last)], name="chain")
    model.compile(loss=loss, **{"optimizer": "sgd", **compiled})
    random = np.random.default_rng(0)
    return model, random.normal(size=(examples, widths[0])), random.uniform(size=(examples, widths[-1]))


def residual(**compiled):
    """A shared layer, a branch, dropout, a penalty. Returns (model, x, y)."""
    inputs = keras.Input((6,))
    shared = keras.layers.Dense(8, "relu", kernel_regularizer="l2", name="shared")
    first = keras.layers.Dense(8, name="first")(inputs)
    x = keras.layers.Add(name="sum")([first, shared(shared(first)), shared(first)])
    outputs = keras.layers.Dense(3, "softmax", name="classes")(keras.layers.Dropout(0.3, name="dropout")(x))
    model = keras.Model(inputs, outputs, name="residual")
    model.compile(**{"optimizer": "adam", "loss": "sparse_categorical_crossentropy", **compiled})
    random = np.random.default_rng(0)
    return model, random.normal(size=(16, 6)).astype("float32"), random.integers(0, 3, 16)


def state(model):
    """Copies of everything `explain` must leave alone."""
    optimizer = model.optimizer
    return {
        "variables": [keras.ops.convert_to_numpy(v).copy() for v in model.variables],
        "optimizer": [keras.ops.convert_to_numpy(v).copy() for v in optimizer.variables],
        "built": optimizer.built,
        "losses": [float(loss) for loss in model.losses],
    }


def same(before, after):
    """Whether two such states are equal to the bit."""
    arrays = all(
        len(before[key]) == len(after[key]) and all(map(np.array_equal, before[key], after[key]))
        for key in ("variables", "optimizer")
    )
    return arrays and before["built"] == after["built"] and before["losses"] == after["losses"]


def stack(layers, shape, weights, loss, rate=0.5, name="net"):
    """A compiled float64 `Sequential` with these weights."""
    model = keras.Sequential([keras.Input(shape, dtype="float64"), *layers], name=name)
    model.set_weights([np.array(w) for w in weights])
    model.compile(keras.optimizers.SGD(rate), loss)
    return model


def dense(*arguments, **options):
    return keras.layers.Dense(*arguments, dtype="float64", **options)


def textbook():
    """The 2-2-2 network that everybody knows. Returns (model, x, y)."""
    weights = [[[0.15, 0.25], [0.20, 0.30]], [0.35, 0.35], [[0.40, 0.50], [0.45, 0.55]], [0.60, 0.60]]
    layers = [dense(2, "sigmoid", name="hidden"), dense(2, "sigmoid", name="output")]
    model = stack(layers, (2,), weights, HalfSquaredError(dtype="float64"), name="textbook")
    return model, np.array([[0.05, 0.10]]), np.array([[0.01, 0.99]])


def xor():
    """2-2-1 without biases on the four examples of XOR, mean squared error. Returns (model, x, y)."""
    layers = [dense(2, "sigmoid", use_bias=False, name="hidden"), dense(1, "sigmoid", use_bias=False, name="output")]
    model = stack(layers, (2,), [[[0.1, 0.3], [0.2, 0.4]], [[0.5], [0.6]]], "mse", name="xor")
    return model, np.array([[0.0, 0], [0, 1], [1, 0], [1, 1]]), np.array([[0.0], [1], [1], [0]])


def softmax():
    """Softmax with cross-entropy. Returns (model, x, y)."""
    layers = [dense(2, "softmax", name="classes")]
    model = stack(layers, (2,), [[[0.1, 0.2], [0.3, 0.4]], [0.0, 0.0]], "categorical_crossentropy", name="softmax")
    return model, np.array([[1.0, 2.0]]), np.array([[1.0, 0.0]])


def recurrent():
    """A recurrent unit in three steps. Returns (model, x, y)."""
    rnn = keras.layers.SimpleRNN(1, use_bias=False, name="memory", dtype="float64")
    layers = [rnn, dense(1, use_bias=False, name="output")]
    loss = HalfSquaredError(dtype="float64")
    model = stack(layers, (3, 1), [[[0.5]], [[0.8]], [[1.2]]], loss, name="recurrent")
    return model, np.array([[[1.0], [0.5], [-1.0]]]), np.array([[0.4]])
