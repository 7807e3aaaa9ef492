"""`fit` that runs whole epochs in one compiled call cannot be told from the loop in Python, except by its speed."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_backprop import BackpropModel, BackpropSequential
from keras_backprop.callbacks import StopAtError
from keras_backprop.training.inputs import batches
from keras_backprop.training.inputs.examples import Examples


def data(n=100, features=6, classes=3):
    random = np.random.default_rng(0)
    x = random.normal(size=(n, features)).astype("float32")
    return x, random.integers(0, classes, n)


def network(cls=BackpropSequential, optimizer="adam", metrics=("accuracy",), built=True, **compile_arguments):
    keras.utils.set_random_seed(3)
    model = cls(
        [
            *([keras.Input((6,))] if built else []),
            layers.Dense(8, activation="tanh"),
            layers.Dropout(0.25, seed=5),
            layers.BatchNormalization(),
            layers.Dense(3, activation="softmax"),
        ]
    )
    optimizer = keras.optimizers.get(optimizer)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=list(metrics), **compile_arguments)
    return model


def fit_both(expect=True, make=network, x=None, y=None, compile_arguments=None, **arguments):
    """The same `fit` in stock Keras and in ours: equal weights and history. Returns our model."""
    if x is None:
        x, y = data()
    models = []
    for cls in (keras.Sequential, BackpropSequential):
        given = {key: value() if callable(value) else value for key, value in arguments.items()}
        model = make(cls, **(compile_arguments or {}))
        model.fit(x, y, **{"verbose": 0, "shuffle": False, "epochs": 3, **given})
        models.append(model)
    stock, ours = models
    assert ours.fit_path.compiled is expect, ours.fit_path
    assert ours.history.epoch == stock.history.epoch
    assert list(ours.history.history) == list(stock.history.history)
    for name, values in stock.history.history.items():
        np.testing.assert_allclose(ours.history.history[name], values, rtol=1e-5, atol=1e-6, err_msg=name)
    for a, b in zip(ours.get_weights(), stock.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)
    for a, b in zip(ours.optimizer.variables, stock.optimizer.variables, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-4, atol=2e-6)
    return ours


HELD_OUT = data(50)

CASES = {
    "one-batch": {"batch_size": 100, "epochs": 12},
    "even-batches": {"batch_size": 25},
    "ragged-last-batch": {"batch_size": 32},
    "batch-larger-than-the-data": {"batch_size": 1000},
    "not-built": {"make": lambda cls: network(cls, built=False)},
    "from-a-later-epoch": {"initial_epoch": 2, "epochs": 4},
    "no-epoch": {"epochs": 0, "expect": False},
    "sample-weights": {"sample_weight": np.linspace(0.1, 2.0, 100)},
    "class-weights": {"class_weight": {0: 1.0, 1: 3.0, 2: 0.5}},
    "validation": {"validation_data": HELD_OUT, "batch_size": 32},
    "validation-now-and-then": {"validation_data": HELD_OUT, "validation_freq": 2, "epochs": 5},
    "validation-in-some-epochs": {"validation_data": HELD_OUT, "validation_freq": [1, 4], "epochs": 5},
    "validation-in-its-own-batches": {"validation_data": HELD_OUT, "validation_batch_size": 7},
    "validation-with-weights": {"validation_data": (*HELD_OUT, np.linspace(0.5, 1.0, 50))},
    "validation-split": {"validation_split": 0.3},
    "several-steps-a-call": {"compile_arguments": {"steps_per_execution": 3}},
    "tensors": {"x": tf.constant(data()[0]), "y": tf.constant(data()[1])},
    "double-precision-data": {"x": data()[0].astype("float64"), "y": data()[1]},
    "early-stopping": {
        "callbacks": lambda: [keras.callbacks.EarlyStopping("loss", patience=1, start_from_epoch=1, min_delta=1.0)],
        "epochs": 8,
    },
    "best-weights": {
        "callbacks": lambda: [keras.callbacks.EarlyStopping("val_loss", patience=2, restore_best_weights=True)],
        "validation_data": HELD_OUT,
        "epochs": 8,
    },
    "learning-rate": {
        "callbacks": lambda: [keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.5)],
        "epochs": 4,
    },
    "plateau": {
        "callbacks": lambda: [keras.callbacks.ReduceLROnPlateau("loss", patience=0, min_delta=1.0)],
        "epochs": 5,
    },
    "swapped-weights": {
        "make": lambda cls: network(cls, keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.8)),
        "callbacks": lambda: [keras.callbacks.SwapEMAWeights(swap_on_epoch=True)],
        "validation_data": HELD_OUT,
    },
    "loss-scale": {"make": lambda cls: network(cls, keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1)))},
    "accumulated-gradients": {
        "make": lambda cls: network(cls, keras.optimizers.SGD(0.1, gradient_accumulation_steps=3))
    },
}


class Stops(keras.callbacks.Callback):
    """Says at the beginning of training, or of an epoch, that it ends. One more execution follows."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_train_begin(self, logs=None):
        self.model.stop_training = self.epoch is None

    def on_epoch_begin(self, epoch, logs=None):
        self.model.stop_training |= epoch == self.epoch


