"""Callbacks that want to be called within an epoch, in the compiled loop: they see what they would see in stock Keras."""

import contextlib
import io
import os

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing import event_file_loader
from tensorboard.util import tensor_util
from tqdm.keras import TqdmCallback

from keras_backprop import BackpropSequential, Gradients
from keras_backprop.callbacks import GradientCheck
from keras_backprop.training.cadence import Cadence

random = np.random.default_rng(0)
X, Y = random.normal(size=(100, 6)).astype("float32"), random.integers(0, 3, 100)
STOCK_AND_OURS = keras.Sequential, BackpropSequential


def network(cls, **options):
    keras.utils.set_random_seed(1)
    stack = [
        keras.Input((6,), name="in"),
        keras.layers.Dense(8, "tanh", name="a"),
        keras.layers.Dense(3, "softmax", name="b"),
    ]
    model = cls(stack, name="m")
    model.compile(
        keras.optimizers.Adam(name="adam"), "sparse_categorical_crossentropy", metrics=["accuracy"], **options
    )
    return model


def trained(cls, callbacks, compile_options=None, **arguments):
    model = network(cls, **(compile_options or {}))
    model.fit(X, Y, **{"batch_size": 16, "epochs": 3, "shuffle": False, "verbose": 0, **arguments}, callbacks=callbacks)
    assert cls is keras.Sequential or model.fit_path.compiled, model.fit_path
    return model


def assert_alike(one, other):
    """Nested lists, dicts and numbers, equal up to rounding."""
    if isinstance(one, dict):
        assert list(one) == list(other)
        one, other = list(one.values()), list(other.values())
    if isinstance(one, (list, tuple)):
        assert len(one) == len(other), (one, other)
        for a, b in zip(one, other, strict=True):
            assert_alike(a, b)
    elif isinstance(one, (float, np.ndarray)):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    else:
        assert one == other


