"""How the rules are written, for those who read an explanation. Each formula is hung on its rule's backward function.

The letters are those of `rules/README.md`; `Formula` says what the text may contain. tests/rules/test_formulas.py evaluates
every one on random numbers and compares it with its rule.
"""

import itertools

from keras_backprop._keras import ops
from keras_backprop.formula import Formula, written
from keras_backprop.registry import registered
from keras_backprop.rules.attention_formulas import ATTENTION
from keras_backprop.rules.elementwise_formulas import ELEMENTWISE
from keras_backprop.rules.layer_formulas import LAYERS
from keras_backprop.rules.loss_formulas import LOSSES
from keras_backprop.rules.matrix_formulas import MATRICES
from keras_backprop.rules.operation_formulas import OPERATIONS
from keras_backprop.rules.recurrent_formulas import RECURRENT
from keras_backprop.rules.window_formulas import WINDOWS

OF_TENSORFLOW = {
    "AddV2": ops.Add, "Sub": ops.Subtract, "Mul": ops.Multiply, "RealDiv": ops.Divide, "Maximum": ops.Maximum,
    "Minimum": ops.Minimum, "Neg": ops.Negative, "Abs": ops.Absolute, "Square": ops.Square, "Sqrt": ops.Sqrt, "Rsqrt": ops.Rsqrt,
    "Exp": ops.Exp, "Expm1": ops.Expm1, "Log": ops.Log, "Log1p": ops.Log1p, "Reciprocal": ops.Reciprocal, "Sin": ops.Sin,
    "Cos": ops.Cos, "Tan": ops.Tan, "Sinh": ops.Sinh, "Cosh": ops.Cosh, "Atan": ops.Arctan, "Tanh": ops.Tanh,
    "Sigmoid": ops.Sigmoid, "Relu": ops.Relu, "Relu6": ops.Relu6, "Softplus": ops.Softplus, "Softsign": ops.Softsign,
    "Selu": ops.Selu, "MatMul": ops.Matmul, "Transpose": ops.Transpose,
}  # fmt: skip
"""Type of a TensorFlow operation -> the operation of Keras that computes the same."""


def of_tensorflow(kind: str) -> Formula | None:
    """How an operation of TensorFlow is written, by its type; None where it is not known."""
    key = OF_TENSORFLOW.get(kind)
    return None if key is None else registered()[key].formula


def hang() -> None:
    """Put every formula on the backward function of its rule, once all rules are registered.

    Raises:
        ValueError: one function would have two formulas.
    """
    tables = itertools.chain(
        *(table.items() for table in (ELEMENTWISE, LAYERS, WINDOWS, OPERATIONS, MATRICES, ATTENTION))
    )
    every = ((key, formula) for keys, formula in tables for key in keys)
    for key, formula in itertools.chain(every, LOSSES.items(), RECURRENT.items()):
        written(formula)(registered()[key].backward)
