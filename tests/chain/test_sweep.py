"""The sweep: apply, un-broadcast, cast, add up, skip what nobody needs."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_backprop import BackpropSequential, Contraction, Total, backward_rule
from keras_backprop.chain.record import Record
from keras_backprop.chain.sweep import sweep
from keras_backprop.rule import Call, Gradients
from keras_backprop.rule_table import Rule


def link(backward, inputs, outputs, **rule):
    return Call("op", inputs, outputs, path="here", rule=Rule("mine", backward, **rule))


def shapeless(x):
    """x, computed in Python: of its shape nothing is known in a graph, not even how many axes it has."""
    return tf.numpy_function(lambda x: x, [x], x.dtype)


def ones(*shape):
    return tf.ones(shape)


def test_a_tensor_used_twice_gets_the_sum():
    x, a, b, y = ones(2), ones(2), ones(2), ones(2)
    calls = [
        link(lambda call, dy: Gradients(2 * dy), [x], [a]),
        link(lambda call, dy: Gradients(3 * dy), [x], [b]),
        link(lambda call, dy: Gradients(dy, 5 * dy), [a, b], [y]),
    ]
    result = sweep(calls, [(y, ones(2))], inputs=[x])
    np.testing.assert_array_equal(result.input_gradient(x), [2 + 15, 2 + 15])


@pytest.mark.parametrize("shape", [(3,), (1, 3), (2, 1), (1, 1), (), (2, 3)])
@pytest.mark.parametrize("dynamic", [False, True, "rank"])
def test_a_broadcast_input_gets_the_sum_over_what_it_was_broadcast_along(shape, dynamic):
    def gradient(x, other):
        y = x + other
        forget = shapeless if dynamic == "rank" else tf.identity
        call = link(lambda call, dy: Gradients(forget(dy), dy), [x, other], [y], broadcasts=True)
        return sweep([call], [(y, tf.cast(tf.reshape(tf.range(6), (2, 3)), tf.float32))], inputs=[x]).input_gradient(x)

    spec = tf.TensorSpec([None] * len(shape)), tf.TensorSpec([None, None])
    function = tf.function(gradient, input_signature=spec) if dynamic else gradient
    expected = np.arange(6.0).reshape(2, 3)
    for axis in (0, 1):
        if len(shape) < 2 - axis or (len(shape) and shape[axis - 2 + len(shape)] == 1):
            expected = expected.sum(axis, keepdims=True)
    np.testing.assert_array_equal(function(ones(*shape), ones(2, 3)), expected.reshape(shape))


def test_a_gradient_computed_in_python_has_the_shape_of_its_input():
    @tf.function(input_signature=[tf.TensorSpec([None, 3])])
    def gradient(x):
        y = tf.identity(x)
        calls = [link(lambda call, dy: Gradients(shapeless(dy)), [x], [y])]
        dx = sweep(calls, [(y, y)], inputs=[x]).input_gradient(x)
        assert dx.shape.as_list() == [None, 3]
        return dx

    np.testing.assert_array_equal(gradient(ones(2, 3)), ones(2, 3))


@pytest.mark.parametrize("broadcasts", [False, True])
def test_a_gradient_of_the_wrong_shape_is_refused(broadcasts):
    x, y = ones(2, 3), ones(2)
    calls = [link(lambda call, dy: Gradients(dy), [x], [y], broadcasts=broadcasts)]
    with pytest.raises(
        ValueError, match=r"'mine' of 'here' returned a gradient of shape \(2,\) for an input of shape \(2, 3\)"
    ):
        sweep(calls, [(y, ones(2))], inputs=[x])


def test_a_gradient_of_integers_is_refused_and_an_array_is_taken():
    x, y = ones(2, 3), ones(2, 3)
    calls = [link(lambda call, dy: Gradients(tf.cast(dy, tf.int32)), [x], [y])]
    with pytest.raises(TypeError, match="'mine' of 'here' returned a gradient of dtype int32"):
        sweep(calls, [(y, ones(2, 3))], inputs=[x])
    calls = [link(lambda call, dy: Gradients(np.full((2, 3), 2.0, "float32")), [x], [y])]
    np.testing.assert_array_equal(sweep(calls, [(y, ones(2, 3))], inputs=[x]).input_gradient(x), np.full((2, 3), 2.0))


@pytest.mark.parametrize("returned", [0, 2])
def test_a_wrong_number_of_gradients_is_refused(returned):
    x, y = ones(2), ones(2)
    calls = [link(lambda call, dy: Gradients(*[dy] * returned), [x], [y])]
    with pytest.raises(ValueError, match=f"one gradient for each of the 1 input.*It returned {returned}"):
        sweep(calls, [(y, ones(2))], inputs=[x])


def test_a_gradient_has_the_dtype_of_its_input():
    x, y = tf.ones(2, tf.float16), ones(2)
    result = sweep([link(lambda call, dy: Gradients(dy), [x], [y])], [(y, ones(2))], inputs=[x])
    assert result.input_gradient(x).dtype == tf.float16


def test_an_output_nobody_used_counts_as_zero():
    x, a, b = ones(2), ones(2), ones(2)
    calls = [link(lambda call, dys: Gradients(dys[0] + 7 * dys[1]), [x], [a, b])]
    np.testing.assert_array_equal(sweep(calls, [(a, ones(2))], inputs=[x]).input_gradient(x), [1, 1])


def test_no_input_gradient_below_the_lowest_trainable_weight():
    def refuse(*arguments):
        raise AssertionError("nobody needs this")

    layer = layers.Dense(2)
    x = ones(4, 3)
    record = Record()
    y = record.run(layer, x)
    (dense,) = record.calls
    calls = [link(refuse, [ones(4, 3)], [x]), dense]
    rule = dense.rule
    dense.rule = Rule("dense", lambda call, dy: Gradients(refuse, **rule.backward(call, dy).weights))
    result = sweep(calls, [(y, ones(4, 2))], layer.trainable_variables)
    np.testing.assert_array_equal(result.gradient(layer.bias), [4, 4])
    assert result.input_gradient(x) is None


def test_an_integer_input_has_no_gradient():
    x, k, y = ones(2), tf.constant([1, 2]), ones(2)
    calls = [link(lambda call, dy: Gradients(dy, None), [x, k], [y])]
    result = sweep(calls, [(y, ones(2))], inputs=[x, k])
    assert result.input_gradient(k) is None and result.input_gradient(x) is not None


def test_observers_are_told_of_every_link_in_reverse():
    seen = []
    x = ones(4, 3)
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2, "tanh"), layers.Dense(1)])
    record = Record()
    y = record.run(model, x)
    sweep(
        record.calls,
        [(y, ones(4, 1))],
        model.trainable_variables,
        observers=[
            lambda call, dys, dxs, parts: seen.append((call.rule.name, [d is not None for d in dxs], set(parts)))
        ],
    )
    assert seen == [
        ("dense", [True], {"kernel", "bias"}),
        ("tanh", [True], set()),
        ("dense", [False], {"kernel", "bias"}),
    ]


@pytest.mark.parametrize("lazily", [False, True])
@pytest.mark.parametrize("run_eagerly", [False, True])
def test_a_rule_that_raises_is_named(run_eagerly, lazily):
    class Odd(keras.layers.Layer):
        def call(self, x):
            return 2 * x

        def backward(self, call, dy):
            def dx():
                raise KeyError("scale")

            return Gradients(dx if lazily else dx())

    model = BackpropSequential([keras.Input((2,)), keras.layers.Dense(2), Odd(name="odd")])
    model.compile("sgd", "mse", run_eagerly=run_eagerly)
    with pytest.raises(KeyError) as raised:
        model.fit(np.ones((4, 2)), np.ones((4, 2)), verbose=0)
    (note,) = raised.value.__notes__
    assert note.startswith("Raised by the rule 'Odd.backward' in the backward pass of <Call") and "odd: (" in note


WRONG = {
    "another shape": (lambda x, dy: Contraction("i,o->io", x, dy), r"returned a gradient of shape \(2, 2\) for"),
    "no product of these": (lambda x, dy: Contraction("i,i->i", keras.ops.tile(x, (1, 2)), dy), "Raised by"),
    "a sum of another shape": (lambda x, dy: Total(keras.ops.sum(dy)), r"returned a gradient of shape \(\) for"),
}


@pytest.mark.parametrize("run_eagerly", [False, True])
@pytest.mark.parametrize("wrong, said", WRONG.values(), ids=WRONG)
def test_a_rule_whose_weight_gradient_is_wrong_is_named(wrong, said, run_eagerly):
    class Odd(keras.layers.Layer):
        def build(self, shape):
            self.w = self.add_weight(shape=shape[-1:])

        def call(self, x):
            return x * self.w

        def backward(self, call, dy):
            return Gradients(dy * self.w, w=wrong(call.input, dy))

    model = BackpropSequential([keras.Input((2,)), Odd(name="odd")], name="m")
    model.compile("sgd", "mse", run_eagerly=run_eagerly)
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError)) as raised:
        model.fit(np.ones((4, 2)), np.ones((4, 2)), verbose=0)
    told = "".join([str(raised.value), *getattr(raised.value, "__notes__", ())])
    assert "he rule 'Odd.backward' of 'm/odd'" in told and "the weight 'm/odd/" in told
    assert re.search(said, told)


def test_a_rule_without_a_name_trains():
    class Named(keras.layers.Layer):
        def call(self, x):
            return 2 * x

    backward_rule(Named)(lambda call, dy: Gradients(2 * dy))
    model = BackpropSequential([keras.Input((2,)), keras.layers.Dense(2), Named()])
    model.compile("sgd", "mse")
    model.fit(np.ones((4, 2)), np.ones((4, 2)), verbose=0)
