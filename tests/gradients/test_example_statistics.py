"""Variance, noise scale and cosines against gradients of single examples, one by one."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_backprop import BackpropModel, backward
from keras_backprop.gradients import example_cosines, gradient_noise_scale, gradient_variance

N = 6


def models():
    def of(shape, *inner, **options):
        inputs = keras.Input(shape, **options)
        x = inputs
        for layer in inner:
            x = layer(x)
        return BackpropModel(inputs, layers.Dense(2)(layers.Flatten()(x)))

    shared = layers.Dense(4, "tanh")
    return {
        "dense": of((4,), layers.Dense(5, "tanh"), layers.Dense(3)),
        "positions": of((3, 4), layers.Dense(5, "tanh"), layers.LayerNormalization()),
        "shared": of((4,), shared, shared),
        "convolution": of((6, 6, 2), layers.Conv2D(3, 3, 2), layers.DepthwiseConv2D(2)),
        "causal": of((6, 2), layers.Conv1D(2, 2, padding="causal", dilation_rate=2)),
        "groups": of((5, 5, 4), layers.Conv2D(4, 2, groups=2, padding="same")),
        "recurrent": of((4, 3), layers.LSTM(3), layers.Reshape((3, 1)), layers.GRU(2)),
        "attention": of((5,), layers.Embedding(7, 4), layers.SpatialDropout1D(0.0), dtype="int32"),
    }


@pytest.mark.parametrize(
    "name", ["dense", "positions", "shared", "convolution", "causal", "groups", "recurrent", "attention"]
)
@pytest.mark.parametrize("weighted", [pytest.param(False, marks=pytest.mark.slow), True])
def test_against_the_gradients_of_single_examples(name, weighted, double_precision):
    keras.utils.set_random_seed(3)
    model = models()[name]
    model.compile("sgd", "mse")
    rng = np.random.default_rng(0)
    shape = (N, *model.inputs[0].shape[1:])
    x = rng.integers(0, 7, shape) if name == "attention" else rng.normal(size=shape)
    y = rng.normal(size=(N, 2))
    weights = np.array([1, 2, 0.5, 3, 1, 1.0]) if weighted else None
    result = backward(model, x, y, weights)
    singles = [backward(model, x[i : i + 1], y[i : i + 1]).gradients for i in range(N)]
    own = np.stack([np.concatenate([np.ravel(tf.convert_to_tensor(g)) for g in gradients]) for gradients in singles])
    mean = own.mean(0)
    variance = np.concatenate([np.ravel(result.gradient_variance(v)) for v in model.trainable_weights])
    np.testing.assert_allclose(variance, own.var(0, ddof=1), rtol=1e-5, atol=1e-9)
    scale, trace, norm = gradient_noise_scale(result)
    assert float(trace) == pytest.approx(own.var(0, ddof=1).sum(), rel=1e-4)
    assert float(norm) == pytest.approx((mean**2).sum() - own.var(0, ddof=1).sum() / N, rel=1e-3, abs=1e-5)
    assert float(scale) == pytest.approx(float(trace) / float(norm) if norm > 0 else np.inf, rel=1e-4)
    cosines = own @ mean / (np.linalg.norm(own, axis=1) * np.linalg.norm(mean))
    np.testing.assert_allclose(result.example_cosines(), cosines, rtol=1e-4, atol=1e-6)


def test_in_a_traced_step_and_of_some_weights():
    inputs = keras.Input((4,))
    model = BackpropModel(inputs, layers.Dense(1)(layers.Dense(3, "tanh", name="hidden")(inputs)))
    model.compile("sgd", "mse")
    x, y = tf.random.normal((8, 4)), tf.random.normal((8, 1))
    kernel = model.layers[1].kernel

    @tf.function
    def traced():
        result = backward(model, x, y)
        return (
            gradient_noise_scale(result, [kernel])[0],
            gradient_variance(result, kernel.path),
            example_cosines(result),
        )

    result = backward(model, x, y)
    for one, other in zip(
        traced(),
        (result.noise_scale([kernel]), result.gradient_variance(kernel), result.example_cosines()),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    with pytest.raises(KeyError, match="no weight 'nothing'"):
        result.gradient_variance("nothing")


def test_one_and_the_same_example_has_no_noise():
    inputs = keras.Input((4,))
    model = BackpropModel(inputs, layers.Dense(1)(inputs))
    model.compile("sgd", "mse")
    result = backward(model, np.ones((5, 4)), np.ones((5, 1)))
    assert float(result.noise_scale()) == pytest.approx(0, abs=1e-5)
    np.testing.assert_allclose(result.example_cosines(), 1, rtol=1e-5)
