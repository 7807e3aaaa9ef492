"""Cross-entropies. dz = dy·(p − t) for logits z and probabilities p = softmax(z) or σ(z), in one step."""

import tensorflow as tf
from keras import losses

from keras_backprop import kernels
from keras_backprop._keras import ops
from keras_backprop.registry import backward_rule
from keras_backprop.rule import Gradients
from keras_backprop.rules.losses.adjoints import clipped, mean_back


def to_logits(logits, dz):
    """The gradients of targets, predictions and, where Keras computed from them, the logits."""
    return Gradients(None, None, dz) if logits else Gradients(None, dz)


def smoothed_binary(t, smoothing):
    return t * (1.0 - smoothing) + 0.5 * smoothing if smoothing else t


def smoothed_categorical(t, smoothing):
    return t * (1.0 - smoothing) + smoothing / tf.cast(tf.shape(t)[-1], t.dtype) if smoothing else t


@backward_rule(losses.binary_crossentropy, reads_logits=True)
def binary_crossentropy(call, dy):
    """y = mean −t·log p − (1−t)·log(1−p), p = σ(z)        dz = dy·(p − t)/k        dp = dy·((1−t)/(1−p) − t/p)/k"""
    t, p, *logits = call.inputs
    t = smoothed_binary(t, call["label_smoothing"])
    return _binary(call, t, p, logits, mean_back(dy, p, call["axis"]))


@backward_rule(ops.BinaryCrossentropy, reads_logits=True)
def binary_crossentropy_op(call, dy):
    """y = −t·log p − (1−t)·log(1−p), p = σ(z)        dz = dy·(p − t)        dt = −dy·z        dt = dy·log((1−p)/p) without z"""
    t, p, *logits = _operands(call)
    _, *dp = _binary(call, t, p, logits, dy).inputs
    if logits or call["from_logits"]:
        return _with_targets(call, lambda: -dy * (logits or [p])[0], dp)
    q, _ = clipped(p)
    return _with_targets(call, lambda: dy * (tf.math.log(1 - q) - tf.math.log(q)), dp)


def _binary(call, t, p, logits, dy):
    if logits or call["from_logits"]:
        return to_logits(logits, dy * (tf.sigmoid((logits or [p])[0]) - t))
    q, adjoint = clipped(p)
    return Gradients(None, adjoint(dy * ((1 - t) / (1 - q) - t / q)))


@backward_rule(losses.categorical_crossentropy, reads_logits=True)
def categorical_crossentropy(call, dy):
    """y = −Σ t·log p, p = softmax(z)        dz = dy·(p − t)        dp from p normalised and clipped, as Keras does"""
    t, p, *logits = call.inputs
    return _categorical(call, smoothed_categorical(t, call["label_smoothing"]), p, logits, dy)


@backward_rule(ops.CategoricalCrossentropy, reads_logits=True)
def categorical_crossentropy_op(call, dy):
    """y = −Σ t·log p, p = softmax(z)        dz = dy·(p − t)        dt = −dy·log p"""
    t, p, *logits = _operands(call)
    axis = call["axis"]
    _, *dp = _categorical(call, t, p, logits, dy).inputs
    if logits or call["from_logits"]:
        return _with_targets(call, lambda: -_along(dy, axis) * tf.nn.log_softmax((logits or [p])[0], axis), dp)
    return _with_targets(call, lambda: -_along(dy, axis) * tf.math.log(normalised(p, axis)[0]), dp)


def _categorical(call, t, p, logits, dy):
    axis = call["axis"]
    dy = _along(dy, axis)
    if logits or call["from_logits"]:
        return to_logits(logits, dy * (tf.nn.softmax((logits or [p])[0], axis=axis) - t))
    q, adjoint = normalised(p, axis)
    return Gradients(None, adjoint(-dy * t / q))


def normalised(p, axis):
    """q = p/Σp, clipped, and the adjoint dq -> dp = (dq − Σ dq·p/Σp)/Σp."""
    total = tf.reduce_sum(p, axis, keepdims=True)
    q, unclipped = clipped(p / total)

    def adjoint(dq):
        dq = unclipped(dq)
        return (dq - tf.reduce_sum(dq * p, axis, keepdims=True) / total) / total

    return q, adjoint


def _along(dy, axis):
    """dy with the axis of the classes restored."""
    return tf.expand_dims(dy, axis)


@backward_rule(losses.sparse_categorical_crossentropy, reads_logits=True)
def sparse_categorical_crossentropy(call, dy):
    """y = −log pₜ, p = softmax(z)        dz = dy·(p − one_hot t); classes to be ignored have no gradient"""
    t, p, *logits = call.inputs
    axis, ignore = call["axis"], call["ignore_class"]
    if len(t.shape) == len(p.shape) and t.shape[axis] == 1:
        t = tf.squeeze(t, axis)
    if ignore is None:
        return _sparse(call, t, p, logits, dy)
    valid = t != tf.cast(ignore, t.dtype)
    # Keras selects among the predictions first, and what it selected has no logits.
    p = tf.where(tf.expand_dims(valid, axis), p, tf.zeros_like(p))
    return _sparse(call, tf.where(valid, t, tf.zeros_like(t)), p, [], tf.where(valid, dy, tf.zeros_like(dy)))


@backward_rule(ops.SparseCategoricalCrossentropy, reads_logits=True)
def sparse_categorical_crossentropy_op(call, dy):
    """y = −log pₜ, p = softmax(z)        dz = dy·(p − one_hot t)"""
    t, p, *logits = _operands(call)
    if len(t.shape) == len(p.shape) and t.shape[-1] == 1:
        t = tf.squeeze(t, -1)
    _, *dp = _sparse(call, t, p, logits, dy).inputs
    return _with_targets(call, None, dp)


def _sparse(call, t, p, logits, dy):
    """Without logits Keras takes log p for the logits, after clipping: dp = dz/p."""
    if logits or call["from_logits"]:
        return to_logits(logits, _of_logits((logits or [p])[0], t, dy))
    q, adjoint = clipped(p)
    return Gradients(None, adjoint(_of_logits(tf.math.log(q), t, dy) / q))


def _of_logits(z, t, dy):
    """dz = dy·(softmax z − one_hot t)"""
    classes = z.shape[-1] if z.shape[-1] is not None else tf.shape(z)[-1]
    rows = kernels.softmax_minus_one_hot(tf.reshape(z, [-1, classes]), tf.reshape(tf.cast(t, tf.int64), [-1]))
    return dy[..., None] * tf.reshape(rows, tf.shape(z))


def _operands(call):
    """Targets, predictions and logits of an operation, whose targets may be an array and no tensor."""
    t = call.arguments["target"]
    return [tf.convert_to_tensor(t), *call.inputs[int(tf.is_tensor(t)) :]]


def _with_targets(call, dt, dp):
    return Gradients(dt, *dp) if tf.is_tensor(call.arguments["target"]) else Gradients(*dp)


@backward_rule(losses.categorical_generalized_cross_entropy, broadcasts=True)
def categorical_generalized_cross_entropy(call, dy):
    """y = (1 − pₜ^q)/q        dp = −dy·pₜ^(q−1)·one_hot t"""
    t, p = call.inputs[:2]
    one_hot = tf.one_hot(tf.cast(t, tf.int32), tf.shape(p)[-1], dtype=p.dtype)
    slope = -dy * tf.reduce_sum(p * one_hot, -1) ** (call["q"] - 1)
    return Gradients(None, tf.math.multiply_no_nan(slope[..., None], one_hot))
