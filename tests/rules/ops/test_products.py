"""The rules of `rules/ops/products.py`."""

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from keras_backprop._keras import ops as operations
from tests.checking import Case, check_rule
from tests.rules.ops.eager import against_the_tape, gradients


def case(name, function, *inputs):
    return Case(name, lambda: function, inputs)


MATMUL = {
    "matrices": ((3, 4), (4, 5)),
    "vectors": ((4,), (4,)),
    "matrix-vector": ((3, 4), (4,)),
    "vector-matrix": ((4,), (4, 5)),
    "positions": ((2, 3, 4), (4, 5)),
    "batches": ((2, 3, 4), (2, 4, 5)),
    "broadcast": ((2, 1, 3, 4), (6, 4, 5)),
    "matrix-batches": ((3, 4), (2, 4, 5)),
    "batches-vector": ((2, 3, 4), (4,)),
    "vector-batches": ((4,), (2, 4, 5)),
}
EINSUM = {
    "ab,bc->ac": ((2, 3), (3, 4)),
    "abc,cd->abd": ((2, 3, 4), (4, 5)),
    "abc,cde->abde": ((2, 3, 4), (4, 5, 2)),
    "abcd,cde->abe": ((2, 3, 4, 2), (4, 2, 5)),
    "btnh,bsnh->bnts": ((2, 3, 2, 4), (2, 5, 2, 4)),
    "bnts,bsnh->btnh": ((2, 2, 3, 5), (2, 5, 2, 4)),
    "ij,jk": ((2, 3), (3, 4)),
    "i,j->ij": ((2,), (3,)),
    "ij->ji": ((2, 3),),
    "ij->": ((2, 3),),
    "ij->i": ((2, 3),),
    "ii->i": ((3, 3),),
    "ii": ((3, 3),),
    "iij,j->i": ((3, 3, 2), (2,)),
    "ij,ij->": ((2, 3), (2, 3)),
    "ij,k->i": ((2, 3), (4,)),
    "...i,ij->...j": ((2, 5, 3), (3, 4)),
    "...i,...i->...": ((2, 5, 3), (5, 3)),
    "b...i,b...i->b...": ((2, 1, 3), (2, 4, 3)),
    "...i->...": ((2, 5, 3),),
    "a...,b...->ab...": ((2, 3), (4, 3)),
    "ab,bc,cd->ad": ((2, 3), (3, 4), (4, 2)),
}

CASES = [
    *(case(f"matmul-{name}", lambda a, b: ops.matmul(a, b), *shapes) for name, shapes in MATMUL.items()),
    *(case(f"dot-{name}", lambda a, b: ops.dot(a, b), *shapes) for name, shapes in MATMUL.items() if "batches" not in name),
    case("dot-batches", lambda a, b: ops.dot(a, b), (2, 3, 4), (5, 4, 2)),
    case("dot-number", lambda a, b: ops.dot(a, b), (2, 3), np.array(1.5)),
    case("dot-constant", lambda a: ops.dot(a, np.arange(8.0).reshape(4, 2)), (3, 4)),
    case("matmul-constant", lambda a: ops.matmul(np.arange(8.0).reshape(2, 4), a), (4, 3)),
    case("operator", lambda a, b: a @ b, (3, 4), (4, 5)),
    case("the-same-twice", lambda a: ops.matmul(a, a), (3, 3)),
    *(
        case(f"tensordot-{i}", lambda a, b, axes=axes: ops.tensordot(a, b, axes=axes), *shapes)
        for i, (axes, *shapes) in enumerate([
            (1, (2, 3), (3, 4)),
            (2, (2, 3, 4), (3, 4, 5)),
            (0, (2,), (3, 2)),
            ([[1], [0]], (2, 3), (3, 4)),
            ([[2, 0], [0, 1]], (2, 3, 4), (4, 2, 5)),
            ([[0, 2], [1, 0]], (2, 3, 4), (4, 2, 5)),
            ([[-1], [-2]], (2, 3), (5, 3, 4)),
        ])
    ),
    case("vdot", lambda a, b: ops.vdot(a, b), (2, 3), (2, 3)),
    case("outer", lambda a, b: ops.outer(a, b), (3,), (4,)),
    case("outer-flattened", lambda a, b: ops.outer(a, b), (3, 2), (2, 2)),
    case("cross", lambda a, b: ops.cross(a, b), (4, 3), (4, 3)),
    case("cross-broadcast", lambda a, b: ops.cross(a, b), (4, 3), (3,)),
    case("cross-axes", lambda a, b: ops.cross(a, b, axisa=0, axisb=1, axisc=0), (3, 4), (4, 3)),
    case("cross-axis", lambda a, b: ops.cross(a, b, axis=0), (3, 4), (3, 4)),
    case("cross-plane", lambda a, b: ops.cross(a, b), (4, 2), (4, 2)),
    case("cross-plane-space", lambda a, b: ops.cross(a, b), (4, 2), (4, 3)),
    case("cdist", lambda a, b: ops.cdist(a, b), (3, 2), (4, 2)),
    case("cdist-batch", lambda a, b: ops.cdist(a, b), (2, 3, 2), (4, 2)),
    *(
        case(f"correlate-{mode}-{m}", lambda a, b, mode=mode: ops.correlate(a, b, mode=mode), (7,), (m,))
        for mode in ("valid", "same", "full")
        for m in (1, 3, 4)
    ),
    *(case(f"einsum-{equation}", lambda *x, e=equation: ops.einsum(e, *x), *shapes) for equation, shapes in EINSUM.items()),
    case("einsum-constant", lambda x: ops.einsum("ab,bc->ac", np.ones((2, 3)), x), (3, 4)),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_rule(case):
    check_rule(case)


@pytest.mark.parametrize("shapes", [s for s in MATMUL.values() if len(s[0]) > 1 and len(s[1]) > 1])
def test_matmul_with_unknown_sizes(shapes):
    against_the_tape(
        lambda a, b: ops.matmul(a, b), *shapes, signature=[[None] * (len(s) - 1) + [s[-1]] for s in shapes]
    )


# Keras's own `inner` and `kron` cannot be compiled.


@pytest.mark.parametrize("shapes", [((2, 3), (4, 3)), ((3,), (3,)), ((2, 3), (3,)), ((2, 2, 3), (4, 3))])
def test_inner(shapes):
    forward = lambda a, b: tf.tensordot(a, b, [[-1], [-1]])  # noqa: E731
    against_the_tape(operations.Inner(), *shapes, forward=forward)


@pytest.mark.parametrize("shapes", [((2, 3), (2, 2)), ((3,), (2,)), ((2, 3), (4,)), ((3,), (2, 2))])
def test_kron(shapes):
    against_the_tape(operations.Kron(), *shapes)


def test_cdist_of_a_point_with_itself_has_no_nan():
    (dx,) = gradients(lambda x: ops.cdist(x, x), tf.constant([[1.0, 2.0], [0.0, 2.0]]), upstream=tf.ones_like)
    np.testing.assert_allclose(dx, [[2, 0], [-2, 0]])
