"""Which rule belongs to what."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import activations, layers

import keras_backprop
from keras_backprop import (
    Contraction,
    Gradients,
    backward_rule,
    check_layer,
    forward_rule,
    not_differentiable,
    rule_for,
)
from keras_backprop._keras import ops as operations
from keras_backprop.chain.record import Record

pytestmark = pytest.mark.usefixtures("registry_restored")


def paths(layer, x):
    """What a call of the layer is recorded as: the names of the rules."""
    record = Record()
    record.run(layer, keras.ops.convert_to_tensor(x))
    return [call.rule.name for call in record.calls]


X = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")


def test_three_states():
    assert rule_for(layers.Dense).kind == "differentiable"
    not_differentiable(X.__class__.sum)
    assert rule_for(X.__class__.sum).kind == "not differentiable"
    assert rule_for(layers.Layer) is None


def test_a_subclass_that_changes_nothing_keeps_the_rule():
    class Mine(layers.Dense):
        def __init__(self, units, note=""):
            super().__init__(units)
            self.note = note

        def get_config(self):
            return {"units": self.units, "note": self.note}

        def helper_of_my_own(self):
            return self.units

    assert paths(Mine(2), X) == ["dense"]
    check_layer(Mine(2), X).raise_if_failed()


def test_a_subclass_with_another_forward_pass_does_not_inherit_the_rule():
    class Doubled(layers.Dense):
        def call(self, inputs):
            return keras.ops.add(super().call(inputs), super().call(inputs))

    assert rule_for(Doubled(2)) is None
    check_layer(Doubled(2), X).raise_if_failed()


def test_a_subclass_with_another_kernel_does_not_inherit_the_rule():
    class Squared(layers.Dense):
        @property
        def kernel(self):
            return keras.ops.square(self._kernel)

    assert rule_for(Squared(2)) is None


@pytest.mark.parametrize(
    ("base", "name", "options"),
    [
        (layers.Dense, "bias", {"units": 3}),
        (layers.RMSNormalization, "scale", {}),
        (layers.PReLU, "alpha", {}),
        (layers.Embedding, "embeddings", {"input_dim": 5, "output_dim": 3}),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_subclass_that_computes_a_weight_does_not_inherit_the_rule(base, name, options):
    class Positive(base):
        def build(self, shape):
            super().build(shape)
            self.raw = self.add_weight(shape=(3,), initializer="ones", name="raw")

        def get(self):
            return keras.ops.softplus(self.raw)

    def ignore(self, value):
        """What the base class makes."""

    kept = base.embeddings if base is layers.Embedding else None
    computed = (lambda self: kept.fget(self) * self.get()) if kept else Positive.get
    setattr(Positive, name, property(computed, ignore))
    assert rule_for(Positive(**options)) is None
    x = np.array([[1, 2], [4, 0]]) if kept else X
    check_layer(Positive(**options), x).raise_if_failed()


class Softplus:
    """A descriptor in a weight's place."""

    def __get__(self, layer, kind=None):
        return self if layer is None else keras.ops.softplus(layer._kernel)

    def __set__(self, layer, value):
        """What the base class makes."""


def test_a_subclass_with_a_descriptor_in_a_weights_place_does_not_inherit_the_rule():
    class Positive(layers.Dense):
        kernel = Softplus()

    assert rule_for(Positive(2)) is None
    check_layer(Positive(2), X).raise_if_failed()


def test_a_property_that_the_layer_does_not_read_changes_nothing():
    class Wide(layers.Dense):
        @property
        def width(self):
            return self.units

    assert rule_for(Wide(2)) is rule_for(layers.Dense(2))


@pytest.mark.parametrize("name", ["mine", "gate"])
def test_a_forward_rule_of_ones_own_for_an_activation_whose_own_saves_something(name):
    @forward_rule(activations.silu)
    def silu(op, x):
        gate = tf.sigmoid(x)
        return x * gate, {name: 1 - gate}

    check_layer(layers.Activation("silu"), X).raise_if_failed()


