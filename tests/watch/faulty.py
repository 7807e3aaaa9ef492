"""Trainings with a planted fault, and where it is to be found."""

from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from keras_backprop import BackpropModel

N, BATCH, ROW = 48, 8, 19
"""So many examples, in batches of 8; what is planted in the data is in example 19: step 2, row 3 of its batch."""


@dataclass
class Faulty:
    """A training that turns non-finite.

    Attributes:
        model: the compiled model, named net.
        x, y: the data.
        path, direction, cause: what the fault says; of `cause` a part.
        step: int, or None where it depends on rounding.
        examples: list of int or None.
        fit: dict, more arguments of `fit`.
    """

    model: Any
    x: Any
    y: Any
    path: str
    direction: str
    cause: str
    step: Any = 2
    examples: Any = field(default_factory=lambda: [ROW])
    fit: dict = field(default_factory=dict)


class Does(layers.Layer):
    """A layer that does what it is told, without a rule of its own."""

    def __init__(self, function, **kwargs):
        super().__init__(**kwargs)
        self.function = function

    def call(self, x):
        return self.function(x)


def data(seed=0):
    random = np.random.default_rng(seed)
    x = random.uniform(0.5, 1.5, (N, 4)).astype("float32")
    return x, random.normal(size=(N, 1)).astype("float32")


def planted(value):
    x, y = data()
    x[ROW, 1] = value
    return x, y


def net(function=None, loss="mse", optimizer=None, before=(), dtype=None, activation="tanh", **compile_arguments):
    """Input, what a function does, a hidden layer and an output."""
    keras.utils.set_random_seed(3)
    inputs = hidden = keras.Input((4,))
    for layer in before:
        hidden = layer(hidden)
    if function is not None:
        hidden = Does(function, name="own", dtype=dtype)(hidden)
    hidden = layers.Dense(5, activation, name="hidden", dtype=dtype)(hidden)
    model = BackpropModel(inputs, layers.Dense(1, name="out", dtype=dtype and "float32")(hidden), name="net")
    model.compile(optimizer or keras.optimizers.SGD(0.01), loss, **compile_arguments)
    return model


def scale():
    """A layer with weights before the fault, so that a gradient passes back through it."""
    return [layers.Rescaling(1.0, name="same"), Weighted(name="weighted")]


class Weighted(layers.Layer):
    """x·w with w = 1: zeros stay zeros."""

    def build(self, shape):
        self.w = self.add_weight(shape=(shape[-1],), initializer="ones", name="w")

    def call(self, x):
        return x * self.w


F, OWN, UPDATE = "forward value", "rule's own output", "update"


def log_of_zero():
    return Faulty(net(ops.log), *planted(0.0), "own", F, "log of 0")


def log_of_a_negative():
    return Faulty(net(ops.log), *planted(-1.0), "own", F, "negative")


def zero_by_zero():
    x, y = data()
    x[ROW] = 0.0
    return Faulty(net(lambda x: x / ops.sum(x, -1, keepdims=True)), x, y, "own", F, "0/0")


def division_by_zero():
    return Faulty(net(lambda x: 1.0 / x), *planted(0.0), "own", F, "division by 0")


def root_hidden_by_where():
    """TensorFlow's own kernel takes 0 for it; XLA does not."""

    def function(x):
        return ops.where(x > 0, ops.sqrt(x), 0.0)

    return Faulty(net(function, before=scale(), jit_compile=True), *planted(0.0), "own", OWN, "√ at 0")


def logarithm_hidden_by_where():
    def function(x):
        return ops.where(x > 0, ops.log(x), 0.0)

    return Faulty(net(function, before=scale()), *planted(0.0), "own", OWN, "log of 0")


def norm_at_zero():
    x, y = data()
    x[ROW] = 0.0

    def function(x):
        return x + ops.sqrt(ops.sum(ops.square(x), -1, keepdims=True))

    return Faulty(net(function, before=scale()), x, y, "own", OWN, "√ at 0")


def power_at_zero():
    return Faulty(net(lambda x: x**0.5, before=scale()), *planted(0.0), "own", OWN, "power")


def arccos_at_one():
    """Of a cosine between a vector and itself, whose rounding is left aside by the comparison."""

    def function(x):
        return ops.arccos(ops.where(x > 3, x / x, x / 4))

    return Faulty(net(function, before=scale()), *planted(5.0), "own", OWN, "arccos")


def overflow_of_exp():
    return Faulty(net(ops.exp), *planted(200.0), "own", F, "overflow of exp")


def overflow_of_exp_in_half():
    return Faulty(net(ops.exp, dtype="mixed_float16"), *planted(14.0), "own", F, "overflow of exp in float16")


def overflow_of_a_product_in_half():
    x, y = data()
    x[ROW] = 6e4
    model = net(dtype="mixed_float16", activation=None)
    model.get_layer("hidden").kernel.assign(np.full((4, 5), 5.0))
    return Faulty(model, x, y, "hidden", F, "float16")


def attention_to_nothing():
    random = np.random.default_rng(0)
    x, y = random.normal(size=(N, 6, 4)).astype("float32"), random.normal(size=(N, 1)).astype("float32")
    seen = np.ones((N, 6), "float32")
    seen[ROW] = 0.0

    class Attends(layers.Layer):
        def call(self, x, seen):
            scores = ops.matmul(x, ops.transpose(x, (0, 2, 1)))
            scores = ops.where(seen[:, None, :] > 0, scores, -np.inf)
            return ops.matmul(ops.softmax(scores), x)

    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 4)), keras.Input((6,))
    hidden = layers.Dense(4, name="in")(inputs[0])
    hidden = Attends(name="attends")(hidden, inputs[1])
    model = BackpropModel(inputs, layers.Dense(1, name="out")(layers.Flatten()(hidden)), name="net")
    model.compile(keras.optimizers.SGD(0.01), "mse")
    return Faulty(model, (x, seen), y, "attends", F, "all-masked")


