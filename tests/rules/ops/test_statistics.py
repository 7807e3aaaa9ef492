"""The rules of `rules/ops/statistics.py`."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_backprop._keras import ops as operations
from keras_backprop.chain.record import Record
from tests.checking import Case, check_rule, normal
from tests.rules.ops.eager import against_the_tape

X = normal(3, 4, 5)

CASES = [
    Case("median", lambda: lambda x: ops.median(x, axis=1), (X,)),
    Case("median-even", lambda: lambda x: ops.median(x, axis=2, keepdims=True), (normal(3, 4, 6),)),
    Case("median-all", lambda: ops.median, (X,)),
    Case("quantile", lambda: lambda x: ops.quantile(x, 0.3, axis=1), (X,)),
    Case("quantile-several", lambda: lambda x: ops.quantile(x, np.array([0.1, 0.8]), axis=(0, 2)), (X,)),
    Case("quantile-several-kept", lambda: lambda x: ops.quantile(x, np.array([0.1, 0.8]), axis=1, keepdims=True), (X,)),
    *(
        Case(f"quantile-{m}", lambda m=m: lambda x: ops.quantile(x, 0.35, axis=-1, method=m), (X,))
        for m in ("lower", "higher", "nearest", "midpoint")
    ),
    Case("percentile", lambda: lambda x: ops.percentile(x, 30.0, axis=1), (X,)),
    Case("average", lambda: lambda x: ops.average(x, axis=1), (X,)),
    Case("average-all", lambda: ops.average, (X,)),
    Case("average-weights", lambda: lambda x, w: ops.average(x, axis=1, weights=w), ((3, 4), np.array([1.0, 2.0, 0.5, 3.0]))),
    Case("average-weights-of-x's-shape", lambda: lambda x, w: ops.average(x, axis=-1, weights=w), ((3, 4), np.abs(normal(3, 4)) + 1)),
    Case("average-weights-all", lambda: lambda x, w: ops.average(x, weights=w), ((3, 4), np.abs(normal(3, 4)) + 1)),
    Case("quantile-known-tensor", lambda: lambda x: ops.quantile(x, ops.convert_to_tensor([0.2, 0.5]), axis=1), (X,)),
    Case("psnr", lambda: lambda a, b: ops.psnr(a, b, max_val=2), ((3, 4), normal(3, 4, seed=4))),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_rule(case):
    check_rule(case)


def test_corrcoef():
    """Keras's own forward pass cannot be compiled, and its symbolic pass gives the wrong shape."""
    against_the_tape(operations.Corrcoef(), (3, 6), rtol=1e-9)


@pytest.mark.parametrize("method", ["linear", "lower", "higher", "nearest", "midpoint"])
def test_a_quantile_is_what_keras_computes(method):
    x = keras.ops.convert_to_tensor(X)
    ours = Record().run(lambda x: ops.quantile(x, 0.35, axis=-1, method=method), x)
    np.testing.assert_array_equal(ours, ops.quantile(x, 0.35, axis=-1, method=method))
