"""The rules of `rules/ops/core.py`."""

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from tests.checking import Case, check_rule
from tests.rules.ops.eager import gradients

CASES = [
    Case("cast", lambda: lambda x: ops.cast(ops.cast(x, "float64"), "float64") * x),
    Case("convert", lambda: lambda x: ops.convert_to_tensor(x) * 2),
    Case("array", lambda: lambda x: ops.array(x) * 2),
    Case("copy", lambda: ops.copy),
    Case("stop-gradient", lambda: lambda x: x * ops.stop_gradient(x), differences=False),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_rule(case):
    check_rule(case)


def test_a_cast_casts_the_gradient_back():
    x = tf.constant([1.0, 1e6, -2.0])
    (dx,) = gradients(lambda x: ops.cast(x, "float16") + ops.saturate_cast(x, "float16"), x, upstream=tf.ones_like)
    assert dx.dtype == "float32"
    np.testing.assert_array_equal(dx, [2, 1, 2])
