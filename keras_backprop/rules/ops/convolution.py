"""`keras.ops` that convolve. Their kernel is an input like any other."""

import keras
import tensorflow as tf

from keras_backprop._keras import ops
from keras_backprop.convolution_gradient import Window
from keras_backprop.registry import backward_rule, forward_rule
from keras_backprop.rule import Gradients
from keras_backprop.rules.layers.convolutional import pointwise, separate


@backward_rule(ops.Conv)
def conv(call, dy):
    """y = W ∗ x        dx = Wᵀ ∗ dy        dW[k] = Σₚ x[s·p + d·k]ᵀ·dy[p]"""
    x, W, window = call["inputs"], call["kernel"], Window.of(call)
    return Gradients(
        *for_tensors(
            (x, lambda: window.input_gradient(x, W, dy)),
            (W, lambda: window.weight_gradient(x, keras.ops.shape(W), dy)),
        )
    )


@backward_rule(ops.DepthwiseConv)
def depthwise_conv(call, dy):
    """y = W ∗ x, each channel by itself        dx = Wᵀ ∗ dy        dW[k] = Σₚ x[s·p + d·k]·dy[p]"""
    x, W, window = call["inputs"], call["kernel"], Window.of(call)
    return Gradients(
        *for_tensors(
            (x, lambda: window.input_gradient(x, W, dy, depthwise=True)),
            (W, lambda: window.weight_gradient(x, keras.ops.shape(W), dy, depthwise=True)),
        )
    )


@forward_rule(ops.ConvTranspose)
def conv_transpose_forward(op, inputs, kernel):
    """y = Wᵀ ∗ x, as the function `keras.ops.conv_transpose` does it.

    The operation that this function puts into a graph hands padding and output padding on in the wrong order.
    """
    options = (op.strides, op.padding, op.output_padding, op.data_format, op.dilation_rate)
    return keras.ops.conv_transpose(inputs, kernel, *options), {}


@backward_rule(ops.ConvTranspose)
def conv_transpose(call, dy):
    """y = Wᵀ ∗ x        dx = W ∗ dy        dW[k] = Σₚ dy[s·p + d·k]ᵀ·x[p]"""
    x, W, window = call["inputs"], call["kernel"], Window.of(call)
    return Gradients(
        *for_tensors(
            (x, lambda: window.apply(dy, W)),
            (W, lambda: window.weight_gradient(dy, keras.ops.shape(W), x)),
        )
    )


@forward_rule(ops.SeparableConv)
def separable_conv_forward(op, inputs, depthwise_kernel, pointwise_kernel):
    """u = D ∗ x, each channel by itself; y = P·u. Saved: u."""
    u, y = separate(op, inputs, depthwise_kernel, pointwise_kernel)
    return y, {"u": u}


@backward_rule(ops.SeparableConv)
def separable_conv(call, dy):
    """u = D ∗ x, y = P·u        du = dy·Pᵀ        dP = uᵀ·dy        dx = Dᵀ ∗ du        dD[k] = Σₚ x[s·p + d·k]·du[p]"""
    x, D, P, u = call["inputs"], call["depthwise_kernel"], call["pointwise_kernel"], call.saved["u"]
    window, mixing = Window.of(call), pointwise(call)
    du = mixing.input_gradient(u, P, dy)
    return Gradients(
        *for_tensors(
            (x, lambda: window.input_gradient(x, D, du, depthwise=True)),
            (D, lambda: window.weight_gradient(x, keras.ops.shape(D), du, depthwise=True)),
            (P, lambda: mixing.weight_gradient(u, keras.ops.shape(P), dy)),
        )
    )


def for_tensors(*pairs):
    """The gradients of those arguments that are tensors (a kernel may be an array of numbers)."""
    return [gradient for argument, gradient in pairs if tf.is_tensor(argument)]
