"""The rules of `rules/layers/multi_head_attention.py`."""

import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_backprop.chain.record import Record
from keras_backprop.chain.sweep import sweep
from tests.checking import Case, check_rule, normal

SELF = ((2, 4, 6), (2, 4, 6))
CROSS = ((2, 3, 6), (2, 5, 6))
KEYS = ((2, 3, 6), (2, 5, 4), (2, 5, 7))
MASK = np.random.default_rng(0).uniform(size=(2, 3, 5)) < 0.7
NOTHING_SEEN = MASK & np.array([True, False, True])[:, None]
VALUE_MASK = np.array([[True, True, False, True, False], [True, False, True, True, True]])
QUERY_MASK = np.array([[True, True, False], [True, False, True]])
TRAINING = {"training": True}
SCORES = {"return_attention_scores": True}


def multi(heads=2, key_dim=3, **options):
    return lambda: layers.MultiHeadAttention(heads, key_dim, **options)


def grouped(head_dim=3, queries=4, keys=2, **options):
    return lambda: layers.GroupQueryAttention(head_dim, queries, keys, **options)


BOTH = [
    Case(f"{name}-{call}", make(**options), inputs, kwargs, per_example=call != "penalties")
    for name, make in (("multi", multi), ("grouped", grouped))
    for call, options, inputs, kwargs in [
        ("self", {}, SELF, {}),
        ("cross", {}, CROSS, {}),
        ("keys", {}, ((2, 3, 6), (2, 5, 6), (2, 5, 6)), {}),
        ("no-bias", {"use_bias": False}, CROSS, {}),
        ("causal", {}, SELF, {"use_causal_mask": True}),
        ("mask", {}, CROSS, {"attention_mask": MASK}),
        ("mask-nothing-seen", {}, CROSS, {"attention_mask": NOTHING_SEEN}),
        ("value-mask", {}, CROSS, {"value_mask": VALUE_MASK}),
        ("key-mask", {}, CROSS, {"key_mask": VALUE_MASK, "attention_mask": MASK}),
        ("query-mask", {}, CROSS, {"query_mask": QUERY_MASK}),
        ("mask-causal", {}, CROSS, {"attention_mask": MASK, "use_causal_mask": True}),
        ("scores", {}, CROSS, SCORES),
        ("scores-mask", {}, CROSS, {**SCORES, "attention_mask": MASK}),
        ("scores-nothing-seen", {}, CROSS, {**SCORES, "attention_mask": NOTHING_SEEN}),
        ("scores-causal", {}, SELF, {**SCORES, "use_causal_mask": True}),
        ("dropout", {"dropout": 0.4, "seed": 1}, CROSS, TRAINING),
        ("dropout-inference", {"dropout": 0.4, "seed": 1}, CROSS, {}),
        ("dropout-causal", {"dropout": 0.4, "seed": 1}, SELF, {**TRAINING, "use_causal_mask": True}),
        ("dropout-mask-scores", {"dropout": 0.4, "seed": 1}, CROSS, {**TRAINING, **SCORES, "attention_mask": MASK}),
        ("window", {"sliding_window": 2}, SELF, {}),
        ("window-causal", {"sliding_window": 2}, SELF, {"use_causal_mask": True}),
        ("gate", {"use_gate": True}, CROSS, {}),
        ("gate-scores", {"use_gate": True}, CROSS, SCORES),
        ("penalties", {"kernel_regularizer": "l2", "activity_regularizer": "l1"}, CROSS, {}),
    ]
]
CASES = [
    *BOTH,
    Case("multi-sizes", multi(value_dim=2, output_shape=5), KEYS),
    Case("multi-output-shape", multi(output_shape=(2, 3)), CROSS),
    Case("multi-axes", multi(attention_axes=(2,)), ((2, 3, 4, 5), (2, 3, 2, 5))),
    Case("multi-axes-both", multi(attention_axes=(1, 2)), ((2, 3, 2, 4), (2, 2, 2, 4))),
    Case("multi-axes-negative", multi(attention_axes=-2), ((2, 2, 3, 4), (2, 2, 5, 4)), {"attention_mask": MASK[:, None]}),
    Case("multi-axes-dropout", multi(attention_axes=(1, 2), dropout=0.3, seed=1), ((2, 3, 2, 4), (2, 2, 2, 4)), TRAINING),
    Case("multi-one-head", multi(heads=1), CROSS),
    Case("grouped-one-key-head", grouped(keys=1), CROSS),
    Case("grouped-one-key-head-mask", grouped(keys=1), CROSS, {"attention_mask": MASK}),
    Case("grouped-all-heads", grouped(keys=4), CROSS),
]  # fmt: skip


