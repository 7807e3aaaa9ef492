"""The test of a loss is one call: `check_loss(loss, t, a)`.

The gradients of a small compiled model against the tape in float64, which includes the reduction, the sample weights and the mask.
"""

import keras
import numpy as np
from keras import layers

from keras_backprop import check_gradients, rule_for
from keras_backprop.check.tolerances import RELATIVE_TOLERANCE


class Scaled(keras.layers.Layer):
    """y = s·x with a trainable s near 1, so that a loss is fed with predictions of our choice and a weight hears of it."""

    supports_masking = True

    def build(self, input_shape):
        self.s = self.add_weight(shape=input_shape[1:], initializer="ones")

    def call(self, x):
        return x * self.s


def model_of(x, loss, *outputs, masked=False):
    """A model of the predictions x, through further layers, with the loss."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input(x.shape[1:], dtype="float64")
    h = layers.Masking(dtype="float64")(inputs) if masked else inputs
    h = Scaled(dtype="float64")(h)
    for layer in outputs:
        h = layer(h)
    model = keras.Model(inputs, h)
    model.compile("sgd", loss)
    return model


def check_loss(loss, t, x, *outputs, sample_weight=None, masked=False, differences=True):
    """Assert that the loss has a rule and that its gradient is the tape's."""
    if isinstance(loss, keras.losses.Loss) and hasattr(loss, "fn"):
        assert rule_for(loss.fn) is not None, f"{loss.name} has no rule"
    x = np.asarray(x, "float64")
    model = model_of(x, loss, *outputs, masked=masked)
    report = check_gradients(model, x, t, sample_weight, finite_differences=differences)
    report.raise_if_failed()
    assert max(row.tape_relative for row in report.rows) <= RELATIVE_TOLERANCE["float64"]
    assert any(row.verdict in ("ok", "kink") for row in report.rows), "no gradient at all"


def numbers(*shape, low=-2.0, high=2.0, seed=0):
    return np.random.default_rng(seed).uniform(low, high, shape)


def probabilities(*shape, axis=-1, seed=0):
    p = np.random.default_rng(seed).uniform(0.05, 1.0, shape)
    return p / p.sum(axis, keepdims=True)


def one_hot(*shape, seed=0):
    """One-hot rows along the last axis."""
    return np.eye(shape[-1])[np.random.default_rng(seed).integers(0, shape[-1], shape[:-1])]
