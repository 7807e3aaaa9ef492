"""What TensorFlow's pooling kernels lack and a check needs.

Volumes in double precision: they are pooled as planes first, and then along the depth. Windows that are wider than what they
move over: Keras asks for them in adaptive pooling, and TensorFlow's kernel then returns a gradient that it never computed.
"""

import contextlib

import keras
import tensorflow as tf

from keras_backprop import _keras


@contextlib.contextmanager
def pooling_of_everything():
    """For the duration of the block, in this thread, TensorFlow pools these too."""
    originals = {name: _keras.current(tf.nn, name) for name in ("max_pool", "avg_pool", "pool")}

    def max_pool(input, ksize, strides, padding, data_format):
        if _is_volume(input):
            return _pooled(tf.nn.max_pool2d, input, ksize, strides, padding)
        return originals["max_pool"](input, ksize, strides, padding, data_format)

    def avg_pool(input, ksize, strides, padding, data_format):
        if _is_volume(input):
            return _pooled(tf.nn.avg_pool2d, input, ksize, strides, padding)
        return originals["avg_pool"](input, ksize, strides, padding, data_format)

    def pool(input, window_shape, pooling_type, **options):
        if any(size is not None and k > size for k, size in zip(window_shape, input.shape[1:], strict=False)):
            return input[
                :, *(slice(max(size - k + 1, 0)) for k, size in zip(window_shape, input.shape[1:], strict=False))
            ]
        if _is_volume(input):
            of_planes = tf.nn.max_pool2d if pooling_type == "MAX" else tf.nn.avg_pool2d
            return _pooled(of_planes, input, window_shape, options["strides"], options["padding"])
        return originals["pool"](input, window_shape, pooling_type, **options)

    with _keras.replaced(tf.nn, max_pool=max_pool, avg_pool=avg_pool, pool=pool):
        yield


def _is_volume(x):
    return len(x.shape) == 5 and x.dtype == tf.float64


def _pooled(pool, x, window, strides, padding):
    """x of shape (n, depth, height, width, c): what is pooled in each plane is pooled along the depth."""
    window, strides = ((value,) * 3 if isinstance(value, int) else tuple(value) for value in (window, strides))
    n, depth, *plane, c = keras.ops.shape(x)
    flat = pool(tf.reshape(x, [n * depth, *plane, c]), window[1:], strides[1:], padding)
    _, height, width, _ = keras.ops.shape(flat)
    deep = pool(tf.reshape(flat, [n, depth, height * width, c]), (window[0], 1), (strides[0], 1), padding)
    return tf.reshape(deep, [n, keras.ops.shape(deep)[1], height, width, c])
