"""The rules of `rules/ops/reductions.py`."""

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from tests.checking import Case, check_rule, normal
from tests.rules.ops.eager import against_the_tape, gradients

X = normal(3, 4, 5)
WITH_NAN = np.where(normal(3, 4, 5, seed=7) > 1.2, np.nan, X)
WITH_ZEROS = np.array([[0.0, 2.0, 3.0], [0.0, 0.0, 1.0], [1.0, 2.0, 3.0]])
AXES = {
    "all": {},
    "all-kept": {"keepdims": True},
    "axis": {"axis": 1},
    "negative": {"axis": -1, "keepdims": True},
    "two": {"axis": (0, -1)},
    "two-kept": {"axis": (1, 2), "keepdims": True},
}


def reduction(name, label, options, x):
    return Case(f"{name}-{label}", lambda: lambda x: getattr(ops, name)(x, **options), (x,))


CASES = [
    *(
        reduction(name, label, options, X)
        for name in ["sum", "mean", "max", "min", "amax", "amin", "prod", "var", "std", "ptp", "logsumexp"]
        for label, options in AXES.items()
    ),
    *(
        Case(f"{name}-{label}", lambda name=name, options=options: lambda x: getattr(ops, name)(x, **options), (WITH_NAN,), differences=False)
        for name in ["nansum", "nanmean", "nanmax", "nanmin", "nanprod", "nanvar", "nanstd"]
        for label, options in AXES.items()
    ),
    Case("max-initial", lambda: lambda x: ops.max(x, axis=1, initial=0.5), (X,)),
    Case("min-initial", lambda: lambda x: ops.min(x, axis=1, initial=-0.5), (X,)),
    Case("max-ties", lambda: lambda x: ops.max(x, axis=1), (WITH_ZEROS,), differences=False),
    Case("min-ties", lambda: lambda x: ops.min(x, axis=1), (WITH_ZEROS,), differences=False),
    Case("ptp-ties", lambda: lambda x: ops.ptp(x, axis=1), (WITH_ZEROS,), differences=False),
    Case("prod-zeros", lambda: lambda x: ops.prod(x, axis=1), (WITH_ZEROS,)),
    Case("prod-zeros-two-axes", lambda: lambda x: ops.prod(x, axis=(0, 1)), (WITH_ZEROS,)),
]  # fmt: skip


@pytest.mark.sample(60)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_rule(case):
    check_rule(case)


def test_unknown_sizes():
    def function(x):
        return ops.mean(x, axis=0) + ops.sum(ops.std(x, axis=(0, 1))) + ops.var(x) + ops.max(x, axis=(0, 2))[0]

    against_the_tape(function, (3, 4, 4), signature=[[None, None, 4]], rtol=1e-9)


@pytest.mark.parametrize("name, derivative", [("mean", lambda x: 0 * x + 1), ("var", lambda x: 2 * (x - x.mean()))])
def test_more_numbers_than_half_precision_can_count(name, derivative):
    x = normal(1000, 100).astype("float16")
    (dx,) = gradients(getattr(ops, name), tf.constant(x), upstream=lambda y: 1000 * tf.ones_like(y))
    assert dx.dtype == "float16"
    np.testing.assert_allclose(dx, 1000 / x.size * derivative(x.astype("float64")), rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("dtype, tolerance", [("float16", 2e-3), ("bfloat16", 1e-2)])
def test_a_share_of_a_standard_deviation_too_small_for_half_precision(dtype, tolerance):
    """Of 0.01/20000 = 5·10⁻⁷ float16 knows multiples of 6·10⁻⁸ only; where x is far out dx is a hundred times that."""
    x = tf.one_hot(3, 20_000, dtype=dtype)
    (dx,) = gradients(ops.std, x, upstream=lambda y: 0.01 * tf.ones_like(y))
    y, share = float(ops.std(x)), float(tf.constant(0.01, dtype)) / 20_000
    assert dx.dtype == dtype
    assert float(dx[3]) == pytest.approx(share / y, rel=tolerance)


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-6), ("float16", 2e-3), ("bfloat16", 1e-2)])
@pytest.mark.parametrize("options", [{"axis": 1}, {"axis": (0, 1), "keepdims": True}, {}], ids=str)
def test_logsumexp_of_large_numbers(options, dtype, tolerance):
    x = tf.constant(1000 + normal(5, 7), dtype)
    (dx,) = gradients(lambda x: ops.logsumexp(x, **options), x, upstream=tf.ones_like)
    powers = np.exp(tf.cast(x, tf.float64) - 1000)
    expected = powers / powers.sum(axis=options.get("axis"), keepdims=True)
    np.testing.assert_allclose(tf.cast(dx, tf.float64), expected, rtol=tolerance)


def test_nothing_flows_through_counts_and_places():
    def function(x):
        found = ops.argmax(x, axis=1) + ops.argmin(x, axis=1) + ops.count_nonzero(x, axis=1)
        return ops.sum(x, axis=1) * ops.cast(found, x.dtype) * ops.cast(ops.any(x > 0), x.dtype)

    check_rule(Case("counts", lambda: function))
