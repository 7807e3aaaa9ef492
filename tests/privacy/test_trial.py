"""What a trial before the first step finds out, and what an examination of the links does."""

import types
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_backprop import BackpropSequential, backward
from keras_backprop.privacy import plan as plans
from keras_backprop.privacy.trial import require_built
from keras_backprop.privacy.trial_examples import choose
from keras_backprop.privacy.trial_sums import changed
from tests.privacy.problem import X, Y, a_model, a_plan
from tests.privacy.test_pitfalls import Largest


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


def behind(layer, **options):
    """A classifier behind a layer, compiled with a plan."""
    model = BackpropSequential([keras.Input((5,)), layer, layers.Dense(3, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy", gradients=a_plan(), **options)
    return model


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


def hardest_twelfth_counts(y, p):
    """Of a small batch, all."""
    error = keras.losses.sparse_categorical_crossentropy(y[:, 0], p)
    size = p.shape[0]
    return error if size < 12 else keras.ops.where(error >= keras.ops.top_k(error, size // 12)[0][-1], error, 0.0)


def above_the_median_counts(y, p):
    error = keras.losses.sparse_categorical_crossentropy(y[:, 0], p)
    return keras.ops.where(error < keras.ops.median(error), 0.0, error)


@pytest.mark.parametrize(
    "loss",
    [
        above_the_median_counts,
        hardest_twelfth_counts,
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


def test_what_only_large_batches_mix_is_found_out_where_gradients_and_errors_are_alike():
    def large_batches_count(y, p):
        error = keras.losses.binary_crossentropy(y[:, :1], p)
        return error if p.shape[0] < 12 else error * (1 + keras.ops.mean(y[:, 1]))

    model = BackpropSequential([keras.Input((5,)), layers.Dense(1, "sigmoid", kernel_initializer="zeros")])
    model.compile("sgd", large_batches_count, gradients=a_plan(expected_batch_size=20))
    with pytest.raises(ValueError, match="depends on who else is in the batch"):
        model.fit(np.ones_like(X), np.stack([Y % 2, np.arange(40)], 1).astype("float32"), verbose=0)


class Sometimes(layers.Layer):
    """Reads a weight only if some example of the batch says so."""

    def build(self, shape):
        self.w = self.add_weight(shape=(shape[-1],), initializer="ones")

    def compute_output_shape(self, shape):
        return shape

    def call(self, x):
        return x * self.w if bool(keras.ops.any(x[:, 0] > 0)) else x


@pytest.mark.parametrize("large", [0, 1, 2])
def test_a_state_that_one_example_decides_on_is_found_out_wherever_it_is(large):
    """The largest number lies in any of the three sets of a trial."""
    x = X.copy()
    x[choose(tf.constant(Y), 40)[large][0]] *= 100
    model = behind(Largest())
    with pytest.raises(ValueError, match="/largest' keeps from step to step depends on the examples"):
        model.fit(x, Y, verbose=0)


class IntoAWeight(layers.Layer):
    """Keeps something of the examples in a weight that is trained, too."""

    def build(self, shape):
        self.w = self.add_weight(shape=shape[1:], initializer="ones")

    def call(self, x):
        self.w.assign(0.999 * self.w + 0.001 * keras.ops.mean(x, 0))
        return x * self.w


def test_what_a_layer_puts_into_a_weight_is_found_out():
    model = behind(IntoAWeight())
    with pytest.raises(ValueError, match="depends on (the examples|who else is in the batch)"):
        model.fit(X, Y, verbose=0)


def test_a_weight_that_is_read_for_some_batches_only_is_found_out():
    x = X.copy()
    x[:, 0] = -np.abs(x[:, 0])
    x[choose(tf.constant(Y), 40).others[0], 0] = 1
    model = behind(Sometimes(), run_eagerly=True)
    with pytest.raises(ValueError, match="depends on who else is in the batch"):
        model.fit(x, Y, verbose=0)


class OneName(layers.Layer):
    """Of two layers of one name the first mixes examples."""

    def __init__(self):
        super().__init__()
        self.mixing = layers.Dense(3, lambda x: x - keras.ops.mean(x, 0), use_bias=False, name="head")
        self.other = layers.Dense(3, use_bias=False, name="head")

    def call(self, x):
        return self.mixing(x) + self.other(x)


def test_weights_of_one_path_are_told_apart():
    model = BackpropSequential([keras.Input((5,)), OneName()])
    assert len({v.path for v in model.weights}) == 1
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), gradients=a_plan())
    with pytest.raises(ValueError, match="depends on who else is in the batch"):
        model.fit(X, Y, verbose=0)


@pytest.mark.parametrize("bad", [0.0, np.inf])
def test_where_no_gradient_says_anything_nothing_is_said_to_be_tried(bad):
    model = BackpropSequential([keras.Input((5,)), layers.Dense(3, use_bias=False)])
    plan = a_plan()
    model.compile("sgd", "mse", gradients=plan)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model.fit(np.full_like(X, bad), Y.astype("float32")[:, None] * np.ones(3), verbose=0)
    assert any("could not be tried: the gradients of those" in str(one.message) for one in said)
    assert plan.steps == 5 and not plan.past.tried and "it was not tried" in plan.statement()


def test_of_gradients_that_are_partly_not_finite_the_others_are_compared():
    usual = {0: (None, np.array([np.nan, 1.0, 2.0]))}
    assert changed(usual, {0: ("w", np.array([np.nan, 1.0, 2.0]))}, 1e-3) is None
    for bad in (np.nan, np.inf):
        one, other = ({0: ("w", np.array([bad, 1.0, z]))} for z in (2.0, 3.0))
        assert changed(one, other, 1e-3) == "w" and changed(one, one, 1e-3) is None


def test_steps_of_a_model_that_was_not_tried_are_said():
    """After one that was: of another model, or of the same compiled anew, on a batch of the caller's."""
    plan = a_plan()
    model = a_model(plan)
    model.fit(X, Y, verbose=0)
    model.train_on_batch(X[:8], Y[:8])
    assert plan.past.tried
    model.compile("sgd", "sparse_categorical_crossentropy", gradients=plan)
    model.train_on_batch(X[:8], Y[:8])
    assert not plan.past.tried and "it was not tried" in plan.statement()


def test_a_trial_is_of_the_rows_of_one_replica(monkeypatch):
    sizes = []
    monkeypatch.setattr(plans, "try_examples", lambda *arguments: not sizes.append(arguments[-1]))
    plan = a_plan(largest_batch_size=15)
    model = a_model(plan)
    two = types.SimpleNamespace(num_replicas_in_sync=2)
    for strategy in (model.distribute_strategy, two):
        monkeypatch.setattr(type(model), "distribute_strategy", strategy)
        plan._tried = None
        plan.try_examples(model, X, Y)
    assert sizes == [plan.sampler.rows, -(-plan.sampler.rows // 2)]


class GrowsWithAMetric(layers.Layer):
    def __init__(self):
        super().__init__()
        self.seen = keras.metrics.Sum()

    def call(self, x):
        self.seen.update_state(keras.ops.ones(()))
        return x * (1 + 1e-6 * self.seen.total)


def test_a_metric_that_has_grown_is_tried():
    """As it will be after many steps; in the first its part in the gradient cannot be seen."""
    model = behind(GrowsWithAMetric())
    with pytest.raises(ValueError, match="depends on what a metric has kept of the steps before"):
        model.fit(X, Y, verbose=0)


def test_of_labels_with_numbers_those_that_repeat_count():
    y = {"age": tf.random.normal([3000, 1]), "kind": tf.constant(np.repeat([0, 1, 2], [1480, 40, 1480]))}
    kinds = [np.repeat([0, 1, 2], [1480, 40, 1480])[rows] for rows in choose(y, 3000)]
    assert set(kinds[0]) == {0, 1, 2}


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
