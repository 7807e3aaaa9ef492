"""What `compile` was given as `rules` and `gradients` holds in a `train_step` of one's own too, or is an error."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_backprop import BackpropModel, BackpropSequential, Gradients, backward, check_gradients, use_rules
from keras_backprop.gradients import ByPath
from keras_backprop.model import BackpropTrainer

X, Y = np.random.default_rng(0).normal(size=(2, 32, 3)).astype("float32")


def stopped(call, dy):
    """Nothing flows back."""
    return Gradients(tf.zeros_like(dy))


STOPPED = {keras.activations.relu: stopped}


class Net(BackpropModel):
    """Two layers; a subclass says what a step is."""

    def __init__(self):
        super().__init__(name="net")
        self.first, self.second = layers.Dense(4, "relu", name="first"), layers.Dense(3)

    def call(self, x):
        return self.second(self.first(x))


class ByBackward(Net):
    def train_step(self, data):
        result = backward(self, *data)
        self.optimizer.apply(result.gradients, result.weights)
        return {"loss": result.loss}


class ByItsParts(Net):
    def train_step(self, data):
        result = self.backward_pass(*data)
        self.update_weights(self.make_gradients(result), result.weights)
        return {"loss": result.loss}


class MakesItsOwn(Net):
    def make_gradients(self, result):
        return result.gradients


class ByTape(Net):
    def train_step(self, data):
        with tf.GradientTape() as tape:
            loss = self.compute_loss(data[0], data[1], self(data[0], training=True))
        self.optimizer.apply(tape.gradient(loss, self.trainable_weights), self.trainable_weights)
        return {"loss": loss}


class Theirs(keras.Model):
    """A class of somebody else's, with a step of its own that does more than Keras's."""

    def __init__(self):
        super().__init__(name="net")
        self.first, self.second = layers.Dense(4, "relu"), layers.Dense(3)

    def call(self, x):
        return self.second(self.first(x))

    def train_step(self, data):
        return ByTape.train_step(self, data) | {"twice": 2.0 * self.second.kernel[0, 0]}


class Decorated(Theirs):
    train_step = tf.function(Theirs.train_step)


class MakesFunctions(Theirs):
    """Trains on each batch two times."""

    def make_train_function(self, force=False):
        super().make_train_function(force)
        once = self.train_function

        def train(iterator):
            data = next(iterator)
            once(iter([data]))
            return once(iter([data]))

        self.train_function = train


class OwnTestStep(Theirs):
    def test_step(self, data):
        return {"twice": 2.0 * super().test_step(data)["loss"]}


@pytest.mark.parametrize("theirs", [Decorated, MakesFunctions, OwnTestStep])
def test_a_class_that_the_mixin_is_put_before_keeps_its_step(theirs):
    class Ours(BackpropTrainer, theirs):
        """Nothing of its own."""

    class More(Ours):
        """Neither."""

    histories = []
    for cls in (theirs, Ours, More):
        keras.utils.set_random_seed(0)
        model = cls()
        model.compile("sgd", "mse")
        histories.append(model.fit(X, Y, epochs=2, shuffle=False, validation_data=(X, Y), verbose=0).history)
    for history in histories[1:]:
        assert list(history) == list(histories[0])
        for name, values in histories[0].items():
            np.testing.assert_allclose(history[name], values, rtol=1e-6, err_msg=name)


def moved(model):
    """Which of the two kernels a fit moves."""
    model(X)
    kernels = [model.first.kernel, model.second.kernel]
    before = [kernel.numpy() for kernel in kernels]
    model.fit(X, Y, epochs=1, verbose=0)
    return [bool(np.any(kernel.numpy() != old)) for kernel, old in zip(kernels, before, strict=True)]


@pytest.mark.parametrize("epochs_per_execution", ["auto", None], ids=["compiled", "Keras's loop"])
@pytest.mark.parametrize("net", [ByBackward, ByItsParts])
def test_rules_hold(net, epochs_per_execution):
    model = net()
    model.compile("sgd", "mse", rules=STOPPED, epochs_per_execution=epochs_per_execution)
    assert moved(model) == [False, True]


def test_rules_around_fit_hold_in_the_threads_of_replicas():
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        model = ByBackward()
        model(X)
        model.compile("sgd", "mse")
    with use_rules(STOPPED):
        assert moved(model) == [False, True]


def test_gradients_hold_where_they_are_asked_for():
    model = ByItsParts()
    model.compile("sgd", "mse", gradients=ByPath({"first/*": 0.0}))
    assert moved(model) == [False, True]


@pytest.mark.parametrize("net", [ByBackward, ByTape, MakesItsOwn])
def test_gradients_that_nobody_asks_for_are_an_error(net):
    model = net()
    model.compile("sgd", "mse", gradients=ByPath({"first/*": 0.0}))
    for train in (model.fit, model.train_on_batch):
        with pytest.raises(ValueError, match=f"'{net.__name__}' has a `train_step` or `make_gradients` of its own"):
            train(X, Y)


def test_rules_that_nobody_asks_for_are_an_error():
    model = ByTape()
    model.compile("sgd", "mse", rules=STOPPED)
    with pytest.raises(ValueError, match="selected by `relu`") as caught:
        model.fit(X, Y, verbose=0)
    assert "backward(self, " in caught.value.__notes__[0]


def test_backward_takes_the_rules_of_the_model():
    model = BackpropSequential([keras.Input((3,)), layers.Dense(4, "relu"), layers.Dense(3)])
    model.compile("sgd", "mse", rules=STOPPED)
    assert not np.any(backward(model, X, Y).gradients[0])
    assert not check_gradients(model, X, Y).passed
    model.compile("sgd", "mse")
    assert np.any(backward(model, X, Y).gradients[0])


def test_the_rules_of_the_model_win_over_those_of_a_block():
    model = BackpropSequential([keras.Input((3,)), layers.Dense(4, "relu"), layers.Dense(3)])
    model.compile("sgd", "mse", rules=STOPPED)
    with (
        pytest.raises(ValueError, match="what the model was compiled with, has rules"),
        use_rules({keras.activations.relu: lambda call, dy: Gradients(dy)}),
    ):
        assert not np.any(backward(model, X, Y).gradients[0])
