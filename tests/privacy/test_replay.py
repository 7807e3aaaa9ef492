"""What one example can change: steps with the same random numbers, with it and without it; and how batches are drawn."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_backprop import BackpropModel, BackpropSequential, privacy
from tests.privacy.problem import X, Y, a_model, a_plan, flat
from tests.privacy.test_layers import IN_EVERY_RUN, LAYERS, N, problem

C = 0.3


def change(model, plan, x, y, example):
    """By how much a step's sum changes when the weight of an example is 0, the random numbers being the same."""
    released, state = [], [(v, v.value.numpy()) for v in plan.variables]
    for weight in (1.0, 0.0):
        for variable, value in state:
            variable.assign(value)
        weights = np.ones(len(y), "float32")
        weights[example] = weight
        x = [tf.constant(a) for a in x] if isinstance(x, (list, tuple)) else tf.constant(x)
        result = model.backward_pass(x, tf.constant(y), tf.constant(weights))
        released.append(flat(plan(result)) * plan.expected_batch_size)
    return np.linalg.norm(released[0] - released[1])


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in IN_EVERY_RUN else pytest.mark.slow) for n in LAYERS])
def test_an_example_changes_the_sum_by_its_clipped_gradient_at_most(name):
    keras.config.set_floatx("float64"), keras.config.set_dtype_policy("float64")
    try:
        model, data, targets = problem(name)
    finally:
        keras.config.set_floatx("float32"), keras.config.set_dtype_policy("float32")
    for layer in model._flatten_layers():
        if isinstance(layer, layers.BatchNormalization):
            layer.trainable = False
    model.compile("sgd", "mse")
    x = list(data) if len(data) > 1 else data[0]
    for clipping in ("flat", "per layer"):
        plan = a_plan(examples=N, clipping_norm=C, clipping=clipping, expected_batch_size=4, delta=0.1)
        changes = [change(model, plan, x, 100 * targets, example) for example in (0, 5)]
        assert max(changes) <= C * (1 + 1e-6)
        if clipping == "flat":
            assert min(changes) == pytest.approx(C, rel=1e-6)  # they are clipped: no less is spent than there is


@pytest.mark.parametrize(
    "options",
    [
        {"clipping": "adaptive"},
        {"clipping_norm": {"*hidden": 0.1, "*": 0.2}, "clipping": "per layer"},
        {"sampling": "shuffled"},
        {"neighbours": "replace one"},
    ],
)
def test_with_every_option(options):
    model = a_model()
    plan = a_plan(**{"clipping_norm": C, **options})
    bound = np.hypot(0.1, 0.2) if isinstance(plan.clipping_norm, dict) else C
    assert change(model, plan, X[:8], Y[:8], 3) <= bound * (1 + 1e-4)
    if isinstance(plan.clipping_norm, dict):
        assert plan.sensitivity == pytest.approx(bound)


def test_per_layer_norms_must_be_of_every_layer():
    with pytest.raises(ValueError, match="no pattern for the layer '.*out'"):
        change(a_model(), a_plan(clipping="per layer", clipping_norm={"*hidden": 1.0}), X[:8], Y[:8], 0)


@pytest.mark.parametrize("quantile", [0.2, 0.8])
def test_the_adaptive_norm_approaches_the_quantile(quantile):
    plan = a_plan(
        clipping=privacy.Adaptive(quantile, count_stddev=0.6), clipping_norm=20.0, noise_multiplier=0.01, epochs=60
    )
    model = a_model(plan, keras.optimizers.SGD(0.0))
    model.fit(X, Y, epochs=60, verbose=0)
    result = model.backward_pass(tf.constant(X), tf.constant(Y), tf.ones(40))
    assert np.mean(result.example_norms().numpy() <= plan.clipping_norm) == pytest.approx(quantile, abs=0.12)


