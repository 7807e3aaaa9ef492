"""`explain`: what it notes is what training does, and what it is refused."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_backprop
from keras_backprop import explain
from keras_backprop.explanations.observing.observe import _written_derivative
from keras_backprop.formula import Formula
from keras_backprop.layers import BackpropDense
from tests.explanations.networks import by_hand, chain, residual, worked_example

EXACT = {"rtol": 0, "atol": 1e-12}


@pytest.mark.usefixtures("float64")
def test_the_figures_of_the_worked_example():
    explanation, hand = explain(*worked_example()), by_hand()
    hidden, sigma1, output, sigma2, error = explanation.links
    values = {
        "z1": hidden.z, "a1": sigma1.a, "z2": output.z, "a2": sigma2.a, "E": explanation.loss,
        "dE_da2": error.local_derivative, "da2_dz2": sigma2.local_derivative, "da1_dz1": sigma1.local_derivative,
        "dw1": hidden.weight_gradients["kernel"], "db1": hidden.weight_gradients["bias"],
        "dw2": output.weight_gradients["kernel"], "db2": output.weight_gradients["bias"],
        "w1_new": hidden.updates["kernel"], "b1_new": hidden.updates["bias"],
        "w2_new": output.updates["kernel"], "b2_new": output.updates["bias"],
    }  # fmt: skip
    for name, value in values.items():
        np.testing.assert_allclose(np.squeeze(value), getattr(hand, name), **EXACT, err_msg=name)


def test_the_figures_the_note_prints():
    values = {
        "z1": 0.415, "a1": 0.6023, "z2": 0.9210, "a2": 0.7153, "dE_da2": 0.4653, "da2_dz2": 0.2037, "dw2": 0.0571,
        "w1_new": 0.1496, "b1_new": 0.3959, "w2_new": 0.427, "b2_new": 0.612,
    }  # fmt: skip
    hand = by_hand()
    for name, printed in values.items():
        digits = len(str(printed)) - 2
        assert round(getattr(hand, name), digits) == printed, name
    assert round((0.25 - round(hand.a2, 4)) ** 2 / 2, 4) == 0.1083  # the note goes on with the rounded a₂


def test_every_gradient_and_update_is_what_training_does():
    model, x, y = residual(metrics=["accuracy"])
    model.fit(x, y, epochs=2, verbose=0)
    explanation = explain(model, x, y)
    model.fit(x, y, shuffle=False, verbose=0)
    for weight, variable in zip(explanation.weights, model.trainable_weights, strict=True):
        np.testing.assert_allclose(weight.updated, keras.ops.convert_to_numpy(variable), rtol=1e-6, atol=1e-7)


def test_gradients_equal_the_tape():
    model, x, y = residual()
    seed = next(v for v in model.variables if "seed" in v.path)
    state = seed.value.read_value()
    explanation = explain(model, x, y)
    with tf.GradientTape() as tape:
        loss = model.compute_loss(x, y, model(x, training=True))
    gradients = tape.gradient(loss, [v.value for v in model.trainable_weights])
    assert not np.array_equal(state, seed.value)  # the tape's forward pass drew a mask; ours had not
    np.testing.assert_allclose(explanation.loss, float(loss), rtol=1e-6)
    for weight, gradient in zip(explanation.weights, gradients, strict=True):
        np.testing.assert_allclose(weight.gradient, keras.ops.convert_to_numpy(gradient), rtol=1e-4, atol=1e-6)


def test_the_links_of_a_network_with_branches():
    explanation = explain(*residual())
    kinds = {kind: sum(link.kind == kind for link in explanation.links) for kind in ("layer", "loss", "regularizer")}
    assert kinds == {"layer": 7, "loss": 1, "regularizer": 1}
    assert explanation.weight("shared/kernel").uses == 4  # three calls and the penalty
    parts = [link.weight_gradients.get("kernel") for link in explanation.links if link.path == "shared"]
    penalty = next(link.downstream[0] for link in explanation.links if link.kind == "regularizer")
    np.testing.assert_allclose(sum(parts) + penalty, explanation.weight("shared/kernel").gradient, rtol=1e-5, atol=1e-7)


def test_upstream_times_local_derivative_is_downstream():
    explanation = explain(*chain(4, 5, 5, 2, activation="softplus", examples=7))
    links = [link for link in explanation.links if link.kind == "activation"]
    assert len(links) == 3
    for link in links:
        np.testing.assert_allclose(link.upstream[0] * link.local_derivative, link.downstream[0], rtol=1e-5)


def test_a_link_can_be_looked_up_and_printed():
    explanation = explain(*worked_example())
    assert explanation.link("hidden") is explanation.link("note/hidden") is explanation.links[0]
    assert explanation.links[1].path == "note/hidden/sigmoid"
    assert (explanation.links[0].shape, explanation.links[0].dtype) == ((1, 1), "float64")
    assert repr(explanation.links[0]) == "<Link note/hidden: layer, z₁ of shape (1, 1)>"
    assert repr(explanation.weights[0]) == "<Weight w₁: note/hidden/kernel of shape (1, 1)>"
    assert "5 links" in repr(explanation) and str(explanation) == explanation.to_text()
    with pytest.raises(KeyError, match=r"no link 'nothing'.*note/hidden"):
        explanation.link("nothing")
    with pytest.raises(KeyError, match=r"no weight 'gamma'.*note/hidden/kernel"):
        explanation.weight("gamma")


def test_sample_weights_count():
    model, x, y = chain(2, 3, 1, examples=2)
    alone, weighted = explain(model, x[:1], y[:1]), explain(model, x, y, sample_weight=np.array([2.0, 0.0]))
    for one, other in zip(alone.weights, weighted.weights, strict=True):
        np.testing.assert_allclose(one.gradient, other.gradient, rtol=1e-5)


def test_the_explained_layers_may_carry_their_own_rule():
    model, x, y = worked_example()
    own = keras_backprop.BackpropSequential(
        [
            keras.Input((1,), dtype="float64"),
            BackpropDense(1, "sigmoid", dtype="float64"),
            BackpropDense(1, "sigmoid", dtype="float64"),
        ]
    )
    own.set_weights(model.get_weights())
    own.compile(keras.optimizers.SGD(0.4), loss=model.loss)
    expected, actual = explain(model, x, y), explain(own, x, y)
    assert [link.rule for link in actual.links if link.kind == "layer"] == ["BackpropDense.backward"] * 2
    for one, other in zip(expected.weights, actual.weights, strict=True):
        np.testing.assert_allclose(one.updated, other.updated, **EXACT)


def test_mixed_precision_shows_the_gradients_without_the_loss_scale():
    model, x, y = chain(3, 4, 1, examples=8)
    mixed = keras.Sequential(
        [keras.Input((3,)), *[type(d).from_config({**d.get_config(), "dtype": "mixed_float16"}) for d in model.layers]]
    )
    mixed.set_weights(model.get_weights())
    mixed.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1)), loss="mse")
    model.compile(keras.optimizers.SGD(0.1), loss="mse")
    for one, other in zip(explain(model, x, y).weights, explain(mixed, x, y).weights, strict=True):
        np.testing.assert_allclose(one.gradient, other.gradient, rtol=0.02, atol=1e-3)
        np.testing.assert_allclose(one.updated, other.updated, rtol=0.02, atol=1e-3)


def test_a_frozen_layer_has_no_update():
    model, x, y = worked_example()
    model.layers[0].trainable = False
    model.compile(keras.optimizers.SGD(0.4), loss=model.loss)
    explanation = explain(model, x, y)
    assert [weight.path for weight in explanation.weights] == ["note/output/kernel", "note/output/bias"]
    assert explanation.link("hidden").updates == {}


def test_a_weight_off_the_path_has_no_gradient():
    inputs = keras.Input((2,))
    used, unused = keras.layers.Dense(1, name="used"), keras.layers.Dense(1, name="unused")
    model = keras.Model(inputs, [used(inputs), unused(inputs)])
    model.compile("sgd", loss=["mse", None])
    explanation = explain(model, np.ones((2, 2)), [np.ones((2, 1)), np.ones((2, 1))])
    weight = explanation.weight("unused/kernel")
    assert weight.gradient is None
    np.testing.assert_array_equal(weight.value, weight.updated)
    assert "none" in explanation.to_text()


class TestErrors:
    def test_not_a_model(self):
        with pytest.raises(TypeError, match=r"takes a `keras.Model`. Received: 'model' \(of type str\)"):
            explain("model", [[1.0]], [[1.0]])

    def test_not_compiled(self):
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)], name="raw")
        with pytest.raises(ValueError, match=r"'raw' is not compiled.*model.compile"):
            explain(model, [[1.0]], [[1.0]])

    def test_not_built(self):
        model = keras.Sequential([keras.layers.Dense(1)], name="raw")
        model.compile("sgd", "mse")
        with pytest.raises(ValueError, match=r"'raw' is not built.*keras.Input"):
            explain(model, [[1.0]], [[1.0]])

    @pytest.mark.parametrize("shape", [(3, 1), (), (1, 2, 2)])
    def test_a_wrong_number_of_targets(self, shape):
        model, x, _ = chain(2, 3, 1, examples=4)
        with pytest.raises(ValueError, match=r"each of the 4 examples.*x of shape \(4, 2\) and y of shape"):
            explain(model, x, np.ones(shape))

    def test_a_wrong_target_shape(self):
        model, x, _ = chain(2, 3, 2, examples=4)
        with pytest.raises(ValueError, match=r"y of shape \(4, 1\) for predictions of shape \(4, 2\)"):
            explain(model, x, np.ones((4, 1)))  # Keras would broadcast
        with pytest.raises(ValueError, match=r"y of shape \(4, 3\) for predictions of shape \(4, 2\).*Keras says"):
            explain(model, x, np.ones((4, 3)))

    def test_no_arrays(self):
        model, _, y = chain(2, 3, 1)
        with pytest.raises(TypeError, match="`x` must be one batch of arrays. Received: x of type"):
            explain(model, tf.data.Dataset.from_tensors(1), y)

    def test_a_layer_without_a_rule_is_shown_by_its_operations(self):
        class Opaque(keras.layers.Layer):
            def call(self, x):
                return tf.raw_ops.Relu(features=x)

        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1), Opaque(name="opaque")])
        model.compile("sgd", "mse")
        before = model.get_weights()
        explanation = explain(model, np.ones((2, 1)), np.ones((2, 1)))
        assert any(link.path.endswith("opaque/relu") for link in explanation.links)
        for one, other in zip(before, model.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("layer", [layers.SimpleRNN, layers.LSTM])
def test_the_errors_of_a_recurrent_layer_are_there_step_by_step(layer):
    model = keras.Sequential([keras.Input((5, 3)), layer(2), layers.Dense(1)])
    model.compile("sgd", "mse")
    x = np.random.default_rng(0).normal(size=(4, 5, 3)).astype("float32")
    link = keras_backprop.explain(model, x, np.ones((4, 1))).links[0]
    (delta,) = link.deltas
    assert delta.shape == (5, 4, 2 if layer is layers.SimpleRNN else 8)
    products = np.einsum("nti,tno->tio", x, delta)  # the share of each time step
    np.testing.assert_allclose(products.sum(0), link.weight_gradients["cell.kernel"], rtol=1e-4, atol=1e-6)


def test_tables_are_counted_once_each():
    table, other, words = layers.Embedding(5, 2), layers.Embedding(5, 2), keras.Input((3,), dtype="int32")
    outputs = layers.Dense(1)(layers.Flatten()(table(words) * table(words) + other(words)))
    model = keras.Model(words, outputs)
    model.compile("sgd", "mse")
    names = [str(weight.symbol) for weight in explain(model, np.array([[0, 1, 4]]), np.ones((1, 1))).weights]
    assert names == ["C₁", "C₂", "W₁", "b₁"]


def test_a_layer_that_is_called_like_a_greek_letter_keeps_its_name():
    model = keras.Sequential([keras.Input((2,)), layers.Dense(1, name="gamma_1")])
    model.compile("sgd", "mse")
    explanation = explain(model, np.ones((1, 2)), np.ones((1, 1)))
    assert explanation.compare("dgamma_1/kernel[0,0]", float(explanation.weights[0].gradient[0, 0])).verdict == "exact"


@pytest.mark.parametrize("scale", [1.0, 1e-9, 1e-20])
def test_a_formula_that_is_not_the_rule_is_not_believed_however_small_the_gradient_is(scale):
    x = np.array([[0.5, -1.0, 2.0]])
    call = SimpleNamespace(outputs=[x**3])
    dy = np.full_like(x, scale)
    for derivative, known in (("3*x**2", True), ("3*x**2*1.001", False), ("2*x", False)):
        local = _written_derivative(Formula("x**3", derivative), x, call, dy, 3 * x**2 * dy, {})
        assert (local is not None) == known, derivative
