"""The rules of `rules/ops/arithmetic.py`."""

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from keras_backprop._keras import ops as operations
from tests.checking import Case, check_rule, normal
from tests.rules.ops.eager import gradients

SHAPES = {
    "same": ((4, 5), (4, 5)),
    "broadcast": ((4, 1, 5), (3, 1)),
    "row": ((4, 5), (5,)),
    "scalar-tensor": ((4, 5), ()),
}
SMOOTH = [
    "add",
    "subtract",
    "multiply",
    "divide",
    "true_divide",
    "divide_no_nan",
    "arctan2",
    "hypot",
    "logaddexp",
    "logaddexp2",
]
KINKED = ["maximum", "minimum", "fmax", "fmin", "mod", "fmod"]
NUMBERS = [name for name in SMOOTH + KINKED if name != "hypot"]  # `keras.ops.hypot` takes tensors only
POSITIVE = np.abs(normal(4, 5, seed=3)) + 0.5


def binary(name, a, b):
    return Case(name, lambda: lambda x, y: getattr(ops, name.split("-")[0])(x, y), (a, b))


CASES = [
    *(
        binary(f"{name}-{label}", normal(*a), normal(*b, seed=1))
        for name in SMOOTH + KINKED
        for label, (a, b) in SHAPES.items()
    ),
    *(Case(f"{name}-number", lambda name=name: lambda x: getattr(ops, name)(x, 2.5)) for name in NUMBERS),
    *(Case(f"number-{name}", lambda name=name: lambda x: getattr(ops, name)(2.5, x)) for name in NUMBERS),
    Case("operators", lambda: lambda x, y: (2 * x + 1 - y) / (3 - x * y) - x, ((4, 5), (5,))),
    Case("twice-the-same", lambda: lambda x: x * x + x),
    Case("array-operand", lambda: lambda x: ops.multiply(x, np.arange(5.0))),
    Case("integer-operand", lambda: lambda x: ops.multiply(x, np.full((4, 5), 3))),
    Case("power", lambda: lambda x, y: ops.power(x, y), (POSITIVE, normal(5))),
    Case("power-number", lambda: lambda x: x**3),
    Case("power-half", lambda: lambda x: x**0.5, (POSITIVE,)),
    Case("number-power", lambda: lambda x: ops.power(2.0, x)),
    Case("power-of-a-negative", lambda: lambda x, y: ops.power(x, ops.round(y)), ((4, 5), (4, 5))),
    Case("maximum-ties", lambda: lambda x: ops.maximum(x, 1.0), (np.array([0.5, 1.0, 2.0]),), differences=False),
    Case("minimum-ties", lambda: lambda x: ops.minimum(1.0, x), (np.array([0.5, 1.0, 2.0]),), differences=False),
    Case("fmax-nan", lambda: lambda x, y: ops.fmax(x, y), (np.array([1.0, np.nan, 2.0]), np.array([np.nan, 1.0, 1.0])), differences=False),
    Case("divide-no-nan-zero", lambda: lambda x, y: ops.divide_no_nan(x, y), ((3,), np.array([1.0, 0.0, 2.0])), differences=False),
    Case("ldexp", lambda: lambda x: ops.ldexp(x, np.array([1, -2, 0, 3, 1])), (np.array([1.0, 2.0, 0.0, -1.0, 3.0]),)),
    Case("heaviside", lambda: lambda x, y: ops.heaviside(x, y), (np.array([-1.0, 0.0, 2.0]), (3,)), differences=False),
    Case("nextafter", lambda: lambda x, y: ops.nextafter(x, y), differences=False, inputs=((4, 5), (4, 5))),
    Case("clip", lambda: lambda x: ops.clip(x, -0.5, 0.7)),
    Case("clip-at-the-bounds", lambda: lambda x: ops.clip(x, -1.0, 1.0), (np.array([-2.0, -1.0, 0.0, 1.0, 2.0]),), differences=False),
    Case("clip-array-bounds", lambda: lambda x: ops.clip(x, np.full(5, -0.3), np.full(5, 0.4))),
    Case("where", lambda: lambda x, y: ops.where(x > 0, x, y), ((4, 5), (4, 5))),
    Case("where-broadcast", lambda: lambda x, y: ops.where(x > 0, y, 1.0), ((4, 5), (5,))),
    Case("where-number-first", lambda: lambda x, y: ops.where(y > 0, 0.0, x), ((5,), (4, 5))),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_rule(case):
    check_rule(case)


@pytest.mark.parametrize("operation", [operations.Arctan2(), operations.Hypot()])
def test_the_gradient_at_the_origin_is_zero_not_nan(operation):
    for gradient in gradients(operation, tf.zeros([2]), tf.zeros([2]), upstream=tf.ones_like):
        np.testing.assert_array_equal(gradient, [0, 0])


@pytest.mark.parametrize("name", ["hypot", "logaddexp", "logaddexp2"])
def test_where_both_are_equal_the_first_counts_as_the_larger(name):
    a, b = np.array([1.0, -2.0, 0.5, 3.0]), np.array([1.0, 2.0, 0.5, -3.0])
    check_rule(Case(name, lambda: getattr(ops, name), (a, b), differences=False))


def test_mixed_dtypes_are_cast_back():
    dx, dw = gradients(operations.Multiply(), tf.ones([3, 2], tf.bfloat16), tf.ones([2]), upstream=tf.ones_like)
    assert dx.dtype == "bfloat16"
    assert dw.dtype == "float32"
    np.testing.assert_array_equal(dw, [3, 3])
