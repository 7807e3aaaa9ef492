"""‖Σₜ xₜ·dyₜᵀ‖² = Σₜₛ ⟨xₜ,xₛ⟩·⟨dyₜ,dyₛ⟩, and what rounding does to it.

Where the terms of the sum cancel each other, as with features far from 0 below a layer that takes means away, rounding may leave
anything of the difference. With M = Σₜ ‖xₜ‖·‖dyₜ‖ and the precision ε the error is of the order of ε·M². So where M² is large
against the result it is computed once more, in double precision. And what rounding does to the sum of the product itself,
of the order of ε·M, is added to the norm, which is rather too large than too small for who clips by it. It is an estimate,
several times what is usual, and no bound: in the worst case rounding grows with the number of terms.
"""

from typing import Any

import numpy as np
import tensorflow as tf

CANCELS = 1e3
"""From this M² over the result on it is computed in double precision. Until there the norm is too large by 0.1 % at most."""

ROUNDINGS = 16
"""How many ε·M² are added: inner products and sums of some hundred terms are off by fewer."""

ROUNDINGS_OF_SUM = 2
"""How many ε·M are added to the norm: errors of either sign in all the numbers of a product make fewer."""


def squared_norms(gram: Any, dy: Any) -> Any:
    """The squared norms of sums of outer products, one for each example.

    Args:
        gram: function, dtype -> tensor (n, t, t), the inner products ⟨xₜ,xₛ⟩ in this dtype.
        dy: float tensor (n, t, o).

    Returns:
        A tensor of shape `(n,)`, of dy's dtype.
    """

    def sums(dtype):
        of_x, of_dy = gram(dtype), tf.matmul(tf.cast(dy, dtype), tf.cast(dy, dtype), transpose_b=True)
        lengths = tf.sqrt(tf.linalg.diag_part(of_x) * tf.linalg.diag_part(of_dy))
        return tf.reduce_sum(of_x * of_dy, axis=[1, 2]), tf.square(tf.reduce_sum(lengths, axis=1))

    squares, size = sums(dy.dtype)
    epsilon = float(np.finfo(dy.dtype.as_numpy_dtype).eps)

    def above(squares):
        """The square of the norm and what the sum of the product may be off by."""
        return tf.square(tf.sqrt(tf.maximum(squares, 0)) + ROUNDINGS_OF_SUM * epsilon * tf.sqrt(size))

    usual = above(squares + ROUNDINGS * epsilon * size)
    if dy.dtype == tf.float64:
        return usual
    cancel = size > CANCELS * squares  # of each example, whoever else is in the batch

    def precise(*_):
        return tf.constant(False), tf.where(cancel, above(tf.cast(sums(tf.float64)[0], dy.dtype)), usual)

    due = tf.reduce_any(cancel)
    if tf.executing_eagerly():
        return precise()[1] if due else usual
    # A loop of at most one turn, which unlike `tf.cond` leaves the step one that can run in one thread.
    return tf.while_loop(lambda due, _: due, precise, (due, usual))[1]
