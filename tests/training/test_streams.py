"""Data that come batch by batch, in the compiled loop: the history of stock Keras."""

import gc
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_backprop import BackpropSequential
from keras_backprop._tensorflow import Uses
from keras_backprop.training.inputs.stream import Stream

random = np.random.default_rng(0)
X, Y = random.normal(size=(100, 6)).astype("float32"), random.integers(0, 3, 100)
Dataset = tf.data.Dataset


def dataset(size=16):
    return Dataset.from_tensor_slices((X, Y)).batch(size)


def generator(size=20, endless=True):
    while True:
        for start in range(0, 100, size):
            yield X[start : start + size], Y[start : start + size]
        if not endless:
            return


class Sequence(keras.utils.PyDataset):
    """Notes what Keras tells it of epochs."""

    def __init__(self, **options):
        super().__init__(**options)
        self.told = []

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return X[index * 30 : index * 30 + 30], Y[index * 30 : index * 30 + 30]

    def on_epoch_begin(self):
        self.told.append("begin")

    def on_epoch_end(self):
        self.told.append("end")


CASES = {
    "dataset": lambda: {"x": dataset()},
    "uneven": lambda: {"x": dataset(30), "validation_data": dataset(33)},
    "shuffled": lambda: {"x": Dataset.from_tensor_slices((X, Y)).shuffle(100, seed=3).batch(16)},
    "unknown-length": lambda: {"x": Dataset.from_tensor_slices((X, Y)).filter(lambda x, y: y > 0).batch(16)},
    "steps": lambda: {"x": dataset(), "steps_per_epoch": 3},
    "steps-repeated": lambda: {
        "x": Dataset.from_tensor_slices((X, Y)).shuffle(50, seed=1).batch(16).repeat(),
        "steps_per_epoch": 5,
    },
    "class-weight": lambda: {"x": dataset(), "class_weight": {0: 1.0, 1: 2.0, 2: 0.5}},
    "sample-weight": lambda: {"x": Dataset.from_tensor_slices((X, Y, np.arange(100.0))).batch(16)},
    "shapes-that-differ": lambda: {"x": dataset(16).concatenate(dataset(7))},
    "executions-of-3": lambda: {"x": dataset(), "compile": {"steps_per_execution": 3}},
    "generator": lambda: {
        "x": generator(),
        "steps_per_epoch": 7,
        "validation_data": generator(),
        "validation_steps": 2,
    },
    "generator-that-ends": lambda: {"x": generator(endless=False)},
    "sequence": lambda: {"x": Sequence(), "validation_data": Sequence()},
    "sequence-in-threads": lambda: {"x": Sequence(workers=2)},
    "arrays-in-steps": lambda: {"x": X, "y": Y, "batch_size": 16, "steps_per_epoch": 4, "shuffle": True},
    "arrays-shuffled-in-batches": lambda: {"x": X, "y": Y, "batch_size": 16, "shuffle": "batch"},
    "validation-in-steps": lambda: {"x": X, "y": Y, "validation_data": (X, Y), "validation_steps": 2},
    "validation-data-set": lambda: {"x": X, "y": Y, "validation_data": dataset(33), "validation_freq": 2},
}


def trained(cls, arguments):
    keras.utils.set_random_seed(1)
    stack = [
        keras.Input((6,)),
        keras.layers.Dense(8, "tanh"),
        keras.layers.Dropout(0.2, seed=5),
        keras.layers.Dense(3, "softmax"),
    ]
    model = cls(stack)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"], **arguments.pop("compile", {}))
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        model.fit(**{"epochs": 3, "shuffle": False, "verbose": 0, **arguments})
    return model, sum("ran out of data" in str(one.message) for one in warned)


@pytest.mark.sample(10)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_equal_to_stock(case):
    found = []
    for cls in (keras.Sequential, BackpropSequential):
        keras.utils.set_random_seed(1)  # the order of a data set that shuffles depends on it
        arguments = case()
        given = arguments["x"]
        model, warned = trained(cls, arguments)
        found.append((model, warned, getattr(given, "told", None)))
    (stock, *what_stock_did), (ours, *what_ours_did) = found
    assert ours.fit_path.compiled, ours.fit_path
    assert what_ours_did == what_stock_did
    assert list(stock.history.history) == list(ours.history.history)
    for name, values in stock.history.history.items():
        np.testing.assert_allclose(ours.history.history[name], values, rtol=1e-5, atol=1e-6, err_msg=name)
    for a, b in zip(ours.get_weights(), stock.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)
    assert int(ours.optimizer.iterations) == int(stock.optimizer.iterations)


