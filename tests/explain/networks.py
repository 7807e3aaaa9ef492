"""Networks to explain, and the figures of the worked example calculated with nothing but `math`."""

import math
from types import SimpleNamespace

import keras
import numpy as np

from keras_backprop.losses import HalfMeanSquaredError


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
