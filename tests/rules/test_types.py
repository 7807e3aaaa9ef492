"""The gradient functions of `rules/types.py`."""

import numpy as np
import pytest
import tensorflow as tf

from keras_backprop.rules.types import BY_TYPE
from tests.checking import normal
from tests.rules.ops.eager import against_the_tape, gradients

FUNCTIONS = {"RealDiv": lambda a, b: a / b, "Sub": lambda a, b: a - b}
SHAPES = [
    ((3, 4), (3, 4)), ((3, 4), (3, 1)), ((3, 1), (3, 4)), ((3, 4), (4,)), ((4,), (3, 4)), ((3, 4), ()), ((), (3, 4)),
    ((1, 4), (3, 1)), ((2, 1, 4), (3, 1)), ((1, 1), (1, 1)),
]  # fmt: skip


def test_each_has_its_cases():
    assert set(FUNCTIONS) == set(BY_TYPE)


@pytest.mark.parametrize("kind", BY_TYPE)
@pytest.mark.parametrize("shapes", SHAPES, ids=str)
@pytest.mark.parametrize("sizes", [None, "known", "unknown", "some"])
def test_against_the_tape(kind, shapes, sizes):
    signature = sizes and [
        [None if sizes == "unknown" or (sizes == "some" and axis == 0) else size for axis, size in enumerate(shape)]
        for shape in shapes
    ]
    against_the_tape(FUNCTIONS[kind], *shapes, signature=signature)


@pytest.mark.parametrize("kind", BY_TYPE)
def test_complex_numbers_and_a_single_wanted_gradient(kind):
    a, b = (tf.constant(normal(3, 4, seed=seed)) for seed in (1, 2))
    against_the_tape(lambda x: tf.math.real(FUNCTIONS[kind](tf.complex(a, x), tf.complex(x, b))), (3, 4))
    against_the_tape(lambda x: FUNCTIONS[kind](x, b), (3, 4))
    against_the_tape(lambda x: FUNCTIONS[kind](a, x), (3, 4))


@pytest.mark.parametrize("kind", BY_TYPE)
def test_signs_and_divisors_come_after_the_sum(kind):
    traced = tf.function(lambda a, b: gradients(FUNCTIONS[kind], a, b, upstream=tf.identity)[1], autograph=False)
    specs = [tf.TensorSpec(shape, tf.float64) for shape in ((3, 4), (3, 1))]
    operations = traced.get_concrete_function(*specs).graph.get_operations()
    large = [one.type for one in operations if one.outputs and one.outputs[0].shape == (3, 4)]
    assert large.count("RealDiv") <= 2 and "Neg" not in large


def test_half_precision_does_not_overflow_in_the_sum():
    y, b = tf.fill([1000], tf.constant(50.0, tf.float16)), tf.constant(1000.0, tf.float16)
    da, db = gradients(FUNCTIONS["RealDiv"], b * y, b, upstream=lambda y: 10 * y)
    assert np.isfinite(da).all() and db.numpy() == pytest.approx(-500 * 50, rel=0.01)


@tf.RegisterGradient("TwiceTheDifference")
def _twice(operation, dy):
    return 2 * dy, -2 * dy


def test_an_operation_that_has_been_given_another_gradient_keeps_it():
    @tf.function(autograph=False)
    def traced(a, b):
        def function(a, b):
            with tf.compat.v1.get_default_graph().gradient_override_map({"Sub": "TwiceTheDifference"}):
                return a - b

        return gradients(function, a, b, upstream=tf.ones_like)

    assert [float(d) for d in traced(tf.constant(3.0), tf.constant(1.0))] == [2, -2]