class Tells(keras.callbacks.Callback):
    """Notes all that it is told, and what the model is then."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def _note(self, name, number, logs):
        self.seen.append((name, number, dict(logs or {}), float(np.abs(self.model.get_weights()[0]).sum())))

    def on_train_batch_begin(self, batch, logs=None):
        self._note("begin", batch, logs)

    def on_train_batch_end(self, batch, logs=None):
        self._note("end", batch, logs)

    def on_test_batch_end(self, batch, logs=None):
        self._note("test", batch, logs)

    def on_epoch_end(self, epoch, logs=None):
        self._note("epoch", epoch, logs)


@pytest.mark.parametrize("options", [{}, {"steps_per_execution": 3}, {"jit_compile": True}], ids=str)
def test_every_batch(options):
    seen = []
    for cls in STOCK_AND_OURS:
        callback = Tells()
        trained(cls, [callback], options, validation_split=0.2)
        seen.append(callback.seen)
    assert_alike(*seen)


class Meddles(keras.callbacks.Callback):
    """Changes the model in hooks for batches."""

    def on_train_batch_begin(self, batch, logs=None):
        if batch == 0:
            self.model.layers[0].trainable = False  # before the step is traced

    def on_train_batch_end(self, batch, logs=None):
        self.model.optimizer.learning_rate = 0.001 * (batch + 1)
        if batch == 2:
            self.model.reset_metrics()
            self.model.layers[1].bias.assign_add([1.0, 0.0, 0.0])
        if batch == 4:
            self.model.stop_training = self.epoch == 1

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch


def test_callbacks_that_change_the_model_between_batches():
    stock, ours = (trained(cls, [Meddles()]) for cls in STOCK_AND_OURS)
    assert len(ours.history.history["loss"]) == 2
    assert_alike(stock.history.history, ours.history.history)
    assert_alike(stock.get_weights(), ours.get_weights())


class TakesUpBatches(keras.callbacks.Callback):
    """From its second epoch on it acts after batches."""

    def on_epoch_end(self, epoch, logs=None):
        self.on_train_batch_end = lambda batch, logs=None: self.model.layers[1].bias.assign_add([1.0, 0.0, 0.0])


class Reads(keras.callbacks.Callback):
    reads_only_logs = True

    def on_train_batch_end(self, batch, logs=None):
        pass


@pytest.mark.parametrize("others", [[], [Reads]])
def test_a_callback_that_is_given_a_method_for_batches(others):
    stock, ours = (trained(cls, [TakesUpBatches(), *(make() for make in others)]) for cls in STOCK_AND_OURS)
    assert_alike(stock.get_weights(), ours.get_weights())


def events(folder):
    """dict (file's folder, tag) -> list of (step, value)."""
    found = {}
    for path in sorted(folder.rglob("events*")):
        for event in event_file_loader.EventFileLoader(os.fspath(path)).Load():
            for value in event.summary.value:
                content = tensor_util.make_ndarray(value.tensor)
                number = content if content.dtype.kind == "f" else content.tolist()
                found.setdefault((path.parent.name, value.tag), []).append((event.step, number))
    return found


@pytest.mark.parametrize(
    "options", [{}, {"histogram_freq": 1, "write_images": True}, {"update_freq": 4}, {"update_freq": "batch"}], ids=str
)
def test_tensorboard_writes_the_same_events(tmp_path, options):
    written = []
    for cls in STOCK_AND_OURS:
        folder = tmp_path / cls.__name__
        model = trained(cls, [keras.callbacks.TensorBoard(folder, **options)], validation_data=(X[:40], Y[:40]))
        written.append(events(folder))
    assert ("train", "keras") in written[0]  # the graph of the layers
    assert_alike(*written)
    assert ("TensorBoard may act after batches" in model.fit_path.reason) is ("update_freq" in options)


@pytest.mark.parametrize("raise_error", [False, True])
def test_nan_ends_the_training_at_its_batch(raise_error):
    weights = np.where(np.arange(100) == 70, np.nan, 1.0)
    ended = []
    for cls in STOCK_AND_OURS:
        model = network(cls)
        with pytest.raises(RuntimeError, match="batch 4") if raise_error else contextlib.nullcontext():
            model.fit(
                X,
                Y,
                16,
                3,
                0,
                sample_weight=weights,
                shuffle=False,
                callbacks=[keras.callbacks.TerminateOnNaN(raise_error)],
            )
        ended.append([int(model.optimizer.iterations), len(model.history.epoch)])
    assert ended[0] == ended[1] == [5, 0 if raise_error else 1]


@pytest.mark.parametrize(("execution", "bad"), [(3, 20), (3, 70), (2, 99)])
def test_nan_ends_the_training_after_its_execution(execution, bad):
    """Keras tells callbacks of the last step of several; those of one execution are all made."""
    weights = np.where(np.arange(100) == bad, np.nan, 1.0)
    ended = []
    for cls in STOCK_AND_OURS:
        model = network(cls, steps_per_execution=execution)
        callbacks = [keras.callbacks.TerminateOnNaN()]
        model.fit(X, Y, 16, 3, 0, sample_weight=weights, shuffle=False, callbacks=callbacks)
        ended.append([int(model.optimizer.iterations), len(model.history.epoch)])
    assert model.fit_path.compiled
    assert ended[0] == ended[1]


def test_a_writer_around_fit_records_batches(tmp_path):
    """What TensorBoard says of every batch is thrown away where nobody records it, and only there."""
    found = []
    for name, cls in zip(("stock", "ours"), STOCK_AND_OURS, strict=True):
        writer = tf.summary.create_file_writer(str(tmp_path / name))
        with writer.as_default():
            trained(cls, [keras.callbacks.TensorBoard(tmp_path / f"{name} epochs")])
        writer.close()
        (path,) = (tmp_path / name).iterdir()
        events = [tf.compat.v1.Event.FromString(record.numpy()) for record in tf.data.TFRecordDataset(str(path))]
        found.append([(value.tag, event.step) for event in events for value in event.summary.value])
    assert found[0] == found[1] and ("batch_loss", 3) in found[0]


def test_saving_asks_keras_once(tmp_path, monkeypatch):
    made = []
    original = keras.Layer.__init__
    model = network(BackpropSequential)
    model.save(tmp_path / "first.keras")
    monkeypatch.setattr(keras.Layer, "__init__", lambda self, **options: made.append(self) or original(self, **options))
    model.save(tmp_path / "second.keras")
    assert not made
    loaded = keras.saving.load_model(tmp_path / "second.keras", compile=False)
    for a, b in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_validation_data_are_let_go():
    """A model whose `evaluate` is its own is given Keras's iterator of them; after `fit` nothing holds it."""
    kept = []
    for cls in STOCK_AND_OURS:

        class Own(cls):
            def evaluate(self, *args, **kwargs):
                return super().evaluate(*args, **kwargs)

        model = network(Own)
        model.fit(X, Y, epochs=2, verbose=0, validation_data=(X, Y))
        kept.append("_eval_epoch_iterator" in vars(model))
    assert model.fit_path.compiled and kept == [False, False]


def test_a_progress_bar_moves_by_every_batch_and_costs_no_calls(monkeypatch):
    steps = []

    def bar2callback(bar, **_):
        return lambda batch, logs=None: steps.append((batch, logs["loss"]))

    monkeypatch.setattr(TqdmCallback, "bar2callback", staticmethod(bar2callback))
    model = trained(BackpropSequential, [TqdmCallback(verbose=2, file=io.StringIO())])
    batches = [step for i, step in enumerate(steps) if i % 8 != 7]  # the eighth is the end of the epoch
    assert [batch for batch, _ in batches] == [*range(7)] * 3 and len({loss for _, loss in batches}) == 21
    assert "after batches" not in model.fit_path.reason


class Every(keras.callbacks.Callback):
    def __init__(self, n, first=None):
        super().__init__()
        self.batch_freq, self.found = n, []
        if first is not None:
            self.first_batch = first
        self.cadence = Cadence(n, first)

    def on_train_batch_end(self, batch, logs=None):
        if self.cadence.due(batch):
            self.found.append((self.cadence.step, logs["loss"], float(np.abs(self.model.get_weights()[0]).sum())))


@pytest.mark.parametrize(("n", "first"), [(4, None), (5, 1), (100, None)])
def test_a_callback_says_how_often_it_acts(n, first):
    stock, ours = Every(n, first), Every(n, first)
    trained(keras.Sequential, [stock])
    trained(BackpropSequential, [ours])
    assert_alike(stock.found, ours.found)
    assert [step for step, *_ in ours.found] == list(range(first or n, 22, n))


@pytest.mark.parametrize("wrong", [0, True, "batch", 2.5])
def test_a_wrong_frequency(wrong):
    callback = Every(4)
    callback.batch_freq = wrong
    with pytest.raises(ValueError, match=f"batch_freq.* Received: {wrong!r}"):
        trained(BackpropSequential, [callback])


class Reads(keras.callbacks.Callback):
    reads_only_logs = True

    def __init__(self):
        super().__init__()
        self.losses = []

    def on_train_batch_end(self, batch, logs=None):
        self.losses.append(logs["loss"])
        if len(self.losses) == 12:
            self.model.stop_training = True


def test_who_only_reads_logs_may_still_end_the_training_at_a_batch():
    stock, ours = Reads(), Reads()
    models = trained(keras.Sequential, [stock]), trained(BackpropSequential, [ours])
    assert_alike(stock.losses, ours.losses)
    assert_alike(*(model.get_weights() for model in models))
    assert_alike(*(model.history.history for model in models))


def test_gradient_check_looks_at_the_right_steps():
    check = GradientCheck(every=5)
    ours = trained(BackpropSequential, [check])
    assert check.checked == 5 and check.max_error < 1e-4  # steps 0, 5, 10, 15, 20
    assert_alike(ours.get_weights(), trained(keras.Sequential, []).get_weights())


def test_gradient_check_ends_the_training_in_the_step_that_is_wrong():
    check = GradientCheck(every=5)
    wrong = {keras.activations.tanh: lambda call, dy: Gradients(1.01 * dy * (1 - call.output**2))}
    model = network(BackpropSequential, rules=wrong)
    with pytest.raises(ArithmeticError, match="in step 1, "):
        model.fit(X, Y, 16, 3, 0, callbacks=[check])
    assert int(model.optimizer.iterations) == 1


def test_counting():
    cadence = Cadence(3)
    assert [cadence.due(batch) for batch in (0, 1, 2, 3, 0, 1, 2)] == [False, False, True, False, False, True, False]
    assert cadence.step == 7
    cadence = Cadence(3)
    assert [cadence.due(batch) for batch in (1, 3, 1, 3)] == [False, True, True, False]  # two steps an execution
