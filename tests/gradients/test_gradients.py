"""`compile(gradients=…)`."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_backprop
from keras_backprop import BackpropSequential
from keras_backprop.gradients import ByPath, ClippedByExample, Noise, centralized
from tests.gradients.ways import WAYS, X, Y, trained

ONE_DEVICE = [way for way in WAYS if way != "two devices"]  # tests/training/test_mirrored.py has more


def sgd():
    return keras.optimizers.SGD(0.1)


def adamw():
    return keras.optimizers.AdamW(0.05, weight_decay=0.1)


@pytest.mark.parametrize("way", ONE_DEVICE)
def test_a_factor_is_a_learning_rate(way):
    slow, before = trained(sgd, way, epochs=1, gradients=ByPath({"hidden/*": 0.5, "out/kernel": 2}))
    plain, _ = trained(sgd, way, epochs=1)
    changed = [w - b for w, b in zip(slow.get_weights(), before, strict=True)]
    usual = [w - b for w, b in zip(plain.get_weights(), before, strict=True)]
    if way == "compiled loop":
        assert slow.fit_path.compiled
    assert not np.allclose(changed[0], usual[0], atol=1e-4)
    stock = keras.Sequential([keras.Input((5,)), *plain.layers[1:]])  # the tape, one step after the other
    stock.set_weights(before)
    for start in range(0, len(X), 8):
        with tf.GradientTape() as tape:
            y = stock(X[start : start + 8], training=True)
            error = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(Y[start : start + 8], y))
            error += tf.cast(tf.add_n(stock.losses), error.dtype)
        gradients = tape.gradient(error, [v.value for v in stock.trainable_weights])
        for v, gradient, factor in zip(stock.trainable_weights, gradients, (0.5, 0.5, 1, 1, 2, 1), strict=True):
            v.assign_sub(0.1 * factor * gradient)
    for ours, theirs in zip(slow.get_weights(), stock.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=5e-4 if way == "mixed precision" else 1e-6)


@pytest.mark.parametrize("way", ONE_DEVICE)
@pytest.mark.parametrize("optimizer", [adamw, lambda: keras.optimizers.SGD(0.1, momentum=0.9, weight_decay=0.1)])
def test_what_is_held_does_not_move(way, optimizer):
    mask = np.random.default_rng(5).integers(0, 2, (5, 6))
    mask[0] = 0
    model, before = trained(optimizer, way, gradients=ByPath({"hidden/kernel": mask, "out/*": 0}))
    kernel, bias, _, _, *out = model.get_weights()
    np.testing.assert_array_equal(kernel[mask == 0], before[0][mask == 0])
    assert (kernel[mask == 1] != before[0][mask == 1]).all() and (bias != before[1]).any()
    for one, other in zip(out, before[4:], strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_mask_may_be_a_variable_that_changes():
    mask = keras.Variable(np.zeros((5, 6), "float32"), trainable=False)
    model, before = trained(adamw, "compiled loop", gradients=ByPath({"hidden/kernel": mask}))
    np.testing.assert_array_equal(model.get_weights()[0], before[0])
    mask.assign(np.ones((5, 6)))
    model.fit(X, Y, batch_size=8, shuffle=False, verbose=0)
    assert (model.get_weights()[0] != before[0]).all()


def test_functions_in_the_order_of_the_patterns():
    def double(gradient, weight):
        assert gradient.shape == weight.shape
        return 2 * gradient

    model = BackpropSequential([keras.Input((5,)), layers.Dense(3)])
    model.compile("sgd", "mse", gradients=ByPath({"*/kernel": double, "*": 3.0, "*/bias": Noise(0.1, seed=1)}))
    result = model.backward_pass(tf.constant(X), tf.zeros((24, 3)))
    kernel, bias = model.make_gradients(result)
    np.testing.assert_allclose(kernel, 6 * result.gradients[0], rtol=1e-6)
    noise = bias - 3 * result.gradients[1]
    assert 0.01 < float(tf.math.reduce_std(noise)) < 0.3


def test_centralized():
    dense = layers.Dense(3)
    dense.build((None, 4))
    gradient = centralized(tf.random.normal((4, 3)), dense.kernel)
    np.testing.assert_allclose(tf.reduce_mean(gradient, 0), np.zeros(3), atol=1e-6)
    np.testing.assert_array_equal(centralized(tf.ones(3), dense.bias), np.ones(3))


def test_rows_of_a_table_stay_rows():
    model = BackpropSequential(
        [keras.Input((4,), dtype="int32"), layers.Embedding(50, 3), layers.Flatten(), layers.Dense(1)]
    )
    model.compile("sgd", "mse", gradients=ByPath({"embedding*/*": 0.5}))
    result = model.backward_pass(tf.constant([[1, 2, 2, 3]]), tf.ones((1, 1)))
    slices = model.make_gradients(result)[0]
    assert isinstance(slices, tf.IndexedSlices)
    np.testing.assert_allclose(slices.values, 0.5 * result.gradients[0].values)


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum", "mean_with_sample_weight"])
@pytest.mark.parametrize("weighted", [False, True])
def test_clipped_by_example(reduction, weighted):
    """Each example's own gradient by a tape, clipped; then what the loss makes of the examples."""
    keras.utils.set_random_seed(1)
    model = BackpropSequential([keras.Input((5,)), layers.Dense(4, "tanh"), layers.Dense(3, "softmax")])
    loss = keras.losses.SparseCategoricalCrossentropy(reduction=reduction)
    model.compile(sgd(), loss, gradients=ClippedByExample(0.8))
    weights = np.random.default_rng(2).uniform(0.5, 2, 24).astype("float32") if weighted else np.ones(24, "float32")
    result = model.backward_pass(tf.constant(X), tf.constant(Y), tf.constant(weights) if weighted else None)
    clipped, norms = [], []
    for i in range(24):
        with tf.GradientTape() as tape:
            error = keras.losses.sparse_categorical_crossentropy(Y[i : i + 1], model(X[i : i + 1], training=True))
        own = tape.gradient(error, [v.value for v in model.trainable_weights])
        norms.append(float(tf.linalg.global_norm(own)))
        clipped.append([g * min(1, 0.8 / norms[-1]) for g in own])
    assert 0 < sum(norm > 0.8 for norm in norms) < 24
    np.testing.assert_allclose(result.example_norms(), norms, rtol=1e-4)
    total = {"sum": 1, "sum_over_batch_size": 24, "mean_with_sample_weight": weights.sum()}[reduction]
    for ours, singles in zip(model.make_gradients(result), zip(*clipped, strict=True), strict=True):
        expected = np.tensordot(weights / total, np.stack(singles), 1)
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("way", ONE_DEVICE)
def test_clipped_training(way):
    model, before = trained(sgd, way, gradients=ClippedByExample(1e-3))
    if way == "compiled loop":
        assert model.fit_path.compiled
    moved = [w - b for w, b in zip(model.get_weights(), before, strict=True)]
    steps = 9 * 0.1 * 1e-3
    for i in (0, 1, 3, 4, 5):  # all that no penalty is on
        assert 0 < np.linalg.norm(moved[i]) <= steps * 1.001


