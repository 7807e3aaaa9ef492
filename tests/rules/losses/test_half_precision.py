"""Losses of half precision, in which 1/ε overflows and 1 − ε is 1, and which Keras promotes where one of its numbers is wider."""

import numpy as np
import pytest
import tensorflow as tf
from keras import losses

from keras_backprop.chain.record import Record
from keras_backprop.chain.sweep import sweep
from tests.rules.losses.checking import one_hot, probabilities

CLIPPED = {
    "binary": (losses.binary_crossentropy, {}),
    "binary, smoothed": (losses.binary_crossentropy, {"label_smoothing": 0.2}),
    "binary, focal": (losses.binary_focal_crossentropy, {}),
    "categorical": (losses.categorical_crossentropy, {"label_smoothing": 0.2}),
    "KL": (losses.kl_divergence, {}),
}
PROMOTED = {
    "MSLE": (losses.mean_squared_logarithmic_error, {}),
    "focal, probabilities": (losses.categorical_focal_crossentropy, {"alpha": [0.2, 0.3, 0.5]}),
    "focal, logits": (losses.categorical_focal_crossentropy, {"alpha": [0.2, 0.3, 0.5], "from_logits": True}),
}


def gradients(function, options, t, a):
    """∂(Σ loss)/∂a by the rule and by the tape."""
    with tf.GradientTape() as tape:
        tape.watch(a)
        y = function(t, a, **options)
    record = Record()
    recorded = record.run_as(function, function, function, "loss", t, a, **options)
    assert [call.op for call in record.calls] == [function], "the rule was not asked"
    return sweep(record.calls, [(recorded, tf.ones_like(recorded))], inputs=[a]).input_gradient(a), tape.gradient(y, a)


@pytest.mark.parametrize("name", CLIPPED)
def test_what_was_clipped_has_no_gradient(name):
    a = tf.constant([[0.0, 0.5, -0.25], [0.25, 1.5, -1.0], [0.0, 0.75, 0.5]], tf.float16)
    ours, tapes = gradients(*CLIPPED[name], tf.constant(0.5 * np.eye(3) + 0.25, tf.float16), a)
    np.testing.assert_allclose(ours, tapes, rtol=4e-3)


@pytest.mark.parametrize("name", CLIPPED)
def test_a_prediction_that_is_no_number(name):
    a = tf.constant([[np.nan, 0.5, 0.25]])
    np.testing.assert_allclose(*gradients(*CLIPPED[name], tf.constant([[0.25, 0.5, 0.25]]), a), rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", PROMOTED)
def test_an_error_of_a_wider_dtype(name, dtype):
    t, a = (tf.cast(x, dtype) for x in (one_hot(4, 3), probabilities(4, 3)))
    ours, tapes = gradients(*PROMOTED[name], t, a)
    assert ours.dtype == dtype
    tolerance = {"float16": 4e-3, "bfloat16": 4e-2}[dtype]
    np.testing.assert_allclose(*(tf.cast(g, tf.float64) for g in (ours, tapes)), rtol=tolerance, atol=tolerance / 10)
