"""`backward` of other errors than the compiled one, and what its result holds."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_backprop
from keras_backprop import BackpropModel, Gradients, backward, backward_rule


def critic():
    keras.utils.set_random_seed(6)
    hidden = layers.Dense(5, "tanh", kernel_regularizer="l2", name="hidden")
    return keras.Sequential([keras.Input((4,)), hidden, layers.Dense(2)], name="critic")


POINTS = np.random.default_rng(8).normal(size=(6, 4)).astype("float32")


def taped(model, error):
    with tf.GradientTape() as tape:
        value = error(model(POINTS, training=True))
    return tape.gradient(value, [v.value for v in model.trainable_weights])


def assert_equal(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("traced", [False, True])
def test_a_loss_of_the_predictions_alone(traced):
    """Without compiling, without a dummy y; penalties are not in it."""
    model = critic()

    def gradients():
        result = backward(model, POINTS, loss=lambda p: tf.nn.softplus(-p))
        return result.gradients, result.loss

    ours, error = (tf.function(gradients) if traced else gradients)()
    assert_equal(ours, taped(model, lambda p: tf.reduce_mean(tf.nn.softplus(-p))))
    assert error.shape == ()


@pytest.mark.parametrize("loss", ["mae", keras.losses.MeanAbsoluteError(), keras.losses.mean_absolute_error])
def test_a_loss_of_targets_and_predictions(loss):
    model, y = critic(), np.ones((6, 2), "float32")
    assert_equal(backward(model, POINTS, y, loss=loss).gradients, taped(model, lambda p: tf.reduce_mean(tf.abs(p - 1))))


def test_several_losses_over_one_forward_pass():
    model, calls = critic(), []

    class Counted(layers.Layer):
        def call(self, x):
            calls.append(1)
            return x

    model = keras.Sequential([*model.layers, Counted()])
    model(POINTS)  # builds it, by symbolic calls
    calls.clear()
    results = backward(model, POINTS, loss={"first": lambda p: p[:, 0], "second": lambda p: p[:, 1] ** 2})
    assert len(calls) == 1
    assert_equal(results["first"].gradients, taped(model, lambda p: tf.reduce_mean(p[:, 0])))
    assert_equal(results["second"].gradients, taped(model, lambda p: tf.reduce_mean(p[:, 1] ** 2)))


def test_a_vector_jacobian_product():
    model, upstream = critic(), np.random.default_rng(1).normal(size=(6, 2)).astype("float32")
    result = backward(model, POINTS, upstream=upstream)
    assert_equal(result.gradients, taped(model, lambda p: tf.reduce_sum(p * upstream)))
    assert result.loss is None
    with pytest.raises(ValueError, match="must have the shape of the predictions"):
        backward(model, POINTS, upstream=np.ones((6, 3)))


def test_predictions_without_an_upstream_gradient():
    x = keras.Input((4,))
    model = keras.Model(x, {"a": layers.Dense(2)(x), "b": layers.Dense(3)(x)})
    result = backward(model, POINTS, upstream={"a": np.ones((6, 2)), "b": None})
    assert_equal(result.gradients[:2], taped(model, lambda p: tf.reduce_sum(p["a"]))[:2])
    assert result.gradients[2:] == [None, None]


def test_a_variable_as_the_input():
    model, point = critic(), keras.Variable(POINTS)
    assert_equal(backward(model, point, loss=tf.square).inputs, backward(model, POINTS, loss=tf.square).inputs)


def _norms_one_by_one(model, x, error):
    """Of the gradients of the errors of single examples, by the tape."""
    norms = []
    for i in range(len(x)):
        with tf.GradientTape() as tape:
            value = error(model(x[i : i + 1]), slice(i, i + 1))
        gradients = tape.gradient(value, [v.value for v in model.trainable_weights])
        norms.append(float(tf.linalg.global_norm([tf.convert_to_tensor(g) for g in gradients])))
    return norms


def test_norms_of_examples_of_a_vector_jacobian_product():
    """It is a sum over the examples, with no mean in it."""
    model, upstream = critic(), np.random.default_rng(1).normal(size=(6, 2)).astype("float32")
    norms = _norms_one_by_one(model, POINTS, lambda p, one: tf.reduce_sum(p * upstream[one]))
    np.testing.assert_allclose(backward(model, POINTS, upstream=upstream).example_norms(), norms, rtol=1e-5)


@pytest.mark.parametrize("loss", ["mse", keras.losses.MeanSquaredError()])
def test_norms_of_examples_with_masks(loss):
    """A loss object of Keras averages over what is not masked, a function over everything."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3, 2)), layers.Masking(), layers.SimpleRNN(4, return_sequences=True)])
    x = np.random.default_rng(3).normal(size=(4, 3, 2)).astype("float32")
    x[:2, 1:] = 0
    y, function = tf.zeros((4, 3, 4)), keras.losses.get(loss)
    norms = _norms_one_by_one(model, x, lambda p, one: tf.reduce_mean(function(y[one], p)))
    np.testing.assert_allclose(backward(model, x, y, loss=loss).example_norms(), norms, rtol=1e-5)


class Summed(keras.losses.Loss):
    def __call__(self, y_true, y_pred, sample_weight=None):
        return tf.reduce_sum((y_true - y_pred) ** 2)


SUMS = {
    "one number": lambda y, p: tf.reduce_sum((y - p) ** 2),
    "by column": lambda y, p: tf.reduce_sum((y - p) ** 2, 0),
    "its own __call__": Summed(),
}


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", SUMS)
def test_norms_of_examples_of_sums_over_the_batch(name, compiled):
    model, y, loss = critic(), np.ones((6, 2), "float32"), SUMS[name]
    model.compile("sgd", loss)
    norms = _norms_one_by_one(model, POINTS, lambda p, one: tf.reduce_mean(loss(y[one], p)))
    result = backward(model, POINTS, y, loss=None if compiled else loss)
    np.testing.assert_allclose(result.example_norms(), norms, rtol=1e-5)


