"""The rule of `rules/losses/ctc.py`."""

import numpy as np
import pytest
import tensorflow as tf
from keras import losses, ops

from keras_backprop.chain.record import Record
from keras_backprop.chain.sweep import sweep
from tests.rules.losses.checking import check_loss, numbers

LABELS = np.array([[1, 2, 2, 0], [3, 1, 0, 0]])


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum", None], ids=str)
def test_rule(reduction):
    """Keras computes this loss in float32 at the most: finite differences are too coarse."""
    loss = losses.CTC(reduction=reduction)
    check_loss(loss, LABELS, numbers(2, 7, 4), differences=False, sample_weight=np.array([0.5, 1.5]))


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("blank", [0, 2, 3, -1])
def test_operation(blank, compiled):
    z = tf.constant(numbers(2, 7, 4))
    labels = tf.constant(np.where(blank % 4 == LABELS, (blank + 1) % 4, LABELS))

    def loss(z):
        return ops.ctc_loss(labels, z, tf.constant([3, 2]), tf.constant([7, 6]), mask_index=blank)

    def ours():
        record = Record()
        y = record.run(loss, z)
        return y, sweep(record.calls, [(y, 3.0 * tf.ones_like(y))], inputs=[z]).input_gradient(z)

    y, dz = (tf.function(ours) if compiled else ours)()
    with tf.GradientTape() as tape:
        tape.watch(z)
        expected = loss(z)
    np.testing.assert_allclose(y, expected, rtol=1e-6)
    np.testing.assert_allclose(dz, 3 * tape.gradient(expected, z), rtol=1e-4, atol=1e-6)
    assert np.any(dz)
