"""`GradientCheck`."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_backprop
from keras_backprop import BackpropModel, BackpropSequential, Contraction, Gradients, backward_rule
from keras_backprop.callbacks import GradientCheck
from keras_backprop.gradients import ByPath


def make(run_eagerly=False):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5,))
    h = layers.Dropout(0.4, seed=2)(layers.Dense(8, activation="tanh", kernel_regularizer="l2", name="hidden")(inputs))
    model = BackpropModel(inputs, layers.Dense(3, activation="softmax", name="out")(h))
    model.compile("adam", "sparse_categorical_crossentropy", run_eagerly=run_eagerly)
    return model


def data():
    random = np.random.default_rng(0)
    return random.normal(size=(64, 5)).astype("float32"), random.integers(0, 3, 64)


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_it_checks_every_so_often_and_changes_nothing(run_eagerly):
    x, y = data()
    plain = make(run_eagerly)
    plain.fit(x, y, batch_size=16, epochs=3, shuffle=False, verbose=0)
    checked, check = make(run_eagerly), GradientCheck(every=5)
    checked.fit(x, y, batch_size=16, epochs=3, shuffle=False, verbose=0, callbacks=[check])
    assert check.checked == 3  # steps 0, 5 and 10 of 12
    assert 0 <= check.max_error < 1e-4
    for a, b in zip(plain.get_weights(), checked.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-7)


@pytest.fixture
def wrong_tanh(registry_restored):
    """The rule of tanh, 1 % wrong."""

    @backward_rule(keras.activations.tanh)
    def tanh_wrong(call, dy):
        return Gradients(dy * (1 - call.output**2) * 1.01)


@pytest.mark.usefixtures("wrong_tanh")
def test_a_wrong_rule_stops_training_and_the_weight_is_named():
    model = make()
    with pytest.raises(ArithmeticError, match="in step 1, the gradient of 'hidden/(kernel|bias)' differs"):
        model.fit(*data(), verbose=0, callbacks=[GradientCheck(every=3)])


@pytest.mark.usefixtures("wrong_tanh")
def test_or_warns():
    with pytest.warns(UserWarning, match="hidden/"):
        make().fit(*data(), batch_size=64, verbose=0, callbacks=[GradientCheck(every=1, action="warn")])


@pytest.mark.usefixtures("wrong_tanh")
def test_of_models_with_as_many_weights_the_one_that_trains_is_named():
    def named(name, activation):
        model = BackpropSequential([keras.Input((5,)), layers.Dense(3, activation, name=name)])
        model.compile("sgd", "mse")
        return model

    check, (x, _) = GradientCheck(every=1, action="warn"), data()
    wrong, right = named("wrong", "tanh"), named("right", "sigmoid")
    for model, warns in ((wrong, True), (right, False), (wrong, True)):
        with pytest.warns(UserWarning, match="/wrong/") if warns else contextlib.nullcontext():
            model.fit(x, x[:, :3], batch_size=64, verbose=0, callbacks=[check])


def test_where_both_overflow_as_a_loss_scale_lets_them_nothing_is_wrong():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5,))
    model = BackpropModel(inputs, layers.Dense(3, dtype="mixed_float16")(inputs))
    model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(), initial_scale=2.0**40), "mse")
    x, _ = data()
    check = GradientCheck(every=1)
    model.fit(x, x[:, :3], batch_size=32, verbose=0, callbacks=[check])
    assert check.checked == 2 and check.max_error == 0.0
    assert float(keras.ops.convert_to_numpy(model.optimizer.dynamic_scale)) == 2.0**38  # both steps were skipped


def _fit_scaled(rule, dtype, scale, batches):
    """Train a layer in half precision with a rule of its own, and check every step."""
    keras.utils.set_random_seed(0)
    layer = layers.Dense(3, dtype=dtype)
    model = BackpropSequential([keras.Input((5,)), layer])
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.01), initial_scale=scale)
    model.compile(optimizer, "mse", rules={layers.Dense: rule})
    check, (x, _) = GradientCheck(every=1), data()
    model.fit(x, x[:, :3], batch_size=64 // batches, verbose=0, callbacks=[check])
    return check


def _overflowing(call, dy):
    kernel = Contraction("i,o->io", call.input, dy)
    return Gradients(None, kernel=kernel.total() * float("inf"), bias=Contraction("o->o", dy))


def test_a_rule_that_gives_nan_is_found_when_no_loss_scale_can_be_the_cause():
    with pytest.raises(
        ArithmeticError, match="in step 3, the gradient of '.*/kernel' differs from tf.GradientTape's by inf"
    ):
        _fit_scaled(_overflowing, "mixed_float16", scale=4.0, batches=4)


def test_what_overflows_in_one_computation_only_is_no_difference():
    assert _fit_scaled(_overflowing, "mixed_float16", scale=2.0**20, batches=4).checked == 4


def test_layers_in_half_precision_in_a_model_in_single_precision():
    def rounded(call, dy):
        return Gradients(None, kernel=Contraction("i,o->io", call.input, dy * 1.003), bias=Contraction("o->o", dy))

    assert _fit_scaled(rounded, "mixed_float16", scale=16.0, batches=1).max_error > 1e-3


def _with_states():
    stack = [layers.LSTM(3, stateful=True), layers.Dense(4), layers.BatchNormalization(), layers.Dropout(0.3)]
    return [keras.Input(batch_shape=(16, 5, 1)), *stack, layers.SpectralNormalization(layers.Dense(3)), layers.Dense(3)]


@pytest.mark.parametrize("options", [{}, {"run_eagerly": True}], ids=["compiled", "eagerly"])
def test_states_of_all_kinds_and_a_bias_that_does_not_matter(options):
    """In front of a batch normalisation its gradient is rounding noise."""
    keras.utils.set_random_seed(0)
    model, check, (x, _) = BackpropSequential(_with_states()), GradientCheck(every=1), data()
    model.compile("sgd", "mse", **options)
    model.fit(x[..., None], x[:, :3], batch_size=16, verbose=0, callbacks=[check])
    assert check.checked == 4 and check.max_error < 1e-3


def test_under_xla_and_for_one_model_after_the_other():
    check = GradientCheck(every=2)
    keras.utils.set_random_seed(0)
    models = [make(), BackpropSequential([keras.Input((5,)), layers.Dense(3, "softmax")])]
    models[1].compile("sgd", "sparse_categorical_crossentropy", jit_compile=True)
    for model in (*models, *models):
        model.fit(*data(), batch_size=16, verbose=0, callbacks=[check])
        assert check.checked == 2 and check.max_error < 1e-4


def test_what_the_optimizer_is_given_in_their_place_is_not_compared():
    model, check = make(), GradientCheck(every=1)
    model.compile("sgd", model.loss, gradients=ByPath({"*/kernel": 0.5}))
    model.fit(*data(), batch_size=32, verbose=0, callbacks=[check])
    assert check.checked == 2 and check.max_error < 1e-4


def test_after_an_interrupted_fit_the_next_one_checks_once():
    class Interrupt(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            raise KeyboardInterrupt

    model, check = make(), GradientCheck(every=1)
    with pytest.raises(KeyboardInterrupt):
        model.fit(*data(), verbose=0, callbacks=[GradientCheck(every=1), Interrupt()])
    model.fit(*data(), verbose=0, batch_size=32, callbacks=[check])
    assert check.checked == 2


@pytest.mark.parametrize(
    "arguments", [{"every": 0}, {"every": 1.5}, {"tolerance": -1.0}, {"tolerance": "small"}, {"action": "ignore"}]
)
def test_nonsense_is_refused(arguments):
    (name, _), *_ = arguments.items()
    with pytest.raises(ValueError, match=f"(?s)`{name}`.*Received: {name}="):
        keras_backprop.callbacks.GradientCheck(**arguments)


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_where_both_are_nan_it_says_so(run_eagerly):
    x, y = data()
    x[3] = np.nan
    with pytest.raises(
        ArithmeticError, match="in step 1, the gradient of '.*' is NaN or infinite, tf.GradientTape's as well"
    ):
        make(run_eagerly).fit(x, y, batch_size=64, verbose=0, callbacks=[GradientCheck()])


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def test_no_gradient_against_zeros_is_no_difference():
    """The rule says None where the tape has zeros."""

    class Idle(layers.Layer):
        def build(self, shape):
            self.w = self.add_weight(shape=(5,), initializer="ones")

        def call(self, x):
            return x + 0.0 * self.w

        def backward(self, call, dy):
            return Gradients(dy)

    keras.utils.set_random_seed(0)
    model = BackpropSequential([keras.Input((5,)), Idle(), layers.Dense(3)])
    model.compile("sgd", "mse")
    x, _ = data()
    check = GradientCheck(every=1)
    model.fit(x, x[:, :3], batch_size=32, verbose=0, callbacks=[check])
    assert check.checked == 2 and check.max_error < 1e-5


def test_a_step_that_is_not_the_chain_rules_cannot_be_checked():
    class Own(BackpropModel):
        def train_step(self, data):
            x, y = data
            with tf.GradientTape() as tape:
                loss = self.compute_loss(x, y, self(x, training=True))
            self.optimizer.apply(tape.gradient(loss, self.trainable_weights), self.trainable_weights)
            return {"loss": loss}

    inputs = keras.Input((5,))
    model = Own(inputs, layers.Dense(3, activation="softmax")(inputs))
    model.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.raises(ValueError, match="does not call that of `BackpropModel`"):
        model.fit(*data(), verbose=0, callbacks=[GradientCheck()])
