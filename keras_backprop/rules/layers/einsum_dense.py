"""EinsumDense: a linear map along any axes."""

import tensorflow as tf
from keras import layers

from keras_backprop.registry import backward_rule
from keras_backprop.rule import Gradients
from keras_backprop.rules.layers.core import is_plain
from keras_backprop.rules.layers.reshaping import reshape_back
from keras_backprop.weight_gradients import Contraction, Total

LETTERS = "abcdefghijklmopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"  # all but n, which is the batch


@backward_rule(layers.EinsumDense, activation=True, applies=is_plain)
def einsum_dense(call, dy):
    """y = einsum(x, W) + b        dx = einsum(dy, W)        dW = einsum(x, dy)        db = Σ dy

    Where W's first axes are x's last and W's last are y's, as in the projections of attention, this is Dense with several
    axes in the place of one: y = x·W, dx = dy·Wᵀ, dW = xᵀ·dy.
    """
    x, W = call.input, tf.convert_to_tensor(call.op.kernel)
    x_axes, W_axes, y_axes = spelled_out(call.op.equation, len(x.shape))
    bound = sum(axis in x_axes for axis in W_axes)
    into, out = W_axes[:bound], W_axes[bound:]
    if into and out and x_axes.endswith(into) and x_axes[:-bound] + out == y_axes:
        rows = W.shape[:bound].num_elements(), W.shape[bound:].num_elements()

        def dx():
            return reshape_back(call, tf.matmul(tf.reshape(dy, [-1, rows[1]]), tf.reshape(W, rows), transpose_b=True))

        kernel = Contraction(f"{into},{out}->{W_axes}", x, dy)
    else:
        spread, spread_axes = _spread(dy, x, x_axes, W_axes, y_axes)

        def dx():
            return tf.einsum(f"{spread_axes},{W_axes}->{x_axes}", spread, W)

        kernel = Contraction(f"{x_axes},{spread_axes}->{W_axes}", x, spread)
        if "n" in W_axes or "n" not in y_axes:
            kernel = Total(kernel.total(), "the equation of the layer runs along the batch")
    return Gradients(dx, kernel=kernel, bias=None if call.op.bias is None else _bias(call.op.bias.shape, dy))


def spelled_out(equation, rank):
    """The axes of x, W and y as letters, an ellipsis written out, the batch named n."""
    x, W, y = equation.replace(" ", "").replace("->", ",").split(",")
    if "..." in x:
        fresh = "".join(letter for letter in LETTERS if letter not in equation)[: rank - len(x) + 3]
        x, y = x.replace("...", fresh), y.replace("...", fresh)
    swap = str.maketrans("n" + x[0], x[0] + "n")
    return tuple(axes.translate(swap) for axes in (x, W, y))


def _spread(dy, x, x_axes, W_axes, y_axes):
    """dy repeated along the axes of x over which x is summed before it meets W."""
    alone = [i for i, axis in enumerate(x_axes) if axis not in W_axes + y_axes]
    shape = tf.shape(dy)
    for i in alone:
        shape = tf.concat([shape, [tf.shape(x)[i]]], 0)
        dy = tf.broadcast_to(dy[..., None], shape)
    return dy, y_axes + "".join(x_axes[i] for i in alone)


def _bias(shape, dy):
    """Σ dy over the axes that the bias does not have, or has with size 1."""
    rank = len(dy.shape)
    narrow = [rank - len(shape) + i for i, size in enumerate(shape) if size == 1]
    if len(shape) == rank:
        return Total(tf.reduce_sum(dy, narrow, keepdims=True), "the bias has an axis for the batch")
    axes = LETTERS[: len(shape)]
    return Contraction(f"{axes}->{axes}", tf.reduce_sum(dy, narrow, keepdims=True) if narrow else dy)
