"""Values between the points of a grid: resizing, scaling and shifting, reading at any coordinates."""

import math

import numpy as np
import tensorflow as tf
from keras import ops as k

from keras_backprop import kernels
from keras_backprop._keras import ops
from keras_backprop.registry import pullback
from keras_backprop.rules.ops.statistics import composed


def resize_back(call, dy):
    """y = A·(x with a border, or without one, for its sides to be as the target's)        dx = Aᵀ·dy, and back"""
    op, x = call.op, call.input
    single, first = len(x.shape) == 3, op.data_format == "channels_first"
    x, dy = (tf.expand_dims(v, 0) if single else v for v in (x, dy))
    x, dy = (tf.transpose(v, [0, 2, 3, 1]) if first else v for v in (x, dy))
    pairs, shape = _fitted(op, tf.shape(x)), tf.shape(x)
    if op.crop_to_aspect_ratio:
        x = x[:, pairs[0][0] : shape[1] - pairs[0][1], pairs[1][0] : shape[2] - pairs[1][1]]
    elif op.pad_to_aspect_ratio:
        x = tf.pad(x, [[0, 0], *pairs, [0, 0]])
    dx = tf.cast(kernels.resize_grad(x, dy, op.interpolation, op.antialias), dy.dtype)
    if op.crop_to_aspect_ratio:
        dx = tf.pad(dx, [[0, 0], *pairs, [0, 0]])
    elif op.pad_to_aspect_ratio:
        dx = tf.slice(dx, [0, pairs[0][0], pairs[1][0], 0], shape)
    dx = tf.transpose(dx, [0, 3, 1, 2]) if first else dx
    return tf.squeeze(dx, 0) if single else dx


def _fitted(op, shape):
    """What to take off or to add, before and behind the height and the width; of an odd number the more behind."""
    sides, target = [shape[1], shape[2]], op.size
    pairs = []
    for i in (0, 1):
        wanted = tf.cast(tf.cast(sides[1 - i] * target[i], tf.float32) / target[1 - i], tf.int32)
        if op.crop_to_aspect_ratio:
            size = tf.maximum(tf.minimum(sides[i], wanted), 1)
            before = tf.cast(tf.cast(sides[i] - size, tf.float32) / 2, tf.int32)
            pairs.append([before, sides[i] - size - before])
        else:  # Keras pads both sides alike
            before = tf.cast(tf.cast(tf.maximum(sides[i], wanted) - sides[i], tf.float32) / 2, tf.int32)
            pairs.append([before, before])
    return pairs


pullback(ops.Resize, resize_back)


def map_coordinates(op, inputs, coordinates):
    """y = Σ over the corners around a place of ∏(1 − its distance along each axis)·x there        (order 0: the nearest)"""
    rank, total = len(inputs.shape), 0.0
    flat, steps = k.reshape(inputs, (-1,)), np.cumprod([1, *inputs.shape[:0:-1]])[::-1]
    nodes = [_nodes(op, coordinates[i], inputs.shape[i]) for i in range(rank)]
    for corner in np.ndindex(*(len(options) for options in nodes)):
        chosen = [options[i] for options, i in zip(nodes, corner, strict=True)]
        places = sum(index * int(step) for (index, _, _), step in zip(chosen, steps, strict=True))
        value = k.take(flat, places, axis=0)
        if op.fill_mode == "constant":
            inside = chosen[0][1]
            for _, valid, _ in chosen[1:]:
                inside = k.logical_and(inside, valid)
            value = k.where(inside, value, float(op.fill_value))
        for _, _, weight in chosen:
            value = value * weight
        total = total + value
    return total


def _nodes(op, place, size):
    """(index, whether it is inside, weight) of the grid points next to a place along one axis."""
    if op.order == 0:
        indices, weights = [k.cast(k.round(place), "int32")], [1.0]
    else:
        low = k.floor(place)
        index = k.cast(low, "int32")
        indices, weights = [index, index + 1], [1 - (place - low), place - low]
    found = []
    for index, weight in zip(indices, weights, strict=True):
        inside = k.logical_and(index >= 0, index < size)
        if op.fill_mode in ("constant", "nearest"):
            index = k.clip(index, 0, size - 1)
        elif op.fill_mode == "wrap":
            index = k.mod(index, size)
        else:
            index = k.mod(k.abs(index), 2 * size)
            beyond = 2 * size - index - (1 if op.fill_mode == "reflect" else 0)
            index = k.where(index < size, index, beyond)
        found.append((index, inside, weight))
    return found


composed(ops.MapCoordinates, map_coordinates)


def scale_and_translate(op, images, output_shape, scale, translation):
    """y = x·W along each axis, W the weights of the input's numbers for each of the output's, which add up to 1"""
    for i, axis in enumerate(op.spatial_dims):
        weights = _weights(op, images.shape[axis], output_shape[axis], 1 / scale[i], translation[i])
        images = k.moveaxis(k.tensordot(images, k.cast(weights, images.dtype), axes=([axis], [0])), -1, axis)
    return images


def _weights(op, given, wanted, step, shift):
    width = k.maximum(step, 1.0) if op.antialias else 1.0
    places = k.cast(np.arange(wanted) + 0.5, step.dtype) * step - shift * step - 0.5
    grid = k.cast(np.arange(given)[:, None], step.dtype)
    weights = _KERNELS[op.method](k.abs(k.expand_dims(places, 0) - grid) / width)
    total = k.sum(weights, axis=0, keepdims=True)
    safe = k.where(k.not_equal(total, 0), total, 1.0)
    weights = k.where(k.abs(total) > 1000 * float(np.finfo(np.float32).eps), weights / safe, 0.0)
    return k.where(k.logical_and(places >= -0.5, places <= given - 0.5), weights, 0.0)


def _triangle(x):
    return k.maximum(0.0, 1 - x)


def _cubic(x):
    """Keys's cubic polynomials, one below 1 and one below 2."""
    near, far = ((1.5 * x - 2.5) * x) * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return k.where(x >= 2, 0.0, k.where(x >= 1, far, near))


def _lanczos(radius):
    def kernel(x):
        waves = radius * k.sin(math.pi * x) * k.sin(math.pi * x / radius)
        y = k.where(x > 1e-3, waves / k.where(k.not_equal(x, 0), math.pi**2 * k.square(x), 1.0), 1.0)
        return k.where(x > radius, 0.0, y)

    return kernel


_KERNELS = {
    **dict.fromkeys(("linear", "bilinear", "trilinear", "triangle"), _triangle),
    **dict.fromkeys(("cubic", "bicubic", "tricubic"), _cubic),
    "lanczos3": _lanczos(3.0),
    "lanczos5": _lanczos(5.0),
}

composed(ops.ScaleAndTranslate, scale_and_translate)