def test_only_some_weights():
    model = critic()
    result = backward(model, POINTS, loss=tf.square, weights=[model.layers[1].bias])
    assert_equal(result.gradients, taped(model, lambda p: tf.reduce_mean(p**2))[3:])


def test_links_hold_what_ran_and_its_gradients():
    model = critic()
    result = backward(model, POINTS, loss=tf.square)
    links = {link.path: link for link in result.links}
    hidden, tanh = links["critic/hidden"], links["critic/hidden/tanh"]
    np.testing.assert_allclose(tanh.call.output, tf.tanh(hidden.call.output), rtol=1e-6)
    np.testing.assert_allclose(hidden.upstream[0], tanh.downstream[0])
    x, delta = hidden.weight_gradients["kernel"].factors
    np.testing.assert_allclose(tf.transpose(x) @ delta, result.gradient("critic/hidden/kernel"), rtol=1e-5)
    assert list(links).index("critic/hidden") < list(links).index("critic/hidden/tanh")


@pytest.mark.parametrize("momentum", [0.5, 0.99])
def test_second_derivatives_through_batch_normalisation(momentum):
    """A gradient penalty in training mode, against finite differences in float64."""
    keras.utils.set_random_seed(2)
    inputs = keras.Input((3,), dtype="float64")
    h = layers.BatchNormalization(momentum=momentum, dtype="float64")(layers.Dense(4, "tanh", dtype="float64")(inputs))
    model = keras.Model(inputs, layers.Dense(1, dtype="float64")(h))
    x, kernel = np.random.default_rng(3).normal(size=(5, 3)), model.layers[1].kernel

    def penalty():
        return tf.reduce_sum(tf.square(backward(model, tf.constant(x), loss=tf.square).inputs[0]))

    with tf.GradientTape() as tape:
        value = penalty()
    gradient = tape.gradient(value, kernel.value)
    step, w = np.random.default_rng(4).normal(size=(3, 4)), kernel.numpy()
    sides = []
    for sign in (1, -1):
        kernel.assign(w + sign * 1e-5 * step)
        sides.append(float(penalty()))
    kernel.assign(w)
    np.testing.assert_allclose(np.sum(gradient * step), (sides[0] - sides[1]) / 2e-5, rtol=1e-6)


def test_what_does_not_go_together():
    with pytest.raises(ValueError, match="give one of the three"):
        backward(critic(), POINTS, loss="mse", upstream=np.ones((6, 2)))
    with pytest.raises(ValueError, match="is not compiled.*or give a `loss`"):
        backward(critic(), POINTS)
    with pytest.raises(ValueError, match="Could not interpret loss"):
        backward(critic(), POINTS, loss=3)


TARGETS = np.random.default_rng(9).normal(size=(6, 2)).astype("float32")


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("reduction", ["none", None, "sum", "sum_over_batch_size"])
def test_own_gradients_of_masked_examples_by_every_reduction(reduction, compiled):
    inputs = keras.Input((3, 4))
    model = keras.Model(inputs, layers.SimpleRNN(2, return_sequences=True)(layers.Masking()(inputs)))
    x, y = np.stack([POINTS] * 3, 1), np.stack([TARGETS] * 3, 1)
    x[0, 1:] = x[1, 2:] = 0
    loss = keras.losses.MeanSquaredError(reduction=reduction)
    model.compile("sgd", loss)
    options = {} if compiled else {"loss": loss}
    together = backward(model, x, y, **options).example_norms()
    alone = [tf.linalg.global_norm(backward(model, x[i : i + 1], y[i : i + 1], **options).gradients) for i in range(6)]
    assert_equal(together, alone)


def test_sample_weights_are_the_compiled_losses():
    with pytest.raises(ValueError, match="give one of the three"):
        backward(critic(), POINTS, upstream=TARGETS, sample_weight=np.ones(6))


def test_a_rule_for_a_loss_of_ones_own_holds_where_the_loss_is_given(registry_restored):
    class Error(keras.losses.Loss):
        def call(self, y_true, y_pred):
            return tf.reduce_mean((y_true - y_pred) ** 2, -1)

    backward_rule(Error)(lambda call, dy: Gradients(None, tf.zeros_like(call.inputs[1])))
    assert not any(map(np.any, backward(critic(), POINTS, TARGETS, loss=Error()).gradients))


class TwoPasses(BackpropModel):
    """Its error asks for predictions a second time, and for two losses where the model has one output."""

    def __init__(self):
        super().__init__()
        self.out = layers.Dense(2, kernel_initializer=keras.initializers.GlorotUniform(seed=1))

    def call(self, x):
        return self.out(x)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        y, y_pred = {"first": y, "second": y}, {"first": y_pred, "second": y_pred**2}
        return super().compute_loss(x, y, y_pred, sample_weight, training) + tf.reduce_mean((self(x) - 3) ** 2)


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_what_compute_loss_makes_of_a_batch_of_arrays_is_clipped_too(run_eagerly):
    model = TwoPasses()
    model.compile(
        keras.optimizers.SGD(1.0), {"first": "mse", "second": "mae"}, run_eagerly=run_eagerly,
        gradients=keras_backprop.gradients.ClippedByExample(1e-3),
    )  # fmt: skip
    model(POINTS)
    before = model.get_weights()
    model.train_on_batch(POINTS, TARGETS)
    moved = np.sqrt(sum(np.sum((new - old) ** 2) for new, old in zip(model.get_weights(), before, strict=True)))
    assert 0 < moved < 1.001e-3
