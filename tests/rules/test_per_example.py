"""Gradients of single examples: every class of layer that owns weights, against the tape one example at a time."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_backprop.chain.record import Record
from keras_backprop.chain.sweep import sweep
from keras_backprop.check.problem import LayerProblem
from tests.checking import arrays, assert_per_example, randomize
from tests.test_coverage import load_coverage

IDS = np.random.default_rng(0).integers(0, 6, (3, 4))
X1, X2, X3 = (3, 6, 4), (3, 5, 4, 4), (3, 4, 3, 4, 2)
SEQUENCES = (3, 4, 2)

LAYERS = {
    "AdditiveAttention": (lambda: layers.AdditiveAttention(), [(3, 4, 2), (3, 5, 2)]),
    "Attention": (lambda: layers.Attention(use_scale=True, score_mode="concat"), [(3, 4, 2), (3, 5, 2)]),
    "BatchNormalization": (lambda: layers.BatchNormalization(), (3, 4)),
    "Conv1D": (lambda: layers.Conv1D(2, 3), X1),
    "Conv1DTranspose": (lambda: layers.Conv1DTranspose(2, 3, strides=2), X1),
    "Conv2D": (lambda: layers.Conv2D(4, 2, groups=2, padding="same"), X2),
    "Conv2DTranspose": (lambda: layers.Conv2DTranspose(2, 2, strides=2), X2),
    "Conv3D": (lambda: layers.Conv3D(2, 2), X3),
    "Conv3DTranspose": (lambda: layers.Conv3DTranspose(2, 2), X3),
    "ConvLSTM1D": (lambda: layers.ConvLSTM1D(2, 2), (3, 3, 4, 2)),
    "ConvLSTM2D": (lambda: layers.ConvLSTM2D(2, 2), (3, 3, 4, 3, 2)),
    "ConvLSTM3D": (lambda: layers.ConvLSTM3D(2, 2), (3, 2, 3, 3, 2, 2)),
    "Dense": (lambda: layers.Dense(3, "tanh"), (3, 5, 4)),
    "DepthwiseConv1D": (lambda: layers.DepthwiseConv1D(2, depth_multiplier=2), X1),
    "DepthwiseConv2D": (lambda: layers.DepthwiseConv2D(2), X2),
    "EinsumDense": (lambda: layers.EinsumDense("abc,cde->abde", (None, 2, 3), bias_axes="de"), X1),
    "Embedding": (lambda: layers.Embedding(6, 2), IDS),
    "GRU": (lambda: layers.GRU(3), SEQUENCES),
    "GroupNormalization": (lambda: layers.GroupNormalization(2), X1),
    "GroupedQueryAttention": (lambda: layers.GroupQueryAttention(2, 4, 2), ((3, 4, 2), (3, 5, 2))),
    "LSTM": (lambda: layers.LSTM(3, return_sequences=True), SEQUENCES),
    "LayerNormalization": (lambda: layers.LayerNormalization(), X1),
    "MultiHeadAttention": (lambda: layers.MultiHeadAttention(2, 3), ((3, 4, 2), (3, 5, 2))),
    "PReLU": (lambda: layers.PReLU(shared_axes=[1]), X1),
    "RMSNormalization": (lambda: layers.RMSNormalization(), X1),
    "ReversibleEmbedding": (lambda: layers.ReversibleEmbedding(6, 2), IDS),
    "SeparableConv1D": (lambda: layers.SeparableConv1D(2, 3), X1),
    "SeparableConv2D": (lambda: layers.SeparableConv2D(2, 2), X2),
    "SimpleRNN": (lambda: layers.SimpleRNN(3), SEQUENCES),
}  # fmt: skip


def problem_of(make, inputs, **call):
    keras.utils.set_random_seed(1)
    layer = make()
    several = isinstance(inputs, tuple) and isinstance(inputs[0], tuple)
    inputs = arrays(inputs) if several else (arrays(inputs),)
    layer(*inputs)
    randomize(layer)
    return LayerProblem(layer, inputs, call)


def test_no_class_is_forgotten():
    assert set(LAYERS) == load_coverage().WEIGHT_OWNERS
    assert len(LAYERS) == 29


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_and_norms_of_single_examples(name):
    problem = problem_of(*LAYERS[name])
    assert problem.weights
    assert_per_example(problem)


def parts_of(problem):
    record = Record()
    with problem.scope():
        upstream = problem.record(record)
        result = sweep(record.calls, upstream, problem.weights)
    return [part for parts in result.parts.values() for part in parts]


def test_where_statistics_of_the_batch_couple_the_examples_it_is_refused():
    parts = parts_of(problem_of(layers.BatchNormalization, (3, 4), training=True))
    assert len(parts) == 2
    for part in parts:
        assert part.total().shape == (4,)
        for ask in (part.per_example, part.squared_norms, lambda part=part: part.weighted_total(tf.ones(3))):
            with pytest.raises(ValueError, match="the mean and the variance of the batch couple its examples"):
                ask()