def nan_in_the_data():
    return Faulty(net(), *planted(np.nan), "hidden", F, "data (x)")


def infinity_in_the_data():
    return Faulty(net(), *planted(np.inf), "hidden", F, "data (x)")


def infinity_in_the_data_that_gates_hide():
    """The forward values are finite: a saturated gate. ∞·0 comes on the way back."""
    random = np.random.default_rng(0)
    x, y = random.normal(size=(N, 3, 2)).astype("float32"), random.normal(size=(N, 1)).astype("float32")
    x[ROW, 2, 0] = np.inf
    keras.utils.set_random_seed(0)
    inputs = keras.Input((3, 2))
    hidden = layers.LSTM(2, name="lstm", go_backwards=True)(inputs)
    model = BackpropModel(inputs, layers.Dense(1, name="out")(hidden), name="net")
    model.compile(keras.optimizers.SGD(0.01), "mse")
    return Faulty(model, x, y, "lstm", F, "data (x)")


def infinity_of_the_model_itself():
    def function(x):
        return ops.where(x > 3, -np.inf, x)

    return Faulty(net(function, activation=None), *planted(5.0), "own/where", F, "constant of its own")


def norm_of_keras_at_zero():
    x, y = data()
    x[ROW] = 0.0

    def function(x):
        return x + ops.norm(x, axis=-1, keepdims=True)

    return Faulty(net(function, before=scale()), x, y, "own/norm/sqrt", OWN, "√ at 0")


def infinite_label():
    x, y = data()
    y[ROW] = np.inf
    return Faulty(net(), x, y, "mse", F, "label (y)")


def sample_weight():
    x, y = data()
    weights = np.ones(N, "float32")
    weights[ROW] = np.nan
    return Faulty(net(), x, y, "compute_loss", F, "sample weight", fit={"sample_weight": weights})


def learning_rate():
    x, y = data()
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    hidden = layers.Dense(8, name="hidden")(inputs)
    model = BackpropModel(inputs, layers.Dense(1, name="out")(hidden), name="net")
    model.compile(keras.optimizers.SGD(3.0), "mse")
    return Faulty(model, x, y, "", "", "learning rate", step=None, examples=None, fit={"epochs": 20})


def update_beyond_all_bounds():
    return Faulty(
        net(optimizer=keras.optimizers.SGD(1e38), loss=_large), *data(), "hidden", UPDATE, "learning rate",
        step=0, examples=None,
    )  # fmt: skip


def _large(y, y_pred):
    return 1e3 * ops.square(y - y_pred)


def weight_that_is_no_number():
    model = net()
    kernel = model.get_layer("out").kernel
    kernel.assign(np.full(kernel.shape, np.nan))
    return Faulty(model, *data(), "out", F, "weight 'out/kernel'", step=0, examples=None)


def weight_that_the_loss_does_not_show():
    model = net(lambda x: x, before=[layers.Rescaling(1.0), Unused(name="unused")])
    return Faulty(model, *data(), "unused/identity", F, "weight 'unused/w'", step=0, examples=None)


class Unused(layers.Layer):
    """Has a weight that is infinite, a bound that nothing reaches."""

    def build(self, shape):
        self.w = self.add_weight(shape=(), initializer=keras.initializers.Constant(np.inf), name="w")

    def call(self, x):
        return ops.minimum(x, self.w)


def crossentropy_by_hand():
    def loss(y, p):
        return -ops.mean(y * ops.log(ops.relu(p)), -1)

    x, y = data()
    model = net(loss=loss)
    model.get_layer("out").bias.assign([5.0])
    x[ROW] = 0.0

    class Gate(layers.Layer):
        def call(self, p, x):
            return ops.where(ops.sum(x, -1, keepdims=True) > 0, p, 0.0 * p)

    inputs = model.input
    model = BackpropModel(inputs, Gate(name="gate")(model.output, inputs), name="net")
    model.compile(keras.optimizers.SGD(1e-4), loss)
    return Faulty(model, x, abs(y), "loss", F, "log of 0")


def gradients_that_are_made():
    def made(result):
        return [g / 0.0 * 0.0 if g.shape.rank == 1 else g for g in result.gradients]

    return Faulty(net(gradients=made), *data(), "gradients=", OWN, "compile(gradients=…)", step=0, examples=None)


FAULTY = [
    log_of_zero, log_of_a_negative, zero_by_zero, division_by_zero, root_hidden_by_where, logarithm_hidden_by_where, norm_at_zero,
    power_at_zero, arccos_at_one, overflow_of_exp, overflow_of_exp_in_half, overflow_of_a_product_in_half,
    attention_to_nothing, nan_in_the_data, infinity_in_the_data, infinity_in_the_data_that_gates_hide,
    infinity_of_the_model_itself, norm_of_keras_at_zero, infinite_label, sample_weight, learning_rate,
    update_beyond_all_bounds, weight_that_the_loss_does_not_show, weight_that_is_no_number, crossentropy_by_hand, gradients_that_are_made,
]  # fmt: skip
