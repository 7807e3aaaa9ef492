"""The rules of `rules/losses/crossentropy.py`."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, losses, ops

from keras_backprop import BackpropModel
from keras_backprop.chain.record import Record
from keras_backprop.chain.sweep import sweep
from tests.rules.losses.checking import check_loss, numbers, one_hot, probabilities

SHAPES = [(5, 3), (4, 3, 2), (3, 2, 2, 3)]


def activation(name):
    return layers.Activation(name, dtype="float64")


BINARY = {
    "probabilities": ({}, lambda s: numbers(*s, low=0.05, high=0.95), ()),
    "clipped": ({}, lambda s: numbers(*s, low=-0.5, high=1.5), ()),
    "logits": ({"from_logits": True}, lambda s: numbers(*s), ()),
    "smoothing": ({"label_smoothing": 0.1}, lambda s: numbers(*s, low=0.05, high=0.95), ()),
    "logits-smoothing": ({"from_logits": True, "label_smoothing": 0.1}, lambda s: numbers(*s), ()),
    "axis": ({"axis": 1}, lambda s: numbers(*s, low=0.05, high=0.95), ()),
    "axes": ({"axis": (1, -1)}, lambda s: numbers(*s, low=0.05, high=0.95), ()),
    "sigmoid-output": ({}, lambda s: numbers(*s), (lambda: activation("sigmoid"),)),
    "sigmoid-layer": ({}, lambda s: numbers(*s), (lambda: layers.Dense(3, "sigmoid", dtype="float64"),)),
    "sigmoid-smoothing": ({"label_smoothing": 0.1}, lambda s: numbers(*s), (lambda: activation("sigmoid"),)),
    "softmax-output": (
        {},
        lambda s: numbers(*s),
        (lambda: activation("softmax"),),
    ),  # Keras takes its logits for a sigmoid's
}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", BINARY)
def test_binary(name, shape):
    options, x, outputs = BINARY[name]
    outputs = [make() for make in outputs]
    width = 3 if name == "sigmoid-layer" else shape[-1]
    if options.get("axis") == (1, -1) and len(shape) == 2:
        options = {"axis": -1}
    targets = np.round(numbers(*shape[:-1], width, low=0, high=1, seed=3))
    check_loss(losses.BinaryCrossentropy(**options), targets, x(shape), *outputs)


def test_binary_with_soft_targets():
    check_loss(losses.BinaryCrossentropy(), numbers(5, 3, low=0, high=1), numbers(5, 3), activation("sigmoid"))


def test_binary_with_a_column_against_a_vector():
    targets = np.round(numbers(6, low=0, high=1))
    check_loss(losses.BinaryCrossentropy(), targets, numbers(6, 3), layers.Dense(1, "sigmoid", dtype="float64"))


CATEGORICAL = {
    "probabilities": ({}, probabilities, ()),
    "not-normalised": ({}, lambda *s, **k: 3 * probabilities(*s, **k), ()),
    "clipped": ({}, lambda *s, **k: probabilities(*s, **k) * one_hot(*s), ()),
    "logits": ({"from_logits": True}, lambda *s, **k: numbers(*s), ()),
    "smoothing": ({"label_smoothing": 0.1}, probabilities, ()),
    "logits-smoothing": ({"from_logits": True, "label_smoothing": 0.1}, lambda *s, **k: numbers(*s), ()),
    "softmax-output": ({}, lambda *s, **k: numbers(*s), (lambda: activation("softmax"),)),
    "softmax-layer": ({}, lambda *s, **k: numbers(*s), (lambda: layers.Dense(3, "softmax", dtype="float64"),)),
    "softmax-smoothing": ({"label_smoothing": 0.1}, lambda *s, **k: numbers(*s), (lambda: activation("softmax"),)),
    "sigmoid-output": ({}, lambda *s, **k: numbers(*s), (lambda: activation("sigmoid"),)),
}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", CATEGORICAL)
def test_categorical(name, shape):
    options, x, outputs = CATEGORICAL[name]
    outputs = [make() for make in outputs]
    targets = one_hot(*shape[:-1], 3 if name == "softmax-layer" else shape[-1])
    check_loss(losses.CategoricalCrossentropy(**options), targets, x(*shape), *outputs)


@pytest.mark.parametrize("from_logits", [False, True])
def test_categorical_along_another_axis(from_logits):
    targets = np.moveaxis(one_hot(4, 2, 3), -1, 1)
    x = numbers(4, 3, 2) if from_logits else probabilities(4, 3, 2, axis=1)
    check_loss(losses.CategoricalCrossentropy(from_logits=from_logits, axis=1), targets, x)
    softmax = layers.Softmax(axis=1, dtype="float64")
    check_loss(losses.CategoricalCrossentropy(axis=1), targets, numbers(4, 3, 2), softmax)


SPARSE = {
    "probabilities": ({}, probabilities, ()),
    "clipped": ({}, lambda *s: probabilities(*s) * one_hot(*s), ()),
    "logits": ({"from_logits": True}, numbers, ()),
    "ignore": ({"ignore_class": 1}, probabilities, ()),
    "ignore-negative": ({"ignore_class": -1}, probabilities, ()),
    "ignore-logits": ({"ignore_class": 1, "from_logits": True}, numbers, ()),
    "ignore-softmax": ({"ignore_class": 1}, numbers, (lambda: activation("softmax"),)),
    "softmax-output": ({}, numbers, (lambda: activation("softmax"),)),
    "softmax-layer": ({}, numbers, (lambda: layers.Dense(3, "softmax", dtype="float64"),)),
}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", SPARSE)
def test_sparse(name, shape):
    options, x, outputs = SPARSE[name]
    outputs = [make() for make in outputs]
    targets = np.random.default_rng(4).integers(0, shape[-1], shape[:-1])
    if options.get("ignore_class") == -1:
        targets.flat[0] = -1
    check_loss(losses.SparseCategoricalCrossentropy(**options), targets, x(*shape), *outputs)


def test_sparse_with_a_column_of_targets():
    targets = np.array([[0], [2], [1]])
    check_loss(losses.SparseCategoricalCrossentropy(), targets, numbers(3, 3), activation("softmax"))
    check_loss(losses.SparseCategoricalCrossentropy(ignore_class=2), targets, numbers(3, 3), activation("softmax"))


def test_ignored_predictions_may_be_anything():
    """A NaN that Keras ignores does not reach the other gradients."""
    from keras_backprop.chain.record import Record
    from keras_backprop.chain.sweep import sweep

    function = losses.sparse_categorical_crossentropy
    p, t = tf.constant([[np.nan, 0.5], [0.4, 0.6]], tf.float64), tf.constant([0, 1])
    record = Record()
    y = record.run_as(function, function, function, "loss", t, p, ignore_class=0)
    dp = sweep(record.calls, [(y, tf.ones_like(y))], inputs=[p]).input_gradient(p)
    assert np.all(np.isfinite(dp)) and not np.any(dp[0]) and np.any(dp[1])


@pytest.mark.parametrize("q", [0.3, 0.7])
def test_generalized(q):
    loss = losses.CategoricalGeneralizedCrossEntropy(q)
    check_loss(loss, np.array([0, 2, 1, 1]), probabilities(4, 3))
    check_loss(loss, np.array([0, 2, 1, 1]), numbers(4, 3), activation("softmax"))


def soft_targets(function, **options):
    """A custom loss whose targets depend on the predictions too: the operation's gradient of its targets counts."""

    def loss(y_true, y_pred):
        return function(0.5 * y_true + 0.5 * ops.softmax(3 * y_pred), y_pred, **options)

    return loss


