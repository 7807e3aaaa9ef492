"""The rules of `rules/losses/regression.py`, and what all losses share: shapes, reductions, weights, masks."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import losses

from keras_backprop import backward
from tests.rules.losses.checking import check_loss, model_of, numbers, probabilities

LOSSES = {
    "mse": losses.MeanSquaredError,
    "mae": losses.MeanAbsoluteError,
    "mape": losses.MeanAbsolutePercentageError,
    "msle": losses.MeanSquaredLogarithmicError,
    "cosine": losses.CosineSimilarity,
    "cosine-axis": lambda **options: losses.CosineSimilarity(axis=1, **options),
    "huber": losses.Huber,
    "huber-delta": lambda **options: losses.Huber(delta=0.3, **options),
    "log_cosh": losses.LogCosh,
    "poisson": losses.Poisson,
    "kl": losses.KLDivergence,
}
POSITIVE = ("msle", "poisson", "kl")
REDUCTIONS = ["sum_over_batch_size", "sum", "mean", "mean_with_sample_weight", None]


def data(name, *shape):
    low = 0.05 if name in POSITIVE else -2.0
    return numbers(*shape, low=low, seed=1), numbers(*shape, low=low, seed=2)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("shape", [(5, 3), (4, 3, 2), (3, 2, 2, 3)], ids=str)
def test_rule(name, shape):
    check_loss(LOSSES[name](), *data(name, *shape))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("reduction", REDUCTIONS, ids=str)
def test_reductions_with_weights(name, reduction):
    t, x = data(name, 5, 3)
    check_loss(LOSSES[name](reduction=reduction), t, x, sample_weight=numbers(5, low=0.1), differences=False)


@pytest.mark.parametrize("reduction", REDUCTIONS, ids=str)
@pytest.mark.parametrize("weights", [None, (4, 1), (4, 3)], ids=str)
def test_masks(reduction, weights):
    t, x = data("mse", 4, 3, 2)
    x[1, 2] = x[2, 1:] = 0.0
    weights = None if weights is None else numbers(*weights, low=0.1)
    check_loss(losses.MeanAbsoluteError(reduction=reduction), t, x, sample_weight=weights, masked=True)


@pytest.mark.parametrize("name", [name for name in LOSSES if not name.startswith("cosine")])
def test_a_column_against_a_vector(name):
    t, x = data(name, 5, 1)
    check_loss(LOSSES[name](), t[:, 0], x)


@pytest.mark.parametrize("name", ["mse", "mae", "mape", "msle", "huber", "log_cosh", "poisson", "kl"])
def test_targets_that_broadcast(name):
    t, x = data(name, 5, 3)
    check_loss(LOSSES[name](), t[:, :1], x)
    check_loss(LOSSES[name](), t, x[:, :1])
    check_loss(LOSSES[name](), *(v[..., :1] for v in data(name, 5, 3)))


def test_a_prediction_with_a_trailing_axis_of_one():
    t, x = data("mse", 4, 3, 1)
    check_loss(losses.MeanSquaredError(), t[..., 0], x)


@pytest.mark.parametrize("name", ["mae", "mape", "huber", "kl", "msle"])
def test_kinks_have_tensorflows_value(name):
    t = np.array([[0.0, 1.0, 0.5, 1e-7]])
    x = {"kl": np.array([[1e-7, 1.0, 1.5, 0.0]]), "msle": np.array([[1e-7, -1.0, 0.0, 1.0]])}.get(
        name, t + [[0.0, 1.0, -1.0, 0]]
    )
    check_loss(LOSSES[name](), t, x, differences=False)


def test_kl_of_softmax():
    check_loss(losses.KLDivergence(), probabilities(4, 3), numbers(4, 3), keras.layers.Softmax(dtype="float64"))


@pytest.mark.parametrize(
    "name", ["mse", "MSE", "mean_squared_error", "mae", "mape", "msle", "huber", "log_cosh", "poisson"]
)
def test_by_name(name):
    check_loss(name, *data("msle", 4, 3))


def test_the_gradient_of_a_zero_vector_is_finite():
    """Where stock Keras has NaN."""
    from keras_backprop.chain.record import Record
    from keras_backprop.chain.sweep import sweep

    a, t = tf.zeros([2, 3], tf.float64), tf.ones([2, 3], tf.float64)
    record, function = Record(), losses.cosine_similarity
    y = record.run_as(function, function, function, "loss", t, a)
    assert np.all(np.isfinite(sweep(record.calls, [(y, tf.ones_like(y))], inputs=[a]).input_gradient(a)))


@pytest.mark.parametrize("make", [tf.constant, keras.Variable], ids=["tensor", "variable"])
@pytest.mark.parametrize(
    ("loss", "options", "predictions"),
    [
        (losses.Huber, {"delta": 0.3}, numbers(4, 3)),
        (losses.BinaryFocalCrossentropy, {"gamma": 1.5}, numbers(4, 3, low=0.05, high=0.95)),
        (losses.CategoricalFocalCrossentropy, {"alpha": [0.2, 0.3, 0.5], "gamma": 1.5}, probabilities(4, 3)),
        (losses.CategoricalCrossentropy, {"label_smoothing": 0.2}, probabilities(4, 3)),
        (losses.Tversky, {"alpha": 0.3, "beta": 0.7}, probabilities(4, 3)),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_options_that_are_no_numbers_are_those_of_numbers(loss, options, predictions, make):
    t, gradients = tf.one_hot([0, 2, 1, 0], 3), []
    for given in (options, {name: make(value) for name, value in options.items()}):
        model = model_of(predictions.astype("float32"), loss(**given))
        gradients.append(backward(model, predictions.astype("float32"), t).gradients[0])
    np.testing.assert_allclose(*gradients, rtol=1e-5)
