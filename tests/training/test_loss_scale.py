"""The loss scale of mixed precision falls and grows as under stock Keras, whoever traces the first step."""

import functools

import keras
import numpy as np
import pytest
from keras import layers

import keras_backprop

X = np.random.default_rng(0).normal(size=(96, 4)).astype("float32")
Y = 2 * X[:, :1]


@pytest.fixture(autouse=True)
def _half_precision():
    keras.mixed_precision.set_global_policy("mixed_float16")
    yield
    keras.mixed_precision.set_global_policy("float32")


def trained(cls, inputs, scaling, **options):
    keras.utils.set_random_seed(0)
    model = cls([*inputs(), layers.Dense(8, "tanh"), layers.Dense(1, dtype="float32")])
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.01), **scaling)
    model.compile(optimizer, "mse", **options)
    losses = model.fit(X, Y, epochs=8, batch_size=32, shuffle=False, verbose=0).history["loss"]
    return losses, float(optimizer.dynamic_scale), int(optimizer.iterations)


@pytest.mark.sample(3)
@pytest.mark.parametrize("options", [{}, {"epochs_per_execution": None}, {"steps_per_execution": 2}], ids=str)
@pytest.mark.parametrize(
    "scaling", [{"initial_scale": 2.0**20}, {"initial_scale": 256.0, "dynamic_growth_steps": 4}], ids=str
)
def test_it_moves(scaling, options):
    stock = {name: value for name, value in options.items() if name != "epochs_per_execution"}
    for inputs in (lambda: [keras.Input((4,))], list):  # built, and built in the first step
        expected = trained(keras.Sequential, inputs, scaling, **stock)
        losses, scale, iterations = trained(keras_backprop.BackpropSequential, inputs, scaling, **options)
        assert (scale, iterations) == expected[1:] and scale != scaling["initial_scale"]
        np.testing.assert_allclose(losses, expected[0], rtol=4e-3)


@pytest.mark.parametrize(
    "layer, shape",
    [
        (layers.GRU, (16, 4)),
        (layers.LSTM, (16, 4)),
        (layers.SimpleRNN, (16, 4)),
        (functools.partial(layers.ConvLSTM1D, kernel_size=2), (16, 4, 1)),
        (lambda units, return_sequences: layers.TimeDistributed(layers.Dense(units)), (16, 4)),
        (lambda units, return_sequences: layers.TimeDistributed(layers.Conv1D(units, 2)), (16, 4, 1)),
    ],
    ids=["GRU", "LSTM", "SimpleRNN", "ConvLSTM1D", "each step, Dense", "each step, Conv1D"],
)
def test_only_what_overflows_in_one_time_step_overflows(layer, shape):
    """Keras casts weights to half precision within each step, so that the sum over time is of single precision."""

    def overflows(cls, scales):
        keras.utils.set_random_seed(0)
        inputs = keras.Input(shape)
        model = cls(inputs, layers.Dense(1, dtype="float32")(layer(3, return_sequences=True)(inputs)))
        optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.01))
        model.compile(optimizer, "mse")
        optimizer.build(model.trainable_variables)
        weights, found = model.get_weights(), []
        for scale in scales:
            model.set_weights(weights)
            before = int(optimizer.iterations)
            optimizer.dynamic_scale.assign(scale)
            model.train_on_batch(X.reshape(6, *shape)[:4], np.full((4, *model.output.shape[1:]), 9, "float32"))
            found.append(int(optimizer.iterations) == before)
        return found

    scales = 2.0 ** np.arange(12, 24)
    ours, stock = (overflows(cls, scales) for cls in (keras_backprop.BackpropModel, keras.Model))
    assert ours == stock and len(set(stock)) == 2
