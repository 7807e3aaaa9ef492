"""What stands in for TensorFlow's pooling kernels while a check runs."""

import numpy as np
import pytest
import tensorflow as tf

from keras_backprop.check.pooling import pooling_of_everything

VOLUME = np.random.default_rng(0).normal(size=(2, 5, 4, 6, 3))


@pytest.mark.parametrize("pool", ["max_pool", "avg_pool"])
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("window, strides", [(2, 2), ((2, 3, 1), (1, 2, 2))])
def test_a_volume_in_double_precision_is_pooled_as_one_in_single_precision(pool, padding, window, strides):
    expected = getattr(tf.nn, pool)(tf.constant(VOLUME, "float32"), window, strides, padding, "NDHWC")
    with pooling_of_everything():
        pooled = getattr(tf.nn, pool)(tf.constant(VOLUME), window, strides, padding, "NDHWC")
    assert pooled.dtype == tf.float64
    np.testing.assert_allclose(pooled, expected, rtol=1e-5, atol=1e-6)


def test_a_window_wider_than_the_line_fits_nowhere():
    line = tf.ones((2, 3, 1))
    with pooling_of_everything():
        pooled = tf.nn.pool(
            line, window_shape=(4,), pooling_type="MAX", strides=(1,), padding="VALID", data_format="NWC"
        )
    assert pooled.shape == (2, 0, 1)


def test_afterwards_tensorflow_is_as_before():
    before = tf.nn.max_pool, tf.nn.avg_pool, tf.nn.pool
    with pooling_of_everything():
        assert tf.nn.max_pool is not before[0]
    assert (tf.nn.max_pool, tf.nn.avg_pool, tf.nn.pool) == before