CASES |= {
    f"ended-{where}-{steps}-steps-a-call": {
        "callbacks": lambda epoch=epoch: [Stops(epoch)],
        "compile_arguments": {"steps_per_execution": steps},
        "validation_data": HELD_OUT,
        "batch_size": 10,
    }
    for where, epoch in (("before-it-begins", None), ("at-an-epoch", 1))
    for steps in (1, 3)
}


@pytest.mark.sample(12)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_compiled_epochs_equal_stock_keras(case):
    fit_both(**case)


def test_a_number_of_epochs_may_share_a_call():
    class Sums(Acts):
        pass

    x, y = data()
    callbacks = [Sums(), Sums()]
    for callback, epochs_per_execution in zip(callbacks, ("auto", 2), strict=True):
        model = network(epochs_per_execution=epochs_per_execution)
        model.fit(x, y, epochs=5, shuffle=False, verbose=0, callbacks=[callback])
        assert model.fit_path.epochs_per_execution == (1 if epochs_per_execution == "auto" else 2)
    each, pairs = (callback.seen for callback in callbacks)
    assert [entry for entry in pairs if isinstance(entry, tuple)] == [
        entry for entry in each if isinstance(entry, tuple)
    ]
    sums = [[entry for entry in seen if isinstance(entry, float)] for seen in (each, pairs)]
    assert len(set(sums[0])) == 5
    assert set(sums[1]) < set(sums[0])  # some epochs show the model of the one after
    assert sums[1][-1] == sums[0][-1]


@pytest.mark.parametrize("batch_size", [pytest.param(25, marks=pytest.mark.slow), 32])
def test_with_xla(batch_size):
    fit_both(batch_size=batch_size, validation_data=HELD_OUT, compile_arguments={"jit_compile": True})


NOT_COMPILED = {
    "eager": ({"compile_arguments": {"run_eagerly": True}}, "it runs eagerly"),
    "switched-off": ({"compile_arguments": {"epochs_per_execution": None}}, "epochs_per_execution=None"),
}


@pytest.mark.parametrize(("arguments", "reason"), NOT_COMPILED.values(), ids=NOT_COMPILED)
def test_what_does_not_qualify_takes_keras_own_loop(arguments, reason):
    arguments = {key: value() if callable(value) else value for key, value in arguments.items()}
    model = network(**arguments.pop("compile_arguments", {}))
    if "x" not in arguments:
        arguments["x"], arguments["y"] = data()
    model.fit(**arguments, epochs=1, verbose=0)
    assert not model.fit_path.compiled
    assert reason in model.fit_path.reason
    assert str(model.fit_path).startswith("batch by batch, in Keras's own loop: ")
    assert len(model.history.history["loss"]) == 1


@pytest.mark.parametrize("built", [True, False])
def test_nothing_to_train(built):
    def make(cls):
        model = network(cls, built=built, metrics=())
        for layer in model.layers:
            layer.trainable = False
        model.compile("sgd", "sparse_categorical_crossentropy")
        return model

    with pytest.warns(UserWarning, match="does not have any trainable weights"):
        fit_both(make=make)


def test_an_optimizer_that_sets_itself_up_in_the_step_is_left_to_keras():
    model = fit_both(False, lambda cls: network(cls, keras.optimizers.ScheduleFreeAdamW(0.01)), epochs=5)
    assert model.fit_path.reason.startswith("ScheduleFreeAdamW")


def test_a_metric_with_state_that_keras_knows_nothing_of(monkeypatch):
    """It is reset at the beginning of an epoch, and not at the later parts of one."""

    class Batches(keras.metrics.Metric):
        def __init__(self):
            super().__init__(name="batches")
            self.seen = tf.Variable(0.0)

        def update_state(self, *args, **kwargs):
            self.seen.assign_add(1.0)

        def result(self):
            return self.seen.value()

        def reset_state(self):
            self.seen.assign(0.0)

    monkeypatch.setattr("keras_backprop.training.loops.pace.SECONDS", 1e-4)
    model = network(metrics=())
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=[Batches()])
    history = model.fit(*data(), batch_size=2, epochs=3, verbose=0).history
    assert model.fit_path.compiled and history["batches"] == [50, 50, 50]


