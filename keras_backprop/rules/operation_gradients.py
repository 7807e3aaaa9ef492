"""Gradient functions of types of operations for which TensorFlow's take more passes over memory than are needed.

They are called `(operation, dy) -> (da, db)`, as TensorFlow's are, in single and double precision. Letters: y = f(a, b); Σ is
over the axes along which an operand was broadcast. What is summed is small: signs and divisors come after the sum.
"""

import tensorflow as tf

from keras_backprop import _tensorflow
from keras_backprop.shapes import summed_to


def quotient(operation, dy):
    """y = a/b        da = Σ dy/b        db = −(Σ dy·y)/b

    dy·y comes first, so that it has to be finite: with a = 10³⁸, b = 10¹⁰, dy = 10¹² db is infinite in single precision, where
    TensorFlow's dy·(−a/b/b) is finite.
    """
    (a, b), y = operation.inputs, operation.outputs[0]
    wants_a, wants_b = _tensorflow.wanted_gradients(operation)
    return summed_to(dy / b, a, b) if wants_a else None, -summed_to(dy * y, b, a) / b if wants_b else None


def difference(operation, dy):
    """y = a − b        da = Σ dy        db = −Σ dy"""
    a, b = operation.inputs
    wants_a, wants_b = _tensorflow.wanted_gradients(operation)
    return summed_to(dy, a, b) if wants_a else None, -summed_to(dy, b, a) if wants_b else None


BY_TYPE = {"RealDiv": quotient, "Sub": difference}
"""Type -> gradient function."""

_IN_PLACE_OF = {_tensorflow.gradients_by_type()[name]: ours for name, ours in BY_TYPE.items()}


def shortest(gradient, dy):
    """The gradient function to be called: ours in the place of TensorFlow's, or the one that is given.

    By the function, and not by the type: an operation that has been given another one keeps it. TensorFlow's serves for slices,
    for complex numbers, and for half precision, which overflows in sums.
    """
    serves = isinstance(dy, tf.Tensor) and dy.dtype in (tf.float32, tf.float64)
    return _IN_PLACE_OF.get(gradient, gradient) if serves else gradient
