"""The operations of `rules/ops/refused.py`, and that every operation is in one of the states."""

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from keras_backprop import MissingRuleError
from keras_backprop._keras import ops as operations
from keras_backprop.chain.record import Record
from keras_backprop.chain.sweep import sweep
from keras_backprop.registry import rule_for
from tests.rules.ops.eager import gradients


@pytest.mark.parametrize("name", [name for name in vars(operations) if name not in ("Function", "Operation")])
def test_every_operation_is_in_one_of_the_states(name):
    rule = rule_for(getattr(operations, name))
    assert rule is not None, f"keras.ops has an operation {name} that has no rule, no declaration and no reason"
    assert rule.state in ("rule", "not differentiable", "refused")


def test_code_that_runs_inside_an_operation_is_refused_in_the_forward_pass():
    with pytest.raises(MissingRuleError, match="it runs Python code of its own"):
        Record().run(lambda x: ops.map(lambda row: 2 * row, x), tf.ones([2, 3]))


def test_what_has_no_backward_pass_is_refused_once_the_gradient_is_needed():
    x, turn = tf.ones([1, 4, 4, 1]), np.array([1, 0.1, 0, 0, 1, 0, 0, 0], "float32")
    record = Record()
    y = record.run(lambda x: ops.image.affine_transform(x, turn), x)
    assert y.shape == x.shape
    sweep(record.calls, [(y, y)])
    with pytest.raises(MissingRuleError, match="map_coordinates"):
        sweep(record.calls, [(y, y)], inputs=[x])


def test_complex_numbers_are_refused_and_not_dropped():
    x = tf.ones([3])
    with pytest.raises(MissingRuleError, match="complex numbers"):
        gradients(lambda x: ops.real(ops.cast(x, "complex64")), x)


def test_real_numbers_pass_through_operations_of_complex_ones():
    (dx,) = gradients(
        lambda x: ops.real(x) + 2 * ops.conj(x) + ops.imag(x) + ops.angle(x), tf.ones([3]), upstream=tf.ones_like
    )
    np.testing.assert_array_equal(dx, [3, 3, 3])
