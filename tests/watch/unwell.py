"""Models with something wrong that `diagnose` is to find: what is said, and where."""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from keras_backprop import BackpropModel
from tests.watch.healthy import Does, classes, numbers, stack


@dataclass
class Unwell:
    """A model, a batch, and a part of the title and of the path of the finding."""

    model: Any
    x: Any
    y: Any
    title: str
    path: str = ""
    severity: Any = None


def vanishing():
    parts = [layers.Dense(16, "sigmoid", name=f"d{i}") for i in range(12)]
    return Unwell(stack(*parts, layers.Dense(1)), numbers(8), numbers(1), "vanish", "d0")


def exploding():
    initializer = keras.initializers.RandomNormal(stddev=1.5)
    parts = [layers.Dense(32, "relu", kernel_initializer=initializer, name=f"d{i}") for i in range(8)]
    return Unwell(stack(*parts, layers.Dense(1)), numbers(8), numbers(1), "explode", "d0")


def vanishing_through_time():
    part = layers.SimpleRNN(8, recurrent_initializer=keras.initializers.RandomNormal(stddev=0.05), name="rnn")
    return Unwell(stack(part, layers.Dense(1), shape=(40, 3)), numbers(40, 3), numbers(1), "vanish through time", "rnn")


def dead():
    part = layers.Dense(16, "relu", bias_initializer=keras.initializers.Constant(-30.0), name="hidden")
    return Unwell(stack(part, layers.Dense(1)), numbers(8), numbers(1), "Dead", "hidden")


def saturated():
    part = layers.Dense(16, "tanh", kernel_initializer=keras.initializers.RandomNormal(stddev=20.0), name="hidden")
    return Unwell(stack(part, layers.Dense(1)), numbers(8), numbers(1), "Saturated", "hidden")


def unscaled_inputs():
    x = 100 + 50 * numbers(8)
    return Unwell(stack(layers.Dense(8, "relu", name="first"), layers.Dense(1)), x, numbers(1), "not scaled", "first")


def logits_behind_a_softmax():
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return Unwell(
        stack(layers.Dense(4, "softmax"), loss=loss), numbers(8), classes(4), "expects logits behind a softmax"
    )


def logits_behind_a_sigmoid():
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    y = classes(2)[:, None].astype("float32")
    return Unwell(stack(layers.Dense(1, "sigmoid"), loss=loss), numbers(8), y, "expects logits behind a sigmoid")


def probabilities_behind_logits():
    model = stack(layers.Dense(4), loss="sparse_categorical_crossentropy")
    return Unwell(model, numbers(8), classes(4), "expects probabilities behind logits")


def binary_probabilities_behind_logits():
    model = stack(layers.Dense(1), loss="binary_crossentropy")
    return Unwell(model, numbers(8), classes(2)[:, None].astype("float32"), "expects probabilities behind logits")


def softmax_of_one_unit():
    model = stack(layers.Dense(1, "softmax"), loss="categorical_crossentropy")
    return Unwell(model, numbers(8), classes(2)[:, None].astype("float32"), "softmax of one unit")


def softmax_of_one_unit_for_two_classes():
    model = stack(layers.Dense(4, "relu"), layers.Dense(1, "softmax"), loss="binary_crossentropy")
    return Unwell(model, numbers(8), classes(2)[:, None].astype("float32"), "softmax of one unit", severity="critical")


def one_hot_for_class_numbers():
    model = stack(layers.Dense(4, "softmax"), loss="sparse_categorical_crossentropy")
    y = keras.utils.to_categorical(classes(4), 4)
    return Unwell(model, numbers(8), y, "One-hot targets", "y", "critical")


def class_numbers_for_one_hot():
    model = stack(layers.Dense(4, "softmax"), loss="categorical_crossentropy")
    return Unwell(model, numbers(8), classes(4), "Class numbers", "y", "critical")


def targets_of_another_shape():
    return Unwell(stack(layers.Dense(3)), numbers(8), numbers(1), "another shape", "y")


def labels_out_of_range():
    model = stack(layers.Dense(4, "softmax"), loss="sparse_categorical_crossentropy")
    return Unwell(model, numbers(8), classes(4) + 1, "Labels out of range", "y", "critical")


def signs_as_binary_labels():
    model = stack(layers.Dense(1, "sigmoid"), loss="binary_crossentropy")
    return Unwell(model, numbers(8), 2.0 * classes(2)[:, None] - 1, "Labels out of range", "y")


def targets_out_of_reach():
    return Unwell(stack(layers.Dense(1, "sigmoid")), numbers(8), 5 + numbers(1), "cannot reach")


