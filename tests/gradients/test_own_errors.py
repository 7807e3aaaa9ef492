"""Gradients of the examples' own errors where no loss of Keras says whether the error is their mean or their sum."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from keras_backprop import BackpropSequential
from keras_backprop.example_scale import weights_for
from keras_backprop.gradients import ClippedByExample

X = np.random.default_rng(0).normal(size=(6, 5)).astype("float32")
Y = np.random.default_rng(1).normal(size=(6, 3)).astype("float32")

KNOWN = {
    "mean": lambda y, p: ops.mean((y - p) ** 2),
    "half the sum": lambda y, p: 0.5 * ops.sum((y - p) ** 2),
    "mean of sums": lambda y, p: ops.mean(ops.sum((y - p) ** 2, -1)),
    "sum of means over the batch": lambda y, p: ops.sum(ops.mean((y - p) ** 2, 0)),
    "sum over their number": lambda y, p: ops.sum((y - p) ** 2) / ops.cast(ops.shape(y)[0], "float32"),
    "the same by TensorFlow": lambda y, p: tf.reduce_sum((y - p) ** 2) / tf.cast(tf.shape(p)[0], tf.float32),
    "two means": lambda y, p: ops.mean((y - p) ** 2) - 0.1 * ops.mean(p * y),
    "sum over a constant": lambda y, p: ops.sum((y - p) ** 2) / 10,
    "a loss of Keras in TensorFlow's shapes": lambda y, p: keras.losses.MeanSquaredError()(y, p),
    "sum over the first of a list in TensorFlow": lambda y, p: (
        tf.reduce_sum((y - p) ** 2) / tf.cast(tf.constant([10, 3])[0], tf.float32)
    ),
}
UNKNOWN = {
    "root": lambda y, p: ops.sqrt(ops.mean((y - p) ** 2)),
    "mean and sum": lambda y, p: ops.mean((y - p) ** 2) + ops.sum(p**2),
    "sum over all numbers": lambda y, p: ops.sum((y - p) ** 2) / ops.cast(ops.size(y), "float32"),
    "sum over a shape in TensorFlow": lambda y, p: tf.reduce_sum(
        tf.reduce_sum((y - p) ** 2) / tf.cast(tf.shape(p), tf.float32)
    ),
    "mixing": lambda y, p: ops.mean(ops.matmul(p, ops.transpose(y)) ** 2),
    "over what examples decide": lambda y, p: ops.sum((y - p) ** 2) / ops.stop_gradient(ops.sum(p**2)),
}


def a_model(error, whose, **options):
    class Own(BackpropSequential):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return error(y, y_pred)

    keras.utils.set_random_seed(0)
    hidden = layers.Dense(4, "tanh", kernel_regularizer="l2")
    model = (Own if whose == "compute_loss" else BackpropSequential)([keras.Input((5,)), hidden, layers.Dense(3)])
    model.compile("sgd", (lambda y, p: error(y, p)) if whose == "loss" else None, **options)
    return model


def norms(model, way):
    def run(x, y):
        return model.backward_pass(x, y).example_norms()

    if way != "eager":
        n = None if way == "any size" else 6
        run = tf.function(run, input_signature=[tf.TensorSpec([n, 5]), tf.TensorSpec([n, 3])])
    return run(tf.constant(X), tf.constant(Y)).numpy()


def alone(model, error, i):
    """The norm of the gradient of an example's error, by a tape."""
    with tf.GradientTape() as tape:
        value = error(tf.constant(Y[i : i + 1]), model(tf.constant(X[i : i + 1])))
    return tf.linalg.global_norm(tape.gradient(value, [v.value for v in model.trainable_weights])).numpy()


@pytest.mark.sample(8)
@pytest.mark.parametrize("whose", ["loss", "compute_loss"])
@pytest.mark.parametrize("name", KNOWN)
def test_the_norm_is_that_of_the_error_of_the_example_alone(name, whose):
    model, error = a_model(KNOWN[name], whose), KNOWN[name]
    expected = [alone(model, error, i) for i in range(6)]
    for way in ("eager", "any size", "this size"):
        np.testing.assert_allclose(norms(model, way), expected, rtol=1e-4)