@pytest.mark.sample(24)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_rule(case):
    check_rule(case)


def stock_and_recorded(make, *inputs, **kwargs):
    """y and all gradients, by stock Keras and by the rules, for two layers with the same weights and seeds."""
    results = []
    for explicit in (False, True):
        layer = make()
        layer.build(*(x.shape for x in inputs))
        random = np.random.default_rng(0)
        for variable in layer.trainable_variables:
            variable.assign(random.normal(size=variable.shape))
        weights = layer.trainable_variables
        if explicit:
            record = Record()
            y = record.run(layer, *inputs, **kwargs)
            result = sweep(record.calls, [(y, y)], weights, inputs)
            gradients = [result.input_gradient(x) for x in inputs] + [result.gradient(w) for w in weights]
        else:
            with tf.GradientTape() as tape:
                tape.watch(inputs)
                y = layer(*inputs, **kwargs)
            gradients = tape.gradient(y, [*inputs, *(w.value for w in weights)], y)
        results.append((y, gradients, [v.value for v in layer.non_trainable_variables]))
    return results


@pytest.mark.parametrize("make", [multi, grouped])
@pytest.mark.parametrize("options", [{}, {"dropout": 0.5, "seed": 2}], ids=["plain", "dropout"])
@pytest.mark.parametrize("policy, tolerance", [("float32", 1e-4), ("mixed_float16", 0.05), ("mixed_bfloat16", 0.3)])
def test_single_and_mixed_precision_as_stock_keras(make, options, policy, tolerance):
    inputs = [tf.constant(normal(*shape, seed=i) / 2, tf.float32) for i, shape in enumerate(CROSS)]
    (expected, theirs, stock_state), (y, ours, state) = stock_and_recorded(
        make(dtype=policy, **options), *inputs, training=True, attention_mask=tf.constant(MASK)
    )
    assert y.dtype == expected.dtype
    np.testing.assert_allclose(tf.cast(y, "float32"), tf.cast(expected, "float32"), atol=tolerance)
    largest = max(np.abs(b).max() for b in theirs)  # the bias of the keys has none: what it shows is rounding
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, atol=tolerance * largest)
    for a, b in zip(state, stock_state, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_mask_of_the_query_goes_along_as_in_keras():
    embedding = layers.Embedding(5, 6, mask_zero=True)
    attention = layers.MultiHeadAttention(2, 3)
    tokens = tf.constant([[1, 2, 0], [3, 0, 0]])
    x = embedding(tokens)
    expected = attention(x, x)
    x = embedding(tokens)
    y = Record().run(attention, x, x)
    np.testing.assert_allclose(y, expected, atol=1e-6)
    np.testing.assert_array_equal(y._keras_mask, expected._keras_mask)


def test_unknown_sizes_of_a_compiled_step():
    layer = layers.MultiHeadAttention(2, 3, dtype="float64")
    layer.build((None, None, 6), (None, None, 6))

    def run(x):
        record = Record()
        y = record.run(layer, x, x, use_causal_mask=True)
        result = sweep(record.calls, [(y, y)], layer.trainable_variables, [x])
        return [y, result.input_gradient(x), *(result.gradient(v) for v in layer.trainable_variables)]

    x = tf.constant(normal(2, 4, 6))
    compiled = tf.function(run, input_signature=[tf.TensorSpec([None, None, 6], tf.float64)])
    for a, b in zip(compiled(x), run(x), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_the_links_of_attention_are_visible():
    layer = layers.MultiHeadAttention(2, 3, name="attention")
    x = tf.ones([2, 4, 6])
    layer(x, x)
    record = Record()
    record.run(layer, x, x)
    paths = [call.path for call in record.calls]
    assert [p for p in paths if p.startswith("attention/")] == [
        f"attention/{name}" for name in ("query", "key", "value", "attention_output")
    ]
    assert any("dot_product_attention" in p for p in paths)
