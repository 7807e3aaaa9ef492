"""The rules of `rules/activations.py`."""

import numpy as np
import pytest
import tensorflow as tf
from keras import activations, layers, ops

from keras_backprop._keras import activations as symbolic
from tests.checking import Case, check_rule, normal
from tests.rules.ops.eager import gradients

POINTS = np.concatenate([np.linspace(-7.3, 7.3, 16), normal(8)]).reshape(4, 6)

# Name -> the function, as a function of a tensor alone.
# Three of `keras.activations` convert to a tensor first and cannot be called on symbolic ones: `keras.ops` has them too.
FUNCTIONS = {
    "hard_silu": ops.hard_silu,
    "sparsemax": ops.sparsemax,
    "mish": lambda x: symbolic.Mish()(x),
    **{
        name: getattr(activations, name)
        for name in [
            "celu",
            "elu",
            "exponential",
            "gelu",
            "hard_shrink",
            "hard_sigmoid",
            "hard_tanh",
            "leaky_relu",
            "linear",
            "log_sigmoid",
            "log_softmax",
            "relu",
            "relu6",
            "selu",
            "sigmoid",
            "silu",
            "soft_shrink",
            "softmax",
            "softplus",
            "softsign",
            "sparse_plus",
            "sparse_sigmoid",
            "squareplus",
            "tanh",
            "tanh_shrink",
            "glu",
        ]
    },
    "celu-alpha": lambda x: activations.celu(x, 0.3),
    "elu-alpha": lambda x: activations.elu(x, 0.3),
    "gelu-approximate": lambda x: activations.gelu(x, approximate=True),
    "glu-axis": lambda x: activations.glu(x, axis=0),
    "hard_shrink-threshold": lambda x: activations.hard_shrink(x, 0.1),
    "soft_shrink-threshold": lambda x: activations.soft_shrink(x, 0.1),
    "leaky_relu-slope": lambda x: activations.leaky_relu(x, 0.1),
    "log_softmax-axis": lambda x: activations.log_softmax(x, axis=0),
    "softmax-axis": lambda x: activations.softmax(x, axis=0),
    "softmax-all": lambda x: ops.softmax(x, axis=None),
    "log_softmax-all": lambda x: ops.log_softmax(x, axis=None),
    "sparsemax-axis": lambda x: ops.sparsemax(x, axis=0),
    "squareplus-b": lambda x: activations.squareplus(x, b=0.3),
    "threshold": lambda x: activations.threshold(x, 0.3, -2.0),
    "relu-slope": lambda x: activations.relu(x, negative_slope=0.1),
    "relu-cap": lambda x: activations.relu(x, max_value=0.7),
    "relu-cap-6": lambda x: activations.relu(x, max_value=6),
    "relu-threshold": lambda x: activations.relu(x, threshold=0.3),
    "relu-negative-threshold": lambda x: activations.relu(x, threshold=-0.7, max_value=2.0),
    "relu-everything": lambda x: activations.relu(x, negative_slope=0.3, max_value=2.0, threshold=0.3),
    "relu-slope-cap-6": lambda x: activations.relu(x, negative_slope=0.3, max_value=6),
    "relu-slope-cap-6-threshold": lambda x: activations.relu(x, negative_slope=0.3, max_value=6, threshold=0.2),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_operation(name):
    """In a custom layer: by the rule of the operation's class."""
    check_rule(Case(name, lambda: FUNCTIONS[name], (POINTS,)))


# With their default options; the others need arguments or a lambda, which expands into the operations above.
NAMES = sorted(n for n in set(dir(activations)) - {"deserialize", "get", "serialize", "threshold"} if n[0] != "_")


@pytest.mark.parametrize("name", NAMES)
def test_function(name):
    """As the activation of a layer: by the rule of the function."""
    from keras_backprop import rule_for

    assert rule_for(getattr(activations, name)) is not None
    check_rule(Case(name, lambda: layers.Activation(name, dtype="float64"), (POINTS,)))


def test_every_activation_has_a_rule_of_its_own():
    from keras_backprop import registry

    assert len([*NAMES, "threshold"]) == 32
    assert {getattr(activations, name) for name in [*NAMES, "threshold"]} <= set(registry.registered())


KINKS = {
    "relu": [0.0],
    "relu6": [0.0, 6.0],
    "leaky_relu": [0.0],
    "elu": [0.0],
    "selu": [0.0],
    "celu": [0.0],
    "celu-alpha": [0.0],
    "elu-alpha": [0.0],
    "hard_sigmoid": [-3.0, 3.0],
    "hard_silu": [-3.0, 3.0],
    "hard_tanh": [-1.0, 1.0],
    "hard_shrink": [-0.5, 0.5],
    "soft_shrink": [-0.5, 0.5],
    "sparse_plus": [-1.0, 1.0],
    "sparse_sigmoid": [-1.0, 1.0],
    "softsign": [0.0],
    "threshold": [float(np.float32(0.3)), 0.3],
    "sparsemax": [1.0, 0.0, 0.0, -1.0],
    "relu-slope": [0.0],
    "relu-cap": [0.0, 0.7, float(np.float32(0.7))],
    "relu-cap-6": [0.0, 6.0],
    "relu-threshold": [0.0, 0.3, float(np.float32(0.3))],
    "relu-negative-threshold": [-0.7, 0.0, 2.0],
    "relu-everything": [0.0, 0.3, float(np.float32(0.3)), 2.0],
    "relu-slope-cap-6": [0.0, 6.0],
    "relu-slope-cap-6-threshold": [0.0, 0.2, 6.0],
}


@pytest.mark.parametrize("name", KINKS)
def test_kinks_have_tensorflows_value(name):
    x = np.array([KINKS[name]])
    check_rule(Case(name, lambda: FUNCTIONS[name], (x,), differences=False))


@pytest.mark.parametrize("name", [n for n in NAMES if n != "exponential"])
def test_derivatives_are_finite_far_out(name):
    from keras_backprop.chain.record import Record
    from keras_backprop.chain.sweep import sweep

    x = tf.constant([[-700.0, -80.0, -1e-30, 0.0, 80.0, 700.0]], tf.float64)
    record = Record()
    y = record.run(layers.Activation(name, dtype="float64"), x)
    dx = sweep(record.calls, [(y, tf.ones_like(y))], inputs=[x]).input_gradient(x)
    assert np.all(np.isfinite(dx))


@pytest.mark.parametrize("name, derivatives", [("celu", [0, 1]), ("squareplus", [0.5, 0.5]), ("tanh_shrink", [1, 1])])
def test_derivatives_where_a_square_overflows(name, derivatives):
    (dx,) = gradients(FUNCTIONS[name], tf.constant([-1e30, 1e30]), upstream=tf.ones_like)
    np.testing.assert_array_equal(dx, derivatives)


def test_the_approximate_gelu_is_finite_far_out_in_half_precision():
    x = tf.constant([[-200.0, -100.0, 0.0, 100.0, 200.0]], tf.float16)
    (dx,) = gradients(FUNCTIONS["gelu-approximate"], x, upstream=tf.ones_like)
    np.testing.assert_array_equal(dx, [[0.0, 0.0, 0.5, 1.0, 1.0]])


@pytest.mark.parametrize("name, kind", [("gelu", "Erfc"), ("gelu-approximate", "Tanh"), ("silu", "Sigmoid")])
def test_what_the_forward_pass_has_computed_is_kept(name, kind):
    traced = tf.function(lambda x: gradients(FUNCTIONS[name], x), autograph=False)
    graph = traced.get_concrete_function(tf.TensorSpec((4, 6), tf.float32)).graph
    assert [operation.type for operation in graph.get_operations()].count(kind) == 1


def test_explain_and_training_agree():
    """Where a rule has a fused kernel and a derivative, they are the same function."""
    from keras_backprop.chain.record import Record

    for name in NAMES:
        record = Record()
        x = tf.constant(POINTS)
        record.run(layers.Activation(name, dtype="float64"), x)
        call = record.calls[-1]
        if call.rule.derivative is None:
            continue
        dy = tf.constant(normal(*call.output.shape, seed=3))
        (dx,) = call.rule.backward(call, dy).inputs
        np.testing.assert_allclose(dx, dy * call.rule.derivative(call), rtol=1e-6, atol=1e-8, err_msg=name)


def test_bfloat16_stays_bfloat16():
    from keras_backprop.chain.record import Record
    from keras_backprop.chain.sweep import sweep

    for name, function in FUNCTIONS.items():
        x = tf.cast(POINTS, tf.bfloat16)
        record = Record()
        y = record.run(layers.Activation(function, dtype="bfloat16"), x)
        dx = sweep(record.calls, [(y, tf.ones_like(y))], inputs=[x]).input_gradient(x)
        assert dx.dtype == tf.bfloat16, name