def test_a_generator_is_asked_for_no_more_than_by_stock():
    """But for what TensorFlow takes in advance, which varies."""
    taken = dict.fromkeys((keras.Sequential, BackpropSequential), 0)

    def counted(cls):
        for batch in generator():
            taken[cls] += 1
            yield batch

    for cls in taken:
        trained(cls, {"x": counted(cls), "steps_per_epoch": 7})
    assert all(21 <= count <= 21 + 16 for count in taken.values()), taken


def test_a_step_that_cannot_be_a_loop_loses_no_batch(monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("no")

    expected = trained(keras.Sequential, {"x": generator(endless=False)})[0]
    monkeypatch.setattr("keras_backprop.training.loops.kept.CompiledSteps", fail)
    model = trained(BackpropSequential, {"x": generator(endless=False)})[0]
    assert "RuntimeError: no" in model.fit_path.reason and not model.fit_path.compiled
    np.testing.assert_allclose(model.history.history["loss"], expected.history.history["loss"], rtol=1e-5)


@pytest.fixture
def most(monkeypatch):
    """How many batches might be taken, each time when some were: a list of int. (How many are depends on the time, too.)"""
    most, take = [], Stream.take

    def noted(self, loop, first, count):
        most.append(self.most)
        return take(self, loop, first, count)

    monkeypatch.setattr(Stream, "take", noted)
    return most


def test_large_batches_are_taken_one_by_one(monkeypatch, most):
    monkeypatch.setattr("keras_backprop.training.inputs.stream.CHUNK", 1000)
    model, _ = trained(BackpropSequential, {"x": dataset()})
    assert most[:7] == [1] * 7 and model.fit_path.compiled


def mapped(model):
    return Dataset.from_tensor_slices(X).batch(4).map(lambda x: (x, model(x) ** 2))


def mapped_by_python(model):
    def batch(x):
        return tf.ensure_shape(tf.py_function(lambda x: model(x) ** 2, [x], tf.float32), (None, 3))

    return Dataset.from_tensor_slices(X).batch(4).map(lambda x: (x, batch(x)))


def generated(model):
    def batches():
        for start in range(0, 100, 4):
            x = X[start : start + 4]
            yield x, model.predict_on_batch(x) ** 2

    return Dataset.from_generator(batches, output_signature=(tf.TensorSpec((4, 6)), tf.TensorSpec((4, 3))))


def interleaved(model):
    parts = Dataset.from_tensor_slices(X.reshape(5, 20, 6))
    return parts.interleave(lambda x: mapped(model).take(5), cycle_length=1)


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize("data", [mapped, mapped_by_python, generated, interleaved])
def test_data_that_depend_on_what_is_trained(data, most):
    """Each batch is made when the step before it has been, as in stock Keras: targets that the model itself gives, say."""
    alone = tf.data.Options()  # else TensorFlow makes batches in advance, in both, and how many varies
    alone.experimental_optimization.inject_prefetch = alone.autotune.enabled = False
    weights = []
    for cls in (keras.Sequential, BackpropSequential):
        keras.utils.set_random_seed(1)
        model = cls([keras.Input((6,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(3)])
        model.compile(keras.optimizers.SGD(0.1), "mse")
        model.fit(data(model).with_options(alone), epochs=2, shuffle=False, verbose=0)
        weights.append(model.get_weights())
    assert model.fit_path.compiled and set(most) == {1}
    for a, b in zip(*weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


class Asking(keras.utils.PyDataset):
    """Its targets are what a model says of the batch."""

    def __init__(self, model):
        super().__init__()
        self.asked = model

    def __len__(self):
        return 25

    def __getitem__(self, index):
        x = X[4 * index : 4 * index + 4]
        return x, self.asked.predict_on_batch(x)


def test_only_data_that_depend_on_what_is_trained_are_taken_one_by_one(most):
    def stack():
        return BackpropSequential([keras.Input((6,)), keras.layers.Dense(3)])

    model, teacher = stack(), stack()
    model.compile("sgd", "mse")
    for asked, alone in ((model, True), (teacher, False)):
        most.clear()
        model.fit(Asking(asked), epochs=2, shuffle=False, verbose=0)
        assert (set(most) == {1}) is alone, most


def test_a_data_set_that_is_an_input_of_several_is_looked_at_once(monkeypatch):
    looked_at = []
    monkeypatch.setattr(
        "keras_backprop._tensorflow.pipelines.operations_within", lambda graph: looked_at.append(graph) or []
    )
    data = Dataset.range(3).map(lambda x: x + 1)
    for _ in range(5):
        data = data.concatenate(data)
    Uses().note_operations(data)
    assert len(looked_at) == 1


def test_a_resource_that_is_gone_is_not_taken_for_a_later_one():
    """Of which the handle may get the same `id`."""
    uses, variable = Uses(), tf.Variable(1.0)
    with uses.noting():
        variable.assign(2.0)
    number = id(variable.handle)
    assert uses.any_of({number})
    del variable
    gc.collect()
    assert not uses.any_of({number})


class Told(keras.callbacks.Callback):
    """Notes the batches that it hears of."""

    reads_only_logs = True

    def __init__(self):
        super().__init__()
        self.batches = []

    def on_train_batch_begin(self, batch, logs=None):
        self.batches.append(("begin", batch))

    def on_train_batch_end(self, batch, logs=None):
        self.batches.append(("end", batch))


OPTIMIZERS = {
    "SGD": lambda: keras.optimizers.SGD(0.1, gradient_accumulation_steps=2),
    "Adam": lambda: keras.optimizers.Adam(0.01, gradient_accumulation_steps=3),
    "a schedule": lambda: keras.optimizers.SGD(
        keras.optimizers.schedules.ExponentialDecay(0.1, 3, 0.9), gradient_accumulation_steps=3
    ),
    "a loss scale": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), dynamic_growth_steps=3),
}


BEFORE_THE_LAST = {
    "nothing": list,
    "a loop that reads the weights": lambda: [layers.Reshape((3, 2)), layers.Bidirectional(layers.LSTM(2))],
    "a loop that keeps its states": lambda: [layers.Reshape((3, 2)), layers.SimpleRNN(2, stateful=True)],
    "a recurrence without a loop": lambda: [layers.Reshape((3, 2)), layers.GRU(2, unroll=True)],
}


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("kind", BEFORE_THE_LAST)
def test_what_an_optimizer_does_without_a_batch(optimizer, kind):
    """Where an epoch ends that did not know its length, stock Keras may count a step and empty accumulators; it leaves them full if a
    loop that waits for a batch reads the weights."""
    found = []
    for cls in (keras.Sequential, BackpropSequential):
        keras.utils.set_random_seed(3)
        model = cls([keras.Input(batch_shape=(25, 6)), *BEFORE_THE_LAST[kind](), layers.Dense(3, "softmax")])
        model.compile(OPTIMIZERS[optimizer](), "sparse_categorical_crossentropy")
        data = Dataset.from_tensor_slices((X, Y)).filter(lambda x, y: True).batch(25)
        history = model.fit(data, epochs=4, shuffle=False, verbose=0).history["loss"]
        found.append([*model.get_weights(), *(v.numpy() for v in model.optimizer.variables), history])
    for ours, stock in zip(*reversed(found), strict=True):
        np.testing.assert_allclose(ours, stock, rtol=1e-5, atol=1e-6)


def broken_generator(batches):
    for start in range(0, 2 * batches, 2):
        yield X[start : start + 2], Y[start : start + 2]
    raise OSError("the disk")


def broken_dataset(batches):
    whole = tf.constant(X[:, 0] != X[2 * batches, 0])
    return Dataset.from_tensor_slices((X, Y, whole)).batch(2).map(lambda x, y, whole: (_complete(x, whole), y))


def _complete(x, whole):
    with tf.control_dependencies([tf.debugging.assert_equal(whole, True)]):
        return tf.identity(x)


@pytest.mark.parametrize(
    ("data", "batches", "told", "execution"),
    [
        (broken_generator, 31, False, 1),
        (broken_dataset, 31, True, 1),
        (broken_dataset, 31, True, 3),
        (broken_dataset, 0, True, 1),
        (broken_dataset, 0, True, 3),
    ],
)
def test_the_batches_before_a_broken_one_are_trained_on(data, batches, told, execution):
    found = []
    for cls in (keras.Sequential, BackpropSequential):
        options = {"x": dataset(2), "epochs": 1, "compile": {"steps_per_execution": execution}}
        model, callback = trained(cls, options)[0], Told()
        with pytest.raises(Exception, match="disk|assertion failed") as error:
            model.fit(data(batches), epochs=3, shuffle=False, verbose=0, callbacks=[callback] if told else [])
        found.append((model, error.type, callback.batches))
    (stock, *what_stock_did), (ours, *what_ours_did) = found
    assert ours.fit_path.compiled
    assert what_ours_did == what_stock_did
    assert int(ours.optimizer.iterations) == int(stock.optimizer.iterations)
    for a, b in zip(ours.get_weights(), stock.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)
