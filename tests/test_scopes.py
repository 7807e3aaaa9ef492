"""`use_rules`, `compile(rules=…)`, and rules of one's own that reach what they should."""

import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import keras_backprop
from keras_backprop import (
    BackpropSequential,
    Gradients,
    backward,
    backward_rule,
    elementwise,
    explain,
    pullback,
    use_rules,
)
from tests.gradients.ways import WAYS, X, Y, trained

ONE_DEVICE = [way for way in WAYS if way != "two devices"]
RNG = np.random.default_rng(0)
U, T = RNG.normal(size=(6, 4)).astype("float32"), RNG.normal(size=(6, 3)).astype("float32")


def stopped(call, dy):
    """Nothing flows back."""
    return Gradients(*[tf.zeros_like(x) for x in call.inputs])


class Calls(layers.Layer):
    """A function in a `call`."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def call(self, x):
        return self.function(x)


def in_a_graph(function):
    x = keras.Input((5,))
    return keras.Model(x, function(x))


SPELLINGS = {
    "Dense(activation=…)": lambda: layers.Dense(5, activation="relu"),
    "Activation": lambda: layers.Activation("relu"),
    "ReLU": lambda: layers.ReLU(),
    "a layer as activation": lambda: layers.Dense(5, activation=layers.ReLU()),
    "keras.ops in a graph": lambda: in_a_graph(ops.relu),
    "keras.activations in a graph": lambda: in_a_graph(keras.activations.relu),
    "keras.ops in a call": lambda: Calls(ops.relu),
    "keras.activations in a call": lambda: Calls(keras.activations.relu),
    "tf.nn in a call": lambda: Calls(tf.nn.relu),
    "Lambda": lambda: layers.Lambda(ops.relu),
}


def network(*between):
    keras.utils.set_random_seed(2)
    first = layers.Dense(5, name="first")
    model = BackpropSequential([keras.Input((4,)), first, *between, layers.Dense(3, name="last")])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    return model


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("selector", [keras.activations.relu, ops.relu], ids=["activations", "ops"])
def test_one_selector_reaches_every_spelling(spelling, selector):
    model = network(SPELLINGS[spelling]())
    usual = backward(model, U, T).gradient(model.layers[0].kernel)
    assert np.abs(usual).max() > 0
    with use_rules({selector: stopped}):
        result = backward(model, U, T)
    assert not np.any(result.gradient(model.layers[0].kernel))
    np.testing.assert_array_equal(backward(model, U, T).gradient(model.layers[0].kernel), usual)  # undone


@pytest.mark.sample(10)
@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("key", [keras.activations.relu, ops.relu], ids=["activations", "ops"])
def test_a_registered_rule_reaches_every_spelling(spelling, key, registry_restored):
    model = network(SPELLINGS[spelling]())
    model.fit(U, T, verbose=0)
    before = model.layers[0].get_weights()
    backward_rule(key)(stopped)
    model.fit(U, T, verbose=0)  # what was traced is of other rules
    np.testing.assert_array_equal(model.layers[0].get_weights()[0], before[0])


SELECTORS = {
    "a layer class": lambda model: layers.Dropout,
    "an operation's base class": lambda model: keras.layers.Dropout,
    "one layer": lambda model: model.layers[1],
    "a path": lambda model: "middle",
    "a pattern": lambda model: "mid*",
}


@pytest.mark.parametrize("name", SELECTORS)
def test_selectors(name):
    model = network(layers.Dropout(0.0, name="middle"))
    with use_rules({SELECTORS[name](model): stopped}):
        assert not np.any(backward(model, U, T).gradients[0])


def test_one_layer_and_no_other():
    model = network(one := layers.Activation("tanh"), layers.Activation("tanh"))
    seen = []

    def watched(call, dy):
        seen.append(call.op)
        return Gradients(dy)

    with use_rules({one: watched}):
        backward(model, U, T)
    assert seen == [one]


def test_the_inner_scope_wins_and_the_outer_comes_back():
    model = network(layers.ReLU())

    def doubled(call, dy):
        return Gradients(2 * dy)

    with use_rules({layers.ReLU: doubled}):
        outer = backward(model, U, T).gradients[0]
        with use_rules({layers.ReLU: stopped}):
            assert not np.any(backward(model, U, T).gradients[0])
        np.testing.assert_array_equal(backward(model, U, T).gradients[0], outer)


def test_undone_after_an_exception():
    model = network(layers.ReLU())
    with pytest.raises(KeyError), use_rules({layers.ReLU: stopped}):
        raise KeyError("mine")
    assert np.any(backward(model, U, T).gradients[0])


def test_other_threads_are_not_concerned():
    model, seen = network(layers.ReLU()), []
    with use_rules({layers.ReLU: stopped}):
        thread = threading.Thread(target=lambda: seen.append(backward(model, U, T).gradients[0]))
        thread.start()
        thread.join()
        assert not np.any(backward(model, U, T).gradients[0])
    assert np.any(seen[0])


def test_fit_in_a_scope_and_after_it():
    model = network(layers.ReLU())
    model.fit(U, T, verbose=0)
    before = model.layers[0].get_weights()[0]
    with use_rules({layers.ReLU: stopped}):
        model.fit(U, T, verbose=0, epochs=2)
        model.train_on_batch(U, T)
    np.testing.assert_array_equal(model.layers[0].get_weights()[0], before)
    model.fit(U, T, verbose=0)
    assert (model.layers[0].get_weights()[0] != before).any()


@pytest.mark.parametrize("way", ONE_DEVICE)
def test_compiled_with_rules(way):
    def alignment(call, dy):
        """Feedback alignment: a fixed random matrix in the place of Wᵀ. (Lillicrap et al., 2016.)"""
        W = call.op.kernel
        random = tf.random.stateless_normal(W.shape, seed=[1, W.shape[0]], dtype=dy.dtype)
        return Gradients(
            tf.matmul(dy, random, transpose_b=True),
            kernel=keras_backprop.Contraction("i,o->io", call.input, dy),
            bias=keras_backprop.Contraction("o->o", dy),
        )

    model, before = trained(lambda: keras.optimizers.SGD(0.1), way, rules={layers.Dense: alignment})
    plain, _ = trained(lambda: keras.optimizers.SGD(0.1), way)
    if way == "compiled loop":
        assert model.fit_path.compiled
    assert np.abs(model.get_weights()[0] - plain.get_weights()[0]).max() > 1e-3
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    model.set_weights(before)
    model.fit(X, Y, batch_size=8, epochs=3, shuffle=False, verbose=0)
    for one, other in zip(model.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-3 if way == "mixed precision" else 1e-6)


def test_what_matches_nothing_is_an_error():
    model = network(layers.ReLU())
    unmatched = pytest.raises(ValueError, match="No link of the backward pass is selected by 'encoder/\\*', `LSTM`")
    with unmatched, use_rules({"encoder/*": stopped, layers.LSTM: stopped, layers.ReLU: stopped}):
        backward(model, U, T)
    with pytest.raises(ValueError, match="selected by ''"), use_rules({"": stopped}):
        backward(model, U, T)
    model.compile("sgd", "mse", rules={"encoder/*": stopped})
    with pytest.raises(ValueError, match="No link of the backward pass is selected by 'encoder/\\*'"):
        model.fit(U, T, verbose=0)


def test_what_can_never_be_reached_is_an_error():
    with pytest.raises(ValueError, match="No link can be selected by `shape`"), use_rules({ops.shape: stopped}):
        pass
    with pytest.raises(ValueError, match="A rule for `shape` could never be reached"):
        backward_rule(ops.shape)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: elementwise(keras.activations.tanh),
            "`elementwise` takes one or more keys and then the derivative.*Received: tanh",
        ),
        (lambda: pullback(keras.activations.tanh), "`pullback` takes one or more keys and then the function"),
        (lambda: elementwise(), "Received: nothing"),
        (lambda: use_rules([]).__enter__(), "Rules are given as a dict of selector -> rule. Received: \\[\\]"),
        (lambda: use_rules({"*": 3}).__enter__(), "Received for '\\*': 3"),
        (lambda: use_rules({("a", "b"): stopped}).__enter__(), "A selector is a class.* \\(of type tuple"),
    ],
)
def test_wrong_arguments(call, message):
    with pytest.raises(TypeError, match=message):
        call()


def test_explain_shows_no_formula_of_a_rule_that_is_not_in_force():
    model = network(layers.Activation("tanh"))

    def swapped(call, dy):
        return Gradients(dy * 0.5)

    with use_rules({keras.activations.tanh: swapped}):
        link = next(one for one in explain(model, U, T).links if one.rule == "swapped")
        assert link.local_derivative is None
        np.testing.assert_allclose(link.downstream[0], 0.5 * link.upstream[0])


@pytest.mark.parametrize("layer", [layers.LSTM, layers.GRU, layers.SimpleRNN])
def test_a_correct_rule_for_tanh_serves_recurrent_layers(layer, registry_restored):
    keras.utils.set_random_seed(1)
    model = BackpropSequential([keras.Input((3, 4)), layer(5), layers.Dense(3)])
    model.compile("sgd", "mse")
    x = RNG.normal(size=(6, 3, 4)).astype("float32")
    usual = backward(model, x, T).gradients

    @backward_rule(keras.activations.tanh)
    def mine(call, dy):
        return Gradients(dy * (1 - tf.square(tf.tanh(call.input))))

    for one, other in zip(backward(model, x, T).gradients, usual, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


def test_an_entry_that_a_later_one_overrules_is_told_of():
    model = network(layers.ReLU(name="relu"))
    model.compile("sgd", "mse", rules={"relu": stopped, layers.ReLU: stopped})
    with pytest.raises(ValueError, match="selected by 'relu'. Later entries select all links of 'relu'"):
        model.fit(U, T, verbose=0)


class Tape(layers.Layer):
    """A layer that looks into another."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(4)

    def call(self, x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = self.dense(x)
        return y + tape.gradient(y, x)


class Mapped(layers.Layer):
    """A layer that calls another in a loop of TensorFlow."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(4)

    def build(self, shape):
        self.dense.build((None, 4))

    def call(self, x):
        return tf.map_fn(lambda row: self.dense(row[None])[0], x)


@pytest.mark.parametrize("own", [Tape, Mapped])
def test_a_rule_that_cannot_serve_is_an_error(own):
    model = BackpropSequential([keras.Input((4,)), own(), layers.Dense(3)])
    model.compile("sgd", "mse", rules={layers.Dense: stopped})
    with pytest.raises(ValueError, match="cannot serve"):
        model.fit(U, T, verbose=0, batch_size=6)


def test_rules_end_with_their_block():
    model = network(layers.ReLU())
    with use_rules({layers.ReLU: stopped}):
        model.fit(U, T, verbose=0)
        model.train_on_batch(U, T)
    assert np.any(model.backward_pass(tf.constant(U), tf.constant(T)).gradients[0])


def test_brackets_of_a_pattern_mean_themselves():
    assert keras_backprop.scopes.matches("lstm[1]", "lstm[1]") and not keras_backprop.scopes.matches("lstm[1]", "lstm1")
    assert keras_backprop.scopes.matches("*[1]", "encoder/lstm[1]")