def test_batches_are_binomial_and_independent():
    plan = a_plan(examples=200, expected_batch_size=20, largest_batch_size=35, epochs=10)
    draw = tf.function(lambda step: plan.sampler.draw(step))
    included = np.zeros((600, 200))
    for step in range(600):
        indices, weights = (a.numpy() for a in draw(tf.constant(step, tf.int64)))
        assert indices.shape == (35,) and len(set(indices[weights > 0])) == weights.sum()
        assert (np.diff(weights) <= 0).all()
        included[step, indices[weights > 0]] = 1
    sizes = included.sum(1)
    assert sizes.mean() == pytest.approx(20, abs=4 * np.sqrt(18 / 600)) and sizes.var() == pytest.approx(18, rel=0.25)
    assert np.abs(included.mean(0) - 0.1).max() < 5 * np.sqrt(0.09 / 600)
    for lag in (1, 2, 7):
        together = (included[lag:] * included[:-lag]).mean()
        assert together == pytest.approx(0.01, abs=5 * np.sqrt(0.01 / included[lag:].size))
    neighbours = (included[:, 1:] * included[:, :-1]).mean()
    assert neighbours == pytest.approx(0.01, abs=5 * np.sqrt(0.01 / included[:, 1:].size))


def test_of_a_batch_that_is_too_large_a_random_part_is_taken():
    plan = a_plan(examples=50, expected_batch_size=20, largest_batch_size=20, epochs=10, sampling="poisson")
    counts = np.zeros(50)
    for step in range(400):
        indices, weights = (a.numpy() for a in plan.sampler.draw(tf.constant(step, tf.int64)))
        counts[indices[weights > 0]] += 1
    assert np.corrcoef(counts, np.arange(50))[0, 1] == pytest.approx(0, abs=0.45)
    assert counts.mean() / 400 == pytest.approx(0.4 - 0.027, abs=0.02)  # E[min(size, 20)]/50


def test_xla_draws_as_well():
    plan = a_plan(examples=60, expected_batch_size=6, largest_batch_size=15)
    for step in range(5):
        for_xla, plain = (plan.sampler.draw(tf.constant(step, tf.int64), xla) for xla in (True, False))
        count = int(plain[1].numpy().sum())
        assert (plain[0].numpy()[:count] == for_xla[0].numpy()[:count]).all() and count == for_xla[1].numpy().sum()


def test_every_example_once_an_epoch_where_they_are_shuffled():
    plan = a_plan(examples=43, sampling="shuffled")
    epochs = []
    for epoch in range(2):
        drawn = [plan.sampler.draw(tf.constant(6 * epoch + step, tf.int64)) for step in range(6)]
        epochs.append(np.concatenate([i.numpy()[w.numpy() > 0] for i, w in drawn]))
        assert sorted(epochs[-1]) == list(range(43))
    assert (epochs[0] != epochs[1]).any()


class MinusTheMean(layers.Layer):
    def call(self, x):
        return x - keras.ops.mean(x, axis=0, keepdims=True)


class PlainScale(layers.Layer):
    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones")

    def call(self, x):
        return x * self.scale


def root(y, p):
    return keras.ops.sqrt(keras.ops.mean((y - p) ** 2))


@pytest.mark.parametrize(
    ("layer", "loss"),
    [(MinusTheMean, "mse"), (PlainScale, root), (PlainScale, keras.losses.Dice(axis=None)), (PlainScale, lambda y, p: keras.ops.mean((y - p) ** 2))],
)  # fmt: skip
def test_what_mixes_the_examples_is_found_out_before_anything_is_trained(layer, loss):
    model = BackpropSequential(
        [keras.Input((5,)), layers.Dense(4), layer(), layers.Dropout(0.5), layers.Dense(2, "sigmoid")]
    )
    plan = a_plan()
    model.compile("sgd", loss, gradients=plan)
    before = [keras.ops.convert_to_numpy(v) for v in model.variables]
    with pytest.raises(ValueError, match="depends on|no gradient per example|one number for the batch"):
        model.fit(X, X[:, :2], verbose=0)
    assert plan.steps == 0
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)


def test_layers_and_losses_of_ones_own_that_keep_the_examples_apart_train():
    model = BackpropSequential([keras.Input((5,)), layers.Dense(4), PlainScale(), layers.Dropout(0.5), layers.Dense(2)])
    model.compile("sgd", lambda y, p: keras.ops.mean((y - p) ** 2, axis=-1), gradients=a_plan())
    model.fit(X, X[:, :2], verbose=0)
    assert model.fit_path.compiled
    inputs = keras.Input((5,))
    model = BackpropModel(inputs, keras.ops.tanh(layers.Dense(2)(inputs)) * 2)
    model.compile("sgd", "mse", gradients=a_plan())
    model.fit(X, X[:, :2], verbose=0)
