"""The rules of `rules/ops/matrices.py`."""

import pytest
from keras import ops

from tests.checking import Case, check_rule


def case(name, function, *inputs):
    return Case(name, lambda: function, inputs)


CASES = [
    case("diag-of-a-vector", ops.diag, (3,)),
    case("diag-of-a-vector-above", lambda x: ops.diag(x, k=1), (3,)),
    case("diag-of-a-matrix", ops.diag, (3, 4)),
    case("diag-of-a-matrix-below", lambda x: ops.diag(x, k=-1), (3, 4)),
    case("diagflat", lambda x: ops.diagflat(x, k=1), (2, 3)),
    case("diagonal", ops.diagonal, (3, 4)),
    case("diagonal-axes", lambda x: ops.diagonal(x, offset=1, axis1=2, axis2=0), (3, 2, 4)),
    case("diagonal-last-axes", lambda x: ops.diagonal(x, axis1=-2, axis2=-1), (2, 3, 3)),
    case("trace", ops.trace, (3, 4)),
    case("trace-batch", lambda x: ops.trace(x, offset=0, axis1=1, axis2=2), (2, 3, 3)),
    case("trace-offset", lambda x: ops.trace(x, offset=1), (4, 4)),
    *(
        case(f"{name}-{k}", lambda x, name=name, k=k: getattr(ops, name)(x, k=k), (2, 3, 4))
        for name in ("tril", "triu")
        for k in (0, 1, -1, -2)
    ),
    case("vander", ops.vander, (4,)),
    case("vander-increasing", lambda x: ops.vander(x, N=3, increasing=True), (4,)),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_rule(case):
    check_rule(case)
