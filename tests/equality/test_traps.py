"""One program for every trap of Keras that a `train_step` of one's own can fall into: stock and ours must show the same.

The programs are small, eager and in float64. Several devices have tests of their own.
"""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import keras_backprop
from keras_backprop import BackpropModel
from keras_backprop.losses import HalfMeanSquaredError
from tests.equality import compare, subclasses
from tests.equality.options import rows

OURS = compare.SUBJECTS["backprop"]
random = np.random.default_rng(1)
X = random.normal(size=(12, 6))
Y = random.normal(size=(12, 1))
SERIES = random.normal(size=(12, 4, 3))
SERIES[::2, 2:] = 0


@pytest.fixture(autouse=True)
def _float64():
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")


def dense(k, units=1, **options):
    inputs = keras.Input((6,))
    return k.Model(inputs, layers.Dense(units, **options)(layers.Dense(4, "tanh")(inputs)))


def trained(model, x=X, y=Y, optimizer="sgd", loss="mse", weight=None, batches=(5, 5, 2), **options):
    """Train on batches of the given sizes, eagerly; the last is a ragged one."""
    model.compile(optimizer, loss, **{"run_eagerly": True, **options})
    logs, start = [], 0
    for size in batches:
        part = slice(start, start + size)
        logs.append(model.train_on_batch(*(rows(data, part) for data in (x, y, weight)), return_dict=True))
        start += size
    return compare.observe(model, logs=logs)


def reductions(reduction, weight, masked):
    def program(k):
        inputs = keras.Input((4, 3))
        h = layers.Masking()(inputs) if masked else inputs
        model = k.Model(inputs, layers.SimpleRNN(2, return_sequences=True)(h))
        weights = {None: None, "rows": np.array([1.0, 0, 0, 0] * 3), "steps": np.arange(48.0).reshape(12, 4)}[weight]
        loss = keras.losses.MeanSquaredError(reduction=reduction)
        return trained(model, SERIES, SERIES[..., :2], loss=loss, weight=weights)

    return program


