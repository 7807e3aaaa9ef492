"""Operations on every number by itself: y = f(x). What is given is the local derivative dy/dx."""

import math

import numpy as np
import tensorflow as tf

from keras_backprop import kernels
from keras_backprop._keras import ops
from keras_backprop.registry import elementwise, not_differentiable, pullback

elementwise(ops.Negative, lambda x, y: -tf.ones_like(x), fused=lambda x, y, dy: -dy)
elementwise(ops.Absolute, ops.Abs, ops.Fabs, lambda x, y: tf.sign(x))
elementwise(ops.Square, lambda x, y: 2 * x)
elementwise(ops.Sqrt, lambda x, y: 0.5 / y, fused=lambda x, y, dy: kernels.sqrt_grad(y, dy))
elementwise(ops.Rsqrt, lambda x, y: -0.5 * y * y * y, fused=lambda x, y, dy: kernels.rsqrt_grad(y, dy))
elementwise(ops.Reciprocal, lambda x, y: -y * y, fused=lambda x, y, dy: kernels.reciprocal_grad(y, dy))


def _cbrt_derivative(x, y):
    """y = sign x·|x|^⅓        dy/dx = ⅓·|x|^(⅓ − 1)·sign² x, and 0 at 0"""
    return tf.where(x == 0, tf.zeros([], x.dtype), tf.pow(tf.abs(x), 1 / 3 - 1) / 3)


elementwise(ops.Cbrt, _cbrt_derivative)

elementwise(ops.Exp, lambda x, y: y)
elementwise(ops.Exp2, lambda x, y: y * math.log(2.0))
elementwise(ops.Expm1, lambda x, y: tf.exp(x))
elementwise(ops.Log, lambda x, y: 1 / x, fused=lambda x, y, dy: dy / x)
elementwise(ops.Log2, lambda x, y: 1 / (x * math.log(2.0)))
elementwise(ops.Log10, lambda x, y: 1 / (x * math.log(10.0)))
elementwise(ops.Log1p, lambda x, y: 1 / (1 + x), fused=lambda x, y, dy: dy / (1 + x))

elementwise(ops.Sin, lambda x, y: tf.cos(x))
elementwise(ops.Cos, lambda x, y: -tf.sin(x))
elementwise(ops.Tan, lambda x, y: 1 / tf.square(tf.cos(x)))
elementwise(ops.Arcsin, lambda x, y: tf.math.rsqrt(1 - tf.square(x)))
elementwise(ops.Arccos, lambda x, y: -tf.math.rsqrt(1 - tf.square(x)))
elementwise(ops.Arctan, lambda x, y: 1 / (1 + tf.square(x)))
elementwise(ops.Sinh, lambda x, y: tf.cosh(x))
elementwise(ops.Cosh, lambda x, y: tf.sinh(x))
elementwise(ops.Arcsinh, lambda x, y: 1 / tf.cosh(y))
elementwise(ops.Arccosh, lambda x, y: 1 / tf.sinh(y))
elementwise(ops.Arctanh, lambda x, y: 1 / (1 - tf.square(x)))


def _sinc_derivative(x, y):
    """y = sin πx / πx        dy/dx = (cos πx − y)/x, and 0 at 0"""
    return tf.math.divide_no_nan(tf.cos(x * np.pi) - y, x)


elementwise(ops.Sinc, _sinc_derivative)

elementwise(ops.Erf, lambda x, y: 2 / math.sqrt(math.pi) * tf.exp(-tf.square(x)))
elementwise(ops.Erfc, lambda x, y: -2 / math.sqrt(math.pi) * tf.exp(-tf.square(x)))
elementwise(ops.Erfinv, lambda x, y: math.sqrt(math.pi) / 2 * tf.exp(tf.square(y)))
elementwise(ops.I0, lambda x, y: tf.math.bessel_i1(x))

elementwise(ops.Deg2rad, lambda x, y: tf.fill(tf.shape(x), tf.constant(math.pi / 180, x.dtype)))
elementwise(ops.Rad2deg, lambda x, y: tf.fill(tf.shape(x), tf.constant(180 / math.pi, x.dtype)))
elementwise(ops.NanToNum, lambda x, y: tf.cast(tf.math.is_finite(x), x.dtype))

# Of real numbers. Complex ones are refused by the sweep, wherever they begin.
pullback(ops.Real, ops.Conj, ops.Conjugate, lambda call, dy: dy)
pullback(ops.ViewAsReal, lambda call, dy: dy[..., 0])
not_differentiable(ops.Imag, ops.Angle)

# Constant between jumps, or of whole numbers and truth values.
not_differentiable(
    ops.Ceil, ops.Floor, ops.Round, ops.Trunc, ops.Sign, ops.Signbit, ops.FloorDivide, ops.Digitize, ops.SearchSorted,
    ops.Isfinite, ops.Isinf, ops.Isnan, ops.Isneginf, ops.Isposinf, ops.Isreal, ops.Isclose, ops.AllClose, ops.IsIn,
    ops.Equal, ops.NotEqual, ops.Greater, ops.GreaterEqual, ops.Less, ops.LessEqual,
    ops.LogicalAnd, ops.LogicalNot, ops.LogicalOr, ops.LogicalXor, ops.Gcd, ops.Lcm,
    ops.BitwiseAnd, ops.BitwiseInvert, ops.BitwiseNot, ops.BitwiseOr, ops.BitwiseXor,
    ops.BitwiseLeftShift, ops.BitwiseRightShift, ops.LeftShift, ops.RightShift,
)  # fmt: skip