def test_single_examples_of_arrays_in_an_eager_step():
    moved = []
    for eagerly in (False, True):
        keras.utils.set_random_seed(1)
        model = BackpropSequential([keras.Input((5,)), layers.Dense(3)])
        model.compile(sgd(), "mse", gradients=ClippedByExample(0.1), run_eagerly=eagerly)
        model.train_on_batch(X, X[:, :3], sample_weight=np.linspace(0, 2, 24))
        moved.append(model.get_weights())
    for one, other in zip(*moved, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)


def test_norms_have_no_loss_scale():
    model, _ = trained(lambda: keras.optimizers.LossScaleOptimizer(sgd()), "mixed precision", epochs=1)
    assert model.backward_pass(tf.constant(X), tf.constant(Y)).scale is not None
    plain = keras_backprop.backward(model, X, Y).example_norms()
    np.testing.assert_allclose(model.backward_pass(tf.constant(X), tf.constant(Y)).example_norms(), plain, rtol=2e-2)


@pytest.mark.parametrize(
    "gradients",
    [
        ByPath({"*": 0.5, "*/kernel": centralized, "*/bias": Noise(0.5, seed=2)}),
        ByPath({"*": np.ones(3)}),
        ClippedByExample(2),
    ],
)
def test_saved_with_the_model(gradients, tmp_path):
    model = BackpropSequential([keras.Input((3,)), layers.Dense(3)])
    model.compile("sgd", "mse", gradients=gradients)
    model.fit(np.ones((4, 3)), np.ones((4, 3)), verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert type(again.compiled_gradients) is type(gradients)
    config, expected = again.compiled_gradients.get_config(), gradients.get_config()
    assert str(config) == str(expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ByPath({}), "`changes` must be a dict of pattern"),
        (lambda: ByPath({3: 0.5}), "Received: 3 -> 0.5"),
        (lambda: ByPath({"*": "half"}), r"Received: '\*' -> 'half'"),
        (lambda: ByPath({"*": True}), r"Received: '\*' -> True"),
    ],
)
def test_wrong_changes(make, message):
    with pytest.raises(TypeError, match=message):
        make()


