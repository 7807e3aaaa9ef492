"""Fourier transforms. They are linear: the gradient goes back through the adjoint transform.

Keras keeps complex numbers as pairs (real part, imaginary part). F is the matrix of the transform of k numbers; its
adjoint is k times its inverse.
"""

import tensorflow as tf
from keras import ops as k

from keras_backprop._keras import ops
from keras_backprop.registry import backward_rule
from keras_backprop.rule import Gradients
from keras_backprop.rules.ops.statistics import composed


def parts(z):
    return Gradients(tf.math.real(z), tf.math.imag(z))


@backward_rule(ops.FFT)
def fft(call, dy):
    """y = F·x        dx = Fᴴ·dy = k·F⁻¹·dy"""
    dz = tf.complex(*dy)
    return parts(tf.signal.ifft(dz) * _size(dz, 1))


@backward_rule(ops.FFT2)
def fft2(call, dy):
    """y = F·x over two axes        dx = k·F⁻¹·dy"""
    dz = tf.complex(*dy)
    return parts(tf.signal.ifft2d(dz) * _size(dz, 2))


@backward_rule(ops.IFFT2)
def ifft2(call, dy):
    """y = F⁻¹·x over two axes        dx = F·dy/k"""
    dz = tf.complex(*dy)
    return parts(tf.signal.fft2d(dz) / _size(dz, 2))


def _size(z, axes):
    return tf.cast(tf.reduce_prod(tf.shape(z)[-axes:]), z.dtype)


@backward_rule(ops.RFFT)
def rfft(call, dy):
    """y = the first ⌊k/2⌋ + 1 numbers of F·x, x real        dx = real part of Fᴴ·(dy, and zeros for the rest)"""
    x, dz = call.input, tf.complex(*dy)
    count = tf.shape(x)[-1] if call["fft_length"] is None else call["fft_length"]
    full = tf.math.real(tf.signal.ifft(_padded(dz, count))) * tf.cast(count, x.dtype)
    return Gradients(_padded(full[..., : tf.minimum(count, tf.shape(x)[-1])], tf.shape(x)[-1]))


@backward_rule(ops.IRFFT)
def irfft(call, dy):
    """y = F⁻¹·(x and the conjugate of its inner numbers)        dx = F·dy/k, twice for the inner numbers"""
    given, count = tf.shape(call.input)[-1], tf.shape(dy)[-1]
    used = count // 2 + 1
    z = tf.signal.rfft(dy)
    place = tf.range(used)
    twice = (place > 0) & (place < (count + 1) // 2)
    z *= tf.cast(tf.where(twice, 2, 1), z.dtype) / tf.cast(count, z.dtype)
    return parts(_padded(z[..., : tf.minimum(used, given)], given))


def _padded(x, size):
    """x with zeros behind, up to a size."""
    return tf.pad(x, [[0, 0]] * (len(x.shape) - 1) + [[0, size - tf.shape(x)[-1]]])


def window_of(op, dtype):
    """The window, in the middle of a frame of the transform's length."""
    window, length = op.window, op.sequence_length
    before = (op.fft_length - length) // 2
    if window is None:
        return k.ones(op.fft_length, dtype)
    if isinstance(window, str):
        make = tf.signal.hann_window if window == "hann" else tf.signal.hamming_window
        window = make(length, periodic=True, dtype=tf.as_dtype(dtype))
    return tf.pad(tf.cast(window, dtype), [[before, op.fft_length - length - before]])


def stft(op, x):
    """y = rfft(window·frame) for every frame of x"""
    if op.center:
        border = op.fft_length // 2
        x = k.pad(x, [(0, 0)] * (len(x.shape) - 1) + [(border, border)], mode="reflect")
    frames = k.extract_sequences(x, op.fft_length, op.sequence_stride)
    return k.rfft(frames * window_of(op, x.dtype), op.fft_length)


composed(ops.STFT, stft)


@backward_rule(ops.ISTFT)
def istft(call, dy):
    """y = the frames w·irfft(x) added where they overlap        dx = the adjoint of irfft of w·(frames of dy)

    w is the window divided by the overlap of its squares, so that `istft` undoes `stft`.
    """
    op = call.op
    step, length, frames = op.sequence_stride, op.fft_length, tf.shape(call.input)[-2]
    before = length // 2 if op.center else 0
    dy = tf.pad(dy, [[0, 0]] * (len(dy.shape) - 1) + [[before, 0]])
    dy = _padded(dy, tf.maximum(length + step * (frames - 1), tf.shape(dy)[-1]))
    frames_of_dy = tf.signal.frame(dy, length, step)[..., :frames, :]
    if op.window is not None:
        window = tf.cast(window_of(op, dy.dtype), dy.dtype)
        weights = tf.signal.inverse_stft_window_fn(step, lambda *args, **kwargs: window)(length, dy.dtype)
        frames_of_dy *= weights
    return irfft(call, frames_of_dy)
