"""Dense, and layers that let their inputs pass.

`Lambda` and `Wrapper` have no rule: what they call is followed or has one.
"""

import keras
import tensorflow as tf
from keras import layers

from keras_backprop.registry import backward_rule, forward_rule
from keras_backprop.rule import Gradients
from keras_backprop.shapes import reshape_like
from keras_backprop.weight_gradients import Contraction


def is_plain(layer):
    """Whether a layer's weights are what it computes with: neither quantized nor a frozen one and a LoRA product."""
    return not layer.lora_enabled and layer.quantization_mode is None


@backward_rule(layers.Dense, activation=True, applies=is_plain, rowwise=True)
def dense(call, dy):
    """y = x·W + b        dx = dy·Wᵀ        dW = xᵀ·dy        db = Σ dy"""
    x, W = call.input, call.op.kernel
    return Gradients(
        lambda: times_transposed(dy, W),
        kernel=Contraction("i,o->io", x, dy),
        bias=Contraction("o->o", dy) if call.op.bias is not None else None,
    )


@forward_rule(layers.Dense)
def dense_forward(layer, inputs, training=None):
    """x·W + b by the operations that Keras makes. Asking each operand what it is takes it longer than a small product."""
    x, kernel, b = inputs, layer.kernel, layer.bias
    variables = isinstance(kernel, keras.Variable) and (b is None or isinstance(b, keras.Variable))
    W = (
        tf.convert_to_tensor(kernel.value) if variables else None
    )  # else somebody has computed them, for this call perhaps
    if W is None or not isinstance(x, tf.Tensor) or x.shape.rank is None or x.dtype != W.dtype:
        z = keras.ops.matmul(x, kernel)
        return (z if b is None else keras.ops.add(z, b)), {}
    z = tf.matmul(x, W) if x.shape.rank == 2 else tf.tensordot(x, W, axes=[[-1], [0]])
    if b is None:
        return z, {}
    return (tf.nn.bias_add if layer.units > 1 else tf.add)(z, tf.convert_to_tensor(b.value)), {}


def times_transposed(dy, W):
    """dy·Wᵀ over the last axis of dy, of any rank."""
    W = tf.convert_to_tensor(W)
    if len(dy.shape) == 2:
        return tf.matmul(dy, W, transpose_b=True)
    rows = tf.matmul(tf.reshape(dy, [-1, W.shape[1]]), W, transpose_b=True)
    return reshape_like(rows, dy, range(len(dy.shape) - 1), [W.shape[0]])


@backward_rule(layers.InputLayer, layers.Identity, rowwise=True, joins=True)
def identity(call, dy):
    """y = x        dx = dy, of each of the tensors that pass"""
    return Gradients(*(dy if isinstance(dy, tuple) else (dy,)))


@backward_rule(layers.Masking, joins=True)
def masking(call, dy):
    """y = x at the positions where x is anything but the mask value, else 0        dx = dy there, else 0"""
    x = call.input
    kept = keras.ops.any(keras.ops.not_equal(x, call.op.mask_value), axis=-1, keepdims=True)
    return Gradients(tf.where(kept, dy, tf.zeros_like(dy)))