def test_data_that_are_too_large_stay_outside(monkeypatch):
    monkeypatch.setattr("keras_backprop.training.inputs.examples._memory", lambda: 4000)
    model = network()
    model.fit(*data(), verbose=0)
    assert "more than 25% of the machine's memory" in model.fit_path.reason


def test_wrong_data_are_refused_in_keras_words():
    x, y = data()
    for cls in (keras.Sequential, BackpropSequential):
        with pytest.raises(ValueError, match="Data cardinality is ambiguous"):
            network(cls).fit(x, y[:-1], verbose=0)
        with pytest.raises(ValueError, match="must be compatible|expected axis -1|incompatible"):
            network(cls).fit(x[:, :-1], y, verbose=0)


@pytest.mark.parametrize("arguments", [{"epochs": 2.0}, {"batch_size": 4.0}], ids=str)
def test_numbers_that_are_no_integers_are_refused_as_keras_refuses_them(arguments):
    told = []
    for cls in (keras.Sequential, BackpropSequential):
        begins: list = []
        begin = keras.callbacks.LambdaCallback(on_train_begin=lambda logs, begins=begins: begins.append(True))
        with pytest.raises(Exception) as error:
            network(cls).fit(*data(), verbose=0, callbacks=[begin], **arguments)
        told.append((type(error.value), str(error.value), begins))
    assert told[0] == told[1]


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_no_examples_to_validate_on():
    fit_both(expect=False, validation_split=-0.2)


class Reads(keras.callbacks.Callback):
    reads_only_logs = True

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_epoch_begin(self, epoch, logs=None):
        self.seen.append(("begin", epoch))

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(("end", epoch, logs["loss"]))


class Acts(Reads):
    reads_only_logs = False

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        self.seen.append(float(keras.ops.sum(self.model.layers[0].kernel)))


def test_a_callback_sees_the_model_at_the_end_of_its_own_epoch():
    seen = []
    for cls in (keras.Sequential, BackpropSequential):
        callback = Acts()
        model = network(cls)
        model.fit(*data(), epochs=5, shuffle=False, verbose=0, callbacks=[callback])
        seen.append(callback.seen)
    assert model.fit_path.epochs_per_execution == 1
    assert "Acts may act after every epoch" in str(model.fit_path)
    for stock, ours in zip(*seen, strict=True):
        np.testing.assert_allclose(
            ours if isinstance(ours, float) else ours[1:], stock if isinstance(stock, float) else stock[1:], rtol=1e-5
        )


def test_a_callback_that_reads_only_logs_gets_every_epoch_in_order():
    callback = Reads()
    model = network()
    losses = model.fit(*data(), epochs=40, verbose=0, callbacks=[callback]).history["loss"]
    assert model.fit_path.epochs_per_execution > 1
    expected = [entry for epoch, loss in enumerate(losses) for entry in (("begin", epoch), ("end", epoch, loss))]
    assert callback.seen == expected


def test_it_stops_in_the_epoch_that_reaches_the_threshold():
    x, y = data()
    losses = network().fit(x, y, epochs=30, shuffle=False, verbose=0).history["loss"]
    epsilon = losses[11] * (1 + 1e-6)
    expected = next(i for i, loss in enumerate(losses) if loss <= epsilon) + 1
    model, callback = network(), StopAtError(epsilon)
    shorter = model.fit(x, y, epochs=30, shuffle=False, verbose=0, callbacks=[callback]).history["loss"]
    assert callback.stopped_epoch == len(shorter) == expected
    once_more = network()
    once_more.fit(x, y, epochs=expected, shuffle=False, verbose=0)
    for a, b in zip(model.get_weights(), once_more.get_weights(), strict=True):  # no update came after it
        np.testing.assert_allclose(a, b, atol=1e-7)


