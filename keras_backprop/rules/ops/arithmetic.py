"""Operations of two operands that are broadcast against each other: y = f(a, b).

An operand may be a number. It is no input of the call then, and has no gradient.
"""

import math

import keras
import numpy as np
import tensorflow as tf

from keras_backprop import kernels
from keras_backprop._keras import ops
from keras_backprop.registry import backward_rule
from keras_backprop.rule import Gradients


def binary(*keys_and_gradients):
    """Register y = f(a, b) by its two gradients, `(a, b, y, dy) -> da` and `(a, b, y, dy) -> db`.

    Args:
        *keys_and_gradients: operation classes whose arguments are `x1` and `x2`, and last the two functions; None for
            an operand through which nothing flows.
    """
    *keys, da, db = keys_and_gradients

    def backward(call, dy):
        a, b = operands(call)
        return of_tensors(
            call,
            x1=da and (lambda: da(a, b, call.output, dy)),
            x2=db and (lambda: db(a, b, call.output, dy)),
        )

    for key in keys:
        backward.__name__ = key.__name__
        backward_rule(key, broadcasts=True)(backward)


def operands(call, names=("x1", "x2")):
    """The operands as tensors of the output's dtype, in which the operation computes."""
    return [keras.ops.convert_to_tensor(call.arguments[name], call.output.dtype) for name in names]


def of_tensors(call, **gradients):
    """`Gradients` from those of the named arguments, for the arguments that are tensors."""
    return Gradients(*[d for name, d in gradients.items() if tf.is_tensor(call.arguments.get(name))])


def zero_unless(condition, dy):
    """dy where the condition holds, else 0."""
    return tf.where(condition, dy, tf.zeros([], dy.dtype))


def added(a, b, y, dy):
    """y = a + b        db = dy, summed over the axes along which b was repeated

    A `b` that is a vector but for axes of size 1, and as long as the last axis of `a` or the second, is added along
    that axis by Keras, wherever in `b` it stands: as the bias of a layer.
    """
    sizes = [size for size in b.shape if size != 1]
    if len(sizes) != 1 or len(a.shape) < 2 or sizes[0] is None or sizes[0] not in (a.shape[1], a.shape[-1]):
        return dy
    if a.shape[-1] == sizes[0]:
        return tf.reshape(kernels.bias_grad(dy), tf.shape(b))
    return tf.reshape(tf.reduce_sum(dy, [axis for axis in range(len(a.shape)) if axis != 1]), tf.shape(b))


# y = a + b                     da = dy                         db = dy
binary(ops.Add, lambda a, b, y, dy: dy, added)

# y = a − b                     da = dy                         db = −dy
binary(ops.Subtract, lambda a, b, y, dy: dy, lambda a, b, y, dy: -dy)

# y = a·b                       da = dy·b                       db = dy·a
binary(ops.Multiply, lambda a, b, y, dy: dy * b, lambda a, b, y, dy: dy * a)

# y = a/b                       da = dy/b                       db = −dy·y/b
binary(ops.Divide, ops.TrueDivide, lambda a, b, y, dy: dy / b, lambda a, b, y, dy: -dy * y / b)

# y = a/b, 0 where b = 0        da = dy/b                       db = −dy·y/b, 0 where b = 0
binary(
    ops.DivideNoNan,
    lambda a, b, y, dy: tf.math.divide_no_nan(dy, b),
    lambda a, b, y, dy: tf.math.divide_no_nan(-dy * y, b),
)

# y = aᵇ                        da = dy·b·aᵇ⁻¹                  db = dy·y·log a, 0 where a ≤ 0
binary(
    ops.Power,
    lambda a, b, y, dy: dy * (b * tf.pow(a, b - 1)),
    lambda a, b, y, dy: dy * y * tf.math.log(tf.where(a > 0, a, tf.ones([], a.dtype))),
)

# y = max(a, b)                 da = dy where a ≥ b             db = dy elsewhere
binary(
    ops.Maximum,
    lambda a, b, y, dy: zero_unless(a >= b, dy),
    lambda a, b, y, dy: zero_unless(tf.logical_not(a >= b), dy),
)

# y = min(a, b)                 da = dy where a ≤ b             db = dy elsewhere
binary(
    ops.Minimum,
    lambda a, b, y, dy: zero_unless(a <= b, dy),
    lambda a, b, y, dy: zero_unless(tf.logical_not(a <= b), dy),
)


def _first(a, b, order):
    """Where fmax and fmin, which prefer a number to NaN, take their first operand."""
    return order(a, b) | (tf.math.is_nan(b) & ~tf.math.is_nan(a))


