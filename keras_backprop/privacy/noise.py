"""Normal noise: by TensorFlow's operations, and the same by the operation of `noise.c`, where a C compiler is at hand."""

import math
import pathlib
from typing import Any

import tensorflow as tf

from keras_backprop import _tensorflow, native_library

SOURCE = pathlib.Path(__file__).with_name("noise.c")

OPERATION = "KerasBackpropNoise"

FAR_OUT = 77, [5062539, 0]
"""A key and a counter after which the fourth word is −7: a number far from 0."""


def normal(shape: Any, seed: Any, stddev: Any = 1.0) -> Any:
    """Normal numbers, float32, by the method of Box and Muller: √(−2·ln u)·(cos πv, sin πv).

    Of signed words w and v of 32 random bits u is |w + f|/2³¹, where f is the fraction (last 12 bits of v + ½)/2¹², and the angle
    is πv/2³¹. So u is never 0, and no number larger than 7.81. In TensorFlow's vectorised functions this takes a third of the
    time of its kernel for normal numbers. (`noise.c` does the same.)

    Args:
        shape: tuple of ints.
        seed: int64 tensor of shape `(2,)`, as `tf.random.stateless_uniform` takes it.
        stddev: float32 scalar tensor, or a float.
    """
    n = math.prod(shape)
    words = tf.random.stateless_uniform([2, 4 * -(-n // 8)], seed, None, None, tf.int32)
    return tf.reshape(_of_words(words, stddev)[:n], shape)


def _of_words(words, stddev=1.0):
    """Normal numbers of an int32 tensor of shape `(2, m)`: first the cosines, then the sines."""
    w, v = tf.unstack(tf.cast(words, tf.float32))
    fraction = (tf.cast(tf.bitwise.bitwise_and(words[1], 2**12 - 1), tf.float32) + 0.5) * 2**-12
    radius, angle = stddev * tf.sqrt(-2 * tf.math.log(tf.abs(w + fraction) * 2**-31)), v * (math.pi * 2**-31)
    return tf.concat([radius * tf.cos(angle), radius * tf.sin(angle)], 0)


def normal_in_double_precision(shape: Any, seed: Any) -> Any:
    """Standard normal numbers, float64, by the same method. (TensorFlow's own end at 5.68: its u is at least 10⁻⁷.)

    Of the first 53 bits k of a word u is (k + ½)/2⁵³. So it is never 0, and no number larger than 8.66.

    Args:
        shape, seed: as `normal` takes them.
    """
    n = math.prod(shape)
    words = tf.random.stateless_uniform([2, -(-n // 2)], seed, None, None, tf.int64)
    return tf.reshape(_of_long_words(words)[:n], shape)


def _of_long_words(words):
    """Normal numbers of an int64 tensor of shape `(2, m)`: first the cosines, then the sines."""
    signed = tf.bitwise.right_shift(words, tf.constant(11, tf.int64))  # from −2⁵² on
    u, v = tf.unstack((tf.cast(signed + 2**52, tf.float64) + 0.5) * 2.0**-53)
    radius, angle = tf.sqrt(-2 * tf.math.log(u)), 2 * math.pi * v
    return tf.concat([radius * tf.cos(angle), radius * tf.sin(angle)], 0)


def is_at_hand(x: Any) -> bool:
    """Whether the operation can add to a tensor of the graph that is being traced."""
    return (
        x.dtype == tf.float32
        and not tf.executing_eagerly()
        and not tf.config.list_logical_devices("GPU")
        and _is_eager_outside()  # else it could not be asked now, and "no" would be kept
        and native_library.is_loaded(SOURCE, OPERATION, draws_alike)
    )


def _is_eager_outside():
    with tf.init_scope():
        return tf.executing_eagerly()


def draws_alike(operation: Any) -> bool:
    """Whether the operation adds what TensorFlow's operations add, asked on some numbers.

    Args:
        operation: function of four tensors, those of `noise.c`.
    """
    with tf.init_scope(), tf.device("CPU:0"):
        x, stddev = tf.range(1001.0) / 100, tf.constant(1.5)
        for key, counter in ((2**40 + 3, [5, 2**63]), FAR_OUT):
            stream = {"key": tf.constant([key], tf.uint64), "counter": tf.constant(counter, tf.uint64)}
            words = tf.raw_ops.StatelessRandomUniformFullIntV2(shape=[2, 504], **stream, alg=1, dtype=tf.int32)
            difference = operation(x, *stream.values(), stddev) - x - _of_words(words, stddev)[:1001]
            if not (tf.abs(difference) < 1e-5).numpy().all():
                return False
        return True


def added(x: Any, seed: Any, stddev: Any, otherwise: Any) -> Any:
    """x plus normal noise, by one operation where the step runs in a compiled loop.

    Args:
        x: float32 tensor.
        seed: int64 tensor of shape `(2,)`, as `tf.random.stateless_uniform` takes it.
        stddev: float32 scalar tensor.
        otherwise: tensor, the same by TensorFlow's operations.
    """
    key, counter = tf.raw_ops.StatelessRandomGetKeyCounter(seed=seed)
    return _tensorflow.substitutable(otherwise, [x, key, counter, stddev], alone())


def alone() -> Any:
    """A graph of the operation, of its inputs "0" to "3"."""
    node = tf.compat.v1.NodeDef(name="noise", op=OPERATION, input=["0", "1", "2", "3"])
    return tf.compat.v1.GraphDef(node=[node])
