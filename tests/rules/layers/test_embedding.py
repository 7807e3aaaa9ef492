"""The rules of `rules/layers/embedding.py`."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_backprop import BackpropModel, check_layer
from keras_backprop.chain.record import Record
from keras_backprop.chain.sweep import sweep
from tests.checking import Case, check_rule

IDS = np.array([[1, 2, 2], [0, 5, 1], [3, 3, 3]])


def both_ways(**options):
    """Look up, and read out with the same table."""

    class Both(layers.Layer):
        def __init__(self):
            super().__init__()
            self.table = layers.ReversibleEmbedding(6, 4, **options)

        def build(self, shape):
            self.table.build()

        def call(self, ids):
            return self.table(self.table(ids), reverse=True)

    return Both()


CASES = [
    Case("embedding", lambda: layers.Embedding(6, 4), (IDS,)),
    Case("embedding-column", lambda: layers.Embedding(6, 4), (IDS[:, 0],)),
    Case("embedding-rank-3", lambda: layers.Embedding(6, 2), (np.arange(12).reshape(2, 2, 3) % 6,)),
    Case("embedding-mask", lambda: layers.Embedding(6, 4, mask_zero=True), (IDS,)),
    Case("embedding-negative", lambda: layers.Embedding(6, 4), (IDS - 3,)),
    Case("embedding-int64", lambda: layers.Embedding(6, 4), (IDS.astype("int64"),)),
    Case("embedding-int8", lambda: layers.Embedding(6, 4), (IDS.astype("int8"),)),
    Case("embedding-float", lambda: layers.Embedding(6, 4), (IDS.astype("float64"),), differences=False),
    Case("reversible", lambda: layers.ReversibleEmbedding(6, 4), (IDS,)),
    Case("reversible-mask", lambda: layers.ReversibleEmbedding(6, 4, mask_zero=True), (IDS,)),
    Case("reversible-untied", lambda: layers.ReversibleEmbedding(6, 4, tie_weights=False), (IDS,)),
    Case("both-ways", both_ways, (IDS,), per_example=False),
    Case("both-ways-untied", lambda: both_ways(tie_weights=False), (IDS,), per_example=False),
    Case("both-ways-cap", lambda: both_ways(logit_soft_cap=0.7), (IDS,), per_example=False),
]

REVERSE = [
    Case(f"{name}-{len(shape)}", lambda options=options: layers.ReversibleEmbedding(6, 4, **options), (shape,), {"reverse": True})
    for name, options in {
        "tied": {},
        "untied": {"tie_weights": False},
        "cap": {"logit_soft_cap": 0.7},
        "untied-cap": {"tie_weights": False, "logit_soft_cap": 0.7},
        "dtype": {"reverse_dtype": "float64"},
    }.items()
    for shape in [(5, 4), (3, 2, 4)]
]  # fmt: skip

LORA = [
    Case("embedding", lambda: layers.Embedding(6, 4, lora_rank=2), (IDS,), per_example=False),
    Case("embedding-alpha", lambda: layers.Embedding(6, 4, lora_rank=2, lora_alpha=3), (IDS,), per_example=False),
    Case("reversible", lambda: layers.ReversibleEmbedding(6, 4, lora_rank=2), (IDS,), per_example=False),
    Case("reverse", lambda: layers.ReversibleEmbedding(6, 4, lora_rank=2), ((3, 4),), {"reverse": True}, per_example=False),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES + REVERSE, ids=lambda case: case.name)
def test_rule(case):
    check_rule(case)


@pytest.mark.parametrize("case", LORA, ids=lambda case: case.name)
def test_lora_expands(case):
    check_rule(case)


def test_the_gradient_stays_slices():
    layer = layers.Embedding(1000, 4)
    ids = tf.constant(IDS)
    layer(ids)
    record = Record()
    y = record.run(layer, ids)
    gradient = sweep(record.calls, [(y, tf.ones_like(y))], layer.trainable_variables).gradient(layer.embeddings)
    assert isinstance(gradient, tf.IndexedSlices)
    assert gradient.values.shape == (9, 4)


def test_mixed_precision():
    layer = layers.ReversibleEmbedding(6, 4, dtype="mixed_bfloat16")
    ids = tf.constant(IDS)
    h = layer(ids)
    record = Record()
    y = record.run(layer, h, reverse=True)
    result = sweep(record.calls, [(y, tf.ones_like(y))], layer.trainable_variables, [h])
    assert result.gradient(layer.embeddings).dtype == tf.float32
    assert result.input_gradient(h).dtype == tf.bfloat16


def language_model(cls, lora):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((3,), dtype="int32")
    table = layers.ReversibleEmbedding(6, 4, dtype="float64")
    first, last = (
        layers.Dense(5, "tanh", dtype="float64"),
        layers.EinsumDense("abc,cd->abd", (None, 4), dtype="float64"),
    )
    h = last(first(table(inputs)))
    model = cls(inputs, table(h, reverse=True))
    if lora:
        table.enable_lora(2, b_initializer="normal")
        first.enable_lora(2, lora_alpha=3, b_initializer="normal")
        last.enable_lora(2, b_initializer="normal")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, dtype="float64")
    model.compile(keras.optimizers.SGD(0.5), loss)
    return model


@pytest.mark.parametrize("lora", [False, True], ids=["plain", "lora"])
def test_three_steps_of_fit_equal_stock_keras(lora):
    weights = []
    for cls in (keras.Model, BackpropModel):
        model = language_model(cls, lora)
        start = model.get_weights()
        model.fit(IDS, IDS, epochs=3, batch_size=3, shuffle=False, verbose=0)
        weights.append(model.get_weights())
    for stock, ours in zip(*weights, strict=True):
        np.testing.assert_allclose(ours, stock, rtol=0, atol=1e-12 if not lora else 1e-6)
    assert any(np.any(a != b) for a, b in zip(start, weights[1], strict=True))


def test_ids_that_are_out_of_range_are_no_silent_zero():
    with pytest.raises(Exception, match="is not in"):
        check_layer(layers.Embedding(3, 2), np.array([[7]]))
