"""The rules of `rules/ops/attention.py`."""

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from keras_backprop.chain.record import Record
from keras_backprop.chain.sweep import sweep
from tests.checking import Case, Function, check_rule, normal

HEADS = ((2, 3, 4, 5), (2, 6, 4, 5), (2, 6, 4, 5))  # (n, t, h, i), (n, s, h, i)
ALIKE = ((2, 3, 4, 5), (2, 3, 4, 5), (2, 3, 4, 5))
MASK = np.random.default_rng(0).uniform(size=(2, 1, 3, 6)) < 0.7
NOTHING_SEEN = MASK & np.array([True, False, True])[:, None]


def attention(**options):
    return lambda: lambda q, k, v, *bias: ops.dot_product_attention(q, k, v, *bias, **options)


CASES = [
    Case("plain", attention(), HEADS),
    Case("scale", attention(scale=0.3), HEADS),
    Case("causal", attention(is_causal=True), ALIKE),
    Case("causal-more-keys", attention(is_causal=True), HEADS),
    Case("mask", attention(mask=MASK), HEADS),
    Case("mask-of-heads", attention(mask=np.repeat(MASK, 4, 1)), HEADS),
    Case("mask-of-queries", attention(mask=MASK[..., :1]), HEADS),
    Case("mask-nothing-seen", attention(mask=NOTHING_SEEN), HEADS),
    Case("mask-causal", attention(mask=MASK, is_causal=True), HEADS),
    Case("bias", attention(), (*HEADS, (2, 4, 3, 6))),
    Case("bias-broadcast", attention(mask=MASK), (*HEADS, (4, 1, 6))),
    Case("value-of-another-size", attention(), ((2, 3, 4, 5), (2, 6, 4, 5), (2, 6, 4, 3))),
    Case("grouped-heads", attention(is_causal=True), ((2, 3, 4, 5), (2, 3, 2, 5), (2, 3, 2, 5))),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_rule(case):
    check_rule(case)


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-5), ("float16", 2e-2), ("bfloat16", 1e-1)])
def test_lower_precision_as_stock_keras(dtype, tolerance):
    inputs = [tf.cast(normal(*shape, seed=i), dtype) for i, shape in enumerate(HEADS)]
    layer = Function(lambda q, k, v: ops.dot_product_attention(q, k, v, mask=NOTHING_SEEN))
    layer.dtype_policy = dtype
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        expected = layer(*inputs)
    record = Record()
    y = record.run(layer, *inputs)
    result = sweep(record.calls, [(y, y)], (), inputs)
    assert y.dtype == expected.dtype
    np.testing.assert_allclose(tf.cast(y, "float32"), tf.cast(expected, "float32"), atol=tolerance)
    for x, theirs in zip(inputs, tape.gradient(expected, inputs, expected), strict=True):
        ours = result.input_gradient(x)
        assert ours.dtype == theirs.dtype
        np.testing.assert_allclose(tf.cast(ours, "float32"), tf.cast(theirs, "float32"), atol=4 * tolerance)
