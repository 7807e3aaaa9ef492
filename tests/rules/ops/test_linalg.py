"""The rules of `rules/ops/linalg.py`."""

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from keras_backprop._keras import ops as operations
from keras_backprop.chain.record import Record
from keras_backprop.chain.sweep import sweep
from tests.checking import Case, Function, check_rule, normal

SQUARE = ((2, 3, 3),)
TALL, WIDE = ((2, 4, 3),), ((2, 3, 4),)


def case(name, function, inputs=SQUARE, **options):
    return Case(name, lambda: function, inputs, **options)


def positive(x):
    """A symmetric, positive matrix."""
    return ops.matmul(x, ops.swapaxes(x, -1, -2)) + np.eye(x.shape[-2])


def signs(function):
    """A function of the parts of a factorisation that does not depend on the signs of its vectors."""
    return lambda x: [ops.square(part) for part in function(x)]


CASES = [
    case("inv", ops.inv),
    case("det", ops.det),
    case("logdet", lambda x: ops.logdet(positive(x))),
    case("slogdet", lambda x: ops.slogdet(x)[1]),
    case("cholesky", lambda x: ops.cholesky(positive(x))),
    case("cholesky-upper", lambda x: ops.cholesky(positive(x), upper=True)),
    case("cholesky_inverse", lambda x: ops.cholesky_inverse(ops.cholesky(positive(x))), ((3, 3),)),
    case("cholesky_inverse-upper", lambda x: ops.cholesky_inverse(ops.cholesky(positive(x), upper=True), upper=True), ((3, 3),)),
    case("solve", lambda a, b: ops.solve(a, b), ((2, 3, 3), (2, 3, 2))),
    case("solve-vector", lambda a, b: ops.solve(a, b), ((2, 3, 3), (2, 3))),
    case("solve-constant", lambda b: ops.solve(np.eye(3) + 0.1, b), ((3, 2),)),
    *(
        case(f"solve_triangular-{lower}-{b}", lambda a, b, low=lower: ops.solve_triangular(a + 2 * np.eye(3), b, lower=low), ((2, 3, 3), b))
        for lower in (True, False)
        for b in ((2, 3, 2), (2, 3))
    ),
    case("qr", lambda x: tuple(ops.qr(x))),
    case("qr-tall", lambda x: tuple(ops.qr(x)), TALL),
    case("qr-wide", lambda x: tuple(ops.qr(x)), WIDE),
    case("qr-complete", lambda x: tuple(ops.qr(x, mode="complete")), WIDE),
    case("eigh", signs(lambda x: ops.eigh(positive(x)))),
    case("eigh-values", lambda x: ops.eigh(x)[0]),
    case("svd", signs(lambda x: ops.svd(x))),
    case("svd-tall", signs(lambda x: ops.svd(x, full_matrices=False)), TALL),
    case("svd-wide", signs(lambda x: ops.svd(x, full_matrices=False)), WIDE),
    case("svd-values", lambda x: ops.svd(x, compute_uv=False), WIDE),
    case("svd-product", lambda x: ops.matmul(*ops.svd(x, full_matrices=False)[::2]), TALL),
    case("pinv-tall", ops.pinv, TALL),
    case("pinv-wide", ops.pinv, WIDE),
    case("lstsq", lambda a, b: ops.lstsq(a, b), ((5, 3), (5, 2))),
    case("lstsq-vector", lambda a, b: ops.lstsq(a, b), ((5, 3), (5,))),
    *(
        case(f"norm-vector-{order}-{axis}-{keep}", lambda x, o=order, a=axis, k=keep: ops.norm(x, ord=o, axis=a, keepdims=k), WIDE)
        for order in (None, 1, 2, 3, 0.5, -1, float("inf"), float("-inf"))
        for axis, keep in ((-1, False), (1, True))
    ),
    *(
        case(f"norm-matrix-{order}-{axis}-{keep}", lambda x, o=order, a=axis, k=keep: ops.norm(x, ord=o, axis=a, keepdims=k), WIDE)
        for order in (None, "fro", "nuc", 1, -1, 2, -2, float("inf"), float("-inf"))
        for axis, keep in (((0, 2), False), ((2, 1), False), ((-2, -1), True))
    ),
    case("norm-all", lambda x: ops.norm(x), ((3, 4),)),
    case("norm-zero-order", lambda x: ops.norm(x, ord=0, axis=1) + ops.sum(x, axis=1), ((3, 4),)),
    case("matrix_rank", lambda x: x * ops.cast(ops.matrix_rank(x), "float64")[:, None, None]),
]  # fmt: skip


@pytest.mark.sample(45)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_rule(case):
    check_rule(case)


@pytest.mark.parametrize("operation", [operations.Qr(mode="complete"), operations.SVD()])
def test_a_gradient_that_is_not_unique_is_refused(operation):
    record, x = Record(), tf.constant(normal(4, 3))
    outputs = record.run(operation, x)
    with pytest.raises(NotImplementedError, match="Received: shape="):
        sweep(record.calls, [(y, tf.ones_like(y)) for y in outputs], inputs=[x])


def test_singular_values_of_a_matrix_of_unknown_height():
    x = tf.constant(normal(4, 3))

    @tf.function(input_signature=[tf.TensorSpec((None, 3), tf.float64)])
    def gradient(x):
        with Record([], [x]) as record:
            y = record.run(lambda x: ops.norm(x, "nuc"), x)
        return sweep(record.calls, [(y, tf.ones_like(y))], inputs=[x]).input_gradient(x)

    with tf.GradientTape() as tape:
        tape.watch(x)
        y = ops.norm(x, "nuc")
    np.testing.assert_allclose(gradient(x), tape.gradient(y, x), rtol=0, atol=1e-12)


def test_lu_factor_against_finite_differences():
    """TensorFlow's tape has no gradient of it."""
    random = np.random.default_rng(0)
    x, r = random.normal(size=(4, 4)), random.normal(size=(4, 4))
    layer = Function(lambda x: ops.lu_factor(x)[0])
    tensor, record = tf.constant(x), Record()
    y = record.run(layer, tensor)
    gradient = sweep(record.calls, [(y, tf.constant(r))], inputs=[tensor]).input_gradient(tensor)
    for _ in range(3):
        u, h = random.normal(size=x.shape), 1e-6
        plus, minus = (np.sum(r * layer(tf.constant(x + step * u))) for step in (h, -h))
        assert np.sum(gradient * u) == pytest.approx((plus - minus) / (2 * h), rel=1e-6)
