"""Figures of single tensors."""

import pytest
import tensorflow as tf

from keras_backprop.watch.layout import Column
from keras_backprop.watch.numbers import Numbers
from keras_backprop.watch.units import _LIMITS


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
@pytest.mark.parametrize("activation, y", [("softsign", 0.8984375), ("softsign", -0.8984375), ("sigmoid", 0.99609375)])
def test_what_is_nearly_saturated_is_not_in_half_precision_either(activation, y, dtype):
    lower, upper = _LIMITS[activation]  # in bfloat16 the limit next to y would be y
    assert lower < y < upper
    x = tf.constant([y, 1.0], dtype)
    assert Numbers().of(Column("saturated"), ((lower, upper), x), None) == 1
