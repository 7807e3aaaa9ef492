"""What goes wrong in private training, each with its test."""

import contextlib
import math
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_backprop import BackpropModel, BackpropSequential, backward, privacy
from keras_backprop.chain.rows import MIXING_LAYERS
from keras_backprop.privacy.workers import agree
from tests.privacy.problem import X, Y, a_model, a_plan, clipped_sum, flat, own_gradients


def released(plan, model, x=X[:8], y=Y[:8], sample_weight=None):
    """What a plan gives the optimizer, times the expected size, as one vector."""
    x, y, sample_weight = keras.tree.map_structure(
        lambda a: a if a is None else tf.convert_to_tensor(a), (x, y, sample_weight)
    )
    gradients = plan(model.backward_pass(x, y, sample_weight))
    return flat(g for g in gradients if g is not None) * plan.expected_batch_size


def quiet(**options):
    """A plan without noise."""
    return a_plan(noise_multiplier=0.0, epochs=1000, **options)


def test_the_sum_is_divided_by_the_expected_size_and_not_by_the_drawn_one():
    model, plan = a_model(), quiet()
    both, one, other = (released(plan, model, X[s], Y[s]) for s in (slice(6), slice(2), slice(2, 6)))
    np.testing.assert_allclose(both, one + other, atol=1e-5)
    own = [own_gradients(model, keras.losses.sparse_categorical_crossentropy, X[i], Y[i]) for i in range(6)]
    np.testing.assert_allclose(both, clipped_sum(own, 0.5), atol=1e-5)


@pytest.mark.parametrize("batch", ["full", "empty"])
@pytest.mark.parametrize("norm", [0.1, 2.0])
def test_the_noise_fits_the_sensitivity_for_an_empty_batch_too(batch, norm):
    model = BackpropSequential([keras.Input((50,)), layers.Dense(100)])
    model.compile("sgd", "mse")
    x, y = np.ones((4, 50), "float32"), np.ones((4, 100), "float32")
    weights = np.full(4, 1.0 if batch == "full" else 0.0, "float32")
    noisy = released(a_plan(clipping_norm=norm, noise_multiplier=1.5), model, x, y, weights)
    plain = released(quiet(clipping_norm=norm), model, x, y, weights)
    if batch == "empty":
        np.testing.assert_array_equal(plain, 0)
    noise = noisy - plain
    assert np.std(noise) == pytest.approx(1.5 * norm, rel=0.05)
    assert abs(np.mean(noise)) < 5 * 1.5 * norm / np.sqrt(noise.size)


def test_every_step_and_weight_has_noise_of_its_own():
    model, plan = a_model(), a_plan(noise_multiplier=100.0)
    steps = [released(plan, model) for _ in range(3)]
    assert plan.steps == 3
    for one, other in [(0, 1), (0, 2), (1, 2)]:
        assert abs(np.corrcoef(steps[one], steps[other])[0, 1]) < 0.5
    assert len(np.unique(np.round(steps[0], 4))) == steps[0].size


@pytest.mark.parametrize("clipping", ["flat", "per layer"])
@pytest.mark.parametrize("bad", [np.nan, *(pytest.param(bad, marks=pytest.mark.slow) for bad in (np.inf, 1e30))])
@pytest.mark.parametrize("kind", ["dense", "convolution", "recurrent", "embedding"])
def test_an_example_whose_gradient_is_not_finite_counts_0(bad, kind, clipping):
    keras.utils.set_random_seed(2)
    shape, inner = {
        "dense": ((5,), [layers.Dense(4)]),
        "convolution": ((6, 2), [layers.Conv1D(3, 2), layers.Flatten()]),
        "recurrent": ((4, 2), [layers.GRU(3, activation="relu", reset_after=False)]),
        "embedding": ((3,), [layers.Embedding(5, 2), layers.Flatten()]),
    }[kind]
    model = BackpropSequential([keras.Input(shape), *inner, layers.Dense(2)])
    model.compile("sgd", "mse")
    x, y = np.random.default_rng(3).normal(size=(5, *shape)).astype("float32"), np.ones((5, 2), "float32")
    if kind == "embedding":
        x = np.abs(x).astype("int32") % 5
        y[2] = bad
    else:
        x[2] = bad
    plan = quiet(clipping=clipping)
    others = [0, 1, 3, 4]
    with_it = released(plan, model, x, y)
    assert np.isfinite(with_it).all()
    np.testing.assert_allclose(with_it, released(plan, model, x[others], y[others]), rtol=1e-4, atol=1e-6)


