"""`keras.ops` that cut an image into patches, and that add patches up to an image: each is the other's adjoint."""

import keras
import tensorflow as tf

from keras_backprop._keras import ops
from keras_backprop.convolution_gradient import Window, each
from keras_backprop.registry import pullback


def extract_patches_back(call, dy):
    """y = x ∗ I, a convolution with the identity as its kernel        dx = I ∗ᵀ dy"""
    x, size, strides = call.input, call["size"], call["strides"]
    size = each(2, size)
    rank = len(size)
    window = Window(rank, strides or size, call["padding"], call["dilation_rate"], call["data_format"])
    single = len(x.shape) == rank + 1
    x, dy = (tf.expand_dims(value, 0) if single else value for value in (x, dy))
    numbers = dy.shape[1 if window.channels_first else -1]
    identity = tf.reshape(tf.eye(numbers, dtype=dy.dtype), [*size, -1, numbers])
    dx = window.input_gradient(x, identity, dy)
    return tf.squeeze(dx, 0) if single else dx


def unfold_back(call, dy):
    """y = the patches of x        dx = Σ dy over the patches that a number of x is in"""
    window, size, border = window_of(call)
    x = tf.pad(call.input, border)  # of which only the shape matters
    n, channels, *spatial = keras.ops.shape(x)
    reach = [length - d * (k - 1) - 1 for length, d, k in zip(spatial, window.dilation, size, strict=True)]
    counts = [r // s + 1 for r, s in zip(reach, window.strides, strict=True)]
    dy = tf.reshape(dy, [n, channels * size[0] * size[1], *counts])
    dx = window.input_gradient(x, _identity(size, channels, dy.dtype), dy, depthwise=True)
    return dx[tuple(slice(before, -after or None) for before, after in border)]


def fold_back(call, dy):
    """y = Σ x over the patches that a number of y is in        dx = the patches of dy"""
    window, size, border = window_of(call)
    patches = window.patches(tf.pad(dy, border), size)  # (n, i, j, entries of the patch, channels)
    return tf.reshape(tf.transpose(patches, [0, 4, 3, 1, 2]), tf.shape(call.input))


def window_of(call):
    """How the patches lie, their size, and the border of zeros around the image."""
    border = [(0, 0), (0, 0), *((p, p) for p in each(2, call["padding"]))]
    return Window(2, call["stride"], "valid", call["dilation"], "channels_first"), each(2, call["kernel_size"]), border


def _identity(size, channels, dtype):
    """The depthwise kernel whose outputs are the numbers of the patch."""
    numbers = size[0] * size[1]
    return tf.tile(tf.reshape(tf.eye(numbers, dtype=dtype), [*size, 1, numbers]), [1, 1, channels, 1])


pullback(ops.ExtractPatches, extract_patches_back)
pullback(ops.Unfold, unfold_back)
pullback(ops.Fold, fold_back)
