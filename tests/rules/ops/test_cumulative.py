"""The rules of `rules/ops/cumulative.py`."""

import numpy as np
import pytest
from keras import ops

from tests.checking import Case, check_rule, normal

X = normal(3, 4)
WITH_NAN = np.array([[1.0, np.nan, 3.0], [2.0, 4.0, np.nan]])

CASES = [
    Case("cumsum", lambda: ops.cumsum, (X,)),
    Case("cumsum-axis", lambda: lambda x: ops.cumsum(x, axis=0), (X,)),
    Case("cumsum-negative", lambda: lambda x: ops.cumsum(x, axis=-1), (X,)),
    Case("cumprod", lambda: ops.cumprod, (X,)),
    Case("cumprod-axis", lambda: lambda x: ops.cumprod(x, axis=1), (X,)),
    Case("cumprod-zero", lambda: lambda x: ops.cumprod(x, axis=0), (np.array([1.0, 0.0, 2.0]),), differences=False),
    Case("cumsum-dtype", lambda: lambda x: ops.cumsum(x, axis=0, dtype="float64"), (X.astype("float32"),)),
    Case("cumprod-dtype", lambda: lambda x: ops.cumprod(x, axis=0, dtype="float64"), (X.astype("float32"),)),
    Case("nancumsum", lambda: lambda x: ops.nancumsum(x, axis=1), (WITH_NAN,), differences=False),
    Case("nancumsum-flat", lambda: ops.nancumsum, (WITH_NAN,), differences=False),
    Case("nancumprod", lambda: lambda x: ops.nancumprod(x, axis=1), (WITH_NAN,), differences=False),
    Case("diff", lambda: ops.diff, (X,)),
    Case("diff-none", lambda: lambda x: ops.diff(x, n=0), (X,)),
    Case("diff-twice", lambda: lambda x: ops.diff(x, n=2, axis=0), (X,)),
    Case("trapezoid", lambda: ops.trapezoid, (X,)),
    Case("trapezoid-width", lambda: lambda x: ops.trapezoid(x, dx=0.3, axis=0), (X,)),
    Case("trapezoid-places", lambda: lambda x: ops.trapezoid(x, x=np.array([0.0, 1.0, 3.0, 3.5])), (X,)),
    Case("trapezoid-places-axis", lambda: lambda x: ops.trapezoid(x, x=np.abs(normal(2, 3, 4)), axis=1), ((2, 3, 4),)),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_rule(case):
    check_rule(case)