@pytest.mark.parametrize("norm", [0, -1, True, "1", float("nan")])
def test_wrong_norms(norm):
    with pytest.raises(ValueError, match="`norm` must be a positive number. Received: norm="):
        ClippedByExample(norm)


@pytest.mark.parametrize(
    ("gradients", "error", "message"),
    [
        (ByPath({"hiden/*": 0.5}), ValueError, "'hiden/\\*' matches no trainable weight. There are: 'hidden/kernel'"),
        (ByPath({"hidden/kernel": np.ones(4)}), ValueError, "shape|Incompatible"),
        (lambda result: result.gradients[:1], TypeError, "one gradient .or None. for each of the 6"),
        (lambda result: [g[0] for g in result.gradients], ValueError, "returned a gradient of shape"),
        (lambda result: [1.0 for g in result.gradients], ValueError, r"returned a gradient of shape \(\)"),
        (
            lambda result: [tf.cast(g, tf.int32) for g in result.gradients],
            TypeError,
            "returned a gradient of dtype int32",
        ),
        (lambda result: None, TypeError, "It returned a NoneType"),
    ],
)
def test_wrong_gradients(gradients, error, message):
    with pytest.raises(error, match=message):
        trained(sgd, "Keras's loop", epochs=1, gradients=gradients)


def test_no_function():
    model = BackpropSequential([keras.Input((3,)), layers.Dense(3)])
    with pytest.raises(TypeError, match="`gradients` must be a function.*Received: gradients=0.5"):
        model.compile("sgd", "mse", gradients=0.5)


def test_functions_see_no_loss_scale():
    def clipped(gradient, weight):
        return tf.clip_by_value(gradient, -1e-3, 1e-3)

    moved = []
    for dtype in (None, "mixed_float16"):
        keras.utils.set_random_seed(0)
        model = BackpropSequential([keras.Input((5,)), layers.Dense(3, dtype=dtype)])
        optimizer = (
            keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(1.0), initial_scale=64.0)
            if dtype
            else keras.optimizers.SGD(1.0)
        )
        model.compile(optimizer, "mse", gradients=ByPath({"*/kernel": clipped}))
        before = model.get_weights()[0]
        model.train_on_batch(X, 10 * np.ones((24, 3), "float32"))
        moved.append(np.abs(model.get_weights()[0] - before).max())
    np.testing.assert_allclose(moved, 1e-3, rtol=1e-2)


def test_what_is_held_and_averaged():
    with pytest.raises(ValueError, match="cannot be held where the optimizer averages weights"):
        trained(lambda: keras.optimizers.Adam(use_ema=True), "Keras's loop", gradients=ByPath({"hidden/*": 0}))


def test_the_norms_of_masked_examples_are_their_own():
    keras.utils.set_random_seed(0)
    ids = np.array([[1, 2, 3, 4], [1, 0, 0, 0], [2, 3, 0, 0]])
    y = np.random.default_rng(0).normal(size=(3, 4, 2)).astype("float32")
    model = keras.Sequential([layers.Embedding(6, 3, mask_zero=True), layers.Dense(2)])
    model.compile("sgd", "mse")
    model(ids)
    own = [
        tf.linalg.global_norm(
            [tf.convert_to_tensor(g) for g in keras_backprop.backward(model, ids[[i]], y[[i]]).gradients]
        )
        for i in range(3)
    ]
    np.testing.assert_allclose(keras_backprop.backward(model, ids, y).example_norms(), own, rtol=1e-4)


def test_the_norms_of_a_loss_that_is_not_compiled():
    model = BackpropSequential([keras.Input((5,)), layers.Dense(3)])
    y = np.ones((24, 3), "float32")
    total = keras_backprop.backward(model, X, y, loss=keras.losses.MeanSquaredError(reduction="sum"))
    mean = keras_backprop.backward(model, X, y, loss="mse")
    np.testing.assert_allclose(total.example_norms(), mean.example_norms(), rtol=1e-5)


def test_norms_that_are_not_known():
    inputs = keras.Input((5,))
    model = keras.Model(inputs, [layers.Dense(3)(inputs), layers.Dense(2)(inputs)])
    model.compile("sgd", ["mse", "mse"])
    result = keras_backprop.backward(model, X, [np.ones((24, 3)), np.ones((24, 2))], [np.ones(24), None])
    with pytest.raises(ValueError, match="sample weights of several outputs"):
        result.example_norms()