def test_shuffling_visits_every_example_once_and_a_seed_repeats_it():
    x = np.arange(1.0, 41.0, dtype="float32")[:, None]

    class Visited(keras.metrics.Metric):
        """A number that tells in which order the examples came, and whether each came once."""

        def __init__(self):
            super().__init__(name="visited")
            self.total = self.add_weight(shape=(), initializer="zeros")
            self.place = self.add_weight(shape=(), initializer="zeros")

        def update_state(self, y_true, y_pred, sample_weight=None):
            self.place.assign_add(1.0)
            self.total.assign_add(self.place * keras.ops.sum(y_true))

        def result(self):
            return self.total

    def run(seed):
        keras.utils.set_random_seed(seed)
        model = BackpropSequential([keras.Input((1,)), layers.Dense(1)])
        model.compile("sgd", "mse", metrics=[Visited()])
        history = model.fit(x, x, batch_size=4, epochs=6, verbose=0)
        assert model.fit_path.compiled
        return history.history["visited"], model.get_weights()

    first, weights = run(seed=1)
    again, weights_again = run(seed=1)
    other, _ = run(seed=2)
    assert first == again
    for a, b in zip(weights, weights_again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert first != other
    assert len(set(first)) > 1  # another order every epoch


def test_every_example_comes_once_an_epoch():
    x = np.arange(1.0, 41.0, dtype="float32")[:, None]
    model = BackpropSequential([keras.Input((1,)), layers.Dense(1)])

    def squares(y_true, y_pred):
        return keras.ops.square(y_true)

    def cubes(y_true, y_pred):
        return keras.ops.power(y_true, 3)

    model.compile("sgd", "mse", metrics=[squares, cubes])
    history = model.fit(x, x, batch_size=8, epochs=4, verbose=0).history
    np.testing.assert_allclose(history["squares"], np.mean(x**2), rtol=1e-6)
    np.testing.assert_allclose(history["cubes"], np.mean(x**3), rtol=1e-6)


def test_a_second_fit_goes_on_and_traces_nothing_anew():
    x, y = data()
    model = network()
    model.fit(x, y, epochs=2, verbose=0)
    (loop,) = model._loops.kept.values()
    model.fit(x[:70], y[:70], epochs=2, verbose=0)
    assert list(model._loops.kept.values()) == [loop]
    model.compile("sgd", "sparse_categorical_crossentropy")
    assert not model._loops.kept


def test_long_epochs_run_in_parts(monkeypatch):
    monkeypatch.setattr("keras_backprop.training.loops.pace.SECONDS", 0.0)  # one step a call
    shown = []
    monkeypatch.setattr(keras.utils.Progbar, "update", lambda self, current, *_, **__: shown.append(current))
    ours = fit_both(batch_size=10, validation_data=HELD_OUT, validation_batch_size=1)
    assert ours.fit_path.compiled
    x, y = data()
    network().fit(x, y, batch_size=10, verbose=1)
    assert shown == list(range(1, 11))


def test_the_progress_bar_tells_what_stock_keras_tells(capsys):
    lines = []
    for cls in (keras.Sequential, BackpropSequential):
        network(cls).fit(*data(), epochs=3, shuffle=False, verbose=2)
        lines.append(
            [line.split(" - ")[3:] if " - " in line else line for line in capsys.readouterr().out.splitlines()]
        )
    assert lines[0] == lines[1]
    assert lines[0][0] == "Epoch 1/3"


@pytest.mark.parametrize("seconds", [0.0, 10.0], ids=["in parts", "in one call"])
def test_the_progress_bar_names_metrics_in_keras_order(capsys, monkeypatch, seconds):
    monkeypatch.setattr("keras_backprop.training.loops.pace.SECONDS", seconds)
    orders = []
    for cls in (keras.Sequential, BackpropSequential):
        model = network(cls, metrics=["accuracy"], weighted_metrics=["accuracy"])
        model.fit(*data(), batch_size=10, shuffle=False, verbose=1, epochs=3, validation_data=HELD_OUT)
        lines = capsys.readouterr().out.split("\n")
        orders.append([re.findall(r"(\w+): ", line.split("\r")[-1]) for line in lines])
    assert orders[0] == orders[1]
    assert orders[0][-2][:4] == ["accuracy", "loss", "weighted_accuracy", "val_accuracy"]


def test_an_interrupted_fit_leaves_a_usable_model():
    class Interrupt(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    model = network()
    with pytest.raises(KeyboardInterrupt):
        model.fit(*data(), epochs=10, verbose=0, callbacks=[Interrupt()])
    assert int(model.optimizer.iterations.numpy()) == 3 * 4
    model.fit(*data(), epochs=1, verbose=0)


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "all"])
def test_nonsense_is_refused(value):
    with pytest.raises(ValueError, match="`epochs_per_execution` must be"):
        network(epochs_per_execution=value)


