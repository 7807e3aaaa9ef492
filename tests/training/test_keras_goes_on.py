"""Where a step cannot be a loop, Keras's own goes on with the epoch that has begun: no batch twice, none in another order."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_backprop import BackpropModel, BackpropSequential

X = np.arange(12, dtype="float32")[:, None]


class Sequence(keras.utils.PyDataset):
    """Other batches in every epoch. Notes what it is asked and told."""

    def __init__(self):
        super().__init__()
        self.asked, self.order = [], [0, 1, 2]

    def __len__(self):
        return 3

    def __getitem__(self, index):
        self.asked.append(index)
        return (X[4 * self.order[index] : 4 * self.order[index] + 4],)

    def on_epoch_end(self):
        self.asked.append("end")
        self.order = self.order[1:] + self.order[:1]


class Told(keras.callbacks.Callback):
    """Notes what it hears of. Where it hears of `(event, number)`, it calls `act(model)` and notes what that returns."""

    def __init__(self, when=None, act=None):
        super().__init__()
        self.of, self.when, self.act = [], when, act
        for name in ("epoch_begin", "train_batch_begin", "train_batch_end", "test_batch_begin", "test_batch_end"):
            setattr(self, f"on_{name}", lambda number, logs=None, name=name: self.hear(name, number, logs))
        for name in ("test_begin", "test_end"):
            setattr(self, f"on_{name}", lambda logs=None, name=name: self.hear(name, None, logs))

    def hear(self, name, number, logs):
        self.of.append((name, number, repr(logs)))
        if (name, number) == self.when:
            self.of.append(self.act(self.model))


def noting(base, odd_training, odd_testing):
    """A model that notes what it sees, and whose steps return a vector where they are odd."""

    class Noting(base):
        def __init__(self):
            super().__init__()
            self.odd_training, self.odd_testing = odd_training, odd_testing
            self.seen = tf.Variable(tf.zeros((0,)), shape=(None,), trainable=False)
            self.sum = keras.metrics.Sum()

        def noted(self, data, odd):
            x = tf.reshape(data[0] if isinstance(data, tuple) else data, (-1,))
            self.seen.assign(tf.concat([self.seen, x], 0))
            self.sum.update_state(x)
            return {"x": x if odd else tf.reduce_sum(x), "sum": self.sum.result()}

        def train_step(self, data):
            return self.noted(data, self.odd_training)

        def test_step(self, data):
            return self.noted(-(data[0] if isinstance(data, tuple) else data), self.odd_testing)

    return Noting


def shuffled():
    return tf.data.Dataset.from_tensor_slices(X).shuffle(12, seed=3).batch(5)


def read_ahead(once=True):
    """A generator that is asked before its elements are wanted; one that is there once, or begins anew."""

    def rows():
        return iter(np.arange(60, dtype="float32")[:, None, None])

    begun = rows()
    return tf.data.Dataset.from_generator(
        lambda: begun if once else rows(), output_signature=tf.TensorSpec((1, 1))
    ).prefetch(3)


DATA = {
    "memory": lambda: {"x": X, "batch_size": 4, "validation_data": (X[:7],)},
    "shuffled": lambda: {"x": shuffled(), "validation_data": shuffled()},
    "sequence": lambda: {"x": Sequence(), "validation_data": Sequence()},
    "read-ahead": lambda: {
        "x": read_ahead(),
        "steps_per_epoch": 4,
        "validation_data": read_ahead(once=False),
        "validation_steps": 4,
    },
}


class Eager(keras.callbacks.Callback):
    """From the second epoch on."""

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            self.model.run_eagerly = True
            self.model.make_train_function(force=True)


@pytest.mark.parametrize("odd", [(True, False), (False, True)], ids=["training", "validation"])
@pytest.mark.parametrize("data", DATA)
def test_sees_and_is_told_what_it_is_by_stock(data, odd):
    seen = []
    for base in (keras.Model, BackpropModel):
        keras.utils.set_random_seed(1)
        model, arguments, told = noting(base, *odd)(), DATA[data](), Told()
        model.compile("sgd", "mse")
        history = model.fit(**arguments, epochs=3, shuffle=False, verbose=0, callbacks=[told]).history
        asked = [getattr(given, "asked", None) for given in arguments.values()]
        seen.append((keras.ops.convert_to_numpy(model.seen).tolist(), repr(history), told.of, asked))
    assert seen[1] == seen[0]
    assert "no dict of numbers" in model.fit_path.reason and model.fit_path.compiled == odd[1]


def stop(model):
    model.stop_evaluating = True


def reset(model):
    model.reset_metrics()


def evaluate_meanwhile(model):
    return repr(model.evaluate(X[:1], verbose=0, return_dict=True))


def step_anew(**changed):
    """Changes the model, and has Keras make its functions anew."""

    def act(model):
        for name, value in changed.items():
            setattr(model, name, value)
        model.make_test_function(force=True)
        model.make_train_function(force=True)

    return act


ACTS = {
    "stop": (("test_begin", None), stop, True),
    "reset": (("test_batch_begin", 0), reset, True),
    "evaluate": (("test_end", None), evaluate_meanwhile, True),
    "odd validation": (("test_batch_end", 1), step_anew(odd_testing=True), False),
    "eager validation": (("test_batch_end", 1), step_anew(run_eagerly=True), False),
    "odd training": (("train_batch_end", 1), step_anew(odd_training=True), False),
    "eager training": (("train_batch_end", 0), step_anew(run_eagerly=True), False),
}


@pytest.mark.parametrize(
    "data, what",
    [*(("memory", what) for what in ACTS), ("sequence", "odd validation"), ("sequence", "eager training")],
)
def test_what_a_callback_does_in_the_middle_takes_effect_there(data, what):
    when, act, odd = ACTS[what]
    seen = []
    for base in (keras.Model, BackpropModel):
        model, arguments, told = noting(base, False, odd)(), DATA[data](), Told(when, act)
        model.compile("sgd", "mse")
        history = model.fit(**arguments, epochs=2, shuffle=False, verbose=0, callbacks=[told]).history
        asked = [getattr(given, "asked", None) for given in arguments.values()]
        seen.append((keras.ops.convert_to_numpy(model.seen).tolist(), repr(history), told.of, asked))
    assert seen[1] == seen[0]


class Counts(keras.callbacks.Callback):
    """Puts a function of its own around Keras's test function."""

    def on_train_begin(self, logs=None):
        self.model.make_test_function()
        test, self.count = self.model.test_function, 0

        def counting(iterator):
            self.count += 1
            return test(iterator)

        self.model.test_function = counting