def test_batch_statistics_are_refused_with_the_layers_and_what_to_use():
    model = BackpropSequential(
        [
            keras.Input((5,)),
            layers.Dense(4),
            layers.BatchNormalization(name="first"),
            layers.BatchNormalization(name="second"),
            layers.Dense(1),
        ]
    )
    model.compile("sgd", "mse", gradients=a_plan())
    before = model.get_weights()
    with pytest.raises(ValueError, match="(?s)first'.*second'.*GroupNormalization.*freeze"):
        model.fit(X, Y, verbose=0)
    with pytest.raises(ValueError, match="(?s)first.*second.*GroupNormalization"):
        a_plan()(model.backward_pass(tf.constant(X), tf.constant(Y[:, None].astype("float32"))))
    for one, other in zip(model.get_weights()[:2], before[:2], strict=True):
        np.testing.assert_array_equal(one, other)
    for layer in model.layers[1:3]:
        layer.trainable = False
    model.compile("sgd", "mse", gradients=a_plan())
    model.fit(X, Y, verbose=0)


class Inference(BackpropModel):
    """Batch statistics are never of this batch, whatever is trained."""

    def __init__(self):
        super().__init__()
        self.norm, self.out = layers.BatchNormalization(), layers.Dense(3, "softmax")

    def call(self, x):
        return self.out(self.norm(x, training=False))


def test_batch_normalization_that_uses_what_it_has_is_trained():
    model = Inference()
    model.compile("sgd", "sparse_categorical_crossentropy", gradients=quiet())
    model.fit(X, Y, epochs=1, verbose=0)
    own = [own_gradients(model, keras.losses.sparse_categorical_crossentropy, X[i], Y[i]) for i in range(8)]
    np.testing.assert_allclose(released(quiet(), model), clipped_sum(own, 0.5), atol=1e-5)


class RunningMean(layers.Layer):
    def build(self, shape):
        self.mean = self.add_weight(shape=shape[1:], initializer="zeros", trainable=False, name="mean")

    def call(self, x, training=False):
        if training:
            self.mean.assign(0.9 * self.mean + 0.1 * keras.ops.mean(x, 0))
        return x


class Sum(layers.Layer):
    def build(self, shape):
        self.sum = self.add_weight(shape=(), dtype="int32", initializer="zeros", trainable=False, name="sum")

    def call(self, x, training=False):
        if training:
            self.sum.assign_add(keras.ops.cast(keras.ops.sum(1000 * x), "int32"))
        return x


class Largest(layers.Layer):
    """Keeps the largest number that it has seen, as a quantization does."""

    def build(self, shape):
        self.largest = self.add_weight(shape=(), initializer="zeros", trainable=False, name="largest")

    def call(self, x):
        self.largest.assign(keras.ops.maximum(self.largest, keras.ops.max(keras.ops.abs(x))))
        return x