CUSTOM = {
    "binary": (lambda t, p: ops.mean(ops.binary_crossentropy(t, p), -1), "probabilities"),
    "binary-logits": (lambda t, p: ops.mean(ops.binary_crossentropy(t, p, from_logits=True), -1), "logits"),
    "categorical": (lambda t, p: ops.categorical_crossentropy(t, p), "probabilities"),
    "categorical-logits": (lambda t, p: ops.categorical_crossentropy(t, p, from_logits=True), "logits"),
    "categorical-softmax": (lambda t, p: ops.categorical_crossentropy(t, ops.softmax(p)), "logits"),
    "sparse": (lambda t, p: ops.sparse_categorical_crossentropy(ops.argmax(t, -1), p), "probabilities"),
    "sparse-logits": (
        lambda t, p: ops.sparse_categorical_crossentropy(ops.argmax(t, -1), p, from_logits=True),
        "logits",
    ),
    "targets-binary": (soft_targets(ops.binary_crossentropy), "probabilities"),
    "targets-binary-logits": (soft_targets(ops.binary_crossentropy, from_logits=True), "logits"),
    "targets-categorical": (soft_targets(ops.categorical_crossentropy), "probabilities"),
    "targets-categorical-logits": (soft_targets(ops.categorical_crossentropy, from_logits=True), "logits"),
    "keras-function": (lambda t, p: losses.categorical_crossentropy(t, p, label_smoothing=0.1), "probabilities"),
}


