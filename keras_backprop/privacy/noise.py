"""Normal noise by the operation of `noise.c`, where a C compiler is at hand."""

import pathlib
from typing import Any

import tensorflow as tf

from keras_backprop import _tensorflow, native_library

SOURCE = pathlib.Path(__file__).with_name("noise.c")

OPERATION = "KerasBackpropNoise"


def is_at_hand(x: Any) -> bool:
    """Whether the operation can add to a tensor of the graph that is being traced."""
    return (
        x.dtype == tf.float32
        and not tf.executing_eagerly()
        and not tf.config.list_logical_devices("GPU")
        and native_library.is_loaded(SOURCE, OPERATION)
    )


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
