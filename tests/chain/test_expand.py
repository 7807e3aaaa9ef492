"""Layers without a rule: they expand into what has rules, or are refused with a reason. Never a silent zero."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from keras_backprop import BackpropModel, MissingRuleError, check_layer
from keras_backprop.chain.expand import expand
from keras_backprop.chain.record import Record
from tests.chain.layers_of_people import LAYERS, REFUSED
from tests.checking import arrays


def _name(make):
    return make.__name__


def test_there_are_many_and_none_is_forgotten():
    assert len(LAYERS) > 45 and len(REFUSED) >= 20
    assert not set(LAYERS) & set(REFUSED)


@pytest.mark.parametrize("make", LAYERS, ids=_name)
def test_every_weight_and_input_has_the_tapes_gradient(make):
    report = check_layer(make(), *arrays(make.inputs), finite_differences=False).raise_if_failed()
    assert [row.path for row in report.rows if row.verdict != "ok"] == []


@pytest.mark.parametrize("make", REFUSED, ids=_name)
def test_what_cannot_be_followed_is_refused(make):
    with pytest.raises(MissingRuleError, match=r"has no backward (rule|pass)[\s\S]*(Remedies|Write|keras\.ops)"):
        check_layer(make(), *arrays(make.inputs), finite_differences=False)


def _one_array(make):
    return len(make.inputs) == 1 and isinstance(make.inputs[0], (tuple, np.ndarray))


@pytest.mark.parametrize("make", [one for one in LAYERS if _one_array(one)], ids=_name)
def test_training_equals_stock(make):
    """As a layer of a subclassed model, compiled."""
    if make.__name__ == "rematerialised_sublayer":
        pytest.skip("stock Keras cannot train it: tf.recompute_grad takes no keywords in a graph")
    ends = []
    x = ops.convert_to_numpy(arrays(make.inputs)[0])
    for base in (keras.Model, BackpropModel):

        class Network(base):
            def __init__(self):
                super().__init__()
                self.inner, self.head = make(), layers.Dense(1)

            def call(self, x, training=False):
                flat = [ops.reshape(y, (-1, 1)) for y in keras.tree.flatten(self.inner(x)) if y is not None]
                return self.head(ops.concatenate(flat, axis=0))

        keras.utils.set_random_seed(1)
        model = Network()
        rows = model(x).shape[0]
        model.compile(keras.optimizers.SGD(0.01), "mse")
        losses = [model.train_on_batch(x, np.ones((rows, 1))) for _ in range(2)]
        ends.append([losses, *(ops.convert_to_numpy(v) for v in model.variables)])
    for stock, ours in zip(*ends, strict=True):
        np.testing.assert_allclose(ours, stock, rtol=2e-4, atol=1e-5)


def test_every_symbolic_call_leaves_the_layer_as_it_was():
    layer = LAYERS[0]()
    x = tf.ones((4, 3))
    layer(x)
    before = {name: id(value) for name, value in vars(layer).items()}
    Record().run(layer, x)
    assert {name: id(value) for name, value in vars(layer).items()} == before
    assert not layer._inbound_nodes


def test_a_single_operation_has_nothing_to_expand_into():
    class Mine(keras.Operation):
        def call(self, x):
            return x

        def compute_output_spec(self, x):
            return x

    with pytest.raises(MissingRuleError, match="it is a single operation"):
        expand(Mine(), Mine().call, "mine", (tf.ones(2),), {})


def network(*first):
    inputs = keras.Input((3,))
    h = inputs
    for layer in first:
        h = layer(h)
    model = BackpropModel(inputs, layers.Dense(2)(h))
    model.compile("sgd", "mse")
    return model


X, Y = np.random.default_rng(0).normal(size=(4, 3)).astype("float32"), np.ones((4, 2), "float32")


def test_what_has_no_rule_may_stand_where_no_gradient_is_needed():
    def noisy(x):
        return tf.math.tanh(x) + keras.random.normal((4, 3))

    model = network(layers.Lambda(lambda x: tf.math.tanh(x)), layers.Lambda(noisy, output_shape=(3,)))
    before = model.get_weights()[0]
    assert np.isfinite(model.train_on_batch(X, Y))
    assert np.any(model.get_weights()[0] != before)


def test_but_not_above_a_trainable_weight():
    model = network(layers.Dense(3), layers.Lambda(lambda x: tf.math.tanh(x), name="raw"))
    with pytest.raises(MissingRuleError, match=r"'raw' \(Lambda\) has no backward rule"):
        model.train_on_batch(X, Y)


def test_and_not_with_a_weight_of_another_layer_in_it():
    dense = layers.Dense(3)
    dense.build((None, 3))
    inputs = keras.Input((3,))
    raw = layers.Lambda(lambda x: tf.matmul(x, dense.kernel), output_shape=(3,), name="raw")(inputs)
    model = BackpropModel(inputs, layers.Dense(2)(dense(inputs) + raw))
    model.compile("sgd", "mse")
    with pytest.raises(MissingRuleError, match="'raw'"):
        model.train_on_batch(X, Y)


def test_a_weight_that_a_loss_uses_is_not_overlooked():
    model = network(layers.Dense(3, name="d"))
    kernel = model.get_layer("d").kernel
    model.compile("sgd", lambda t, y: ops.mean(ops.square(t - y), -1) + ops.sum(ops.exp(kernel)))
    with pytest.raises(MissingRuleError, match="reads the value of its weight d/kernel"):
        model.train_on_batch(X, Y)
    ends = []
    for cls in (keras.Model, BackpropModel):
        keras.utils.set_random_seed(1)
        built = network(layers.Dense(2, name="d"))
        model = cls(built.input, built.output)
        kernel = model.get_layer("d").kernel
        # Stock Keras eagerly: compiled, its second read of the kernel may come after the update (see `chain/read.py`).
        eager = cls is keras.Model
        model.compile("sgd", lambda t, y, kernel=kernel: ops.einsum("no,io->n", t - y, kernel), run_eagerly=eager)
        model.train_on_batch(X, Y)
        ends.append(model.get_weights())
    for a, b in zip(*ends, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
