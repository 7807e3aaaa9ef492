"""`ExampleRecorder` against the model asked one example at a time."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_backprop import BackpropModel, BackpropSequential
from keras_backprop.callbacks import ExampleRecorder
from tests.privacy.problem import X, Y, a_model, a_plan, own_gradients

WAYS = {"compiled": {}, "Keras's loop": {"epochs_per_execution": None}, "eager": {"run_eagerly": True}}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("logits", [False, True])
def test_every_example_in_its_place_although_shuffled(way, logits):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=logits)
    model = a_model(optimizer=keras.optimizers.SGD(0.0), loss=loss, **WAYS[way])
    if logits:
        model.layers[-1].activation = keras.activations.linear
    recorder = ExampleRecorder()
    model.fit(X, Y, batch_size=7, epochs=2, sample_weight=np.linspace(0.5, 2, 40), verbose=0, callbacks=[recorder])
    assert model.fit_path.compiled == (way == "compiled") and recorder.epochs == [0, 1]
    p = model.predict(X, verbose=0)
    p = np.exp(p) / np.exp(p).sum(1, keepdims=True) if logits else p
    own = [own_gradients(model, loss, X[i], Y[i]) for i in range(40)]
    norms = [np.sqrt(sum((g**2).sum() for g in gradients)) for gradients in own]
    given, others = p[range(40), Y], np.where(np.eye(3)[Y] == 1, 0, p).max(1)
    expected = {
        "loss": -np.log(given), "gradient_norm": norms, "error": np.linalg.norm(p - np.eye(3)[Y], axis=1),
        "correct": p.argmax(1) == Y, "margin": np.log(given / others),
    }  # fmt: skip
    assert set(recorder.history) == set(expected)
    for name, values in expected.items():
        assert recorder.history[name].shape == (40, 2)
        for record in range(2):
            np.testing.assert_allclose(recorder.history[name][:, record], values, rtol=1e-4, atol=1e-5)


def test_every_so_many_epochs_and_the_table():
    recorder = ExampleRecorder(every=2, quantities=["loss", "correct"])
    model = a_model()
    model.fit(X, Y, epochs=5, verbose=0, callbacks=[recorder])
    assert recorder.epochs == [0, 2, 4] and recorder.history["loss"].shape == (40, 3)
    table = recorder.table()
    assert list(table) == ["example", "epoch", "loss", "correct"] and len(table["loss"]) == 120
    np.testing.assert_array_equal(table["loss"][table["example"] == 3], recorder.history["loss"][3])
    assert (table["epoch"][:3] == [0, 2, 4]).all()
    assert recorder.history["loss"][:, 0].mean() > recorder.history["loss"][:, 2].mean()
    with pytest.raises(ValueError, match="no record of 'margin'. Recorded: loss, correct"):
        recorder.area_under_margin()


def test_the_scores():
    recorder = ExampleRecorder()
    recorder.history = {
        "correct": np.array([[1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1], [1, np.nan, 0, 1]], float),
        "error": np.array([[1, 3], [2, np.nan]], float), "gradient_norm": np.array([[1.0, 3], [5, 7]]), "margin": np.array([[1.0, -3]]),
    }  # fmt: skip
    np.testing.assert_array_equal(recorder.forgetting_events(), [2, np.inf, 0, 1])
    np.testing.assert_array_equal(recorder.el2n(), [2, 2])
    np.testing.assert_array_equal(recorder.grand(), [2, 6])
    np.testing.assert_array_equal(recorder.grand(records=1), [1, 5])
    np.testing.assert_array_equal(recorder.area_under_margin(), [-1])


def test_of_a_private_training_examples_that_were_not_drawn_are_missing():
    plan, recorder = a_plan(epochs=2), ExampleRecorder()
    model = a_model(plan)
    model.fit(X, Y, epochs=2, verbose=0, callbacks=[recorder])
    again = a_plan(epochs=2)
    for epoch in range(2):
        drawn = set()
        for step in range(5 * epoch, 5 * epoch + 5):
            indices, weights = (a.numpy() for a in again.sampler.draw(tf.constant(step, tf.int64)))
            drawn |= set(indices[weights > 0].tolist())
        recorded = np.flatnonzero(~np.isnan(recorder.history["loss"][:, epoch]))
        assert set(recorded.tolist()) == drawn


def test_regression_and_binary():
    recorder = ExampleRecorder(quantities=["loss", "error", "gradient_norm"])
    model = BackpropSequential([keras.Input((5,)), layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    model.fit(X, Y.astype("float32"), verbose=0, callbacks=[recorder])
    difference = model.predict(X, verbose=0)[:, 0] - Y
    np.testing.assert_allclose(recorder.history["loss"][:, 0], difference**2, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(recorder.history["error"][:, 0], abs(difference), rtol=1e-4, atol=1e-5)
    recorder = ExampleRecorder()
    model.compile(keras.optimizers.SGD(0.0), keras.losses.BinaryCrossentropy(from_logits=True))
    model.fit(X, (Y > 0).astype("float32"), verbose=0, callbacks=[recorder])
    z = model.predict(X, verbose=0)[:, 0]
    np.testing.assert_array_equal(recorder.history["correct"][:, 0], (z > 0) == (Y > 0))
    np.testing.assert_allclose(recorder.history["margin"][:, 0], np.where(Y > 0, z, -z), rtol=1e-3, atol=1e-4)


def test_masked_positions_do_not_count():
    inputs = keras.Input((6,), dtype="int32")
    hidden = layers.Embedding(9, 4, mask_zero=True)(inputs)
    model = BackpropModel(inputs, layers.Dense(2, "softmax")(hidden))
    model.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy")
    x = np.random.default_rng(0).integers(0, 3, (10, 6))
    x[:, 0] = 1
    recorder = ExampleRecorder(quantities=["loss", "error"])
    model.fit(x, x % 2, verbose=0, callbacks=[recorder])
    own = [model.evaluate(x[i : i + 1], x[i : i + 1] % 2, verbose=0) for i in range(10)]
    np.testing.assert_allclose(recorder.history["loss"][:, 0], own, rtol=1e-5)
    squares = ((model.predict(x, verbose=0) - np.eye(2)[x % 2]) ** 2).sum(-1) * (x > 0)
    np.testing.assert_allclose(recorder.history["error"][:, 0], np.sqrt(squares.sum(1)), rtol=1e-5)


def test_what_a_model_does_not_have():
    model = BackpropSequential([keras.Input((5,)), layers.Dense(4), layers.BatchNormalization(), layers.Dense(1)])
    model.compile("sgd", "mse")
    recorder = ExampleRecorder()
    with pytest.warns(UserWarning, match="records no (gradient_norm|correct|margin)"):
        model.fit(X, Y, verbose=0, callbacks=[recorder])
    assert set(recorder.history) == {"loss", "error"}
    with pytest.raises(ValueError, match="couple its examples"):
        model.fit(X, Y, verbose=0, callbacks=[ExampleRecorder(quantities=["gradient_norm"])])
    with pytest.raises(ValueError, match="Give arrays"):
        model.fit(tf.data.Dataset.from_tensor_slices((X, Y)).batch(8), verbose=0, callbacks=[ExampleRecorder()])


@pytest.mark.parametrize("wrong", [{"every": 0}, {"every": 1.5}, {"quantities": ["mood"]}, {"quantities": []}])
def test_what_makes_no_recorder(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ExampleRecorder(**wrong)


@pytest.mark.parametrize("way", WAYS)
def test_several_yes_or_no_outputs_have_no_one_answer(way):
    model = BackpropSequential([keras.Input((5,)), layers.Dense(3, "sigmoid")])
    model.compile(keras.optimizers.SGD(0.0), "binary_crossentropy", **WAYS[way])
    y, recorder = (np.eye(3)[Y] + np.eye(3)[(Y + 1) % 3]).astype("float32"), ExampleRecorder()
    with pytest.warns(UserWarning, match="no (correct|margin): the loss is a binary cross-entropy of 3 outputs"):
        model.fit(X, y, verbose=0, callbacks=[recorder])
    assert set(recorder.history) == {"loss", "gradient_norm", "error"}
    p = model.predict(X, verbose=0)
    np.testing.assert_allclose(recorder.history["error"][:, 0], np.linalg.norm(p - y, axis=1), rtol=1e-4)


def test_of_an_ignored_class_nothing_is_right_or_wrong():
    loss = keras.losses.SparseCategoricalCrossentropy(ignore_class=1)
    recorder = ExampleRecorder(quantities=["loss", "error", "correct", "margin"])
    a_model(loss=loss).fit(X, Y, verbose=0, callbacks=[recorder])
    for name in ("error", "correct", "margin"):
        np.testing.assert_array_equal(np.isnan(recorder.history[name][:, 0]), Y == 1)
    assert not recorder.history["loss"][Y == 1].any()


def test_ignored_positions_do_not_count():
    model = BackpropSequential([keras.Input((4, 3)), layers.Dense(3)])
    model.compile(
        keras.optimizers.SGD(0.0), keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)
    )
    x, y = np.random.default_rng(0).normal(size=(8, 4, 3)), np.random.default_rng(1).integers(-1, 3, (8, 4))
    y[:, 0], recorder = 1, ExampleRecorder(quantities=["loss", "error"])
    model.fit(x, y, verbose=0, callbacks=[recorder])
    own = [model.evaluate(x[i : i + 1], y[i : i + 1], verbose=0) for i in range(8)]
    np.testing.assert_allclose(recorder.history["loss"][:, 0], own, rtol=1e-5)
    p = keras.ops.softmax(model.predict(x, verbose=0)).numpy()
    squares = ((p - np.eye(4)[y][..., :3]) ** 2).sum(-1) * (y >= 0)
    np.testing.assert_allclose(recorder.history["error"][:, 0], np.sqrt(squares.sum(1)), rtol=1e-5)


@pytest.mark.parametrize("from_logits", [True, False])
def test_margins_of_the_sure_are_those_of_both_classes(from_logits):
    x = np.array([[20.0], [-20.0]])
    model = BackpropSequential([keras.Input((1,)), layers.Dense(1, None if from_logits else "sigmoid")])
    model.set_weights([np.ones((1, 1)), np.zeros(1)])
    model.compile(keras.optimizers.SGD(0.0), keras.losses.BinaryCrossentropy(from_logits=from_logits))
    recorder = ExampleRecorder(quantities=["margin"])
    model.fit(x, np.array([[1.0], [0.0]]), verbose=0, callbacks=[recorder])
    np.testing.assert_allclose(recorder.history["margin"][:, 0], 20.0 if from_logits else -np.log(1e-7), rtol=1e-2)


def test_an_example_that_is_first_seen_later_has_a_row_from_then_on():
    recorder, model = ExampleRecorder(quantities=["loss"]), a_model()
    recorder.set_model(model)
    recorder.on_train_begin()
    seen = iter([[1.0], [1.0, 2.0, 3.0], [4.0, 5.0]])
    recorder.backward_observer.read = lambda: {"loss": np.array(next(seen), "float32")}
    for epoch in range(3):
        recorder.on_epoch_end(epoch)
    np.testing.assert_array_equal(recorder.history["loss"], [[1, 1, 4], [np.nan, 2, 5], [np.nan, 3, np.nan]])


def test_another_fit_has_its_own_quantities():
    recorder = ExampleRecorder()
    a_model().fit(X, Y, verbose=0, callbacks=[recorder])
    assert "correct" in recorder.history
    model = BackpropSequential([keras.Input((5,)), layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.warns(UserWarning, match="records no"):
        model.fit(X, Y.astype("float32"), verbose=0, callbacks=[recorder])
    assert set(recorder.history) == {"loss", "gradient_norm", "error"}


def test_a_loss_of_the_whole_batch_is_of_no_example():
    model = BackpropSequential([keras.Input((4,)), layers.Dense(2)])
    model.compile("sgd", lambda y, p: keras.ops.mean(keras.ops.square(y - p)))
    x, y = np.ones((5, 4)), np.ones((5, 2))
    recorder = ExampleRecorder()
    with pytest.warns(UserWarning) as warned:
        model.fit(x, y, batch_size=2, verbose=0, callbacks=[recorder])
    assert any("records no loss" in str(w.message) and "not one for each" in str(w.message) for w in warned)
    assert recorder.history["error"].shape == (5, 1)
    with pytest.raises(ValueError, match=r"of shape \(\) for predictions of shape \(.*, 2\)"):
        model.fit(x, y, batch_size=2, verbose=0, callbacks=[ExampleRecorder(quantities=["loss"])])


@pytest.mark.parametrize("way", WAYS)
def test_training_is_the_same_with_it(way):
    """The order of the examples too."""
    weights = []
    for callbacks in ([], [ExampleRecorder()]):
        model = a_model(**WAYS[way])
        model.fit(X, Y, batch_size=7, epochs=2, verbose=0, callbacks=callbacks)
        weights.append(np.concatenate([np.ravel(w) for w in model.get_weights()]))
    np.testing.assert_array_equal(*weights)


class OwnError(BackpropModel):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return keras.ops.mean(keras.ops.abs(y - y_pred))


def test_no_loss_is_told_that_the_model_does_not_take():
    inputs = keras.Input((4,))
    model = OwnError(inputs, layers.Dense(2)(inputs))
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="no compiled loss was asked for the errors of the examples"):
        model.fit(np.ones((5, 4)), np.ones((5, 2)), verbose=0, callbacks=[ExampleRecorder(quantities=["loss"])])
