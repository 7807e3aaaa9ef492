"""The loop of `rules/layers/rnn/scan.py`: eager, unrolled and compiled give the same; what is left in parts goes into another one."""

import numpy as np
import pytest
import tensorflow as tf

from keras_backprop.rules.layers.rnn.scan import scan, stacked


@pytest.mark.parametrize("how", ["eager", "unrolled", "loop", "unknown-length", "xla"])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [1, 3, 7, 8])
def test_scan(how, reverse, length):
    x = np.random.default_rng(0).normal(size=(length, 2))
    order = range(length)[::-1] if reverse else range(length)
    sums, expected = np.zeros((length, 2)), np.ones(2)
    for t in order:
        expected = expected * 0.5 + x[t]
        sums[t] = expected

    def step(carry, x, nothing):
        assert nothing is None
        (carry,) = carry
        carry = carry * 0.5 + x
        return (carry,), (carry,), (-carry,)

    def again(carry, negative):
        return (carry[0] + negative,), (2 * negative,), ()

    def run(x):
        unroll, known = how == "unrolled", x.shape[0]
        (carry,), (out,), (negative,) = scan(step, (tf.ones(2, tf.float64),), (x, None), known, reverse, unroll)
        (total,), (twice,), _ = scan(again, (tf.zeros(2, tf.float64),), (negative,), known, not reverse, unroll)
        return carry, out, stacked(negative), total, twice

    if how != "eager":
        signature = [tf.TensorSpec([None if how == "unknown-length" else length, 2], tf.float64)]
        run = tf.function(run, input_signature=signature, autograph=False, jit_compile=how == "xla")
    carry, out, negative, total, twice = run(tf.constant(x))
    np.testing.assert_allclose(carry, expected)
    np.testing.assert_allclose(out, sums)
    np.testing.assert_allclose(negative, -sums)
    np.testing.assert_allclose(total, -sums.sum(0))
    np.testing.assert_allclose(twice, -2 * sums)


def test_a_scan_of_unknown_length_over_nothing_is_refused():
    with pytest.raises(ValueError, match="length=None"):
        tf.function(
            lambda: scan(lambda carry, x: (carry, (), ()), (tf.ones(2),), (None,), None)
        ).get_concrete_function()