def stopped_gradient():
    stop = Does(ops.stop_gradient, name="stop")
    model = stack(layers.Dense(8, "tanh", name="below"), stop, layers.Dense(1))
    return Unwell(model, numbers(8), numbers(1), "no gradient", "below/kernel")


def output_without_a_loss():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8,))
    hidden = layers.Dense(8, "tanh")(inputs)
    outputs = {"used": layers.Dense(1, name="used")(hidden), "unused": layers.Dense(1, name="unused")(hidden)}
    model = BackpropModel(inputs, outputs, name="net")
    model.compile("adam", {"used": "mse", "unused": None})
    return Unwell(model, numbers(8), {"used": numbers(1), "unused": numbers(1)}, "no gradient", "unused")


def frozen_as_drawn():
    frozen = layers.Dense(16, "relu", name="frozen", trainable=False)
    return Unwell(stack(frozen, layers.Dense(1)), numbers(8), numbers(1), "Frozen as initialised", "frozen")


def all_frozen():
    model = stack(layers.Dense(16, "relu"), layers.Dense(1))
    model.trainable = False
    model.compile("adam", "mse")
    return Unwell(model, numbers(8), numbers(1), "All weights are frozen")


def all_zero():
    parts = (
        layers.Dense(16, "tanh", kernel_initializer="zeros", name="hidden"),
        layers.Dense(1, kernel_initializer="zeros"),
    )
    return Unwell(stack(*parts), numbers(8), numbers(1), "all zero", "hidden/kernel", "critical")


def stopped_beside_zeros_that_grow():
    """The head begins with zeros and will not stay so; what is multiplied by zero stays without a gradient."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8,))
    left = layers.Dense(16, "tanh", name="left")(inputs)
    right = layers.Rescaling(0.0)(layers.Dense(16, "tanh", name="right")(inputs))
    model = keras.Model(inputs, layers.Dense(1, kernel_initializer="zeros")(layers.Add()([left, right])), name="net")
    model.compile("adam", "mse")
    return Unwell(model, numbers(8), numbers(1), "exactly zero", "right/kernel")


def symmetric():
    part = layers.Dense(16, "tanh", kernel_initializer=keras.initializers.Constant(0.1), name="hidden")
    return Unwell(stack(part, layers.Dense(1, kernel_initializer="ones")), numbers(8), numbers(1), "all the same", "hidden/kernel")  # fmt: skip


def learning_rate_too_high():
    model = stack(layers.Dense(16, "tanh"), layers.Dense(1), optimizer=keras.optimizers.Adam(1.0))
    return Unwell(model, numbers(8), numbers(1), "Updates that are very large")


def learning_rate_too_low():
    model = stack(layers.Dense(16, "tanh"), layers.Dense(1), optimizer=keras.optimizers.SGD(1e-9))
    return Unwell(model, numbers(8), numbers(1), "Updates that are very small")


def regularised_twice():
    parts = layers.Dense(16, "tanh", kernel_regularizer="l2", name="hidden"), layers.Dense(1)
    model = stack(*parts, optimizer=keras.optimizers.AdamW(1e-3, weight_decay=0.01))
    return Unwell(model, numbers(8), numbers(1), "regularised twice", "hidden/kernel")


def not_finite():
    x = numbers(8)
    x[3, 1] = np.nan
    return Unwell(
        stack(layers.Dense(4, name="first"), layers.Dense(1)), x, numbers(1), "not finite", "first", "critical"
    )


def stock_model():
    """No model of ours is needed."""
    keras.utils.set_random_seed(0)
    part = layers.Dense(16, "relu", bias_initializer=keras.initializers.Constant(-30.0), name="hidden")
    model = keras.Sequential([keras.Input((8,)), part, layers.Dense(1)], name="net")
    model.compile("adam", "mse")
    return Unwell(model, numbers(8), numbers(1), "Dead", "hidden")


UNWELL = [
    vanishing, exploding, vanishing_through_time, dead, saturated, unscaled_inputs, logits_behind_a_softmax,
    logits_behind_a_sigmoid, probabilities_behind_logits, binary_probabilities_behind_logits, softmax_of_one_unit,
    labels_out_of_range, signs_as_binary_labels, targets_out_of_reach, stopped_gradient, output_without_a_loss,
    frozen_as_drawn, all_frozen, all_zero, stopped_beside_zeros_that_grow, symmetric, learning_rate_too_high, learning_rate_too_low, regularised_twice,
    not_finite, stock_model, softmax_of_one_unit_for_two_classes, one_hot_for_class_numbers, class_numbers_for_one_hot,
    targets_of_another_shape,
]  # fmt: skip