@pytest.mark.sample(5)
@pytest.mark.parametrize("whose", ["loss", "compute_loss"])
@pytest.mark.parametrize("name", UNKNOWN)
def test_what_is_neither_is_refused(name, whose):
    with pytest.raises(ValueError, match="The gradients of the examples' own errors are not known"):
        norms(a_model(UNKNOWN[name], whose), "eager")


SIZES = {
    "sequence_mask": lambda longest: tf.sequence_mask([1, longest])[0],
    "range": tf.range,
    "fill": lambda longest: tf.fill([longest], 1.0),
    "reshape": lambda longest: tf.reshape(tf.zeros([6]), [longest, -1]),
    "tile": lambda longest: tf.tile([1.0], [longest]),
    "broadcast": lambda longest: tf.broadcast_to(1.0, [longest]),
    "slice": lambda longest: tf.ones([6])[:longest],
    "pad": lambda longest: tf.pad([1.0], [[0, longest - 1]]),
    "one_hot": lambda longest: tf.one_hot(1, longest),
    "where": lambda longest: tf.where(tf.ones([6]) * tf.cast(longest, tf.float32) > 0),
    "bincount": lambda longest: tf.math.bincount(longest[None] - 1),
}


@pytest.mark.sample(5)
@pytest.mark.parametrize("name", SIZES)
def test_sizes_that_numbers_of_the_examples_decide_on_are_no_constants(name):
    def error(y, p):
        longest = tf.reduce_max(tf.cast(tf.abs(y[:, 0]), tf.int32)) + 2
        return tf.reduce_sum((y - p) ** 2) / tf.cast(tf.shape(SIZES[name](longest))[0], tf.float32)

    model = a_model(error, "loss")
    assert model.backward_pass(tf.constant(X), tf.constant(Y)).reduction()[0] is None


def test_an_error_that_is_one_number_can_be_clipped_by_example():
    clipped, plain = (a_model(KNOWN["mean"], "loss", gradients=ClippedByExample(norm)) for norm in (0.5, 1e9))
    before = clipped.get_weights()
    for model in (clipped, plain):
        model.fit(X, Y, batch_size=6, verbose=0)
    result = a_model(KNOWN["mean"], "loss").backward_pass(tf.constant(X), tf.constant(Y))
    factors = np.minimum(1, 0.5 / result.example_norms().numpy())
    for index, expected in enumerate(result.weighted(tf.constant(factors))):
        moved = (before[index] - clipped.get_weights()[index]) / 0.01
        np.testing.assert_allclose(moved, expected, atol=1e-4)
    assert not np.allclose(clipped.get_weights()[0], plain.get_weights()[0], atol=1e-5)


@pytest.mark.parametrize(
    "first",
    [
        lambda: layers.Pipeline([layers.GaussianNoise(0.1), layers.MixUp()]),
        lambda: layers.TimeDistributed(layers.Lambda(lambda x: x - ops.mean(x, 0, keepdims=True), lambda s: s)),
    ],
    ids=["Pipeline", "TimeDistributed"],
)
def test_what_a_layer_of_keras_wraps_may_mix_the_examples(first):
    model = BackpropSequential([keras.Input((4, 4, 3)), first(), layers.Flatten(), layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="no rows that belong to one example each"):
        model.backward_pass(tf.ones((3, 4, 4, 3)), tf.ones((3, 1))).example_norms()


def test_rows_that_fill_up_a_batch_add_nothing_to_a_sum():
    for name, expected in (("half the sum", 1), ("mean", 6 / 4)):
        result = a_model(KNOWN[name], "compute_loss").backward_pass(tf.constant(X), tf.constant(Y))
        np.testing.assert_allclose(result.example_scale.padding_factor(tf.constant(4)), expected)


@pytest.mark.parametrize("kind", [list, tuple, lambda weights: dict(enumerate(weights))])
def test_weights_of_examples_fit_in_a_structure_of_another_kind(kind):
    predictions = [tf.zeros((6, 4, 3)), tf.zeros((6, 3)), tf.zeros((6, 4, 3))]
    fitted = keras.tree.flatten(weights_for(predictions, kind([tf.ones(6), tf.ones(6), None])))
    assert [None if w is None else tuple(w.shape) for w in fitted] == [(6, 1), (6,), None]
