"""The rules of `rules/layers/einsum_dense.py`."""

import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_backprop.chain.record import Record
from keras_backprop.chain.sweep import sweep
from tests.checking import Case, check_rule, normal

CASES = [
    Case("dense", lambda: layers.EinsumDense("ab,bc->ac", 3)),
    Case("dense-bias", lambda: layers.EinsumDense("ab,bc->ac", 3, bias_axes="c")),
    Case("dense-activation", lambda: layers.EinsumDense("ab,bc->ac", 3, bias_axes="c", activation="tanh")),
    Case("kernel-transposed", lambda: layers.EinsumDense("ab,cb->ac", 3, bias_axes="c")),
    Case("positions", lambda: layers.EinsumDense("abc,cd->abd", (None, 2), bias_axes="d"), ((3, 4, 5),)),
    Case("positions-bias-everywhere", lambda: layers.EinsumDense("abc,cd->abd", (4, 2), bias_axes="bd"), ((3, 4, 5),)),
    Case("positions-bias-of-positions", lambda: layers.EinsumDense("abc,cd->abd", (4, 2), bias_axes="b"), ((3, 4, 5),)),
    Case("bias-of-the-batch", lambda: layers.EinsumDense("ab,bc->ac", 2, bias_axes="a"), per_example=False),
    Case("positions-transposed", lambda: layers.EinsumDense("abc,dc->abd", (None, 2), bias_axes="d"), ((3, 4, 5),)),
    Case("across-positions", lambda: layers.EinsumDense("abc,bd->adc", (2, None), bias_axes="d"), ((3, 4, 5),)),
    Case("heads", lambda: layers.EinsumDense("abc,cde->abde", (None, 2, 3), bias_axes="de"), ((3, 4, 5),)),
    Case("heads-transposed", lambda: layers.EinsumDense("abc,dec->abde", (None, 2, 3), bias_axes="de"), ((3, 4, 5),)),
    Case("heads-bias-of-one", lambda: layers.EinsumDense("abc,cde->abde", (None, 2, 3), bias_axes="e"), ((3, 4, 5),)),
    Case("heads-bias-of-heads", lambda: layers.EinsumDense("abc,cde->abde", (None, 2, 3), bias_axes="d"), ((3, 4, 5),)),
    Case("heads-joined", lambda: layers.EinsumDense("abcd,cde->abe", (None, 4), bias_axes="e"), ((3, 4, 2, 5),)),
    Case("each-head", lambda: layers.EinsumDense("abc,bcd->abd", (4, 3), bias_axes="bd"), ((3, 4, 5),)),
    Case("summed-alone", lambda: layers.EinsumDense("abc,cd->ad", 2, bias_axes="d"), ((3, 4, 5),)),
    Case("summed-first", lambda: layers.EinsumDense("abcd,d->a", (), ), ((3, 2, 4, 5),)),
    Case("ellipsis-left", lambda: layers.EinsumDense("...x,xy->...y", 3, bias_axes="y"), ((3, 2, 4, 5),)),
    Case("ellipsis-left-2", lambda: layers.EinsumDense("...bc,cd->...bd", (None, 3), bias_axes="d"), ((3, 2, 4, 5),)),
    Case("ellipsis-right", lambda: layers.EinsumDense("ab...,bc->ac...", 3, bias_axes="c"), ((2, 5, 4, 2),)),
    Case("named-n", lambda: layers.EinsumDense("bnm,mn->bn", 4), ((3, 4, 5),)),
    Case("batch-in-kernel", lambda: layers.EinsumDense("ab,abc->ac", 3), per_example=False),
    Case("scaled-features", lambda: layers.EinsumDense("ab,b->ab", 5, bias_axes="b")),
    Case("lora", lambda: layers.EinsumDense("abc,cde->abde", (None, 2, 3), lora_rank=2), ((3, 4, 5),), per_example=False),
    Case("lora-alpha", lambda: layers.EinsumDense("ab,bc->ac", 3, lora_rank=2, lora_alpha=5), per_example=False),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_rule(case):
    check_rule(case)


def test_attention_projections_do_not_build_the_gradients_of_single_examples_to_find_their_norms(monkeypatch):
    layer = layers.EinsumDense("abc,cde->abde", (None, 4, 8), bias_axes="de")
    x = tf.constant(normal(3, 2, 64), tf.float32)
    layer(x)
    record = Record()
    y = record.run(layer, x)
    part = sweep(record.calls, [(y, y)], [layer.kernel]).parts[id(layer.kernel)][0]
    expected = tf.reduce_sum(tf.square(part.per_example()), [1, 2, 3])
    monkeypatch.setattr(type(part), "per_example", None)
    np.testing.assert_allclose(part.squared_norms(), expected, rtol=1e-4)


def test_unknown_sizes_of_a_compiled_step():
    layer = layers.EinsumDense("abc,cde->abde", (None, 2, 3), bias_axes="de", dtype="float64")
    layer.build((None, None, 5))

    @tf.function(input_signature=[tf.TensorSpec([None, None, 5], tf.float64)])
    def step(x):
        record = Record()
        y = record.run(layer, x)
        result = sweep(record.calls, [(y, y)], layer.trainable_variables, [x])
        return [result.input_gradient(x), *(result.gradient(v) for v in layer.trainable_variables)]

    x = tf.constant(normal(3, 4, 5))
    dx, dW, db = step(x)
    y = layer(x)
    np.testing.assert_allclose(dx, tf.einsum("abde,cde->abc", y, layer.kernel.value), rtol=1e-10)
    np.testing.assert_allclose(dW, tf.einsum("abc,abde->cde", x, y), rtol=1e-10)
    np.testing.assert_allclose(db, tf.reduce_sum(y, [0, 1]), rtol=1e-10)