def test_whole_epochs_stay_compiled_where_validation_cannot_be():
    seen = []
    for base in (keras.Sequential, BackpropSequential):
        keras.utils.set_random_seed(1)
        model, counts = base([keras.Input((1,)), keras.layers.Dense(1)]), Counts()
        model.compile("sgd", "mse")
        arguments = {"batch_size": 4, "validation_data": (X, X), "verbose": 0, "shuffle": False, "callbacks": [counts]}
        seen.append((model.fit(X / 9, X, epochs=3, **arguments).history, counts.count))
    assert seen[1][1] == seen[0][1] == 9
    for name, values in seen[0][0].items():
        np.testing.assert_allclose(seen[1][0][name], values, rtol=1e-5)
    assert model.fit_path.compiled and "validation goes batch by batch" in model.fit_path.reason


@pytest.mark.parametrize("data", [Sequence, read_ahead])
def test_an_epoch_that_has_not_begun_begins(data):
    seen = []
    for base in (keras.Model, BackpropModel):
        keras.utils.set_random_seed(1)
        model, x = noting(base, False, False)(), data()
        model.compile("sgd", "mse")
        model.fit(x, epochs=3, steps_per_epoch=3, shuffle=False, verbose=0, callbacks=[Eager()])
        seen.append((keras.ops.convert_to_numpy(model.seen).tolist(), getattr(x, "asked", None)))
    assert seen[1] == seen[0] and not model.fit_path.compiled
