"""What a trial before the first step finds out, and what an examination of the links does."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_backprop import BackpropSequential, backward
from keras_backprop.privacy.trial import require_built
from keras_backprop.privacy.trial_examples import choose
from tests.privacy.problem import X, Y, a_plan


class Steps(layers.Layer):
    def build(self, shape):
        self.steps = self.add_weight(shape=(), trainable=False, initializer="zeros")
        self.steps.assign(5.0)

    def call(self, x):
        self.steps.assign_add(1.0)
        return x


def test_building_leaves_states_as_they_are_built():
    model = BackpropSequential([Steps(), layers.Dense(3)])
    require_built(model, X[:3])
    assert model.built and float(model.layers[0].steps) == 5


MIXING = {
    "softmax": lambda: [layers.Dense(3), layers.Softmax(axis=-2)],
    "unit norm": lambda: [layers.Dense(3), layers.UnitNormalization(axis=-2)],
    "activation": lambda: [layers.Dense(3, activation=lambda x: x - keras.ops.mean(x, 0, keepdims=True))],
    "activation that is a layer": lambda: [layers.Dense(3, activation=layers.Softmax(axis=0))],
    "equation": lambda: [layers.Dense(3), layers.EinsumDense("ab,bc->ca", (3, None))],
}


@pytest.mark.parametrize("kind", ["unit norm", "activation"])
def test_a_model_that_has_been_evaluated_is_tried(kind):
    model = BackpropSequential([keras.Input((5,)), *MIXING[kind]()])
    model.compile("sgd", "sparse_categorical_crossentropy", gradients=a_plan())
    model.evaluate(X, Y, verbose=0)
    with pytest.raises(ValueError, match="depends on who else is in the batch"):
        model.fit(X, Y, verbose=0)


@pytest.mark.parametrize("kind", MIXING)
def test_layers_of_keras_that_were_told_to_mix_do(kind):
    batch_size = 3 if kind == "equation" else None
    model = keras.Sequential([keras.Input((5,), batch_size=batch_size), *MIXING[kind]()])
    assert backward(model, X[:3], loss=lambda y: y**2).mixing


@pytest.mark.parametrize(
    "inner",
    [
        lambda: layers.Dense(4, activation=lambda x: x * keras.ops.tanh(x)),
        lambda: layers.Dense(4, activation=layers.LeakyReLU()),
        lambda: layers.LayerNormalization(axis=-1),
        lambda: layers.Softmax(axis=-2),
        lambda: layers.EinsumDense("abc,cd->abd", (2, 4)),
    ],
)
def test_layers_of_keras_that_were_not_told_so_do_not(inner):
    model = keras.Sequential([keras.Input((2, 5)), layers.Dense(4), inner(), layers.Flatten(), layers.Dense(3)])
    assert not backward(model, np.stack([X[:3], X[3:6]], 1), loss=lambda y: keras.ops.mean(y, -1)).mixing


def labels_of_the_batch_count(y, p):
    """Weights that balance the classes of the batch."""
    of_class = keras.ops.one_hot(keras.ops.cast(y[:, 0], "int32"), 3)
    weights = keras.ops.sum(of_class / keras.ops.maximum(keras.ops.sum(of_class, 0), 1), 1)
    return weights * keras.losses.sparse_categorical_crossentropy(y[:, 0], p)


def positives_of_the_batch_count(y, p):
    positives = keras.ops.cast(keras.ops.equal(y, 2), "float32")
    return keras.losses.binary_focal_crossentropy(positives, p[:, :1]) / keras.ops.maximum(keras.ops.sum(positives), 1)


def hardest_of_the_batch(y, p):
    """Triplets of an example, the farthest of its class and the nearest of the others."""
    distance = keras.ops.sum((p[:, None] - p[None]) ** 2, -1)
    same = keras.ops.cast(keras.ops.equal(y, keras.ops.transpose(y)), "float32")
    return keras.ops.relu(keras.ops.max(distance * same, 1) - keras.ops.min(distance + 1e3 * same, 1) + 5)


def examples_of_one_class_count(y, p):
    of_class = keras.ops.cast(keras.ops.equal(y[:, 0], 2), "float32")
    return keras.losses.sparse_categorical_crossentropy(y[:, 0], p) * (1 + of_class * keras.ops.sum(of_class))


def hardest_two_count(y, p):
    error = keras.losses.sparse_categorical_crossentropy(y[:, 0], p)
    return keras.ops.where(error >= keras.ops.top_k(error, 2)[0][-1], error, 0.0)


@pytest.mark.parametrize(
    "loss",
    [
        labels_of_the_batch_count,
        positives_of_the_batch_count,
        hardest_of_the_batch,
        examples_of_one_class_count,
        hardest_two_count,
    ],
)
def test_a_loss_that_mixes_some_classes_is_found_out_where_data_are_sorted_by_class(loss):
    y = np.sort(Y)[:, None]
    model = BackpropSequential([keras.Input((5,)), layers.Dense(3, "softmax")])
    model.compile("sgd", loss, gradients=a_plan())
    with pytest.raises(ValueError, match="depends on who else is in the batch"):
        model.fit(X, y, verbose=0)


def test_examples_of_many_labels_are_tried():
    y = tf.constant(np.repeat([0, 1, 2], [5000, 30, 5000]))
    chosen = choose(y, 10_030)
    labels = [y.numpy()[rows].tolist() for rows in chosen]
    assert set(labels[0]) == {0, 1, 2} and sorted(labels[1]) != sorted(labels[2])
    assert len({row for rows in chosen for row in rows}) == 12


@pytest.mark.parametrize("n, size", [(3, 1), (5, 1), (8, 2), (12, 4), (100_000, 4)])
@pytest.mark.parametrize("labelled", [False, True])
def test_there_may_be_few_examples_or_no_labels(n, size, labelled):
    y = (tf.zeros([n, 2]), {"words": tf.fill([n], "a")}) if labelled else None
    chosen = choose(y, n)
    assert [len(rows) for rows in chosen] == [size] * 3
    assert len({row for rows in chosen for row in rows}) == 3 * size and max(map(max, chosen)) < n
