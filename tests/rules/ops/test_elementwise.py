"""The rules of `rules/ops/elementwise.py`."""

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from tests.checking import Case, check_rule, normal
from tests.rules.ops.eager import gradients

ANY = normal(4, 5)
POSITIVE = np.abs(ANY) + 0.3
UNIT = np.tanh(ANY)  # between −1 and 1

DOMAINS = {
    "any": (
        ANY,
        "negative absolute abs square exp expm1 sin cos tan sinh cosh arctan arcsinh sinc erf erfc i0 deg2rad rad2deg "
        "cbrt nan_to_num",
    ),
    "positive": (POSITIVE, "sqrt rsqrt reciprocal log log2 log10 log1p"),
    "unit": (UNIT, "arcsin arccos arctanh erfinv"),
    "above one": (POSITIVE + 1, "arccosh"),
}

CASES = [
    *(
        Case(name, lambda name=name: getattr(ops, name), (x,))
        for x, names in DOMAINS.values()
        for name in names.split()
    ),
    Case("fabs", lambda: ops.fabs, (ANY,)),
    Case("abs-at-0", lambda: ops.abs, (np.array([-1.0, 0.0, 2.0]),), differences=False),
    Case(
        "nan_to_num-not-finite",
        lambda: lambda x: ops.nan_to_num(x, nan=1.0, posinf=2.0, neginf=3.0),
        (np.array([1.0, np.nan, np.inf, -np.inf]),),
        differences=False,
    ),
    Case("rsqrt-of-a-sum", lambda: lambda x: ops.rsqrt(ops.sum(ops.square(x), axis=-1))),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_rule(case):
    check_rule(case)


@pytest.mark.parametrize("name", ["cbrt", "sinc"])
def test_the_gradient_at_zero_is_zero_where_the_tape_has_nan(name):
    (dx,) = gradients(lambda x: getattr(ops, name)(x), tf.zeros([2], tf.float64), upstream=tf.ones_like)
    np.testing.assert_array_equal(dx, [0, 0])


PIECEWISE = ["ceil", "floor", "round", "trunc", "sign"]


@pytest.mark.parametrize("name", PIECEWISE)
def test_nothing_flows_through_what_is_constant_between_jumps(name):
    check_rule(Case(name, lambda: lambda x: getattr(ops, name)(x) + x))


COMPARISONS = [
    "equal",
    "not_equal",
    "greater",
    "greater_equal",
    "less",
    "less_equal",
    "logical_and",
    "logical_or",
    "logical_xor",
]


@pytest.mark.parametrize("name", COMPARISONS)
def test_nothing_flows_through_a_comparison(name):
    check_rule(Case(name, lambda: lambda x, y: ops.where(getattr(ops, name)(x, y), x, 2 * y), ((4, 5), (4, 5))))


def test_nothing_flows_through_predicates():
    def function(x):
        masks = [ops.isnan(x), ops.isinf(x), ops.logical_not(ops.isfinite(x)), ops.isclose(x, 0.5), ops.signbit(x)]
        return x + sum(ops.cast(mask, x.dtype) for mask in masks)

    check_rule(Case("predicates", lambda: function))


def test_exp2_in_single_precision():
    """Keras's own forward pass refuses float64 in a compiled function."""
    x = np.array([-1.0, 0.0, 2.0], "float32")
    (dx,) = gradients(lambda x: ops.exp2(x), tf.constant(x), upstream=tf.ones_like)
    np.testing.assert_allclose(dx, np.log(2) * 2.0**x, rtol=1e-6)
