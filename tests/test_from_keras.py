"""`BackpropModel.from_keras` of a model with a class of its own: what the class does in training, it goes on doing."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_backprop import BackpropModel, BackpropSequential
from keras_backprop.trainer import BackpropTrainer

PACKAGE = "tests_from_keras"


class Weighted:
    """An error and a metric of one's own."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return 3.0 * super().compute_loss(x, y, y_pred, sample_weight, training)

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        return super().compute_metrics(x, y, y_pred, sample_weight) | {"largest": tf.reduce_max(y_pred)}


class Counted:
    """Keras's steps, with something around them."""

    rate = 2.0

    def train_step(self, data):
        x, y = data
        return super().train_step((x, self.rate * y)) | {"rate": self.rate}


class Taped:
    """A step that owes nothing to Keras's."""

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            error = tf.reduce_mean(tf.abs(y - self(x, training=True)))
        self.optimizer.apply_gradients(
            zip(tape.gradient(error, self.trainable_weights), self.trainable_weights, strict=True)
        )
        return {"error": error}


class Called(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hidden, self.out = layers.Dense(4, "tanh"), layers.Dense(1)
        self.note = "something that the user has put here"

    def call(self, x):
        return self.out(self.hidden(x))


def made(kind, *mixins):
    """A stock model of a class of its own, called, functional or a stack, always from the same weights."""
    keras.utils.set_random_seed(1)
    parent = {"called": Called, "functional": keras.Model, "sequential": keras.Sequential}[kind]
    cls = keras.saving.register_keras_serializable(PACKAGE)(type("Own", (*mixins, parent), {}))
    if kind == "called":
        model = cls()
        model(np.zeros((1, 3)))
        return model
    inputs, stack = keras.Input((3,)), [layers.Dense(4, "tanh"), layers.Dense(1)]
    return cls([inputs, *stack]) if kind == "sequential" else cls(inputs, stack[1](stack[0](inputs)))


def trained(model):
    x = np.random.default_rng(0).normal(size=(40, 3)).astype("float32")
    model.compile(keras.optimizers.SGD(0.1), "mse")
    history = model.fit(x, x[:, :1], 16, epochs=2, shuffle=False, verbose=0).history
    return history | model.evaluate(x, x[:, :1], verbose=0, return_dict=True)


@pytest.mark.parametrize("kind", ["called", "functional", "sequential"])
@pytest.mark.parametrize("mixin", [Weighted, Counted, Taped])
def test_steps_errors_and_metrics_of_the_class_are_kept(mixin, kind):
    stock, model = made(kind, mixin), made(kind, mixin)
    ours = BackpropModel.from_keras(model)
    assert isinstance(ours, BackpropModel) and isinstance(ours, mixin)
    expected, got = trained(stock), trained(ours)
    assert got.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(got[name], values, rtol=1e-6)
    for a, b, shared in zip(stock.get_weights(), ours.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-6)
        np.testing.assert_array_equal(b, shared)


def test_attributes_and_layers_are_those_of_the_model_and_it_stays_as_it_was():
    model = made("called")
    model.compile("adam", "mse")
    ours = BackpropModel.from_keras(model, name="another")
    assert (
        ours.note == model.note and ours.hidden is model.hidden and ours.name == "another" and model.name != "another"
    )
    assert not ours.compiled and model.compiled and type(model.optimizer) is keras.optimizers.Adam
    assert [v.path for v in ours.weights] == [v.path for v in model.weights]
    trained(ours)
    assert type(model.optimizer) is keras.optimizers.Adam and model.optimizer.iterations == 0


def test_a_step_that_was_put_on_the_model_itself_acts_on_ours():
    model = made("called")
    model.train_step = Taped.train_step.__get__(model)
    assert list(trained(BackpropModel.from_keras(model))) == ["error", "loss"]


@pytest.mark.parametrize("kind", ["called", "functional", "sequential"])
def test_saved_and_loaded_it_is_of_both_classes(kind, tmp_path):
    ours = BackpropModel.from_keras(made(kind, Weighted))
    trained(ours)
    ours.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(again, BackpropModel) and isinstance(again, Weighted)
    expected, got = trained(ours), trained(again)
    assert got.keys() == expected.keys()
    np.testing.assert_allclose(got["loss"], expected["loss"], rtol=1e-6)


def test_a_stack_of_a_class_of_its_own_stays_one():
    ours = BackpropSequential.from_keras(made("sequential", Weighted))
    assert isinstance(ours, BackpropSequential) and isinstance(ours, Weighted)


def test_a_subclass_of_ours_cannot_be_put_around_a_call_of_ones_own():
    class Mine(BackpropModel):
        pass

    with pytest.raises(TypeError, match=r"`Mine.from_keras` takes .* `class Both\(Mine, Own\)`"):
        Mine.from_keras(made("called"))


@pytest.mark.parametrize("mixin", [Counted, Taped])
def test_the_step_of_a_class_that_the_trainer_is_mixed_into_is_the_step(mixin):
    stock = made("called", mixin)
    ours = type("Ours", (BackpropTrainer, type(stock)), {})()
    ours(np.zeros((1, 3)))
    ours.set_weights(stock.get_weights())
    expected, got = trained(stock), trained(ours)
    assert got.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(got[name], values, rtol=1e-6)
