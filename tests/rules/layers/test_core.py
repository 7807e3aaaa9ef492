"""The rules of `rules/layers/core.py`."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from keras_backprop import BackpropModel, check_layer
from keras_backprop._keras import AutocastScope
from keras_backprop.rules.layers.core import dense_forward
from tests.chain.test_operations import assert_equals_the_tape
from tests.checking import Case, check_rule, normal

PADDED = np.array([[[1.0, 2.0], [0.0, 0.0], [3.0, 0.0]], [[0.0, 0.0], [0.5, 0.5], [0.0, 1.0]]])


class Twice(layers.Wrapper):
    """A wrapper of one's own expands into calls of the layer it wraps."""

    def call(self, x):
        return self.layer(x) + self.layer(2 * x)


def scaled(x, factor=2.0, mask=None):
    return factor * x if mask is None else factor * x * ops.cast(mask, x.dtype)


def by_training(x, training=None):
    return ops.exp(x) if training else ops.square(x)


def without_bias(layer):
    layer.bias = None


CASES = [
    Case("dense", lambda: layers.Dense(3)),
    Case("dense-no-bias", lambda: layers.Dense(3, use_bias=False)),
    Case("dense-bias-taken-away", lambda: layers.Dense(3), prepare=without_bias, per_example=False),
    Case("dense-activation", lambda: layers.Dense(3, activation="tanh")),
    Case("dense-positions", lambda: layers.Dense(3, activation="sigmoid"), ((4, 2, 5),)),
    Case("dense-many-positions", lambda: layers.Dense(2), ((2, 9, 3, 2),)),
    Case("dense-layer-as-activation", lambda: layers.Dense(3, activation=layers.LeakyReLU())),
    Case("dense-prelu", lambda: layers.Dense(3, activation=layers.PReLU())),
    Case("dense-lora", lambda: layers.Dense(3, lora_rank=2), per_example=False),
    Case("dense-lora-alpha", lambda: layers.Dense(3, "tanh", lora_rank=2, lora_alpha=5), ((4, 2, 5),), per_example=False),
    Case("dense-lora-no-bias", lambda: layers.Dense(3, use_bias=False, lora_rank=1), per_example=False),
    Case("identity", lambda: layers.Identity()),
    Case("identity-nested", lambda: layers.Identity(), ([(4, 3), (2, 5)],)),
    Case("masking", lambda: layers.Masking(), (PADDED,), differences=False),
    Case("masking-value", lambda: layers.Masking(0.5), (PADDED,), differences=False),
    Case("lambda", lambda: layers.Lambda(lambda x: ops.tanh(x) * x)),
    Case("lambda-arguments", lambda: layers.Lambda(scaled, arguments={"factor": 3.0})),
    Case("lambda-mask", lambda: layers.Lambda(scaled, mask=lambda x, mask: mask), kwargs={"mask": np.ones((4, 5), bool)}),
    Case("lambda-training", lambda: layers.Lambda(by_training), kwargs={"training": True}),
    Case("lambda-inference", lambda: layers.Lambda(by_training), kwargs={"training": False}),
    Case("lambda-several", lambda: layers.Lambda(lambda x: [x[0] * x[1], x[0]]), ([(4, 3), (4, 3)],)),
    Case("wrapper", lambda: Twice(layers.Dense(3, "tanh"))),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_rule(case):
    check_rule(case)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("units", [1, 4])
@pytest.mark.parametrize("dtype", ["float64", "mixed_bfloat16"])
def test_a_dense_layer_computes_what_keras_computes_to_the_last_bit(dtype, units, compiled):
    for shape in ((6, 3), (6, 4, 3), (6, 2, 4, 3)):
        layer = layers.Dense(units, bias_initializer="normal", dtype=dtype)
        layer.build(shape)
        x = tf.cast(normal(*shape), layer.compute_dtype)
        with AutocastScope(layer.compute_dtype):
            call = tf.function(layer.call, autograph=False) if compiled else layer.call
            ours = tf.function(dense_forward, autograph=False) if compiled else dense_forward
            np.testing.assert_array_equal(ours(layer, x)[0], call(x))


class Computed(layers.Layer):
    """Another layer computes what `Dense` computes with, for this one call: a hypernetwork, or fast weights."""

    def __init__(self, attribute, shape):
        super().__init__(dtype="float64")
        self.attribute, self.shape = attribute, shape
        self.inner = layers.Dense(3, "tanh", dtype="float64")
        self.other = layers.Dense(math.prod(shape), dtype="float64")

    def build(self, shape):
        self.inner.build(shape)
        self.other.build(shape)
        getattr(self.inner, self.attribute).trainable = False

    def call(self, x):
        own = getattr(self.inner, self.attribute)
        object.__setattr__(self.inner, self.attribute, ops.reshape(ops.mean(self.other(x), 0), self.shape))
        try:
            return self.inner(x)
        finally:
            object.__setattr__(self.inner, self.attribute, own)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize(("attribute", "shape"), [("bias", (3,)), ("_kernel", (4, 3))], ids=["bias", "kernel"])
def test_a_weight_of_dense_may_be_a_tensor(attribute, shape, compiled):
    layer, x = Computed(attribute, shape), normal(5, 4)
    layer(x)
    assert_equals_the_tape(layer, x, compiled)


def test_a_lambda_of_raw_tensorflow_is_followed():
    layer = layers.Lambda(lambda x: tf.math.lgamma(x), name="raw")
    check_layer(layer, normal(2, 3) ** 2 + 1).raise_if_failed()


def test_masking_keeps_the_mask():
    from keras_backprop.chain.record import Record

    layer = layers.Masking(dtype="float64")
    y = Record().run(layer, tf.constant(PADDED))
    np.testing.assert_array_equal(y._keras_mask, [[True, False, True], [False, True, True]])


def test_a_frozen_weight_has_no_gradient():
    def freeze(layer):
        layer.bias.trainable = False

    check_rule(Case("frozen", lambda: layers.Dense(3), prepare=freeze))


def test_dense_under_autocast_gives_gradients_in_the_variables_dtype():
    from keras_backprop.chain.record import Record
    from keras_backprop.chain.sweep import sweep

    layer = layers.Dense(3, activation="relu", dtype="mixed_bfloat16")
    x = keras.ops.convert_to_tensor(np.ones((4, 5), "float32"))
    layer(x)
    record = Record()
    y = record.run(layer, x)
    result = sweep(record.calls, [(y, keras.ops.ones_like(y))], layer.trainable_variables)
    assert y.dtype == "bfloat16"
    assert result.gradient(layer.kernel).dtype == "float32"


def test_lora_trains_as_in_stock_keras():
    weights = []
    for cls in (keras.Model, BackpropModel):
        keras.utils.set_random_seed(1)
        inputs = keras.Input((4,))
        first, last = layers.Dense(5, "tanh"), layers.Dense(2)
        model = cls(inputs, last(first(inputs)))
        first.enable_lora(2, lora_alpha=3, b_initializer="normal")
        last.enable_lora(1)
        model.compile(keras.optimizers.SGD(0.1), "mse")
        x, y = np.random.default_rng(1).normal(size=(8, 4)), np.ones((8, 2))
        model.fit(x, y, epochs=3, batch_size=8, shuffle=False, verbose=0)
        weights.append(model.get_weights())
    for stock, ours in zip(*weights, strict=True):
        np.testing.assert_allclose(ours, stock, rtol=0, atol=1e-6)