@pytest.mark.parametrize("op", [operations.Silu(), operations.Gelu(), operations.Logsumexp(axis=1)], ids=type)
def test_a_forward_rule_of_ones_own_for_an_operation_need_not_save_anything(op):
    @forward_rule(type(op))
    def plain(op, x):
        return op.call(x), {}

    x = keras.Input(X.shape[1:])
    check_layer(keras.Model(x, op(x)), X).raise_if_failed()


def _learned_epsilon():
    class Learned(layers.LayerNormalization):
        def build(self, shape):
            super().build(shape)
            self.epsilon = self.add_weight(shape=(), initializer="ones", name="epsilon")

    return Learned()


@pytest.mark.parametrize(
    "make", [lambda: layers.Rescaling(keras.Variable(2.0)), _learned_epsilon], ids=["scale", "epsilon"]
)
def test_what_a_layer_was_told_may_be_a_weight(make):
    check_layer(make(), X).raise_if_failed()


def test_a_layers_own_backward_is_its_rule_and_a_registered_one_wins():
    class Mine(layers.Layer):
        def call(self, x):
            return keras.ops.square(x)

        def backward(self, call, dy):
            return Gradients(2 * call.input * dy)

    assert rule_for(Mine()).name == "Mine.backward"
    check_layer(Mine(), X).raise_if_failed()

    @backward_rule(Mine)
    def registered(call, dy):
        return Gradients(2 * call.input * dy)

    assert rule_for(Mine()).name == "registered"


def test_the_activation_of_a_layer_with_its_own_rule_can_be_a_link_of_its_own():
    layer = keras_backprop.layers.BackpropDense(2, activation="tanh")
    assert paths(layer, X) == ["BackpropDense.backward", "tanh"]


def test_instances_that_a_rule_does_not_apply_to_expand():
    layer = layers.Dense(2)
    layer.build((None, 3))
    assert rule_for(layer).name == "dense"
    layer.enable_lora(2)
    assert rule_for(layer) is None


def test_backprop_dense_is_interchangeable_with_dense(tmp_path):
    stock = keras.Sequential([keras.Input((3,)), layers.Dense(2, "sigmoid")])
    ours = keras.Sequential([keras.Input((3,)), keras_backprop.layers.BackpropDense(2, "sigmoid")])
    for one, other in ((stock, ours), (ours, stock)):
        one.layers[0].kernel.assign(np.random.default_rng(1).normal(size=(3, 2)))
        one.save_weights(tmp_path / "w.weights.h5")
        other.load_weights(tmp_path / "w.weights.h5")
        np.testing.assert_array_equal(stock.predict(X, verbose=0), ours.predict(X, verbose=0))
    np.testing.assert_allclose(
        ours.layers[0].pre_activation(X), X @ ours.layers[0].kernel.numpy() + ours.layers[0].bias.numpy(), rtol=1e-6
    )
    config = keras.saving.serialize_keras_object(ours.layers[0])
    assert type(keras.saving.deserialize_keras_object(config)) is keras_backprop.layers.BackpropDense


def test_registering_nonsense_is_refused():
    with pytest.raises(TypeError, match="A rule is registered for layer classes.*Received: 'relu'"):

        @backward_rule("relu")
        def relu(call, dy):
            return Gradients(dy)


def test_a_weight_gradient_of_a_wrong_equation_is_refused():
    with pytest.raises(ValueError, match="Received: equation='i,o->io' and 1 factors"):
        Contraction("i,o->io", X)


def test_a_loss_class_with_a_call_of_its_own_goes_by_its_rule():
    class Tenfold(keras.losses.Loss):
        def call(self, y_true, y_pred):
            return keras.ops.mean(keras.ops.square(y_true - y_pred), -1)

    @backward_rule(Tenfold)
    def tenfold(call, dy):
        y, p = call.inputs
        return Gradients(None, 10 * dy[:, None] * (p - y))

    model = keras_backprop.BackpropSequential([keras.Input((3,)), layers.Dense(2, kernel_initializer="zeros")])
    model.compile("sgd", Tenfold())
    gradient = model.backward_pass(keras.ops.ones((4, 3)), keras.ops.ones((4, 2))).gradient(model.layers[0].bias)
    np.testing.assert_allclose(gradient, [-10.0, -10.0], rtol=1e-6)