class Bank(layers.Layer):
    """Keeps the first example of each batch."""

    def build(self, shape):
        self.kept = self.add_weight(shape=shape[1:], initializer="zeros", trainable=False, name="kept")

    def call(self, x):
        kept = self.kept + 0.0
        self.kept.assign(x[0])
        return x + kept


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (lambda: Bank(name="keeps"), "What '.*keeps/kept' keeps from step to step depends on the examples"),
        (lambda: Largest(name="keeps"), "What '.*keeps/largest' keeps from step to step depends on the examples"),
        (lambda: RunningMean(name="keeps"), "What '.*keeps/mean' keeps from step to step depends on the examples"),
        (lambda: Sum(name="keeps"), "What '.*keeps/sum' keeps from step to step depends on the examples"),
        (lambda: layers.SimpleRNN(2, stateful=True, name="keeps"), "stateful=True.*'.*keeps'"),
    ],
)
def test_what_keeps_something_of_the_examples_without_noise_is_refused(layer, message):
    model = BackpropSequential([keras.Input((3, 2), batch_size=8), layer(), layers.Flatten(), layers.Dense(1)])
    plan = a_plan()
    model.compile("sgd", "mse", gradients=plan)
    with pytest.raises(ValueError, match=message):
        model.fit(np.ones((40, 3, 2), "float32") * X[:, :3, None], Y, verbose=0)
    assert plan.steps == 0


class Scaled(layers.Layer):
    """Multiplies by what a function makes of the batch."""

    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def call(self, x):
        return x * tf.cast(self.scale(x), x.dtype)


@pytest.mark.parametrize(
    "scale", [lambda x: tf.size(tf.unique(tf.reshape(x, [-1]))[0]), lambda x: tf.shape(tf.where(x > 0))[0]]
)
def test_how_many_numbers_there_are_of_a_kind_mixes_the_examples(scale):
    model = keras.Sequential([keras.Input((5,)), Scaled(scale), layers.Dense(3)])
    with pytest.raises(ValueError, match="no rows that belong to one example"):
        tf.function(lambda x: backward(model, x, loss=lambda y: y).squared_norms())(tf.constant(X))


class Steps(layers.Layer):
    def build(self, shape):
        self.steps = self.add_weight(shape=(), initializer="zeros", trainable=False, name="steps")

    def call(self, x):
        self.steps.assign_add(1.0)
        return x


@pytest.mark.parametrize("other", [lambda: [], lambda: [Steps()], lambda: [layers.Dropout(0.5)]])
def test_what_the_place_in_the_batch_decides_is_refused(other):
    model = BackpropSequential(
        [keras.Input((5,)), *other(), Scaled(lambda x: tf.range(tf.shape(x)[0])[:, None]), layers.Dense(3, "softmax")]
    )
    model.compile("sgd", "sparse_categorical_crossentropy", gradients=a_plan())
    with pytest.raises(ValueError, match="depends on its place in the batch"):
        model.fit(X, Y, verbose=0)


class MinusTheMean(layers.Layer):
    def call(self, x):
        return x - keras.ops.mean(x, 0, keepdims=True)


@pytest.mark.parametrize(
    "stack",
    [lambda: [layers.Dense(3), MinusTheMean()], lambda: [layers.Reshape((1, 5)), layers.TimeDistributed(MinusTheMean()), layers.Flatten(), layers.Dense(3)]],
)  # fmt: skip
def test_a_model_that_its_first_step_would_build_is_tried_as_well(stack):
    model = BackpropSequential([*stack(), layers.Softmax()])
    model.compile("sgd", "sparse_categorical_crossentropy", gradients=a_plan())
    with pytest.raises(ValueError, match="depends on who else is in the batch"):
        model.fit(X, Y, verbose=0)


def test_a_model_that_its_first_step_builds_trains_like_one_that_is_built():
    trained = []
    for inputs in ([], [keras.Input((5,))]):
        keras.utils.set_random_seed(3)
        model = BackpropSequential([*inputs, layers.Dense(4), layers.Dropout(0.5), layers.Dense(3, "softmax")])
        model.compile("sgd", "sparse_categorical_crossentropy", gradients=a_plan())
        model.fit(X, Y, verbose=0)
        trained.append(flat(model.get_weights()))
    np.testing.assert_array_equal(*trained)


IMAGES = np.random.default_rng(0).uniform(0, 255, (4, 12, 12, 3)).astype("float32")


