"""`keras.ops.image`: each operation as what it is made of, so that every step is a link with a rule of its own."""

import keras
import numpy as np
import tensorflow as tf
from keras import ops as k

from keras_backprop._keras import ops
from keras_backprop.registry import pullback
from keras_backprop.rules.ops.statistics import composed


def channels_last(op, x):
    """x with its channels at the end."""
    return k.moveaxis(x, -3, -1) if op.data_format == "channels_first" else x


def as_given(op, y):
    """y with its channels where the operation was told they are."""
    return k.moveaxis(y, -1, -3) if op.data_format == "channels_first" else y


def rgb_to_grayscale(op, images):
    """y = 0.2989·r + 0.5870·g + 0.1140·b"""
    x = channels_last(op, images)
    weights = np.array([[0.2989], [0.5870], [0.1140]], keras.backend.standardize_dtype(x.dtype))
    return as_given(op, x if x.shape[-1] == 1 else k.matmul(x, weights))


def rgb_to_hsv(op, images):
    """v = max, c = v − min, s = c/v        h = the place on the circle of colours, by which of r, g, b is the largest"""
    x = channels_last(op, images)
    r, g, b = x[..., 0], x[..., 1], x[..., 2]
    v = k.max(x, axis=-1)
    c = v - k.min(x, axis=-1)
    width = 6 * k.where(c > 0, c, 1.0)
    h = k.where(r >= v, (g - b) / width, k.where(g >= v, (b - r) / width + 2 / 6, (r - g) / width + 4 / 6))
    h = k.where(c > 0, k.where(h < 0, h + 1, h), 0.0)
    s = k.where(v > 0, c / k.where(v > 0, v, 1.0), 0.0)
    return as_given(op, k.stack([h, s, v], axis=-1))


def hsv_to_rgb(op, images):
    """r, g, b = v − v·s·(1 − (their distance from h on the circle of colours, held within 0 and 1))"""
    x = channels_last(op, images)
    h, s, v = 6 * x[..., 0], x[..., 1], x[..., 2]
    near = [k.abs(h - 3) - 1, 2 - k.abs(h - 2), 2 - k.abs(h - 4)]
    return as_given(op, k.stack([v * (1 - s + s * k.clip(share, 0.0, 1.0)) for share in near], axis=-1))


composed(ops.RGBToGrayscale, rgb_to_grayscale)
composed(ops.RGBToHSV, rgb_to_hsv)
composed(ops.HSVToRGB, hsv_to_rgb)


def border_of(op, x, kind):
    """(before, after) for the height and the width; what was not given follows from the target's size."""
    sides = [(f"top_{kind}", f"bottom_{kind}", "target_height"), (f"left_{kind}", f"right_{kind}", "target_width")]
    first = len(x.shape) - (3 if op.data_format == "channels_last" else 2)
    pairs = [(0, 0)] * len(x.shape)
    for axis, (before, after, target) in enumerate(sides, first):
        before, after, target = getattr(op, before), getattr(op, after), getattr(op, target)
        if before is None or after is None:
            missing = abs(target - x.shape[axis]) - (before or 0) - (after or 0)
            before, after = (missing if size is None else size for size in (before, after))
        pairs[axis] = (before, after)
    return pairs


def pad_images_back(call, dy):
    """y = x with a border of zeros        dx = dy without it"""
    pairs = border_of(call.op, call.input, "padding")
    return dy[tuple(slice(before, -after or None) for before, after in pairs)]


pullback(ops.PadImages, pad_images_back)
pullback(ops.CropImages, lambda call, dy: tf.pad(dy, border_of(call.op, call.input, "cropping")))


def filtered(x, kernel, padding):
    """Every channel of x convolved with a kernel by itself."""
    kernel = np.repeat(kernel[:, :, None, None], x.shape[-1], axis=2)
    return k.depthwise_conv(x, kernel, padding=padding, data_format="channels_last")


def bell(size, width):
    """Normal weights around the middle, which add up to 1."""
    weights = np.exp(-0.5 * ((np.arange(size) - (size - 1) / 2) / width) ** 2)
    return weights / weights.sum()


def gaussian_blur(op, images):
    """y = x ∗ the outer product of two bell curves"""
    x = k.expand_dims(images, 0) if len(images.shape) == 3 else images
    (height, width), (low, high) = op.kernel_size, op.sigma
    kernel = np.outer(bell(width, high), bell(height, low)).reshape(height, width)
    y = as_given(op, filtered(channels_last(op, x), kernel.astype(keras.backend.standardize_dtype(x.dtype)), "same"))
    return k.squeeze(y, 0) if len(images.shape) == 3 else y


composed(ops.GaussianBlur, gaussian_blur)


def sobel_edges(op, images):
    """y = the differences along the height and the width, smoothed across"""
    x = channels_last(op, images)
    x = k.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)], mode="reflect")
    down = np.outer([-1, 0, 1], [1, 2, 1]).astype(keras.backend.standardize_dtype(x.dtype))
    y = k.stack([filtered(x, kernel, "valid") for kernel in (down, down.T)], axis=-1)
    return k.moveaxis(y, -2, 1) if op.data_format == "channels_first" else y


composed(ops.SobelEdges, sobel_edges)


def structural_similarity(op, a, b):
    """y = mean (2·μₐμ_b + c₁)·(2·σ_ab + c₂) / ((μₐ² + μ_b² + c₁)·(σₐ² + σ_b² + c₂)), moments under a bell curve"""
    single = len(a.shape) == 3
    a, b = (channels_last(op, k.expand_dims(x, 0) if single else x) for x in (a, b))
    weights = bell(op.filter_size, op.filter_sigma)
    kernel = np.outer(weights, weights).astype(keras.backend.standardize_dtype(a.dtype))
    mean_a, mean_b, mean_aa, mean_bb, mean_ab = (filtered(x, kernel, "valid") for x in (a, b, a * a, b * b, a * b))
    low, high = (op.k1 * op.max_val) ** 2, (op.k2 * op.max_val) ** 2
    squares, product = mean_a * mean_a + mean_b * mean_b, mean_a * mean_b
    similarity = (2 * product + low) * (2 * (mean_ab - product) + high)
    similarity /= (squares + low) * (mean_aa + mean_bb - squares + high)
    y = k.mean(similarity, axis=(1, 2, 3))
    return k.squeeze(y, 0) if single else y


composed(ops.SSIM, structural_similarity)
