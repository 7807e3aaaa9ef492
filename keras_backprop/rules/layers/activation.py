"""Activation layers. `Softmax` is with attention, where its mask is at home."""

import tensorflow as tf
from keras import layers

from keras_backprop.registry import backward_rule, elementwise
from keras_backprop.rule import Gradients
from keras_backprop.rules.activations import (
    elu_derivative,
    elu_product,
    leaky_relu_derivative,
    leaky_relu_product,
    relu_derivative,
    relu_product,
)
from keras_backprop.weight_gradients import Contraction

elementwise(layers.ReLU, relu_derivative, fused=relu_product, rowwise=True, joins=True)
elementwise(layers.LeakyReLU, leaky_relu_derivative, fused=leaky_relu_product, rowwise=True, joins=True)
elementwise(layers.ELU, elu_derivative, fused=elu_product, rowwise=True, joins=True)


@backward_rule(layers.Activation, activation=True, rowwise=True, joins=True)
def activation(call, dy):
    """z = x        dx = dy        (the function itself is the next link)"""
    return Gradients(dy)


@backward_rule(layers.PReLU, rowwise=True)
def prelu(call, dy):
    """y = max(x, 0) + α·min(x, 0)        dx = dy·([x > 0] + α·[x < 0])        dα = Σ dy·min(x, 0)

    Along the axes that share an α the sum is taken within each example.
    """
    x, alpha = call.input, tf.convert_to_tensor(call.op.alpha)
    product = dy * tf.minimum(x, tf.zeros((), x.dtype))
    shared = [axis + 1 for axis, size in enumerate(alpha.shape) if size == 1 and x.shape[axis + 1] != 1]
    if shared:
        product = tf.reduce_sum(product, shared, keepdims=True)
    letters = "abcdefgh"[: len(alpha.shape)]
    return Gradients(
        lambda: dy * tf.where(x > 0, tf.ones_like(x), tf.cast(x < 0, x.dtype) * alpha),
        alpha=Contraction(f"{letters}->{letters}", product),
    )