class Direct(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return ops.square(y_true - y_pred)


def penalties(k):
    options = {"kernel_regularizer": "l2", "bias_regularizer": "l1", "activity_regularizer": "l2"}
    inputs = keras.Input((6,))
    h = subclasses.Penalty(0.3)(layers.Dense(3, **options)(inputs))
    return trained(k.Model(inputs, layers.Dense(1)(h)))


def off_the_path(k):
    inputs = keras.Input((6,))
    used, unused = layers.Dense(1)(inputs), layers.Dense(2)(inputs)
    model = k.Model(inputs, [used, unused])
    return trained(
        model, y=[Y, np.zeros((12, 2))], loss=["mse", None], optimizer=keras.optimizers.AdamW(0.1, weight_decay=0.5)
    )


def shared(k):
    inputs = keras.Input((6,))
    first, second = layers.Dense(6, "tanh"), layers.Dense(6)
    return trained(k.Model(inputs, layers.Dense(1)(first(second(first(inputs))))), optimizer="adam")


def python_flag(k):
    """A flag of Python sticks in the compiled step until it is made anew."""

    class Model(k.Model):
        double = False

        def train_step(self, data):
            logs = super().train_step(data)
            return {"double": 2 * logs["loss"]} if self.double else logs

    inputs = keras.Input((6,))
    model = Model(inputs, layers.Dense(1)(inputs))
    model.compile("sgd", "mse")
    logs = [model.train_on_batch(X, Y, return_dict=True)]
    model.double = True
    logs.append(model.train_on_batch(X, Y, return_dict=True))
    model.make_train_function(force=True)
    logs.append(model.train_on_batch(X, Y, return_dict=True))
    return compare.observe(model, logs=logs)


def changing_batches(k):
    return trained(dense(k, activation="softplus"), batches=(4, 3, 3, 2), run_eagerly=False)


def auto_jit(k):
    model = dense(k)
    model.compile("sgd", "mse")
    return {"jit": model.jit_compile, "config": model.get_compile_config()["jit_compile"]}


def nothing_given(k):
    inputs = keras.Input((6,))
    outputs = subclasses.Reconstruction()([inputs, layers.Dense(6)(inputs)])
    return trained(k.Model(inputs, outputs), y=None, loss=None)


def no_loss(k):
    return trained(dense(k), loss=None)


def log_of_a_key_that_is_no_metric(k):
    class Model(k.Model):
        def train_step(self, data):
            return {**super().train_step(data), "extra": tf.constant(3.0)}

    inputs = keras.Input((6,))
    model = Model(inputs, layers.Dense(1)(inputs))
    model.compile("sgd", "mse", metrics=["mae"], run_eagerly=True)
    return compare.observe(model, model.fit(X, Y, epochs=2, batch_size=5, shuffle=False, verbose=0))


def metric_attribute(k):
    model = subclasses.own_metrics(k)
    seen = trained(model)
    return {**seen, "evaluate": model.evaluate(X, Y, verbose=0, return_dict=True), "names": model.metrics_names}


def before_the_update(k):
    model = dense(k)
    model.compile("sgd", "mse", run_eagerly=True)
    before = model.evaluate(X, Y, verbose=0)
    history = model.fit(X, Y, batch_size=12, epochs=2, verbose=0).history
    assert history["loss"][0] == pytest.approx(before, abs=1e-12)
    return {"history": history}


def own_compile(folder):
    def program(k):
        class Model(k.Model):
            def compile(self, *args, extra=1.0, **options):
                super().compile(*args, **options)
                self.extra = extra

            def get_compile_config(self):
                return {**super().get_compile_config(), "extra": self.extra}

            def compile_from_config(self, config):
                config = keras.saving.deserialize_keras_object(config)
                self.compile(**config)
                self.optimizer.build(self.trainable_variables)

        inputs = keras.Input((6,))
        model = Model(inputs, layers.Dense(1)(inputs))
        seen = trained(model, extra=3.0)
        path = folder / f"{k.Model.__name__}.keras"
        model.save(path)
        again = keras.saving.load_model(path, custom_objects={"Model": Model})
        again.train_on_batch(X, Y)
        return {**seen, "extra": again.extra, "again": compare.observe(again)}

    return program


def mixin(k):
    class Mixin:
        def train_step(self, data):
            return {**super().train_step(data), "mixed": tf.constant(1.0)}

    class Model(Mixin, k.Model):
        pass

    class Sequential(Mixin, k.Sequential):
        pass

    inputs = keras.Input((6,))
    functional = trained(Model(inputs, layers.Dense(1)(inputs)))
    stack = trained(Sequential([layers.Dense(1)]))
    own = subclasses.own_weights(k)  # a subclass with a `call` of its own still works
    return {"functional": functional, "sequential": stack, "own": trained(own)}


def floatx_too_late(k):
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")
    layers.Dense(1)
    keras.config.set_floatx("float64")
    return trained(dense(k))


def advanced_once(k):
    inputs = keras.Input((6,))
    h = layers.BatchNormalization(momentum=0.5)(layers.Dense(4)(inputs))
    return trained(k.Model(inputs, layers.Dense(1)(layers.Dropout(0.4, seed=3)(h))))


def dropout_of_zeros(k):
    model = k.Sequential([layers.ReLU(), layers.Dropout(0.5, seed=1), layers.Dense(3), layers.Dropout(0.5, seed=2)])
    return trained(model, np.round(X), np.zeros((12, 3)))


def graphs_in_graphs(k):
    a = keras.Input((6,))
    inner = k.Model(a, [layers.Dense(3, "tanh")(a), layers.Dense(3)(a)])
    inputs = keras.Input((6,))
    p, q = inner(inputs)
    r, _ = inner(layers.Concatenate()([p, q]))
    stack = k.Sequential([layers.Dense(3), layers.Dense(1)])
    return trained(k.Model(inputs, stack(layers.Add()([r, p]))))


def expression_of_weights(k):
    inputs = keras.Input((6,))
    return trained(k.Model(inputs, layers.Dense(1)(subclasses.Scale()(layers.Dense(4)(inputs)))))


def einsum_with_ellipsis(k):
    class Layer(layers.Layer):
        def build(self, input_shape):
            self.w = self.add_weight(shape=(3,))

        def call(self, x):
            return ops.einsum("...i,i->...", x, self.w)

    inputs = keras.Input((4, 3))
    return trained(k.Model(inputs, layers.Dense(1)(Layer()(inputs))), SERIES)


def batch_variance(k):
    inputs = keras.Input((6,))
    return trained(k.Model(inputs, layers.Dense(1)(layers.BatchNormalization(momentum=0.0)(inputs))))


PROGRAMS = {
    **{
        f"1 reduction {reduction}, weight of {weight}, masked {masked}": reductions(reduction, weight, masked)
        for reduction in ("sum_over_batch_size", "sum", "mean", "mean_with_sample_weight", None)
        for weight in (None, "rows", "steps")
        for masked in (False, True)
        if reduction is not None or not (weight or masked)
    },
    "3 a direct subclass of Loss does not squeeze": lambda k: trained(dense(k), y=Y[:, 0], loss=Direct()),
    "3 a loss by name squeezes": lambda k: trained(dense(k), y=Y[:, 0]),
    "4 penalties": penalties,
    "6 the loss of a ragged batch": lambda k: trained(dense(k), batches=(7, 4, 1)),
    "9 no gradient off the path": off_the_path,
    "12 a layer used twice, others in between": shared,
    "14 a Python flag": python_flag,
    "15 batches of changing size": changing_batches,
    "17 no targets": nothing_given,
    "17 no loss": no_loss,
    "18 jit_compile": auto_jit,
    "19 a log that is no metric": log_of_a_key_that_is_no_metric,
    "20 a metric as an attribute": metric_attribute,
    "21 history is measured before the update": before_the_update,
    "25 a mixin before the model": mixin,
    "26 set_floatx too late": floatx_too_late,
    "28 statistics and seeds advance once": advanced_once,
    "29 dropout where the input is 0": dropout_of_zeros,
    "30 graphs in graphs": graphs_in_graphs,
    "31 an expression of weights alone": expression_of_weights,
    "32 einsum with an ellipsis": einsum_with_ellipsis,
    "33 the biased batch variance": batch_variance,
    "features of a wrong shape": lambda k: trained(dense(k), X[:, :4]),
    "an unknown loss": lambda k: trained(dense(k), loss="no such loss"),
    "fit before compile": lambda k: {"history": dense(k).fit(X, Y).history},
    "no optimizer": lambda k: trained(dense(k), optimizer=None),
    "sample weights of a wrong length": lambda k: trained(dense(k), weight=np.ones((12, 3))),
}


@pytest.mark.sample(30)
@pytest.mark.parametrize("name", PROGRAMS)
def test_trap(name):
    stock, ours = (compare.run(PROGRAMS[name], k) for k in (compare.STOCK, OURS))
    assert not compare.differences(ours, stock, 1e-12), compare.differences(ours, stock, 1e-12)


WRONG_TARGETS = {
    "number": lambda k: trained(dense(k), y=[Y, Y]),
    "shape": lambda k: trained(dense(k, 2), y=np.zeros((12, 3))),
}


@pytest.mark.parametrize("name", WRONG_TARGETS)
def test_of_wrong_targets_more_is_said(name):
    stock, ours = (compare.run(WRONG_TARGETS[name], k)["error"] for k in (compare.STOCK, OURS))
    assert "do not fit the predictions" not in stock
    assert ours.startswith("ValueError: The targets do not fit the predictions of the model")
    assert "Keras says: " in ours


def test_trap_24_a_compile_with_more_arguments(tmp_path):
    stock, ours = (compare.run(own_compile(tmp_path), k) for k in (compare.STOCK, OURS))
    assert "error" not in stock
    assert not compare.differences(ours, stock, 1e-12)


def test_trap_3_half_mean_squared_error_squeezes_too():
    half, whole = (dense(OURS), dense(OURS))
    whole.set_weights(half.get_weights())
    trained(half, y=Y[:, 0], optimizer=keras.optimizers.SGD(0.2), loss=HalfMeanSquaredError())
    trained(whole, y=Y[:, 0], optimizer=keras.optimizers.SGD(0.1))
    for a, b in zip(half.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-14)


class Spy(keras.optimizers.SGD):
    """Keeps what it is given."""

    def apply(self, grads, trainable_variables=None):
        self.gradients, self.paths = list(grads), [v.path for v in trainable_variables]
        return super().apply(grads, trainable_variables)


def test_trap_7_gradients_arrive_in_the_dtype_of_the_variable():
    keras.config.set_dtype_policy("mixed_float16")
    model = dense(OURS)
    for wrap in (lambda optimizer: optimizer, keras.optimizers.LossScaleOptimizer):
        spy = Spy(0.1)
        trained(model, optimizer=wrap(spy), auto_scale_loss=False, batches=(5,))
        assert [g.dtype.name for g in spy.gradients] == ["float32"] * 4


def test_trap_9_10_11_12_what_the_optimizer_is_given():
    inputs = keras.Input((5,), dtype="int32")
    embedding = layers.Embedding(7, 3)
    h = layers.Flatten()(layers.Add()([embedding(inputs), embedding(inputs)]))
    model = BackpropModel(inputs, [layers.Dense(1)(h), layers.Dense(1)(h)])
    spy = Spy(0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there are weights without a gradient: compared above
        trained(model, random.integers(0, 7, (12, 5)), [Y, Y], loss=["mse", None], optimizer=spy)
    assert spy.paths == [v.path for v in model.trainable_variables]
    assert spy.gradients[3:] == [None, None]
    assert isinstance(spy.gradients[0], tf.IndexedSlices)


def test_trap_10_float8_scales_receive_their_values_in_the_place_of_gradients():
    weights = []
    for cls in (keras.Sequential, keras_backprop.BackpropSequential):
        keras.utils.set_random_seed(1)
        model = cls([keras.Input(X.shape[1:]), layers.Dense(4, "tanh"), layers.Dense(1)])
        model.layers[-1].quantize("float8")
        model.compile(keras.optimizers.Adam(0.01), "mse")  # eagerly stock Keras cannot train it
        model.fit(X, Y, epochs=3, verbose=0, shuffle=False)
        weights.append(model.get_weights())
    for stock, ours in zip(*weights, strict=True):
        np.testing.assert_allclose(np.asarray(ours, "float32"), np.asarray(stock, "float32"), rtol=1e-5, atol=1e-6)