@pytest.mark.parametrize("name", CUSTOM)
def test_operations_in_a_custom_loss(name):
    loss, kind = CUSTOM[name]
    check_loss(loss, one_hot(4, 3), probabilities(4, 3) if kind == "probabilities" else numbers(4, 3))


@pytest.mark.parametrize("name", ["categorical", "binary"])
def test_operations_read_the_logits_of_the_output(name):
    output = activation("softmax" if name == "categorical" else "sigmoid")
    check_loss(CUSTOM[name][0], one_hot(4, 3), numbers(4, 3), output)


FIT = {
    "binary": (losses.BinaryCrossentropy, {}, "sigmoid", one_hot(8, 3)),
    "binary-smoothing": (losses.BinaryCrossentropy, {"label_smoothing": 0.2}, "sigmoid", one_hot(8, 3)),
    "binary-logits": (losses.BinaryCrossentropy, {"from_logits": True}, None, one_hot(8, 3)),
    "binary-tanh": (losses.BinaryCrossentropy, {}, "hard_sigmoid", one_hot(8, 3)),
    "categorical": (losses.CategoricalCrossentropy, {}, "softmax", one_hot(8, 3)),
    "categorical-logits": (losses.CategoricalCrossentropy, {"from_logits": True}, None, one_hot(8, 3)),
    "categorical-sigmoid": (losses.CategoricalCrossentropy, {}, "sigmoid", one_hot(8, 3)),
    "sparse": (losses.SparseCategoricalCrossentropy, {}, "softmax", np.arange(8) % 3),
    "sparse-ignore": (losses.SparseCategoricalCrossentropy, {"ignore_class": 1}, "softmax", np.arange(8) % 3),
    "focal": (losses.BinaryFocalCrossentropy, {"apply_class_balancing": True}, "sigmoid", one_hot(8, 3)),
    "categorical-focal": (losses.CategoricalFocalCrossentropy, {}, "softmax", one_hot(8, 3)),
    "custom": (None, {}, "softmax", one_hot(8, 3)),
}


@pytest.mark.sample(8)
@pytest.mark.parametrize("eager", [False, True], ids=["compiled", "eager"])
@pytest.mark.parametrize("name", FIT)
def test_three_steps_of_fit_equal_stock_keras(name, eager):
    cls, options, output, targets = FIT[name]
    weights = []
    for model_class in (keras.Model, BackpropModel):
        keras.utils.set_random_seed(5)
        inputs = keras.Input((4,), dtype="float64")
        h = layers.Dense(5, "tanh", dtype="float64")(inputs)
        model = model_class(inputs, layers.Dense(3, output, dtype="float64")(h))
        loss = CUSTOM["categorical"][0] if cls is None else cls(dtype="float64", **options)
        model.compile(keras.optimizers.SGD(0.5), loss, run_eagerly=eager)
        x, sample_weight = numbers(8, 4), numbers(8, low=0.2)
        model.fit(x, targets, batch_size=8, epochs=3, sample_weight=sample_weight, shuffle=False, verbose=0)
        weights.append(model.get_weights())
    tolerance = 1e-12 if cls is not None else 1e-6  # Keras computes a plain function's loss in float32
    for stock, ours in zip(*weights, strict=True):
        np.testing.assert_allclose(ours, stock, rtol=0, atol=tolerance)


