"""The rules of `rules/ops/normalization.py`."""

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from keras_backprop.chain.record import Record
from keras_backprop.chain.sweep import sweep
from tests.checking import Case, Function, check_rule

V = np.array([0.5, 1.5, 0.7])
POSITIVE = np.array([0.4, 1.2, 2.0])

CASES = [
    Case("layer", lambda: lambda x: ops.layer_normalization(x)),
    Case("layer-scale", lambda: lambda x, g: ops.layer_normalization(x, g), ((4, 3), V)),
    Case("layer-scale-shift", lambda: lambda x, g, b: ops.layer_normalization(x, g, b), ((4, 2, 3), V, V)),
    Case("layer-axis", lambda: lambda x, g, b: ops.layer_normalization(x, g, b, axis=1), ((4, 3, 2), V, V)),
    Case("layer-axes", lambda: lambda x, g: ops.layer_normalization(x, g, axis=[1, 2]), ((4, 3, 2), (3, 2))),
    Case("layer-whole-scale", lambda: lambda x, g: ops.layer_normalization(x, g), ((4, 3), (4, 3))),
    Case("layer-epsilon", lambda: lambda x: ops.layer_normalization(x, epsilon=0.3)),
    Case("rms", lambda: lambda x: ops.rms_normalization(x)),
    Case("rms-scale", lambda: lambda x, g: ops.rms_normalization(x, g), ((4, 2, 3), V)),
    Case("rms-scale-array", lambda: lambda x: ops.rms_normalization(x, V), ((4, 2, 3),)),
    Case("layer-shift-array", lambda: lambda x, g: ops.layer_normalization(x, g, V), ((4, 2, 3), V)),
    Case("rms-axes", lambda: lambda x, g: ops.rms_normalization(x, g, axis=(1, 2), epsilon=0.2), ((4, 2, 3), (2, 3))),
    Case("rms-number", lambda: lambda x, g: ops.rms_normalization(x, g), ((4, 3), np.array(2.0))),
    Case("batch", lambda: lambda x, m, v: ops.batch_normalization(x, m, v, -1), ((4, 3), V, POSITIVE)),
    Case(
        "batch-scale-offset",
        lambda: lambda x, m, v, o, s: ops.batch_normalization(x, m, v, -1, o, s, 0.1),
        ((4, 2, 3), V, POSITIVE, V, V),
    ),
    Case(
        "batch-axis",
        lambda: lambda x, m, v, o, s: ops.batch_normalization(x, m, v, 1, o, s),
        ((4, 3, 2), V, POSITIVE, V, V),
    ),
    Case(
        "batch-scale", lambda: lambda x, m, v, s: ops.batch_normalization(x, m, v, 1, scale=s), ((4, 3), V, POSITIVE, V)
    ),
    Case("moments", lambda: lambda x: ops.moments(x, [0])),
    Case("moments-axes", lambda: lambda x: ops.moments(x, [0, -1], keepdims=True), ((4, 3, 2),)),
    Case("moments-axes-dropped", lambda: lambda x: ops.moments(x, [0, 2]), ((4, 3, 2),)),
    Case("moments-of-one", lambda: lambda x: ops.add(*ops.moments(x, [1], synchronized=True)), ((4, 3, 2),)),
    Case("moments-mean-only", lambda: lambda x: ops.moments(x, [1])[0]),
    Case("normalize", lambda: lambda x: ops.normalize(x)),
    Case("normalize-axis", lambda: lambda x: ops.normalize(x, axis=1), ((4, 3, 2),)),
    Case("normalize-all", lambda: lambda x: ops.normalize(x, axis=None)),
    Case("normalize-below-epsilon", lambda: lambda x: ops.normalize(x, epsilon=5.0)),
    Case("normalize-order-1", lambda: lambda x: ops.normalize(x, order=1)),
    Case("normalize-order-3", lambda: lambda x: ops.normalize(x, axis=0, order=3)),
    Case("normalize-order-3-below", lambda: lambda x: ops.normalize(x, axis=0, order=3, epsilon=50.0)),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_rule(case):
    check_rule(case)


@pytest.mark.filterwarnings("ignore:You passed `rms_scaling=True`")
def test_rms_scaling():
    check_rule(
        Case("rms-scaling", lambda: lambda x, g: ops.layer_normalization(x, g, rms_scaling=True), ((4, 2, 3), V))
    )


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-5), ("float16", 2e-2)])
def test_lower_precision_as_stock_keras(dtype, tolerance):
    x = tf.constant(np.random.default_rng(0).normal(size=(4, 6)), dtype)
    for function in (ops.layer_normalization, ops.rms_normalization, lambda x: ops.moments(x, [0])[1], ops.normalize):
        layer = Function(function)
        layer.dtype_policy = dtype
        with tf.GradientTape() as tape:
            tape.watch(x)
            expected = layer(x)
        record = Record()
        y = record.run(layer, x)
        dy = tf.cast(tf.sin(tf.range(tf.size(y), dtype="float32")), dtype)
        dy = tf.reshape(dy, y.shape)
        dx = sweep(record.calls, [(y, dy)], (), [x]).input_gradient(x)
        np.testing.assert_allclose(y, expected, atol=tolerance)
        np.testing.assert_allclose(dx, tape.gradient(expected, x, dy), atol=4 * tolerance)
        assert y.dtype == expected.dtype and dx.dtype == x.dtype
