"""Whatever is put around `keras.Model.fit`, as experiment trackers do, is called, and the compiled loop runs inside of it."""

import functools

import keras
import numpy as np
import pytest
from keras import layers

from keras_backprop import BackpropModel, BackpropSequential
from keras_backprop.callbacks import BackwardMonitor

X = np.random.default_rng(0).normal(size=(50, 3)).astype("float32")
Y = X[:, :1]
FIT = keras.Model.fit


def sequential():
    return BackpropSequential([keras.Input((3,)), layers.Dense(1)])


def functional():
    x = keras.Input((3,))
    return BackpropModel(x, layers.Dense(1)(x))


class Subclass(BackpropModel):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(1)

    def call(self, x):
        return self.dense(x)


class Counts(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.epochs = 0

    def on_epoch_end(self, epoch, logs=None):
        self.epochs += 1


def plain(seen):
    def wrapper(self, *args, **kwargs):
        seen.append(type(self).__name__)
        return FIT(self, *args, **kwargs)

    return wrapper


def wrapped(seen):
    return functools.wraps(FIT)(plain(seen))


def tracker(seen):
    """Adds a callback, as MLflow's autolog does, and looks at the history."""

    def wrapper(self, x, y, **kwargs):
        counts = Counts()
        history = FIT(self, x, y, **{**kwargs, "callbacks": [*kwargs.get("callbacks", []), counts]})
        assert counts.epochs == len(history.epoch)
        seen.append(type(self).__name__)
        return history

    return wrapper


@pytest.mark.parametrize("around", [plain, wrapped, tracker])
@pytest.mark.parametrize("make", [sequential, functional, Subclass])
@pytest.mark.parametrize("epochs_per_execution", ["auto", None])
def test_a_wrapper_is_called(monkeypatch, make, around, epochs_per_execution):
    seen = []
    monkeypatch.setattr(keras.Model, "fit", around(seen))
    model = make()
    model.compile("sgd", "mse", epochs_per_execution=epochs_per_execution)
    history = model.fit(X, Y, epochs=3, verbose=0)
    assert seen == [type(model).__name__] and len(history.epoch) == 3
    assert model.fit_path.compiled is (epochs_per_execution == "auto")


def test_keras_stays_as_it_is(monkeypatch):
    """While one of our models trains, another trains by Keras's loop."""
    stock = keras.Sequential([keras.Input((3,)), layers.Dense(1)])
    stock.compile("sgd", "mse")
    inside = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: stock.fit(X, Y, verbose=0))
    model = sequential()
    model.compile("sgd", "mse")
    cell = FIT.__closure__
    before = [one.cell_contents for one in cell]
    model.fit(X, Y, epochs=2, verbose=0, callbacks=[inside])
    assert int(stock.optimizer.iterations) == int(model.optimizer.iterations) == 4
    assert [one.cell_contents for one in cell] == before and keras.Model.fit is FIT


def test_what_replaces_fit_has_replaced_it(monkeypatch):
    monkeypatch.setattr(keras.Model, "fit", lambda self, *args, **kwargs: "nothing")
    model = sequential()
    model.compile("sgd", "mse")
    assert model.fit(X, Y) == "nothing"
    assert not model.fit_path.compiled and "has not called it" in model.fit_path.reason


def test_observers_are_found_in_the_arguments_of_another_fit():
    class Short(keras.Model):
        def fit(self, data, callbacks, **options):
            return super().fit(*data, callbacks=callbacks, **options)

    class Both(BackpropModel, Short):
        pass

    inputs = keras.Input((3,))
    model, monitor = Both(inputs, layers.Dense(1)(inputs)), BackwardMonitor(every=1)
    model.compile("sgd", "mse")
    model.fit((X, Y), [monitor], verbose=0)
    assert monitor.history


def test_a_fit_with_other_arguments_between_ours_and_keras():
    class FromSimulations(keras.Model):
        def fit(self, *, simulator, **options):
            return super().fit(*simulator(), **options)

    class Both(BackpropModel, FromSimulations):
        pass

    inputs = keras.Input((3,))
    model = Both(inputs, keras.layers.Dense(1)(inputs))
    model.compile("sgd", "mse")
    model.fit(simulator=lambda: (X, Y), epochs=2, verbose=0)
    assert model.fit_path.compiled and len(model.history.history["loss"]) == 2
    with pytest.raises(TypeError, match="nonsense"):
        model.fit(simulator=lambda: (X, Y), nonsense=1)


class Detector(keras.Model):
    """As classes of packages are: `compile` takes what makes the losses."""

    def compile(self, optimizer="auto", box_loss="auto", **options):
        chosen = "sgd" if optimizer == "auto" else optimizer
        super().compile(chosen, loss="mse" if box_loss == "auto" else box_loss, **options)


@pytest.mark.parametrize("jit_compile", ["auto", False])
def test_a_compile_with_other_arguments_between_ours_and_keras(jit_compile, tmp_path):
    @keras.saving.register_keras_serializable(package="tests")
    class BothDetect(BackpropModel, Detector):
        pass

    def trained(cls):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((3,))
        model = cls(inputs, keras.layers.Dense(1)(inputs))
        model.compile(box_loss="mae", jit_compile=jit_compile)
        return model, model.fit(X, Y, epochs=2, verbose=0, shuffle=False).history

    (ours, history), (_, stock) = trained(BothDetect), trained(Detector)
    np.testing.assert_allclose(history["loss"], stock["loss"], rtol=1e-6)
    assert ours.fit_path.compiled and ours.jit_compile is False
    ours.save(tmp_path / "model.keras")
    with pytest.warns(UserWarning, match="`compile\\(\\)` method is custom"):  # as it is for stock Keras
        assert not hasattr(keras.models.load_model(tmp_path / "model.keras"), "optimizer")
