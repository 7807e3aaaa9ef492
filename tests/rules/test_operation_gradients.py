"""The gradient functions of `rules/operation_gradients.py`."""

import numpy as np
import pytest
import tensorflow as tf

from keras_backprop import shapes
from keras_backprop.rules import operation_gradients
from keras_backprop.rules.operation_gradients import BY_TYPE
from tests.checking import normal
from tests.rules.ops.eager import against_the_tape, gradients

FUNCTIONS = {"RealDiv": lambda a, b: a / b, "Sub": lambda a, b: a - b}
SHAPES = [
    ((3, 4), (3, 4)), ((3, 4), (3, 1)), ((3, 1), (3, 4)), ((3, 4), (4,)), ((4,), (3, 4)), ((3, 4), ()), ((), (3, 4)),
    ((1, 4), (3, 1)), ((2, 1, 4), (3, 1)), ((1, 1), (1, 1)),
]  # fmt: skip


def test_each_has_its_cases():
    assert set(FUNCTIONS) == set(BY_TYPE)


@pytest.fixture
def summed(monkeypatch):
    """The gradients of operands that functions of ours, which sum each of them, have computed."""
    found = []

    def summed_to(v, x, other):
        found.append(x)
        return shapes.summed_to(v, x, other)

    monkeypatch.setattr(operation_gradients, "summed_to", summed_to)
    return found


@pytest.mark.parametrize("kind", BY_TYPE)
@pytest.mark.parametrize("operands", SHAPES, ids=str)
@pytest.mark.parametrize("sizes", [None, "known", "unknown", "some"])
def test_against_the_tape(kind, operands, sizes, summed):
    signature = sizes and [
        [None if sizes == "unknown" or (sizes == "some" and axis == 0) else size for axis, size in enumerate(shape)]
        for shape in operands
    ]
    against_the_tape(FUNCTIONS[kind], *operands, signature=signature)
    assert len(summed) == 2


@pytest.mark.parametrize("kind", BY_TYPE)
@pytest.mark.parametrize("wanted", ["a", "b"])
def test_a_single_wanted_gradient(kind, wanted, summed):
    given = tf.constant(normal(3, 4, seed=2))
    against_the_tape(lambda x: FUNCTIONS[kind](*((x, given) if wanted == "a" else (given, x))), (3, 4))
    assert len(summed) == 1


@pytest.mark.parametrize("kind", BY_TYPE)
def test_complex_numbers_are_tensorflows(kind, summed):
    a, b = (tf.constant(normal(3, 4, seed=seed)) for seed in (1, 2))
    against_the_tape(lambda x: tf.math.real(FUNCTIONS[kind](tf.complex(a, x), tf.complex(x, b))), (3, 4))
    assert not summed


@pytest.mark.parametrize("kind", BY_TYPE)
def test_slices_are_tensorflows(kind, summed):
    a, b = (tf.constant(normal(3, 4, seed=seed)) for seed in (1, 2))
    slices = tf.IndexedSlices(tf.constant(normal(2, 4)), tf.constant([2, 0]), tf.constant([3, 4]))
    ours = gradients(FUNCTIONS[kind], a, b, upstream=lambda y: slices)
    assert not summed
    dense = gradients(FUNCTIONS[kind], a, b, upstream=lambda y: tf.convert_to_tensor(slices))
    for one, other in zip(ours, dense, strict=True):
        np.testing.assert_allclose(tf.convert_to_tensor(one), other, rtol=1e-10)


@pytest.mark.parametrize("kind", BY_TYPE)
def test_signs_and_divisors_come_after_the_sum(kind):
    traced = tf.function(lambda a, b: gradients(FUNCTIONS[kind], a, b, upstream=tf.identity)[1], autograph=False)
    specs = [tf.TensorSpec(shape, tf.float64) for shape in ((3, 4), (3, 1))]
    operations = traced.get_concrete_function(*specs).graph.get_operations()
    large = [one.type for one in operations if one.outputs and one.outputs[0].shape == (3, 4)]
    assert large.count("RealDiv") <= 2 and "Neg" not in large


def test_half_precision_is_tensorflows_and_does_not_overflow_in_the_sum(summed):
    y, b = tf.fill([1000], tf.constant(50.0, tf.float16)), tf.constant(1000.0, tf.float16)
    da, db = gradients(FUNCTIONS["RealDiv"], b * y, b, upstream=lambda y: 10 * y)
    assert np.isfinite(da).all() and db.numpy() == pytest.approx(-500 * 50, rel=0.01)
    assert not summed


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
