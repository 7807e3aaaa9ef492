"""Convolution layers. `W ∗ x` slides the kernel over x, `Wᵀ ∗ dy` is its adjoint: every position gives back what it took.

y[p] = Σₖ x[s·p + d·k]·W[k]        dx[s·p + d·k] += dy[p]·W[k]ᵀ        dW[k] = Σₚ x[s·p + d·k]ᵀ·dy[p]
"""

import keras
from keras import layers

from keras_backprop.convolution_gradient import Convolution, Window
from keras_backprop.registry import backward_rule, forward_rule
from keras_backprop.rule import Gradients
from keras_backprop.weight_gradients import Contraction


@backward_rule(
    layers.Conv1D,
    layers.Conv2D,
    layers.Conv3D,
    activation=True,
    applies=lambda layer: not layer.lora_enabled,
    rowwise=True,
)
def conv(call, dy):
    """y = W ∗ x + b        dx = Wᵀ ∗ dy        dW[k] = Σₚ x[s·p + d·k]ᵀ·dy[p]        db = Σ dy"""
    x, W, window = call.input, call.op.kernel, Window.of(call)
    return Gradients(
        lambda: window.input_gradient(x, W, dy),
        kernel=Convolution(x, dy, W.shape, window),
        bias=bias_gradient(call, dy),
    )


@backward_rule(layers.DepthwiseConv1D, layers.DepthwiseConv2D, activation=True, rowwise=True)
def depthwise_conv(call, dy):
    """y = W ∗ x + b, each channel by itself        dx = Wᵀ ∗ dy        dW[k] = Σₚ x[s·p + d·k]·dy[p]        db = Σ dy"""
    x, W, window = call.input, call.op.kernel, Window.of(call)
    return Gradients(
        lambda: window.input_gradient(x, W, dy, depthwise=True),
        kernel=Convolution(x, dy, W.shape, window, depthwise=True),
        bias=bias_gradient(call, dy),
    )


@backward_rule(layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose, activation=True, rowwise=True)
def conv_transpose(call, dy):
    """y = Wᵀ ∗ x + b        dx = W ∗ dy        dW[k] = Σₚ dy[s·p + d·k]ᵀ·x[p]        db = Σ dy"""
    x, W, window = call.input, call.op.kernel, Window.of(call)
    return Gradients(
        lambda: window.apply(dy, W),
        kernel=Convolution(dy, x, W.shape, window),
        bias=bias_gradient(call, dy),
    )


@forward_rule(layers.SeparableConv1D, layers.SeparableConv2D)
def separable_conv_forward(layer, inputs):
    """u = D ∗ x, each channel by itself; y = P·u + b. Saved: u."""
    u, y = separate(layer, inputs, layer.depthwise_kernel, layer.pointwise_kernel)
    if layer.use_bias:
        shape = [1, -1] + [1] * layer.rank if layer.data_format == "channels_first" else [1] * (layer.rank + 1) + [-1]
        y = keras.ops.add(y, keras.ops.reshape(layer.bias, shape))
    return y, {"u": u}


@backward_rule(layers.SeparableConv1D, layers.SeparableConv2D, activation=True, rowwise=True)
def separable_conv(call, dy):
    """u = D ∗ x, y = P·u + b        du = dy·Pᵀ        dP = uᵀ·dy        dx = Dᵀ ∗ du        dD[k] = Σₚ x[s·p + d·k]·du[p]"""
    x, u, D, P = call.input, call.saved["u"], call.op.depthwise_kernel, call.op.pointwise_kernel
    window, mixing = Window.of(call), pointwise(call)
    du = mixing.input_gradient(u, P, dy)
    return Gradients(
        lambda: window.input_gradient(x, D, du, depthwise=True),
        depthwise_kernel=Convolution(x, du, D.shape, window, depthwise=True),
        pointwise_kernel=Convolution(u, dy, P.shape, mixing),
        bias=bias_gradient(call, dy),
    )


def separate(op, x, D, P):
    """The two halves of a separable convolution: u = D ∗ x and y = P·u."""
    u = keras.ops.depthwise_conv(x, D, op.strides, op.padding, op.data_format, op.dilation_rate)
    return u, Window(len(x.shape) - 2, data_format=op.data_format).apply(u, P)


def pointwise(call):
    """The window of a convolution that looks at one position only."""
    return Window(len(call.input.shape) - 2, data_format=call["data_format"])


def bias_gradient(call, dy):
    """db = Σ dy over batch and positions.

    Keras adds a bias of f numbers along the last axis whenever that has size f, with channels first too.
    """
    layer, z = call.op, call.output
    if not layer.use_bias:
        return None
    if layer.data_format == "channels_last" or z.shape[-1] == z.shape[1]:
        return Contraction("o->o", dy)
    return Contraction("noabc"[: len(z.shape)] + "->o", dy)