def test_the_option_is_saved_with_the_model(tmp_path):
    model = network(epochs_per_execution=7)
    model.fit(*data(), verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.epochs_per_execution == 7
    assert loaded.compiled
    for a, b in zip(loaded.optimizer.variables, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    loaded.fit(*data(), verbose=0)


def test_a_trained_model_can_be_exported(tmp_path):
    model = network()
    model.fit(*data(), verbose=0)
    model.export(tmp_path / "exported", verbose=False)
    exported = tf.saved_model.load(tmp_path / "exported")
    np.testing.assert_allclose(exported.serve(data()[0]), model.predict(data()[0], verbose=0), atol=1e-6)


def test_several_inputs_outputs_and_no_targets():
    def make(cls):
        keras.utils.set_random_seed(1)
        a, b = keras.Input((6,), name="a"), keras.Input((2,), name="b")
        h = layers.Concatenate()([layers.Dense(5, activation="silu")(a), b])
        model = cls(
            {"a": a, "b": b}, {"first": layers.Dense(1, name="first")(h), "second": layers.Dense(2, name="second")(h)}
        )
        model.compile("sgd", {"first": "mse", "second": "mae"}, loss_weights={"first": 0.3, "second": 1.0})
        return model

    random = np.random.default_rng(0)
    x = {"a": random.normal(size=(40, 6)).astype("float32"), "b": random.normal(size=(40, 2)).astype("float32")}
    y = {
        "first": random.normal(size=(40, 1)).astype("float32"),
        "second": random.normal(size=(40, 2)).astype("float32"),
    }
    stock, ours = make(keras.Model), make(BackpropModel)
    for model in (stock, ours):
        model.fit(x, y, epochs=3, batch_size=16, shuffle=False, verbose=0)
    assert ours.fit_path.compiled
    assert list(ours.history.history) == list(stock.history.history)
    for a, b in zip(ours.get_weights(), stock.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)

    class Penalty(layers.Layer):
        def call(self, x):
            self.add_loss(keras.ops.mean(keras.ops.square(x)))
            return x

    model = BackpropSequential([keras.Input((6,)), layers.Dense(3), Penalty()])
    model.compile("sgd")
    losses = model.fit(x["a"], epochs=5, verbose=0).history["loss"]
    assert model.fit_path.compiled
    assert losses == sorted(losses, reverse=True)


class AroundValidation(keras.callbacks.Callback):
    """Sees validation begin and end, and the weights as they are then."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_test_begin(self, logs=None):
        self.seen.append(float(keras.ops.sum(self.model.layers[0].kernel)))

    def on_test_end(self, logs=None):
        self.seen.append(logs["loss"])


@pytest.mark.parametrize("options", [{}, {"epochs_per_execution": 3}])
def test_a_callback_around_validation_sees_its_own_epoch(options):
    seen = []
    for cls in (keras.Sequential, BackpropSequential):
        callback = AroundValidation()
        model = network(cls, **(options if cls is BackpropSequential else {}))
        model.fit(*data(), epochs=4, shuffle=False, verbose=0, callbacks=[callback], validation_data=HELD_OUT)
        seen.append((callback.seen, model.history.history["val_loss"]))
    assert model.fit_path.compiled and len(seen[0][0]) == 8
    for ours, stock in zip(seen[1], seen[0], strict=True):
        np.testing.assert_allclose(ours, stock, rtol=1e-5)


def test_a_metric_whose_name_begins_like_validation():
    for cls in (keras.Sequential, BackpropSequential):
        keras.utils.set_random_seed(0)
        model = cls([keras.Input((6,)), layers.Dense(1)])
        model.compile("sgd", "mse", metrics=[keras.metrics.MeanSquaredError(name="val_idity")])
        history = model.fit(*data(), epochs=3, shuffle=False, verbose=0, validation_data=HELD_OUT, validation_freq=2)
        assert model.stop_evaluating is False  # validation leaves it so
        if cls is keras.Sequential:
            expected = history.history
    assert list(history.history) == list(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(history.history[name], values, rtol=1e-5)


class Inherits(Reads):
    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = epoch == 1


def test_an_overridden_method_is_not_taken_to_read_only_logs():
    model = network()
    assert len(model.fit(*data(), epochs=5, verbose=0, callbacks=[Inherits()]).history["loss"]) == 2
    assert model.fit_path.epochs_per_execution == 1


def test_what_cannot_be_traced_shuffles_as_keras_does(monkeypatch):
    def fail(*args):
        raise RuntimeError("no")

    monkeypatch.setattr("keras_backprop.training.loops.kept.CompiledEpochs", fail)
    losses = []
    for cls in (keras.Sequential, BackpropSequential):
        model = network(cls)
        losses.append(model.fit(*data(), epochs=3, verbose=0).history["loss"])
    assert model.fit_path.reason == "it cannot be traced as a loop: RuntimeError: no"
    np.testing.assert_allclose(*losses, rtol=1e-5)


class FailsOnceBuilt(BackpropModel):
    """TensorFlow keeps an empty trace of a step that makes variables and fails, and runs that the next time."""

    mistaken = True

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(1)

    def call(self, x):
        return self.dense(x)

    def train_step(self, data):
        self(data[0])
        if self.mistaken:
            raise TypeError("my mistake")
        return super().train_step(data)


def test_a_mistake_in_a_step_that_makes_variables_is_told():
    model = FailsOnceBuilt()
    model.compile("sgd", "mse")
    for _ in range(2):
        with pytest.raises(TypeError, match="my mistake"):
            model.fit(*data(), verbose=0)
    model.mistaken = False  # as in a notebook
    assert model.fit(*data(), verbose=0).history["loss"]


class Mistaken(BackpropSequential):
    """Fails where a step of one kind is traced."""

    mistaken = ""

    def train_step(self, data):
        return self.unless_mistaken("train", super().train_step(data))

    def test_step(self, data):
        return self.unless_mistaken("test", super().test_step(data))

    def unless_mistaken(self, kind, logs):
        if kind == self.mistaken:
            raise TypeError("my mistake")
        return logs


def in_memory():
    return dict(zip("xy", data(), strict=True))


def in_a_stream():
    return {"x": tf.data.Dataset.from_tensor_slices(data()).batch(32)}


@pytest.mark.parametrize("validation", [in_memory, in_a_stream])
@pytest.mark.parametrize("training", [in_memory, in_a_stream])
def test_a_mistake_in_a_test_step_is_told(training, validation):
    model = network(Mistaken)
    model.mistaken = "test"
    given = validation()
    arguments = {**training(), "validation_data": tuple(given.values()) if "y" in given else given["x"]}
    for _ in range(2):
        with pytest.raises(TypeError, match="my mistake"):
            model.fit(**arguments, shuffle=False, verbose=0)
    model.mistaken = ""
    assert model.fit(**arguments, shuffle=False, verbose=0).history["val_loss"]


@pytest.mark.parametrize("training", [in_memory, in_a_stream])
def test_a_mistake_in_a_step_that_is_made_anew_in_the_middle_of_an_epoch_is_told(training):
    class Anew(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 1:
                self.model.mistaken = "train"
                self.model.make_train_function(force=True)

    model = network(Mistaken)
    with pytest.raises(TypeError, match="my mistake"):
        model.fit(**training(), verbose=0, shuffle=False, callbacks=[Anew()])
    assert int(model.optimizer.iterations) == 2


def test_xla_that_fails_is_not_used(monkeypatch):
    monkeypatch.setattr("keras_backprop.training.xla.STEPS", 1)

    def shuffled(y_true, y_pred):  # XLA has no such operation
        return tf.reduce_mean(tf.random.experimental.stateless_shuffle(tf.reshape(y_pred, [-1]), [0, 0]))

    keras.utils.set_random_seed(0)
    model = BackpropSequential([keras.Input((6,)), layers.Dense(1)])
    model.compile("sgd", "mse", metrics=[shuffled])
    for _ in range(2):
        model.fit(*data(), verbose=0)
        assert model.fit_path.compiled and not model.fit_path.jit_compile


def test_validation_steps_with_a_split():
    fit_both(validation_split=0.4, validation_steps=1, batch_size=10)


def test_shuffling_under_xla():
    """An order of its own in every epoch, of every example once; a seed repeats it."""
    examples = Examples(*data(n=50), batch_size=8)
    orders = [
        batches.Batches(examples, True, for_xla=True).order(examples.tensors, [seed, 1]).numpy().tolist()
        for seed in (0, 0, 1)
    ]
    assert sorted(orders[0]) == list(range(50)) and orders[0] == orders[1] != orders[2]
    histories = []
    for _ in range(2):
        model = network(jit_compile=True)
        histories.append(model.fit(*data(), batch_size=16, epochs=3, verbose=0).history)
        assert model.fit_path.compiled and model.fit_path.jit_compile
    assert histories[0] == histories[1]