binary(
    ops.Fmax,
    lambda a, b, y, dy: zero_unless(_first(a, b, tf.greater_equal), dy),
    lambda a, b, y, dy: zero_unless(~_first(a, b, tf.greater_equal), dy),
)
binary(
    ops.Fmin,
    lambda a, b, y, dy: zero_unless(_first(a, b, tf.less_equal), dy),
    lambda a, b, y, dy: zero_unless(~_first(a, b, tf.less_equal), dy),
)

# y = a − b·⌊a/b⌋               da = dy                         db = −dy·⌊a/b⌋
binary(ops.Mod, lambda a, b, y, dy: dy, lambda a, b, y, dy: -dy * tf.math.floordiv(a, b))

# y = sign a·(|a| mod |b|)      da = dy·sign² a                 db = −dy·sign a·⌊|a|/|b|⌋·sign b
binary(
    ops.Fmod,
    lambda a, b, y, dy: dy * tf.square(tf.sign(a)),
    lambda a, b, y, dy: -dy * tf.sign(a) * tf.math.floordiv(tf.abs(a), tf.abs(b)) * tf.sign(b),
)

# y = atan(a/b) by quadrant     da = dy·b/(a² + b²)             db = −dy·a/(a² + b²)
binary(
    ops.Arctan2,
    lambda a, b, y, dy: tf.math.divide_no_nan(dy * b, a * a + b * b),
    lambda a, b, y, dy: tf.math.divide_no_nan(-dy * a, a * a + b * b),
)

# y = √(a² + b²)                da = dy·a/y, 2·dy·a/y where |a| = |b|              db = dy·b/y, 0 where |a| = |b|
# Keras computes with the larger and the smaller of |a| and |b|: where they are equal, a counts as both.
binary(
    ops.Hypot,
    lambda a, b, y, dy: tf.math.divide_no_nan(dy * tf.where(tf.equal(tf.abs(a), tf.abs(b)), 2 * a, a), y),
    lambda a, b, y, dy: tf.math.divide_no_nan(zero_unless(tf.not_equal(tf.abs(a), tf.abs(b)), dy * b), y),
)

# y = log(eᵃ + eᵇ)              da = dy·σ(a − b), dy where a = b                   db = dy·σ(b − a), 0 where a = b
# Keras computes max(a, b) + log(1 + e^−|a − b|): where a = b, the first term is a and the second gives no gradient.
binary(
    ops.Logaddexp,
    lambda a, b, y, dy: tf.where(tf.equal(a, b), dy, dy * tf.sigmoid(a - b)),
    lambda a, b, y, dy: zero_unless(tf.not_equal(a, b), dy * tf.sigmoid(b - a)),
)

_LOG2 = np.float32(math.log(2.0))  # Keras has it in single precision, whatever the dtype

# y = log₂(2ᵃ + 2ᵇ)             da = dy·σ((a − b)·log 2), dy where a = b           db = dy·σ((b − a)·log 2), 0 where a = b
# Keras computes max(a, b) + log₂(1 + 2^−|a − b|): where a = b, as above.
binary(
    ops.Logaddexp2,
    lambda a, b, y, dy: tf.where(tf.equal(a, b), dy, dy * tf.sigmoid((a - b) * tf.cast(_LOG2, dy.dtype))),
    lambda a, b, y, dy: zero_unless(tf.not_equal(a, b), dy * tf.sigmoid((b - a) * tf.cast(_LOG2, dy.dtype))),
)

# y = a·2ᵇ for whole b          da = dy·2ᵇ, or dy where a is 0 or ∞
binary(
    ops.Ldexp,
    lambda a, b, y, dy: tf.where(tf.math.is_inf(a) | (a == 0), dy, dy * tf.pow(tf.constant(2, a.dtype), b)),
    None,
)

# y = 0, b, 1 where a <, =, > 0         db = dy where a = 0
binary(ops.Heaviside, None, lambda a, b, y, dy: zero_unless(a == 0, dy))

# y = the next number after a on the way to b         da = dy
binary(ops.Nextafter, lambda a, b, y, dy: dy, None)


@backward_rule(ops.Clip, broadcasts=True)
def clip(call, dy):
    """y = max(min(x, hi), lo)        dx = dy where y = x        dlo = dy where y > x        dhi = dy where y < x"""
    x, y = call.input, call.output
    return Gradients(
        zero_unless(tf.equal(y, x), dy),
        *(zero_unless(taken, dy) for name, taken in (("x_min", y > x), ("x_max", y < x)) if tf.is_tensor(call[name])),
    )


@backward_rule(ops.Where, broadcasts=True)
def where(call, dy):
    """y = a where c, else b        da = dy where c, else 0        db = dy where not c, else 0"""
    c = tf.cast(call["condition"], tf.bool)
    return of_tensors(
        call,
        condition=None,
        x1=lambda: zero_unless(c, dy),
        x2=lambda: zero_unless(~c, dy),
    )
