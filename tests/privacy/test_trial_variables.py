"""What a trial finds out of variables that no layer owns."""

import keras
import pytest
import tensorflow as tf
from keras import layers

from keras_backprop import BackpropSequential
from tests.privacy.problem import X, Y, a_plan


def centred_slowly():
    centre = tf.Variable([0.0, 0.0, 0.0], trainable=False)

    def loss(y, p):
        centre.assign(0.9999 * centre + 1e-4 * keras.ops.mean(p, 0))
        return keras.losses.sparse_categorical_crossentropy(y[:, 0], p) * keras.ops.exp(p[:, 0] * centre[0])

    return loss, centre


def counted():
    count = tf.Variable(0)

    def loss(y, p):
        count.assign_add(1)
        return keras.losses.sparse_categorical_crossentropy(y[:, 0], p) * 0.99 ** keras.ops.cast(count, "float32")

    return loss, count


def centred_in_a_table():
    """By an operation of another module, beside random numbers of a generator that no layer owns."""
    centre, drawn = tf.Variable([0.0, 0.0, 0.0], trainable=False), tf.random.Generator.from_seed(3)

    def loss(y, p):
        centre.scatter_nd_update([[0]], [1e-4 * keras.ops.mean(p[:, 0])])
        drawn.skip(2)
        return keras.losses.sparse_categorical_crossentropy(y[:, 0], p) * keras.ops.exp(p[:, 0] * centre[0])

    return loss, centre


@pytest.mark.parametrize("function", [False, True])
@pytest.mark.parametrize("make", [centred_slowly, centred_in_a_table, counted])
def test_a_variable_of_a_loss_may_count_but_keep_nothing_of_the_examples(make, function):
    loss, variable = make()
    model = BackpropSequential([keras.Input((5,)), layers.Dense(3, "softmax")])
    plan = a_plan()
    model.compile("sgd", tf.function(loss) if function else loss, gradients=plan)
    if make is counted:
        model.fit(X, Y[:, None], verbose=0)
        assert variable.numpy() == 5  # the trial has left no trace
        return
    with pytest.raises(ValueError, match=r"What 'a variable of shape \(3,\) that no layer owns' keeps.*the examples"):
        model.fit(X, Y[:, None], verbose=0)
    assert plan.steps == 0 and (variable.numpy() == 0).all()


@pytest.mark.parametrize("at_once", [False, True])
def test_a_variable_that_the_trial_makes_keeps_nothing_of_the_examples(at_once):
    made = []

    def loss(y, p):
        new = not made
        if new:
            made.append(tf.Variable(tf.zeros(3), trainable=False))
        if at_once or not new:
            made[0].assign(0.9999 * made[0] + 1e-4 * keras.ops.mean(p, 0))
        return keras.losses.sparse_categorical_crossentropy(y[:, 0], p) * keras.ops.exp(p[:, 0] * made[0][0])

    model = BackpropSequential([keras.Input((5,)), layers.Dense(3, "softmax")])
    model.compile("sgd", loss, gradients=a_plan())
    with pytest.raises(ValueError, match=r"What 'a variable of shape \(3,\) that no layer owns' keeps.*the examples"):
        model.fit(X, Y[:, None], verbose=0)
    assert (made[0].numpy() == 0).all()
