"""`BackwardObserver`: what is seen of the backward pass, on every way on which a step can run."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_backprop
from keras_backprop import BackpropSequential, BackwardObserver
from tests.gradients.ways import WAYS, X, Y, trained

ONE_DEVICE = [way for way in WAYS if way != "two devices"]


def sgd():
    return keras.optimizers.SGD(0.1)


class Norms(BackwardObserver):
    """‖∂E/∂y‖ of every layer, and how often each link was seen."""

    def __init__(self):
        """One that does not know of that of the base class."""

    def observe(self, link):
        scale = 1.0 if link.loss_scale is None else tf.cast(link.loss_scale, tf.float32)
        if isinstance(link.call.op, layers.Layer):
            self.note(link.path, tf.norm(tf.cast(link.upstream[0], tf.float32)) / scale)
        self.note(f"{link.path}: steps", 1.0, over_steps="sum")


class Monitor(keras.callbacks.Callback):
    reads_only_logs = True

    def __init__(self, observer=None):
        super().__init__()
        self.backward_observer = observer or Norms()
        self.epochs = []

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append(self.backward_observer.read())


@pytest.mark.parametrize("way", ONE_DEVICE)
def test_norms_are_the_tapes(way):
    """Of a training that changes nothing, at the weights that it has."""
    monitor = Monitor()
    model, _ = trained(lambda: keras.optimizers.SGD(0.0), way, epochs=2, callbacks=[monitor])
    if way == "compiled loop":
        assert model.fit_path.compiled
    x, y = X[16:], Y[16:]
    hidden, second, out = model.layers[1:]
    with tf.GradientTape() as tape:
        z1 = tf.cast(x, hidden.compute_dtype) @ tf.cast(hidden.kernel, hidden.compute_dtype) + tf.cast(
            hidden.bias, hidden.compute_dtype
        )
        tape.watch(z1)
        z2 = second.kernel * 1.0
        z2 = tf.tanh(z1) @ tf.cast(z2, z1.dtype) + tf.cast(second.bias, z1.dtype)
        tape.watch(z2)
        z3 = tf.cast(tf.nn.relu(z2), tf.float32) @ out.kernel + out.bias
        tape.watch(z3)
        error = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(y, tf.nn.softmax(z3)))
    expected = [float(tf.norm(tf.cast(dz, tf.float32))) for dz in tape.gradient(error, [z1, z2, z3])]
    read = monitor.epochs[-1]
    norms = [read[name] for name in ("hidden", "second", "out")]
    np.testing.assert_allclose(norms, expected, rtol=5e-2 if way == "mixed precision" else 1e-5)
    assert read["hidden/tanh: steps"] == read["out: steps"] == 6
    assert list(read).index("hidden") < list(read).index("out")


def test_training_is_what_it_is_without():
    watched, _ = trained(sgd, "compiled loop", callbacks=[Monitor()])
    plain, _ = trained(sgd, "compiled loop")
    for one, other in zip(watched.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def network():
    shared = layers.Dense(5, "tanh", name="shared")
    model = BackpropSequential([keras.Input((5,)), shared, shared, layers.Dense(3, name="last")], name="net")
    model.compile("sgd", "mse")
    return model


def test_every_use_has_a_path_of_its_own():
    class Paths(BackwardObserver):
        def observe(self, link):
            paths.append(link.path)

    paths = []
    model = network()
    model.fit(X, np.ones((24, 3)), batch_size=24, verbose=0, callbacks=[Monitor(Paths())])
    assert len(paths) == len(set(paths))
    assert {"net/shared", "net/shared·2", "net/shared/tanh", "net/shared/tanh·2", "net/last"} <= set(paths)


def test_the_same_observers_are_not_traced_again_and_others_are():
    traces = []

    class Counted(Norms):
        def observe(self, link):
            traces.append(self)
            super().observe(link)

    model, first, second = network(), Counted(), Counted()
    fit = {"batch_size": 24, "verbose": 0}
    model.fit(X, np.ones((24, 3)), callbacks=[Monitor(first)], **fit)
    seen = len(traces)
    assert seen
    model.fit(X, np.ones((24, 3)), callbacks=[Monitor(first)], **fit)
    assert len(traces) == seen and first.read()["net/last: steps"] == 2
    model.fit(X, np.ones((24, 3)), **fit)
    assert len(traces) == seen and first.read()["net/last: steps"] == 2
    model.fit(X, np.ones((24, 3)), callbacks=[Monitor(first), Monitor(second)], **fit)
    assert first.read()["net/last: steps"] == 3 and second.read()["net/last: steps"] == 1


@pytest.mark.parametrize(
    ("over_steps", "expected"), [("last", 5.0), ("sum", 9.0), ("mean", 3.0), ("max", 5.0), ("min", 1.0)]
)
def test_over_steps(over_steps, expected):
    observer = BackwardObserver()
    for value in (3.0, 1.0, 5.0):
        observer.note("figure", value, over_steps)
    assert observer.read() == {"figure": expected}
    observer.reset()
    observer.note("figure", 2.0, over_steps)
    assert observer.read() == {"figure": 2.0}


def test_weight_gradients_are_not_summed_yet():
    class Largest(BackwardObserver):
        def observe(self, link):
            for name, gradient in link.weight_gradients.items():
                self.note(f"{link.path}/{name}", tf.reduce_max(gradient.squared_norms()), over_steps="max")

    monitor, model = Monitor(Largest()), network()
    result = keras_backprop.backward(model, X, np.ones((24, 3)))
    model.fit(X, np.ones((24, 3)), batch_size=24, verbose=0, callbacks=[monitor])
    np.testing.assert_allclose(
        monitor.epochs[0]["net/last/kernel"], result.squared_norms("net/last/kernel").numpy().max(), rtol=1e-5
    )


def test_an_observer_that_comes_late_is_not_deaf_in_silence():
    class Late(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.backward_observer = Norms()

    with pytest.raises(ValueError, match="after the training had begun"):
        network().fit(X, np.ones((24, 3)), verbose=0, callbacks=[Late()])


@pytest.mark.parametrize("without", ["not there", "None"])
def test_an_observer_may_have_observe_alone(without):
    class Alone:
        def __init__(self):
            self.paths = set()
            for name in ("training_begins", "step_begins", "before_update", "after_update"):
                if without == "None":
                    setattr(self, name, None)

        def observe(self, link):
            self.paths.add(link.path)

    callback = keras.callbacks.Callback()
    callback.backward_observer = Alone()
    network().fit(X, np.ones((24, 3)), verbose=0, callbacks=[callback])
    assert callback.backward_observer.paths


def test_wrong_observers():
    with pytest.raises(TypeError, match="`backward_observer` of Monitor must have a method `observe"):
        network().fit(X, np.ones((24, 3)), verbose=0, callbacks=[Monitor("norms")])
    with pytest.raises(ValueError, match="`over_steps` must be one of 'last', 'sum'.*Received: 'median'"):
        BackwardObserver().note("figure", 1.0, "median")