@pytest.mark.parametrize("from_logits", [False, True])
def test_an_unknown_number_of_classes(from_logits):
    """Every example of a batch is a class, as in contrastive losses."""

    def contrastive(y, p):
        s = ops.matmul(p, ops.transpose(p)) if from_logits else ops.softmax(ops.matmul(p, ops.transpose(p)))
        return ops.sparse_categorical_crossentropy(ops.arange(ops.shape(p)[0]), s, from_logits=from_logits)

    weights = []
    for model_class in (keras.Model, BackpropModel):
        keras.utils.set_random_seed(5)
        inputs = keras.Input((4,), dtype="float64")
        model = model_class(inputs, layers.Dense(3, dtype="float64")(inputs))
        model.compile("sgd", contrastive)
        data = tf.data.Dataset.from_tensor_slices((numbers(8, 4), numbers(8, 3))).batch(5)
        model.fit(data, epochs=3, shuffle=False, verbose=0)
        weights.append(model.get_weights())
    for stock, ours in zip(*weights, strict=True):
        np.testing.assert_allclose(ours, stock, rtol=0, atol=1e-6)  # Keras computes a plain function's loss in float32


@pytest.mark.parametrize("name", ["categorical", "binary"])
def test_logits_of_the_targets_are_not_those_of_the_predictions(name):
    """Targets that another network puts out; both networks learn."""
    activate = ops.softmax if name == "categorical" else ops.sigmoid
    loss = ops.categorical_crossentropy if name == "categorical" else ops.binary_crossentropy
    x = tf.constant(numbers(4, 3))
    for from_logits in (False, True):

        def error(x, from_logits=from_logits):
            return loss(activate(2 * x), x if from_logits else activate(x), from_logits=from_logits)

        with tf.GradientTape() as tape:
            tape.watch(x)
            y = error(x)
        with Record([], [x]) as record:
            ours = record.run(error, x)
        dx = sweep(record.calls, [(ours, tf.ones_like(ours))], inputs=[x]).input_gradient(x)
        np.testing.assert_allclose(dx, tape.gradient(y, x), rtol=0, atol=1e-12)


TARGETS = [
    losses.BinaryCrossentropy, losses.BinaryFocalCrossentropy, losses.CategoricalCrossentropy, losses.CategoricalHinge,
    losses.CosineSimilarity, losses.Dice, losses.Huber, losses.KLDivergence, losses.MeanSquaredError, losses.Poisson,
]  # fmt: skip


@pytest.mark.sample(5)
@pytest.mark.parametrize("loss", TARGETS)
def test_targets_that_depend_on_weights_have_a_gradient(loss):
    weights = []
    for base in (keras.Model, BackpropModel):

        class Mutual(base):
            def call(self, x):
                return self.student(x)

            def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
                return super().compute_loss(x, self.teacher(x), y_pred, sample_weight, training)

        keras.utils.set_random_seed(5)
        model = Mutual()
        model.student, model.teacher = (layers.Dense(3, "softmax", dtype="float64") for _ in range(2))
        model.student.build((None, 4))
        model.teacher.build((None, 4))
        model.compile(keras.optimizers.SGD(0.1), loss(dtype="float64"))
        model.fit(numbers(8, 4), numbers(8, 3), batch_size=4, epochs=2, shuffle=False, verbose=0)
        weights.append(model.get_weights())
    for stock, ours in zip(*weights, strict=True):
        np.testing.assert_allclose(ours, stock, rtol=0, atol=1e-12)