@pytest.mark.parametrize("kind", MIXING_LAYERS)
def test_layers_of_keras_that_mix_images_are_refused(kind):
    model = BackpropSequential([keras.Input((12, 12, 3)), kind(name="guilty"), layers.Flatten(), layers.Dense(1)])
    model.compile("sgd", "mse", gradients=a_plan(examples=4, expected_batch_size=2))
    with pytest.raises(ValueError, match="put something of one example into others.*guilty"):
        model.fit(IMAGES, np.ones((4, 1)), verbose=0)


def image_layers():
    """The layers of Keras that change images in training, with arguments that they can be made of."""
    for name, kind in sorted(vars(layers).items()):
        if isinstance(kind, type) and issubclass(kind, layers.Layer) and "image_preprocessing" in kind.__module__:
            for options in ({}, {"factor": 0.3}, {"height_factor": 0.3}, {"height": 8, "width": 8}, {"factor": 4}):
                with contextlib.suppress(Exception):
                    kind(**options)(IMAGES, training=True)
                    yield pytest.param(kind, options, id=name)
                    break


@pytest.mark.slow
def test_no_other_layer_of_keras_mixes_images():
    other, mixing = np.concatenate([IMAGES[:1], IMAGES[1:] / 5]), set()
    tried = list(image_layers())
    for kind, options in (parameters.values for parameters in tried):
        layer = kind(**options)
        for _ in range(3):
            seeds = [(v, keras.ops.copy(v.value)) for v in layer.variables]
            one = keras.ops.convert_to_numpy(keras.tree.flatten(layer(IMAGES, training=True))[0])[0]
            for variable, value in seeds:
                variable.assign(value)
            two = keras.ops.convert_to_numpy(keras.tree.flatten(layer(other, training=True))[0])[0]
            if not np.allclose(one, two, atol=1e-3):
                mixing.add(kind)
    assert len(tried) > 20 and mixing <= set(MIXING_LAYERS)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "float16"])
def test_sums_in_half_precision_are_not_rounded_by_more_than_an_example(policy):
    """A thousand alike: in half precision one more would be a fraction of what the sum is rounded by, or a multiple."""
    model = BackpropSequential([keras.Input((40,)), layers.Dense(50, dtype=policy)])
    model.compile("sgd", "mse")
    x = np.repeat(np.random.default_rng(0).normal(size=(1, 40)), 1000, 0).astype("float32")
    result = model.backward_pass(tf.constant(x), tf.zeros((1000, 50)), tf.ones(1000))
    sums = []
    for count in (999.0, 1000.0):
        c = tf.concat([tf.ones(999), [count - 999]], 0)
        sums.append(flat(result.weighted(c, least=tf.float32)))
    one = flat(g[-1] for g in map(result.per_example, result.weights))
    np.testing.assert_allclose(sums[1] - sums[0], one, atol=2e-2 * np.abs(one).max())


class Counts(layers.Layer):
    """Reports the mean of what it sees, by a metric; `fed_back`: and computes with it."""

    def __init__(self, fed_back):
        super().__init__()
        self.seen, self.fed_back = keras.metrics.Mean(name="seen"), fed_back

    def call(self, x):
        self.seen.update_state(keras.ops.mean(x))
        return x + self.seen.result() if self.fed_back else x


def test_a_trial_changes_no_weight_that_a_layer_assigns_to():
    """`SpectralNormalization` divides its layer's kernel by its norm in every step."""
    keras.utils.set_random_seed(1)
    model = BackpropSequential([keras.Input((5,)), layers.SpectralNormalization(layers.Dense(3)), layers.Softmax()])
    model.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy", gradients=quiet())
    model.layers[0].layer.kernel.assign(3 * model.layers[0].layer.kernel)
    before = [keras.ops.copy(v.value) for v in model.variables]
    plan = model.compiled_gradients
    plan.try_examples(model, tf.constant(X), tf.constant(Y))
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)
    model.fit(X, Y, verbose=0)
    assert model.fit_path.compiled


