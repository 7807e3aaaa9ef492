"""What a trial finds out of variables, tables and random numbers that no layer owns."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from keras_backprop import BackpropModel, BackpropSequential
from keras_backprop._tensorflow import random_numbers_repeated
from tests.privacy.problem import X, Y, a_plan

BY_NOBODY = r"What 'a variable of shape \(.*\) that no layer owns' keeps.*the examples"
BY_PLACE = "depends on its place in the batch"


def cross_entropy(y, p):
    return keras.losses.sparse_categorical_crossentropy(y[:, 0], p)


def trained(loss=cross_entropy, layer=None, **options):
    """The plan of a classifier that has been trained for an epoch."""
    plan = a_plan()
    model = BackpropSequential([keras.Input((5,)), *([layer] if layer else []), layers.Dense(3, "softmax")])
    model.compile("sgd", loss, gradients=plan, **options)
    model.fit(X, Y[:, None], verbose=0)
    return plan


def trained_with_two_outputs(loss, kind=BackpropModel, **options):
    plan = a_plan()
    x = keras.Input((5,))
    hidden = layers.Dense(4, "tanh")(x)
    model = kind(x, [layers.Dense(3, "softmax", name="a")(hidden), layers.Dense(1, name="b")(hidden)])
    model.compile("sgd", loss, gradients=plan, **options)
    model.fit(X, [Y[:, None], X[:, :1]], verbose=0)
    return plan


def moving_centre(make_variable, assign):
    """A loss with a variable that follows the predictions so slowly that no gradient of a few steps would tell."""
    made = []

    def loss(y, p):
        new = not made
        if new:
            made.append(make_variable())
        assign(made[0], p, new)
        return cross_entropy(y, p) * ops.exp(p[:, 0] * made[0][0])

    return loss


def zeros():
    return tf.Variable([0.0, 0.0, 0.0], trainable=False)


def usual(centre, p, _=False):
    centre.assign(0.9999 * centre + 1e-4 * ops.mean(p, 0))


def not_in_the_first_call(centre, p, new):
    if not new:
        usual(centre, p)


def by_a_raw_operation(centre, p, _):
    tf.raw_ops.AssignVariableOp(resource=centre.handle, value=0.9999 * centre + 1e-4 * tf.reduce_mean(p, 0))


def in_one_place(centre, p, _):
    centre.scatter_nd_update([[0]], [1e-4 * ops.mean(p[:, 0])])


def by_python(centre, p, _):
    tf.py_function(lambda p: usual(centre, p), [p], [])


MADE_BEFORE = {"usual": usual, "raw operation": by_a_raw_operation, "one place": in_one_place, "Python": by_python}
MADE_IN_THE_FIRST_CALL = {"at once": usual, "later": not_in_the_first_call}


@pytest.mark.parametrize("function", [False, True])
@pytest.mark.parametrize("assign", MADE_BEFORE)
def test_a_variable_of_a_loss_may_keep_nothing_of_the_examples(assign, function):
    centre = zeros()
    loss = moving_centre(lambda: centre, MADE_BEFORE[assign])
    with pytest.raises(ValueError, match=BY_NOBODY):
        trained(tf.function(loss) if function else loss)
    assert (centre.numpy() == 0).all()  # the trial has left no trace


@pytest.mark.parametrize("make", [zeros, lambda: keras.Variable([0.0, 0.0, 0.0], trainable=False)])
@pytest.mark.parametrize("assign", MADE_IN_THE_FIRST_CALL)
def test_nor_one_that_a_loss_makes_in_its_first_call(make, assign):
    with pytest.raises(ValueError, match=BY_NOBODY):
        trained_with_two_outputs([moving_centre(make, MADE_IN_THE_FIRST_CALL[assign]), "mse"])


def test_a_variable_that_is_gone_after_each_step_keeps_nothing():
    def loss(y, p):
        mean = tf.Variable(tf.reduce_mean(p), trainable=False)
        mean.assign_add(1.0)
        return cross_entropy(y, p) * ops.cast(mean > 0, "float32")

    assert trained(loss, run_eagerly=True).past.tried


def test_a_variable_may_count():
    count = tf.Variable(0.0)
    counted = tf.function(lambda: count.assign_add(1)).get_concrete_function()

    def loss(y, p):
        return cross_entropy(y, p) * 0.99 ** counted()

    assert trained(loss).past.tried and count.numpy() == 5


class OwnLoss(BackpropModel):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return super().compute_loss(x, y, y_pred, sample_weight)


@pytest.mark.sample(2)
@pytest.mark.parametrize("kind", [BackpropModel, OwnLoss])
@pytest.mark.parametrize(
    "loss, options",
    [
        ([cross_entropy, "mse"], {"metrics": [["accuracy"], ["mae"]], "loss_weights": [1.0, 0.5]}),
        ({"a": cross_entropy, "b": "mse"}, {"metrics": {"a": ["accuracy"]}, "weighted_metrics": {"b": ["mae"]}}),
    ],
)
def test_metrics_of_several_outputs_keep_what_they_are_told(loss, options, kind):
    assert trained_with_two_outputs(loss, kind, **options).past.tried


class WeighsItself(BackpropModel):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return tf.reduce_sum(cross_entropy(y, y_pred) * sample_weight) / tf.cast(tf.shape(y)[0], tf.float32)


class PicksItsInput(BackpropModel):
    def backward_pass(self, x, y=None, sample_weight=None):
        return super().backward_pass(x["a"], y, sample_weight)


@pytest.mark.parametrize(
    "kind, x, rate", [(WeighsItself, X, 0.0), (WeighsItself, X, 0.5), (PicksItsInput, {"a": X, "b": X}, 0.0)]
)
def test_a_step_of_ones_own_is_tried_as_it_is_trained(kind, x, rate):
    """In batches of the size of training, too."""
    plan = a_plan(expected_batch_size=20)
    inputs = keras.Input((5,))
    model = kind(inputs, layers.Dense(3, "softmax")(layers.Dropout(rate)(inputs)))
    model.compile("sgd", cross_entropy, gradients=plan)
    model.fit(x, Y[:, None], verbose=0)
    assert plan.past.tried


def test_what_only_some_batches_assign_to_is_found_out():
    seen, rare = tf.Variable(0.0, trainable=False), X[:, 0].max()

    def loss(y, p):
        tf.cond(tf.reduce_any(y[:, 1] == rare), lambda: seen.assign_add(1e-6), lambda: seen.read_value())
        return cross_entropy(y, p) * (1 + seen)

    model = BackpropSequential([keras.Input((5,)), layers.Dense(3, "softmax")])
    model.compile("sgd", loss, gradients=a_plan(examples=12, expected_batch_size=4))
    x, y = X[:12], np.stack([Y[:12], np.append(np.zeros(11), rare)], 1)
    with pytest.raises(ValueError, match=BY_NOBODY):
        model.fit(x, y, verbose=0)


def test_tables_and_queues_may_not_change():
    fixed = tf.lookup.KeyValueTensorInitializer([0, 1, 2], [1.0, 2.0, 3.0], tf.int64, tf.float32)
    weights = tf.lookup.StaticHashTable(fixed, 0.0)
    table = tf.lookup.experimental.MutableHashTable(tf.int64, tf.float32, 0.0)
    queue = tf.queue.FIFOQueue(100, [tf.float32], [[]])

    def looks_up(y, p):
        return cross_entropy(y, p) * weights.lookup(tf.cast(y[:, 0], tf.int64))

    def keeps(y, p):
        table.insert(tf.cast(y[:, 0], tf.int64), p[:, 0])
        queue.enqueue(tf.reduce_mean(p))
        return cross_entropy(y, p)

    assert trained(looks_up).past.tried
    with pytest.raises(ValueError, match=r"changes a table or a queue.*LookupTableInsertV2', 'QueueEnqueueV2'"):
        trained(keeps)


def inserts_and_looks_up(table, y, p):
    table.insert(tf.cast(y[:, 0], tf.int64), tf.ones_like(p[:, 0]))
    return table.lookup(tf.cast(y[:, 0], tf.int64))


def a_table(**options):
    return tf.lookup.experimental.MutableHashTable(tf.int64, tf.float32, 0.0, **options)


def test_nor_in_a_function_that_has_been_traced():
    table = a_table()
    insert = tf.function(lambda y, p: tf.function(inserts_and_looks_up)(table, y, p))
    traced = insert.get_concrete_function(tf.TensorSpec([None, 1], tf.int64), tf.TensorSpec([None, 3]))
    with pytest.raises(ValueError, match=r"changes a table or a queue.*\['LookupTableInsertV2'\]"):
        trained(lambda y, p: cross_entropy(y, p) + traced(tf.cast(y, tf.int64), tf.stop_gradient(p)))


@pytest.mark.parametrize("options", [{}, {"experimental_is_anonymous": True}])
def test_a_table_that_is_gone_after_each_step_keeps_nothing(options):
    def loss(y, p):
        return cross_entropy(y, p) * inserts_and_looks_up(a_table(**options), y, p)

    assert trained(loss, run_eagerly=True).past.tried


def test_a_queue_that_stays_by_its_name_does():
    def loss(y, p):
        queue = tf.raw_ops.FIFOQueueV2(component_types=[tf.float32], shared_name="stays")
        tf.raw_ops.QueueEnqueueV2(handle=queue, components=[tf.reduce_mean(p)])
        return cross_entropy(y, p)

    with pytest.raises(ValueError, match="changes a table or a queue"):
        trained(loss, run_eagerly=True)


class Draws(layers.Layer):
    def __init__(self, draw, in_training=False):
        super().__init__()
        self.draw, self.in_training = draw, in_training

    def call(self, x, training=False):
        return x if self.in_training and not training else x + 0.1 * ops.cast(self.draw(x), x.dtype)


GENERATOR = tf.random.Generator.from_seed(1)


@pytest.mark.parametrize(
    "draw, in_training",
    [
        (lambda x: tf.random.normal(tf.shape(x)), False),
        (lambda x: tf.random.normal(tf.shape(x), seed=3), True),
        (lambda x: tf.random.categorical(x, 5), False),
        (lambda x: GENERATOR.normal(tf.shape(x)), False),
    ],
)
def test_random_numbers_may_be_those_of_tensorflow(draw, in_training):
    assert trained(layer=Draws(draw, in_training)).past.tried


def batch_counts(y, p):
    return cross_entropy(y, p) * ops.mean(p[:, 0])


def test_after_a_trial_the_random_numbers_of_the_process_go_on():
    tf.random.set_seed(7)
    expected = tf.random.uniform([])
    tf.random.set_seed(7)
    with random_numbers_repeated() as repeat:
        drawn = [(repeat(), *tf.random.uniform([2]).numpy(), tf.random.normal([], seed=3).numpy()) for _ in range(2)]
    assert drawn[0] == drawn[1] and drawn[0][1] != drawn[0][2]
    assert tf.random.uniform([]) == expected


@pytest.mark.parametrize("seed", [None, 3])
def test_after_a_private_training_they_go_on_as_after_any_other(seed):
    def number_after(loss, plan):
        model = BackpropSequential(
            [
                keras.Input((5,)),
                Draws(lambda x: tf.random.normal(tf.shape(x), seed=seed)),
                layers.Dense(3, "softmax"),
            ]
        )
        model.compile("sgd", loss, gradients=plan)
        tf.random.set_seed(7)
        with contextlib.nullcontext() if loss is cross_entropy else pytest.raises(ValueError, match="depends on"):
            model.fit(X, Y[:, None], verbose=0)
        return tf.random.uniform([])

    assert number_after(cross_entropy, a_plan()) == number_after(cross_entropy, None)
    expected = (tf.random.set_seed(7), tf.random.uniform([]))[1]
    assert number_after(batch_counts, a_plan()) == expected


@pytest.mark.parametrize(
    "draw, reason",
    [
        (lambda x: tf.random.stateless_normal(tf.shape(x), [1, 2]), BY_PLACE),
        (lambda x: tf.random.normal(tf.shape(x)) * x - ops.roll(x, 1, 0), "no rows that belong to one example"),
    ],
)
def test_places_that_differ_in_each_step_alike_are_told(draw, reason):
    with pytest.raises(ValueError, match=reason):
        trained(layer=Draws(draw))
