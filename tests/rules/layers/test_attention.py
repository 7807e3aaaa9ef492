"""The rules of `rules/layers/attention.py`."""

import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_backprop.chain.record import Record
from keras_backprop.chain.sweep import sweep
from tests.checking import Case, check_rule, normal

SCORES = {"return_attention_scores": True}
TWO = ([(3, 2, 4), (3, 5, 4)],)
THREE = ([(3, 2, 4), (3, 5, 6), (3, 5, 4)],)
SQUARE = ([(3, 4, 5), (3, 4, 5)],)
QUERY_MASK = np.array([[True, False], [True, True], [False, True]])
VALUE_MASK = np.array([[True, False, True, True, True], [True, True, True, False, False], [True] * 5])
NOTHING_SEEN = np.array([[True, False, True, True, True], [False] * 5, [True] * 5])

KINDS = {
    "dot": lambda **options: layers.Attention(**options),
    "scaled": lambda **options: layers.Attention(use_scale=True, **options),
    "concat": lambda **options: layers.Attention(score_mode="concat", **options),
    "concat-scaled": lambda **options: layers.Attention(score_mode="concat", use_scale=True, **options),
    "additive": lambda **options: layers.AdditiveAttention(**options),
    "additive-no-scale": lambda **options: layers.AdditiveAttention(use_scale=False, **options),
}
CALLS = {
    "two": (TWO, {}),
    "three": (THREE, {}),
    "scores": (THREE, {"return_attention_scores": True}),
    "causal": (SQUARE, {"use_causal_mask": True}),
    "masks": (TWO, {"mask": [QUERY_MASK, VALUE_MASK]}),
    "value-mask": (THREE, {"mask": [None, VALUE_MASK]}),
    "masks-of-three": (THREE, {"mask": [QUERY_MASK, VALUE_MASK, VALUE_MASK], "return_attention_scores": True}),
    "causal-and-masks": (TWO, {"mask": [QUERY_MASK, VALUE_MASK], "use_causal_mask": True}),
    "training-without-dropout": (TWO, {"training": True}),
}
CASES = [
    Case(f"{kind}-{call}", make, inputs, kwargs)
    for kind, make in KINDS.items()
    for call, (inputs, kwargs) in CALLS.items()
] + [
    Case(f"{kind}-dropout-{training}", lambda make=make: make(dropout=0.4, seed=1), THREE, {"training": training})
    for kind, make in KINDS.items()
    for training in (True, False)
] + [
    Case("dot-dropout-scores", lambda: layers.Attention(dropout=0.4, seed=1), THREE, SCORES | {"training": True}),
    Case("dot-two-batch-axes", lambda: layers.Attention(use_scale=True), ([(2, 3, 4, 5), (2, 3, 2, 5)],)),
    Case("additive-two-batch-axes", lambda: layers.AdditiveAttention(), ([(2, 3, 4, 5), (2, 3, 2, 5)],)),
    Case("concat-two-batch-axes", lambda: layers.Attention(True, "concat"), ([(2, 3, 4, 5), (2, 3, 2, 5)],)),
    # 10⁹ is subtracted from every score of a row: what finite differences see of the scores is rounding.
    Case("dot-nothing-seen", lambda: layers.Attention(), TWO, {"mask": [None, NOTHING_SEEN]}, differences=False),
]  # fmt: skip


def _tensors(kwargs):
    masks = kwargs.get("mask")
    return kwargs if masks is None else kwargs | {"mask": [None if m is None else tf.constant(m) for m in masks]}


@pytest.mark.sample(40)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_rule(case):
    case.kwargs = _tensors(case.kwargs)
    check_rule(case)


@pytest.mark.parametrize(
    "sizes", [(3, 3), (1, 3), (3, 1)], ids=["own", "queries-of-all-examples", "values-of-all-examples"]
)
@pytest.mark.parametrize("kind", KINDS)
def test_single_precision_as_stock_keras(kind, sizes):
    layer = KINDS[kind]()
    q, v = (tf.constant(normal(n, t, 4, seed=t), tf.float32) for n, t in zip(sizes, (2, 5), strict=True))
    layer([q, v])
    with tf.GradientTape() as tape:
        tape.watch([q, v])
        expected = layer([q, v], mask=[None, tf.constant(VALUE_MASK)])
    record = Record()
    y = record.run(layer, [q, v], mask=[None, tf.constant(VALUE_MASK)])
    result = sweep(record.calls, [(y, y)], layer.trainable_variables, [q, v])
    ours = [
        result.input_gradient(q),
        result.input_gradient(v),
        *(result.gradient(w) for w in layer.trainable_variables),
    ]
    theirs = tape.gradient(expected, [q, v, *(w.value for w in layer.trainable_variables)], expected)
    np.testing.assert_allclose(y, expected, atol=1e-6)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_the_layers_own_random_numbers_are_drawn_once():
    stock, recorded = (layers.Attention(dropout=0.5, seed=4) for _ in range(2))
    x = tf.constant(normal(3, 4, 5), tf.float32)
    for _ in range(2):
        expected = stock([x, x], training=True)
        np.testing.assert_allclose(Record().run(recorded, [x, x], training=True), expected, atol=1e-6)
    np.testing.assert_array_equal(recorded.seed_generator.state, stock.seed_generator.state)