@pytest.mark.parametrize("fed_back", [False, True])
def test_a_metric_of_a_layer_is_reported_and_no_state(fed_back):
    model = BackpropSequential([keras.Input((5,)), Counts(fed_back), layers.Dense(3, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy", gradients=a_plan())
    if fed_back:
        with pytest.raises(ValueError, match="depends on (who else is in the batch|what a metric has kept)"):
            model.fit(X, Y, verbose=0)
    else:
        assert np.isfinite(model.fit(X, Y, verbose=0).history["seen"][0])


@pytest.mark.parametrize("options", [{}, {"run_eagerly": True}])
def test_a_model_of_which_nothing_is_trained_is_refused_for_that(options):
    model = a_model()
    model.trainable = False
    model.compile("sgd", "sparse_categorical_crossentropy", gradients=a_plan(), **options)
    with pytest.raises(ValueError, match="has no trainable weights: there is nothing to train privately"):
        model.fit(X, Y, verbose=0)


class OwnStep(BackpropModel):
    def train_step(self, data):
        x, y = data[:2]
        result = self.backward_pass(x, y)
        self.optimizer.apply_gradients(zip(result.gradients, result.weights, strict=True))
        return {"loss": result.loss}


class OwnGradients(BackpropModel):
    def make_gradients(self, result):
        return result.gradients


@pytest.mark.parametrize("kind", [OwnStep, OwnGradients])
@pytest.mark.parametrize("options", [{}, {"run_eagerly": True}])
def test_a_step_that_does_not_ask_the_plan_is_refused(kind, options):
    inputs = keras.Input((5,))
    model = kind(inputs, layers.Dense(3, "softmax")(inputs))
    model.compile("sgd", "sparse_categorical_crossentropy", gradients=a_plan(), **options)
    with pytest.raises(ValueError, match="has not asked the plan.*was not private"):
        model.fit(X, Y, verbose=0)


class Adds(layers.Layer):
    def call(self, x):
        self.add_loss(keras.ops.mean(x**2))
        return x


@pytest.mark.parametrize(
    "layer", [lambda: layers.Dense(4, activity_regularizer="l2", name="guilty"), lambda: Adds(name="guilty")]
)
def test_losses_that_depend_on_examples_are_refused(layer):
    model = BackpropSequential([keras.Input((5,)), layers.Dense(5), layer(), layers.Dense(1)])
    model.compile("sgd", "mse", gradients=a_plan())
    with pytest.raises(ValueError, match="guilty.*depends on the examples|depends on the examples.*guilty"):
        model.fit(X, Y, verbose=0)


def test_penalties_on_weights_stay_as_they_are():
    model = BackpropSequential([keras.Input((5,)), layers.Dense(3, kernel_regularizer="l2"), layers.Dense(1)])
    model.compile("sgd", "mse")
    y = Y[:8, None].astype("float32")
    plan = quiet()
    gradients = plan(model.backward_pass(tf.constant(X[:8]), tf.constant(y), tf.zeros(8)))
    np.testing.assert_allclose(gradients[0], 2 * 0.01 * model.layers[0].kernel, rtol=1e-5)
    np.testing.assert_array_equal(gradients[2], 0)


def test_sample_weights_are_within_the_clip():
    model, plan = a_model(), quiet(clipping_norm=0.3)
    for i in range(3):
        for weight in (0.0, 0.01, 1.0, 1000.0):
            own = own_gradients(model, keras.losses.sparse_categorical_crossentropy, X[i], Y[i])
            one = released(plan, model, X[i : i + 1], Y[i : i + 1], np.array([weight], "float32"))
            np.testing.assert_allclose(one, clipped_sum([own], 0.3, [weight]), atol=1e-6)
            assert np.linalg.norm(one) <= 0.3 * (1 + 1e-5)


@pytest.mark.parametrize("reduction", ["sum", "mean", "sum_over_batch_size", "mean_with_sample_weight"])
def test_no_reduction_lets_the_others_in(reduction):
    model = a_model(loss=keras.losses.SparseCategoricalCrossentropy(reduction=reduction))
    plan, weights = quiet(clipping_norm=0.2), np.array([1, 0.1, 0, 3, 2, 0.5, 0, 0], "float32")
    own = [own_gradients(model, keras.losses.sparse_categorical_crossentropy, X[i], Y[i]) for i in range(8)]
    np.testing.assert_allclose(released(plan, model, sample_weight=weights), clipped_sum(own, 0.2, weights), atol=1e-6)
    np.testing.assert_array_equal(released(plan, model, sample_weight=np.zeros(8, "float32")), 0)


@pytest.mark.parametrize("wrong", [np.nan, -39.0])
def test_no_sample_weight_decides_on_the_others(wrong):
    loss = keras.losses.SparseCategoricalCrossentropy(reduction="mean_with_sample_weight")
    sample_weight = np.ones(40, "float32")
    a_model(a_plan(), loss=loss).fit(X, Y, sample_weight=sample_weight, verbose=0)
    sample_weight[3] = wrong
    with pytest.raises(ValueError, match=f"one example decides on what all others contribute. Received: {wrong}"):
        a_model(a_plan(), loss=loss).fit(X, Y, sample_weight=sample_weight, verbose=0)


def test_shared_weights_have_the_norm_of_the_sum():
    inputs = keras.Input((5,))
    shared = layers.Dense(5, "tanh")
    model = BackpropModel(inputs, layers.Dense(3, "softmax")(shared(shared(inputs))))
    model.compile("sgd", "sparse_categorical_crossentropy")
    own = [own_gradients(model, keras.losses.sparse_categorical_crossentropy, X[i], Y[i]) for i in range(8)]
    np.testing.assert_allclose(released(quiet(), model), clipped_sum(own, 0.5), atol=1e-5)


def test_masked_sequences_count_by_their_own_length():
    inputs = keras.Input((4,), dtype="int32")
    model = BackpropModel(inputs, layers.Dense(3, "softmax")(layers.Embedding(6, 4, mask_zero=True)(inputs)))
    model.compile("sgd", "sparse_categorical_crossentropy", gradients=quiet())
    x = np.array([[1, 2, 3, 4], [5, 0, 0, 0], [2, 2, 0, 0], [3, 1, 4, 0]])
    y = np.array([[0, 1, 2, 0], [1, 0, 0, 0], [2, 1, 0, 0], [0, 2, 1, 0]])
    for weights in (None, np.array([1, 2, 0, 0.5], "float32")):
        singles = [
            released(quiet(), model, x[i : i + 1], y[i : i + 1], None if weights is None else weights[i : i + 1])
            for i in range(4)
        ]
        np.testing.assert_allclose(released(quiet(), model, x, y, weights), np.sum(singles, 0), atol=1e-5)


CE = keras.losses.SparseCategoricalCrossentropy
TAGS = np.array([[0, 1, 2, 0], [1, 0, 0, 2], [2, 1, 0, 0], [0, 2, 1, 0]])
SUMMED = [CE(from_logits=True, reduction="sum"), keras.losses.MeanSquaredError(reduction="sum")]


def tagger(loss, plan, heads=1, mask_zero=False):
    """A model of sequences with a head or two of three numbers for each position; their targets."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((4,), dtype="int32")
    hidden = layers.Embedding(6, 4, mask_zero=mask_zero)(inputs)
    model = BackpropModel(
        inputs, [layers.Dense(3)(hidden) for _ in range(heads)] if heads > 1 else layers.Dense(3)(hidden)
    )
    model.compile(keras.optimizers.SGD(1.0), loss, gradients=plan)
    return model, [TAGS, np.eye(3)[TAGS]][:heads] if heads > 1 else TAGS


@pytest.mark.parametrize(
    "loss, options",
    [
        (CE(from_logits=True, ignore_class=0), {}),
        (CE(from_logits=True, ignore_class=0), {"mask_zero": True}),
        (CE(from_logits=True, reduction="sum", ignore_class=0), {}),
        (CE(from_logits=True, reduction="sum"), {"mask_zero": True}),
        ([CE(from_logits=True), "mse"], {"mask_zero": True, "heads": 2}),
        (SUMMED, {"mask_zero": True, "heads": 2}),
        ([None, "mse"], {"mask_zero": True, "heads": 2}),
    ],
)
def test_each_example_counts_by_its_own_positions(loss, options):
    """What a mask and `ignore_class` leave out of the mean is different in every example."""
    model, y = tagger(loss, None, **options)
    x = np.array([[1, 2, 3, 4], [5, 4, 0, 0], [2, 2, 3, 0], [3, 1, 4, 0]])
    y = keras.tree.map_structure(tf.constant, y) if loss != [None, "mse"] else [None, tf.constant(y[1])]
    parts = [keras.tree.map_structure(lambda a, i=i: a if a is None else a[i : i + 1], y) for i in range(4)]
    alone = [model.backward_pass(tf.constant(x[i : i + 1]), parts[i], None) for i in range(4)]
    norms = np.concatenate([one.example_norms() for one in alone])
    totals = [np.linalg.norm(flat(tf.convert_to_tensor(g) for g in one.gradients if g is not None)) for one in alone]
    np.testing.assert_allclose(norms, totals, rtol=1e-5)
    together = model.backward_pass(tf.constant(x), y, None)
    np.testing.assert_allclose(together.example_norms(), totals, rtol=1e-5)
    singles = [released(quiet(), model, x[i : i + 1], parts[i]) for i in range(4)]
    np.testing.assert_allclose(released(quiet(), model, x, y), np.sum(singles, 0), atol=1e-5)
    weights = np.array([1, 2, 0.5, 1], "float32")
    if not options.get("heads"):
        weighted = model.backward_pass(tf.constant(x), y, tf.constant(weights[:, None]))
        np.testing.assert_allclose(weighted.example_norms(), totals, rtol=1e-5)


def test_losses_that_count_different_positions_are_refused_in_every_fit():
    plan = quiet(examples=4, expected_batch_size=4)
    model, y = tagger([CE(from_logits=True), CE(from_logits=True, ignore_class=0)], plan, heads=2)
    before = model.get_weights()
    for _ in range(2):  # what the first has built does not make it look known
        with pytest.raises(ValueError, match="do not count the same positions"):
            model.fit(np.array([[1, 2, 3, 4]] * 4), [TAGS, TAGS], verbose=0)
    np.testing.assert_array_equal(flat(model.get_weights()), flat(before))


def test_a_loss_that_is_no_object_heeds_no_mask():
    model, y = tagger("mse", None, mask_zero=True)
    x, y = np.array([[1, 2, 3, 4], [5, 4, 0, 0]]), np.eye(3)[TAGS[:2]].astype("float32")
    alone = [backward(model, x[i : i + 1], y[i : i + 1], loss=keras.losses.mean_squared_error) for i in range(2)]
    norms = backward(model, x, y, loss=keras.losses.mean_squared_error).example_norms()
    np.testing.assert_allclose(norms, np.concatenate([one.example_norms() for one in alone]), rtol=1e-5)


def test_half_precision_needs_no_gradients_of_single_examples_for_their_norms():
    model = BackpropSequential([keras.Input((300,)), layers.Dense(200, dtype="mixed_float16"), layers.Dense(1)])
    model.compile("sgd", "mse", gradients=a_plan())
    x, y = tf.random.normal([8, 300]), tf.zeros([8, 1])
    step = tf.function(lambda: model.backward_pass(x, y).squared_norms()).get_concrete_function()
    largest = max(math.prod(t.shape) for op in step.graph.get_operations() for t in op.outputs if t.shape.rank)
    assert largest <= 300 * 200


def test_mixed_precision_clips_the_unscaled_gradients_and_leaves_the_scale_alone():
    def model(policy, plan):
        keras.utils.set_random_seed(4)
        hidden = layers.Dense(6, "tanh", dtype=policy)
        model = BackpropSequential([keras.Input((5,)), hidden, layers.Dense(3, "softmax", dtype="float32")])
        optimizer = keras.optimizers.SGD(0.1)
        optimizer = (
            keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=1024.0, dynamic_growth_steps=2)
            if plan
            else optimizer
        )
        model.compile(optimizer, "sparse_categorical_crossentropy", gradients=plan)
        return model

    plan = a_plan()
    half, full = model("mixed_float16", plan), a_model(a_plan())
    half.fit(X, Y, epochs=3, verbose=0)
    full.fit(X, Y, epochs=3, verbose=0)
    assert float(half.optimizer.dynamic_scale) == 1024 and plan.steps == 15
    for one, other in zip(half.get_weights(), full.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-3)


def test_noise_once_for_a_batch_in_parts():
    whole, parts = a_plan(), a_plan()
    one, several = a_model(whole), a_model(parts, keras.optimizers.SGD(0.1, gradient_accumulation_steps=3))
    one.fit(X, Y, epochs=3, verbose=0)
    several.fit(X, Y, epochs=3, verbose=0)
    assert whole.steps == parts.steps == 15 and int(several.optimizer._iterations) == 45
    assert several.fit_path.compiled
    for a, b in zip(one.get_weights(), several.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    with pytest.raises(privacy.BudgetExceededError):
        several.fit(X, Y, verbose=0)


def test_momentum_and_decay_come_after_the_noise():
    """The optimizer of Keras, given by hand what the plan makes, ends where `fit` ends."""
    make = lambda: keras.optimizers.AdamW(0.05, weight_decay=0.1)  # noqa: E731
    plan, again = a_plan(), a_plan()
    trained, by_hand = a_model(plan, make()), a_model(optimizer=make())
    trained.fit(X, Y, epochs=2, verbose=0)
    for step in range(10):
        indices, weights = again.sampler.draw(tf.constant(step, tf.int64))
        result = backward(by_hand, tf.gather(X, indices), tf.gather(Y, indices), weights)
        by_hand.optimizer.apply(again(result), by_hand.trainable_weights)
    for one, other in zip(trained.get_weights(), by_hand.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


class Counted(privacy.SystemRandom):
    normals = 0

    def standard_normal(self, size):
        type(self).normals += 1
        return super().standard_normal(size)


@pytest.mark.parametrize("generator", [Counted(), np.random.default_rng(0)])
def test_the_generator_can_be_given(generator):
    plan = a_plan(generator=generator, seed=None, epochs=2)
    model = a_model(plan)
    model.fit(X, Y, epochs=2, verbose=0)
    assert model.fit_path.compiled and plan.steps == 10
    if isinstance(generator, Counted):
        assert Counted.normals == 10 * 4


def test_a_generator_on_each_of_several_workers_is_refused():
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": ["a:1", "b:1"]}), task_type="worker", task_id=1
    )
    strategy = types.SimpleNamespace(cluster_resolver=resolver)
    with pytest.raises(NotImplementedError, match="Leave `generator` out"):
        agree(a_plan(generator=privacy.SystemRandom(), seed=None), strategy)


def test_the_systems_random_numbers():
    normal, bits = (
        privacy.SystemRandom().standard_normal((20_000, 2)),
        privacy.SystemRandom().integers(-(2**31), 2**31, 50_000),
    )
    assert abs(normal.mean()) < 0.03 and normal.std() == pytest.approx(1, abs=0.03) and abs((normal**3).mean()) < 0.15
    assert bits.min() < -2.1e9 and bits.max() > 2.1e9 and abs((bits > 0).mean() - 0.5) < 0.02
    with pytest.raises(ValueError, match="must divide"):
        privacy.SystemRandom().integers(0, 3, 1)


def test_two_plans_have_different_secrets():
    one, other = (released(a_plan(seed=None, noise_multiplier=10.0), a_model()) for _ in range(2))
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.5
    config = a_plan(seed=None).get_config()
    assert "seed" not in config and "generator" not in config
