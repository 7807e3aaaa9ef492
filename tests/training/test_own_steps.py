"""A `train_step`, a `test_step`, metrics of one's own in the compiled loop: Keras traces them all the same."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_backprop
from keras_backprop import BackpropModel

random = np.random.default_rng(0)
X, Y = random.normal(size=(100, 6)).astype("float32"), random.integers(0, 3, 100)
layers = keras.layers


def dense(*sizes, inputs):
    return keras.Sequential(
        [keras.Input((inputs,)), *(layers.Dense(n, "tanh") for n in sizes[:-1]), layers.Dense(sizes[-1])]
    )


def gan(base):
    """Two optimizers, random numbers, metrics of its own."""

    class Gan(base):
        def __init__(self):
            super().__init__()
            self.generator, self.discriminator = dense(8, 6, inputs=4), dense(8, 1, inputs=6)
            self.seeds = keras.random.SeedGenerator(7)
            self.losses_of = [keras.metrics.Mean(name="generator"), keras.metrics.Mean(name="discriminator")]
            self.error = keras.losses.BinaryCrossentropy(from_logits=True)

        def compile(self, **options):
            super().compile(**options)
            self.optimizers = [keras.optimizers.Adam(0.01), keras.optimizers.Adam(0.01)]

        @property
        def metrics(self):
            return self.losses_of

        def _update(self, which, part, error):
            with tf.GradientTape() as tape:
                loss = error()
            weights = part.trainable_weights
            self.optimizers[which].apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
            self.losses_of[which].update_state(loss)

        def train_step(self, data):
            x, _ = data
            n = tf.shape(x)[0]
            z = keras.random.normal((n, 4), seed=self.seeds)
            both = tf.concat([self.generator(z), x], 0)
            labels = tf.concat([tf.ones((n, 1)), tf.zeros((n, 1))], 0)
            self._update(1, self.discriminator, lambda: self.error(labels, self.discriminator(both)))
            self._update(0, self.generator, lambda: self.error(tf.zeros((n, 1)), self.discriminator(self.generator(z))))
            return {metric.name: metric.result() for metric in self.metrics}

    return Gan


def autoencoder(base):
    """A variational one, by `keras_backprop.backward` in ours."""

    class Autoencoder(base):
        def __init__(self):
            super().__init__()
            self.encoder, self.decoder = dense(8, 4, inputs=6), dense(8, 6, inputs=2)
            self.seeds = keras.random.SeedGenerator(5)

        def call(self, x):
            mean, log_var = keras.ops.split(self.encoder(x), 2, axis=-1)
            z = mean + keras.ops.exp(log_var / 2) * keras.random.normal(keras.ops.shape(mean), seed=self.seeds)
            return keras.ops.concatenate([self.decoder(z), mean, log_var], axis=-1)

        def error(self, x, y):
            decoded, mean, log_var = keras.ops.split(y, [6, 8], axis=-1)
            kl = keras.ops.mean(keras.ops.square(mean) + keras.ops.exp(log_var) - log_var - 1.0)
            return keras.ops.mean(keras.ops.square(decoded - x)) + 0.1 * kl

        def train_step(self, data):
            x, _ = data
            if base is keras.Model:
                with tf.GradientTape() as tape:
                    loss = self.error(x, self(x, training=True))
                gradients = tape.gradient(loss, self.trainable_weights)
            else:
                result = keras_backprop.backward(self, x, x, loss=self.error)
                loss, gradients = result.loss, result.gradients
            self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
            return {"total": loss, "examples": tf.shape(x)[0]}  # no metrics: those of the last batch are the epoch's

    return Autoencoder


def distiller(base):
    """A teacher, a loss of its own, validation by a step of its own, compiled metrics."""

    class Distiller(base):
        def __init__(self):
            super().__init__()
            keras.utils.set_random_seed(3)
            self.teacher, self.student = dense(8, 3, inputs=6), dense(3, inputs=6)
            self.teacher.trainable = False

        def call(self, x):
            return self.student(x)

        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            soft = keras.losses.kl_divergence(keras.ops.softmax(self.teacher(x)), keras.ops.softmax(y_pred))
            return super().compute_loss(x, y, y_pred, sample_weight) + keras.ops.mean(soft)

        def test_step(self, data):
            x, y = data
            y_pred = self(x, training=False)
            return {
                "hits": tf.reduce_mean(tf.cast(tf.argmax(y_pred, -1) == y, tf.float32)),
                **self.compute_metrics(x, y, y_pred),
            }

    return Distiller


class Ticks(keras.metrics.Metric):
    """Has state in Python, which is reset in Python."""

    def __init__(self):
        super().__init__(name="ticks")
        self.ticks, self.resets = self.add_weight(name="ticks", initializer="zeros"), 0

    def update_state(self, *args, **kwargs):
        self.ticks.assign_add(1.0)

    def result(self):
        return self.ticks + 0.0

    def reset_state(self):
        self.resets += 1
        self.ticks.assign(0.5)


def counting(base):
    """Python at the beginning and at the end of every epoch."""

    class Counting(base):
        def __init__(self):
            super().__init__()
            self.dense, self.calls = layers.Dense(3), []

        def call(self, x):
            return self.dense(x)

        def reset_metrics(self):
            self.calls.append("reset")
            super().reset_metrics()

        def get_metrics_result(self):
            self.calls.append("result")
            return super().get_metrics_result()

    return Counting


def nesting(base):
    """Its steps return the results of all compiled metrics as one, a dict in the dict of logs."""

    class Nesting(counting(base)):
        def _results(self):
            return {metric.name: metric.result() for metric in self.metrics}

        def train_step(self, data):
            super().train_step(data)
            return self._results()

        def test_step(self, data):
            super().test_step(data)
            return self._results()

    return Nesting


LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
MODELS = {
    "gan": (gan, {}, {}),
    "autoencoder": (autoencoder, {"optimizer": "adam"}, {}),
    "distiller": (
        distiller,
        {"optimizer": "sgd", "loss": LOSS, "metrics": ["accuracy"]},
        {"validation_data": (X[:30], Y[:30])},
    ),
    "counting": (counting, {"optimizer": "sgd", "loss": LOSS, "metrics": ["accuracy"]}, {"validation_split": 0.2}),
    "nesting": (
        nesting,
        {"optimizer": "sgd", "loss": LOSS, "metrics": ["sparse_categorical_crossentropy", "accuracy"]},
        {"validation_split": 0.2},
    ),
    "ticks": (counting, {"optimizer": "sgd", "loss": LOSS, "metrics": lambda: [Ticks()]}, {"validation_split": 0.2}),
}


@pytest.mark.parametrize(("make", "options", "arguments"), MODELS.values(), ids=MODELS)
def test_equal_to_stock(make, options, arguments):
    models = []
    for base in (keras.Model, BackpropModel):
        keras.utils.set_random_seed(2)
        model = make(base)()
        model.compile(
            **{name: value() if callable(value) and name == "metrics" else value for name, value in options.items()}
        )
        model.fit(X, Y, **{"batch_size": 16, "epochs": 4, "shuffle": False, "verbose": 0, **arguments})
        models.append(model)
    stock, ours = models
    assert ours.fit_path.compiled and "of its own" in ours.fit_path.reason, ours.fit_path
    assert list(stock.history.history) == list(ours.history.history)
    for name, values in stock.history.history.items():
        np.testing.assert_allclose(ours.history.history[name], values, rtol=1e-5, atol=1e-6, err_msg=name)
    for a, b in zip(ours.get_weights(), stock.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)
    if make in (counting, nesting):  # tracing calls them as well, once more here or there
        assert abs(ours.calls.count("reset") - stock.calls.count("reset")) <= 1


def test_what_the_step_does_outside_of_tensorflow_happens_once_a_step():
    class Prints(counting(BackpropModel)):
        seen = 0

        def train_step(self, data):
            def note():
                Prints.seen += 1
                return np.float32(0)

            self.traced = getattr(self, "traced", 0) + 1
            logs = super().train_step(data)
            tf.py_function(note, [], tf.float32)
            return logs

    model = Prints()
    model.compile("sgd", LOSS)
    model.fit(X, Y, batch_size=16, epochs=3, verbose=0)
    assert model.fit_path.compiled and Prints.seen == 21 and model.traced <= 2


def counts_its_traces(base):
    """Python that runs while the step is traced: the second trace is the one that runs, since the first makes variables."""

    class Traced(base):
        traces = 0

        def __init__(self):
            super().__init__()
            self.dense, self.kinds = dense(3, inputs=6), {}

        def compile(self):
            super().compile()
            self.kinds["adam"], self.kinds["sgd"] = (
                keras.optimizers.Adam(0.01),
                keras.optimizers.SGD(0.01, momentum=0.9),
            )

        def train_step(self, data):
            self.traces += 1
            x, y = data
            with tf.GradientTape() as tape:
                loss = self.traces * LOSS(y, self.dense(x))
            kernel, bias = self.dense.trainable_weights
            dW, db = tape.gradient(loss, [kernel, bias])
            self.kinds["adam"].apply_gradients([(dW, kernel)])
            self.kinds["sgd"].apply_gradients([(db, bias)])
            return {"loss": loss}

    return Traced


def test_traced_as_often_as_in_stock_and_updated_to_the_last_bit():
    stock, ours = [counts_its_traces(base)() for base in (keras.Model, BackpropModel)]
    ours.set_weights(stock.get_weights())
    for model in (stock, ours):
        model.compile()
        model.fit(X, Y, batch_size=16, epochs=2, shuffle=False, verbose=0)
    assert ours.fit_path.compiled and ours.traces == stock.traces == 2
    for a, b in zip(ours.get_weights(), stock.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-7)
    for kind in stock.kinds:
        for a, b in zip(ours.kinds[kind].variables, stock.kinds[kind].variables, strict=True):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-6, atol=1e-7, err_msg=a.path)


@pytest.mark.parametrize("of_the_class", [False, True])
def test_an_update_of_ones_own_runs(of_the_class, monkeypatch):
    """Put into an optimizer, or into Keras's class."""

    def twice(*arguments):
        gradient, variable, rate = arguments[-3:]
        variable.assign_sub(2 * rate * gradient)

    if of_the_class:
        monkeypatch.setattr(keras.optimizers.SGD, "update_step", twice)
    models = []
    for base in (keras.Model, BackpropModel):
        keras.utils.set_random_seed(2)
        model = base(inputs := keras.Input((6,)), layers.Dense(3)(inputs))
        optimizer = keras.optimizers.SGD(0.1)
        if not of_the_class:
            optimizer.update_step = twice
        model.compile(optimizer, LOSS)
        model.fit(X, Y, batch_size=16, epochs=2, shuffle=False, verbose=0)
        models.append(model)
    for a, b in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)


def test_it_can_be_refused():
    model = counting(BackpropModel)()
    model.compiled_step = False
    model.compile("sgd", LOSS)
    model.fit(X, Y, verbose=0)
    assert not model.fit_path.compiled and "compiled_step = False" in model.fit_path.reason


@pytest.mark.parametrize(
    "returned", [lambda logs: {**logs, "vector": tf.ones(2)}, lambda logs: {**logs, "text": tf.constant("a")}]
)
def test_logs_that_are_no_numbers_are_left_to_keras(returned):
    class Odd(counting(BackpropModel)):
        def train_step(self, data):
            return returned(super().train_step(data))

    model = Odd()
    model.compile("sgd", LOSS)
    history = model.fit(X, Y, epochs=2, verbose=0).history
    assert not model.fit_path.compiled and "no dict of numbers" in model.fit_path.reason
    assert len(history) == 2
