"""`BackpropDense` against `keras.layers.Dense`, option by option."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_backprop
from keras_backprop.layers import BackpropDense

OPTIONS = [
    {"activation": "gelu"},
    {"activation": "softmax", "use_bias": False},
    {"activation": layers.LeakyReLU(0.1)},
    {"kernel_regularizer": "l1", "bias_regularizer": "l2", "activity_regularizer": "l2"},
    {"kernel_constraint": "non_neg", "bias_initializer": "ones"},
    {"dtype": "mixed_bfloat16"},
    {"lora_rank": 2},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: next(iter(options)))
def test_every_option_does_what_it_does_in_dense(options):
    random = np.random.default_rng(0)
    x, y = random.normal(size=(16, 5)).astype("float32"), random.normal(size=(16, 4)).astype("float32")
    stock = keras.Sequential([keras.Input((5,)), layers.Dense(4, **options)])
    ours = keras_backprop.BackpropSequential([keras.Input((5,)), BackpropDense(4, **options)])
    if "lora_rank" in options:
        stock.layers[0].lora_kernel_b.assign(np.ones((2, 4)))  # else the other factor has no gradient in the first step
    ours.set_weights(stock.get_weights())
    assert ours.layers[0].get_config() | {"name": ""} == stock.layers[0].get_config() | {"name": ""}
    for model in (stock, ours):
        model.compile(keras.optimizers.SGD(0.1), "mse")
        model.fit(x, y, epochs=3, shuffle=False, verbose=0)
    for a, b in zip(stock.get_weights(), ours.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    if "dtype" not in options:
        keras_backprop.check_layer(ours.layers[0], x).raise_if_failed()


def test_low_rank_weights_have_gradients_of_single_examples():
    layer = BackpropDense(4, "tanh")
    layer.build((None, 5))
    layer.enable_lora(2, lora_alpha=3)
    layer.lora_kernel_b.assign(np.ones((2, 4)))
    x = np.random.default_rng(0).normal(size=(6, 3, 5))
    keras_backprop.check_layer(layer, x).raise_if_failed()
