"""The rules of `rules/layers/normalization.py`."""

import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_backprop.chain.record import Record
from keras_backprop.chain.sweep import sweep
from tests.checking import Case, check_rule, normal

CASES = [
    Case("layer", lambda: layers.LayerNormalization()),
    Case("layer-positions", lambda: layers.LayerNormalization(), ((3, 4, 5),)),
    Case("layer-image", lambda: layers.LayerNormalization(), ((2, 3, 2, 4),)),
    Case("layer-axis-1", lambda: layers.LayerNormalization(axis=1), ((3, 4, 5),)),
    Case("layer-axis-middle", lambda: layers.LayerNormalization(axis=-2), ((3, 4, 5),)),
    Case("layer-axes-out-of-order", lambda: layers.LayerNormalization(axis=(1, -1)), ((3, 4, 5),)),
    Case("layer-axes", lambda: layers.LayerNormalization(axis=(1, 2)), ((3, 4, 5),)),
    Case("layer-axes-negative", lambda: layers.LayerNormalization(axis=[-1, -2]), ((2, 3, 4, 2),)),
    Case("layer-axes-apart", lambda: layers.LayerNormalization(axis=(1, 3)), ((2, 3, 2, 4),)),
    Case("layer-axis-of-the-batch", lambda: layers.LayerNormalization(axis=0), ((4, 3),), per_example=False),
    Case("layer-no-center", lambda: layers.LayerNormalization(center=False), ((3, 4, 5),)),
    Case("layer-no-scale", lambda: layers.LayerNormalization(scale=False), ((3, 4, 5),)),
    Case("layer-neither", lambda: layers.LayerNormalization(scale=False, center=False), ((3, 4, 5),)),
    Case("layer-neither-axes", lambda: layers.LayerNormalization((1, 2), scale=False, center=False), ((3, 4, 5),)),
    Case("layer-epsilon", lambda: layers.LayerNormalization(epsilon=0.3)),
    Case("rms", lambda: layers.RMSNormalization()),
    Case("rms-positions", lambda: layers.RMSNormalization(), ((3, 4, 5),)),
    Case("rms-axes", lambda: layers.RMSNormalization(axis=(1, 2)), ((3, 4, 5),)),
    Case("rms-axis-middle", lambda: layers.RMSNormalization(axis=1), ((3, 4, 4),)),
    Case("rms-epsilon", lambda: layers.RMSNormalization(epsilon=0.3)),
    Case("unit", lambda: layers.UnitNormalization()),
    Case("unit-axis", lambda: layers.UnitNormalization(axis=1), ((3, 4, 5),)),
    Case("unit-axes", lambda: layers.UnitNormalization(axis=(1, -1)), ((3, 4, 5),)),
    Case("group", lambda: layers.GroupNormalization(groups=2), ((3, 5, 4),)),
    Case("group-dense", lambda: layers.GroupNormalization(groups=2), ((3, 6),)),
    Case("group-image", lambda: layers.GroupNormalization(groups=3), ((2, 3, 2, 6),)),
    Case("group-one", lambda: layers.GroupNormalization(groups=1), ((2, 3, 2, 4),)),
    Case("group-instance", lambda: layers.GroupNormalization(groups=-1), ((2, 3, 2, 4),)),
    Case("group-channels-first", lambda: layers.GroupNormalization(groups=2, axis=1), ((2, 4, 3, 2),)),
    Case("group-axis-middle", lambda: layers.GroupNormalization(groups=2, axis=2), ((2, 3, 4, 2),)),
    Case("group-axis-middle-negative", lambda: layers.GroupNormalization(groups=2, axis=-2), ((2, 3, 4, 2),)),
    Case("group-no-center", lambda: layers.GroupNormalization(groups=2, center=False), ((3, 5, 4),)),
    Case("group-no-scale", lambda: layers.GroupNormalization(groups=2, scale=False), ((3, 5, 4),)),
    Case("group-neither", lambda: layers.GroupNormalization(groups=2, scale=False, center=False), ((3, 5, 4),)),
    Case("group-epsilon", lambda: layers.GroupNormalization(groups=2, epsilon=0.3), ((3, 5, 4),)),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_rule(case):
    check_rule(case)


@pytest.mark.filterwarnings("ignore:You passed `rms_scaling=True`")
@pytest.mark.parametrize("axis, shape", [(-1, (3, 4, 5)), ((1, 2), (3, 4, 5)), (1, (3, 4, 5))], ids=str)
def test_rms_scaling(axis, shape):
    check_rule(Case("rms-scaling", lambda: layers.LayerNormalization(axis, rms_scaling=True), (shape,)))


def test_unit_normalization_of_zeros_is_no_nan():
    layer = layers.UnitNormalization(dtype="float64")
    x = tf.zeros([2, 3], tf.float64)
    record = Record()
    y = record.run(layer, x)
    dx = sweep(record.calls, [(y, tf.ones_like(y))], (), [x]).input_gradient(x)
    np.testing.assert_allclose(dx, 1e12)


LAYERS = {
    "layer": lambda policy: layers.LayerNormalization(dtype=policy),
    "rms": lambda policy: layers.RMSNormalization(dtype=policy),
    "group": lambda policy: layers.GroupNormalization(groups=2, dtype=policy),
    "unit": lambda policy: layers.UnitNormalization(dtype=policy),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("policy, tolerance", [("float32", 2e-6), ("mixed_float16", 4e-3), ("mixed_bfloat16", 4e-2)])
def test_single_and_mixed_precision_as_stock_keras(name, policy, tolerance):
    layer = LAYERS[name](policy)
    x = tf.constant(normal(3, 5, 4), tf.float32)
    layer(x)
    record = Record()
    with tf.GradientTape() as tape:
        tape.watch(x)
        expected = layer(x)
    y = record.run(layer, x)
    dy = tf.cast(normal(3, 5, 4, seed=1), y.dtype)
    result = sweep(record.calls, [(y, dy)], layer.trainable_variables, [x])
    assert y.dtype == expected.dtype
    np.testing.assert_allclose(tf.cast(y, "float32"), tf.cast(expected, "float32"), atol=tolerance)
    ours = [result.input_gradient(x), *(result.gradient(v) for v in layer.trainable_variables)]
    theirs = tape.gradient(expected, [x, *(v.value for v in layer.trainable_variables)], dy)
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(tf.cast(a, "float32"), tf.cast(b, "float32"), atol=8 * tolerance)


@pytest.mark.parametrize("name", LAYERS)
def test_unknown_sizes_of_a_compiled_step(name):
    layer = LAYERS[name]("float64")
    layer.build((None, None, None, 4))
    x = tf.constant(normal(2, 3, 5, 4))

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 4], tf.float64)])
    def step(x):
        record = Record()
        y = record.run(layer, x)
        return y, sweep(record.calls, [(y, tf.sin(x))], (), [x]).input_gradient(x)

    record = Record()
    expected = record.run(layer, x)
    y, dx = step(x)
    np.testing.assert_allclose(y, expected, rtol=1e-12)
    known = sweep(record.calls, [(expected, tf.sin(x))], (), [x]).input_gradient(x)
    np.testing.assert_allclose(dx, known, rtol=1e-9, atol=1e-12)
