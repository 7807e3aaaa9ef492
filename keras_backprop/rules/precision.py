"""In which precision rules compute."""

import tensorflow as tf


def single_precision_or_more(x):
    """x, in float32 where it is of half precision: Keras computes statistics in float32 at least."""
    return tf.cast(x, tf.float32) if x.dtype in (tf.float16, tf.bfloat16) else x
