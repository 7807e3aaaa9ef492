"""The rules of `rules/ops/sequences.py`."""

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from keras_backprop._keras import ops as operations
from keras_backprop.chain.record import Record
from keras_backprop.chain.sweep import sweep
from tests.checking import Case, check_rule

ENDS = (np.array([1.0, 2.0]), np.array([3.0, 0.5]))


def case(name, function, *inputs):
    return Case(name, lambda: function, inputs)


CASES = [
    case("linspace", lambda a, b: ops.linspace(a, b, 5), *ENDS),
    case("linspace-axis", lambda a, b: ops.linspace(a, b, 5, axis=-1), *ENDS),
    case("linspace-broadcast", lambda a, b: ops.linspace(a, b, 4, axis=1), (2, 3), (3,)),
    case("linspace-open", lambda a, b: ops.linspace(a, b, 5, endpoint=False), *ENDS),
    case("linspace-number", lambda b: ops.linspace(0.5, b, 5), ENDS[1]),
    case("logspace", lambda a, b: ops.logspace(a, b, 5), *ENDS),
    case("logspace-base", lambda a, b: ops.logspace(a, b, 5, base=2, endpoint=False), *ENDS),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_rule(case):
    check_rule(case)


def test_geomspace():
    check_rule(case("geomspace", lambda a, b: ops.geomspace(a, b, 4), *ENDS))


def test_geomspace_of_negative_ends():
    check_rule(case("negative", lambda a, b: ops.geomspace(-a, -b, 4, endpoint=False), *ENDS))


@pytest.mark.parametrize("endpoint", [True, False])
def test_linspace_with_its_step(endpoint):
    """Keras's own symbolic pass refuses it."""
    record, ends = Record(), [tf.constant(end) for end in ENDS]
    y, step = record.run(operations.Linspace(5, endpoint=endpoint, retstep=True), *ends)
    expected = ops.linspace(*ends, 5, endpoint=endpoint, retstep=True)
    np.testing.assert_allclose(y, expected[0], rtol=1e-12)
    np.testing.assert_allclose(step, expected[1], rtol=1e-12)
    result = sweep(record.calls, [(step, tf.ones_like(step))], inputs=ends)
    for end, sign in zip(ends, (-1, 1), strict=True):
        np.testing.assert_allclose(result.input_gradient(end), sign / (4 if endpoint else 5))
