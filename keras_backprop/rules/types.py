"""Types of operations whose gradient TensorFlow computes in more passes over memory than are needed.

Functions `(operation, dy) -> (da, db)` in the place of TensorFlow's, in single and double precision. Letters: y = f(a, b); Σ is
over the axes along which an operand was broadcast. What is summed is small: signs and divisors come after the sum.
"""

from keras_backprop import _tensorflow
from keras_backprop.shapes import summed_to


def quotient(operation, dy):
    """y = a/b        da = Σ dy/b        db = −(Σ dy·y)/b"""
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

GRADIENTS = {_tensorflow.gradients_by_type()[name]: shorter for name, shorter in BY_TYPE.items()}
"""TensorFlow's gradient function -> ours: an operation that has been given another keeps it."""
