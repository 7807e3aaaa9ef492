"""`StopAtError`."""

import contextlib

import keras
import numpy as np
import pytest
from keras import layers

from keras_backprop import BackpropModel, BackpropSequential
from keras_backprop.callbacks import StopAtError
from keras_backprop.losses import HalfMeanSquaredError


def note_model():
    """The note's network: one input, one hidden and one output unit, both sigmoid."""
    model = BackpropSequential(
        [keras.Input((1,), dtype="float64")]
        + [layers.Dense(1, activation="sigmoid", dtype="float64") for _ in range(2)]
    )
    model.set_weights([np.array(w) for w in ([[0.15]], [0.40], [[0.45]], [0.65])])
    model.compile(keras.optimizers.SGD(0.4), HalfMeanSquaredError(dtype="float64"))
    return model


X, T = np.array([[0.1]]), np.array([[0.25]])


def test_the_notes_network_stops_after_82_epochs(capsys):
    model, stop = note_model(), StopAtError(0.001, verbose=1)
    history = model.fit(X, T, epochs=1000, callbacks=[stop], verbose=0)
    assert len(history.history["loss"]) == 82 == stop.stopped_epoch
    assert history.history["loss"][-1] == pytest.approx(0.00096413, abs=1e-8)  # 0.000964135
    assert stop.error == history.history["loss"][-1]
    assert history.history["loss"][-2] > 0.001
    printed = capsys.readouterr().out
    assert "Epoch 82" in printed and "0.00096413" in printed and "before the updates" in printed


def test_patience_waits_and_starts_anew():
    assert len(note_model().fit(X, T, epochs=1000, callbacks=[StopAtError(patience=3)], verbose=0).epoch) == 85
    stop = StopAtError(0.5, patience=1)
    stop.set_model(note_model())
    stop.set_params({"epochs": 9})
    stop.on_train_begin()
    for epoch, loss in enumerate([0.4, 0.6, 0.4]):
        stop.on_epoch_end(epoch, {"loss": loss})
        assert not stop.model.stop_training
    stop.on_epoch_end(3, {"loss": 0.5})  # at ε is enough
    assert stop.model.stop_training and stop.stopped_epoch == 4


def test_a_second_fit_starts_anew():
    model, stop = note_model(), StopAtError(0.05)
    model.fit(X, T, epochs=1000, callbacks=[stop], verbose=0)
    assert stop.stopped_epoch > 1
    assert len(model.fit(X, T, epochs=1000, callbacks=[stop], verbose=0).epoch) == 1


def test_validation_error():
    stop = StopAtError(0.05, monitor="val_loss")
    model = note_model()
    history = model.fit(X, T, epochs=100, validation_data=(X, T), validation_freq=2, callbacks=[stop], verbose=0)
    assert stop.stopped_epoch % 2 == 0 and history.history["val_loss"][-1] <= 0.05


@pytest.mark.parametrize(
    "arguments",
    [
        {"epsilon": 0},
        {"epsilon": -1.0},
        {"epsilon": float("nan")},
        {"epsilon": float("inf")},
        {"epsilon": "small"},
        {"epsilon": True},
        {"monitor": ""},
        {"monitor": None},
        {"monitor": "val_accuracy"},
        {"patience": -1},
        {"patience": 1.5},
    ],
)
def test_nonsense_is_refused(arguments):
    (name, value), *_ = arguments.items()
    with pytest.raises(ValueError, match=f"(?s)`{name}`.*Received: {name}="):
        StopAtError(**arguments)


def test_numbers_may_be_numpys():
    stop = StopAtError(np.float32(0.5), patience=np.int64(2))
    assert stop.get_config() == {"epsilon": 0.5, "monitor": "loss", "patience": 2, "verbose": 0}


def test_a_missing_metric_is_an_error_that_lists_what_there_is():
    with pytest.raises(ValueError, match=r"monitors `mae`.*Available: \['loss'\]"):
        note_model().fit(X, T, epochs=2, callbacks=[StopAtError(monitor="mae")], verbose=0)


@pytest.mark.parametrize("monitor", ["r2_score", "val_r2_score", "mean_r2"])
def test_a_metric_that_is_better_when_larger_is_refused(monitor):
    x = np.arange(8.0)[:, None]
    model = BackpropSequential([keras.Input((1,)), layers.Dense(1)])
    model.compile("sgd", "mse", metrics=[keras.metrics.R2Score(), keras.metrics.R2Score(name="mean_r2")])
    with pytest.raises(ValueError, match=f"better when smaller. Received: monitor='{monitor}'"):
        model.fit(x, x, epochs=2, verbose=0, validation_data=(x, x), callbacks=[StopAtError(0.5, monitor=monitor)])


@pytest.mark.parametrize(("monitor", "refused"), [("a_error", False), ("b_error", True), ("b_weighted_error", True)])
def test_it_is_asked_of_the_metric_of_the_output(monitor, refused):
    x, inputs = np.arange(8.0)[:, None], keras.Input((1,))
    model = BackpropModel(inputs, {name: layers.Dense(1, name=name)(inputs) for name in "ab"})
    metrics = {"a": keras.metrics.MeanSquaredError(name="error"), "b": keras.metrics.R2Score(name="error")}
    model.compile("sgd", "mse", metrics=metrics, weighted_metrics={"b": keras.metrics.R2Score(name="error")})
    with pytest.raises(ValueError, match="better when smaller") if refused else contextlib.nullcontext():
        model.fit(x, {"a": x, "b": x}, verbose=0, callbacks=[StopAtError(0.5, monitor=monitor)])


def test_a_validation_metric_that_never_comes_is_a_warning():
    with pytest.warns(UserWarning, match="which no epoch reported"):
        note_model().fit(X, T, epochs=2, callbacks=[StopAtError(monitor="val_loss")], verbose=0)


def test_nan_is_a_warning_and_no_stop():
    model = note_model()
    with pytest.warns(UserWarning, match="is NaN in epoch 1"):
        history = model.fit(np.array([[np.nan]]), T, epochs=3, callbacks=[StopAtError()], verbose=0)
    assert len(history.epoch) == 3


def test_it_serialises():
    stop = StopAtError(0.01, monitor="val_loss", patience=2, verbose=1)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(stop))
    assert type(again) is StopAtError and again.get_config() == stop.get_config()
