"""Convolution and its adjoints, for every rank, padding, dilation, number of groups and order of axes.

    y[p] = Σₖ x[s·p + d·k]·W[k]              the window of stride s and dilation d at position p
    dx[s·p + d·k] += dy[p]·W[k]ᵀ             every number of x is given back what it took part in
    dW[k] = Σₚ x[s·p + d·k]ᵀ·dy[p]           what each entry of the kernel saw, times what came of it

TensorFlow's gradient kernels want channels last, two or three spatial axes and no dilation. A `Window` brings every
convolution into that form: axes are moved, a second spatial axis of size 1 is put in, and a dilated convolution
is taken apart into as many ordinary ones as it has interleaved grids. The derivation is in `docs/derivations/convolution.md`.
"""

import itertools
import math
from typing import Any

import keras
import tensorflow as tf

from keras_backprop import _tensorflow, kernels
from keras_backprop.weight_gradients import Contraction, WeightGradient, sum_of_steps

LARGEST_IDENTITY = 100
"""What kernels of so few entries see is told fastest by a convolution with an identity, on a CPU (docs/speed.md)."""


class Window:
    """How a kernel moves over its input.

    Args:
        rank: int, the number of spatial axes: 1, 2 or 3.
        strides, dilation_rate: int, or one for each spatial axis.
        padding: "valid", "same" or "causal".
        data_format: "channels_last", "channels_first", or None for Keras's default.
    """

    def __init__(
        self, rank: Any, strides: Any = 1, padding: Any = "valid", dilation_rate: Any = 1, data_format: Any = None
    ) -> None:
        self.rank = rank
        self.strides, self.dilation = (each(rank, value) for value in (strides, dilation_rate))
        self.padding = padding.lower()
        self.channels_first = (data_format or keras.config.image_data_format()) == "channels_first"

    @classmethod
    def of(cls, call: Any) -> Any:
        """The window of a convolution layer or operation."""
        rank = len(call.input.shape) - 2
        return cls(rank, call["strides"], call["padding"], call["dilation_rate"], call["data_format"])

    def apply(self, x: Any, W: Any) -> Any:
        """y = W ∗ x"""
        x, W, padding = self.lift(x), _lift_kernel(W), self.padding
        if padding == "causal":
            x, padding = (
                tf.pad(x, [[0, 0], *map(list, self.pads(keras.ops.shape(x), keras.ops.shape(W)[:-2])), [0, 0]]),
                "valid",
            )
        y = tf.nn.convolution(x, W, self.lifted(self.strides), padding.upper(), dilations=self.lifted(self.dilation))
        return self.lower(y)

    def input_gradient(self, x: Any, W: Any, dy: Any, depthwise: Any = False) -> Any:
        """dx, for x of which only the shape matters."""
        W, sizes = _lift_kernel(W), self.sizes(x)
        plain = _Plain(self, sizes, keras.ops.shape(W)[:-2], depthwise)
        kernel = kernels.depthwise_convolution_dx if depthwise else kernels.convolution_dx
        dx = kernel(plain.sizes, W, plain.split(self.lift(dy)), plain.strides, plain.padding)
        return self.lower(plain.join(dx))

    def weight_gradient(self, x: Any, kernel_shape: Any, dy: Any, depthwise: Any = False) -> Any:
        """dW, summed over the batch."""
        sizes = [1] * (self.rank == 1) + list(kernel_shape)
        plain = _Plain(self, self.sizes(x), sizes[:-2], depthwise)
        kernel = kernels.depthwise_convolution_dW if depthwise else kernels.convolution_dW
        dW = kernel(plain.split_input(self.lift(x)), sizes, plain.split(self.lift(dy)), plain.strides, plain.padding)
        return tf.reshape(dW, kernel_shape) if self.rank == 1 else dW

    def patches(self, x: Any, kernel_size: Any) -> Any:
        """What the kernel sees at each position: shape (n, positions…, entries of the kernel, channels)."""
        x, kernel_size = self.lift(x), self.lifted(kernel_size)
        strides, dilation = self.lifted(self.strides), self.lifted(self.dilation)
        if len(kernel_size) == 2 and max(dilation) == 1 and self.padding != "causal" and x.shape[-1] is not None:
            numbers = math.prod(kernel_size) * x.shape[-1]
            if numbers <= LARGEST_IDENTITY:
                identity = tf.reshape(tf.eye(numbers, dtype=x.dtype), [*kernel_size, x.shape[-1], numbers])
                seen = tf.nn.conv2d(x, identity, strides, self.padding.upper())
                return _split_last(seen, [math.prod(kernel_size), x.shape[-1]])
            if max(strides) > 1:
                window = [1, *kernel_size, 1], [1, *strides, 1], [1, 1, 1, 1]
                seen = tf.image.extract_patches(x, *window, self.padding.upper())
                return _split_last(seen, [math.prod(kernel_size), x.shape[-1]])
        if self.padding != "valid":
            x = tf.pad(x, [[0, 0], *map(list, self.pads(keras.ops.shape(x), kernel_size)), [0, 0]])
        reach = [size - d * (k - 1) for size, d, k in zip(keras.ops.shape(x)[1:-1], dilation, kernel_size, strict=True)]
        seen = []
        for entry in itertools.product(*map(range, kernel_size)):
            starts = [d * k for d, k in zip(dilation, entry, strict=True)]
            seen.append(x[:, *(slice(a, a + r, s) for a, r, s in zip(starts, reach, strides, strict=True))])
        return tf.stack(seen, axis=-2)

    def lift(self, x: Any) -> Any:
        """Channels last and at least two spatial axes."""
        if self.channels_first:
            x = tf.transpose(x, [0, *range(2, self.rank + 2), 1])
        return tf.expand_dims(x, 1) if self.rank == 1 else x

    def lower(self, x: Any) -> Any:
        """The inverse of `lift`."""
        x = tf.squeeze(x, 1) if self.rank == 1 else x
        return tf.transpose(x, [0, self.rank + 1, *range(1, self.rank + 1)]) if self.channels_first else x

    def lifted(self, values: Any, fill: Any = 1) -> Any:
        """One value for each of at least two spatial axes."""
        return (fill, *values) if self.rank == 1 else tuple(values)

    def sizes(self, x: Any) -> Any:
        """The shape that `lift(x)` has: ints, and scalar tensors where they are unknown."""
        sizes = list(keras.ops.shape(x))
        if self.channels_first:
            sizes = [sizes[0], *sizes[2:], sizes[1]]
        return [sizes[0], 1, *sizes[1:]] if self.rank == 1 else sizes

    def pads(self, sizes: Any, kernel_size: Any) -> Any:
        """(before, after) for each lifted spatial axis: how many zeros the padding adds."""
        strides, dilation = self.lifted(self.strides), self.lifted(self.dilation)
        if self.padding == "valid":
            return [(0, 0)] * len(strides)
        if self.padding == "causal":
            return [(d * (k - 1), 0) for d, k in zip(dilation, kernel_size, strict=True)]
        return [_same(*axis) for axis in zip(sizes[1:-1], kernel_size, strides, dilation, strict=True)]


class _Plain:
    """The ordinary convolution that a kernel of TensorFlow is asked for, and the way there and back.

    Positions whose indices are equal modulo the dilation never meet in one window: each such grid is an image of its own
    (`space_to_batch`), convolved without dilation. Where there is a stride besides, or a depthwise kernel has different
    strides along its axes, no kernel exists: then dy is laid out with zeros at the positions that the stride left out.
    """

    def __init__(self, window, sizes, kernel_size, depthwise):
        self.sizes, self.padding = sizes, window.padding.upper()
        self.strides, self.dilation = window.lifted(window.strides), window.lifted(window.dilation)
        if depthwise and window.rank == 1:
            self.strides = window.strides * 2  # the kernel wants equal strides; along an axis of size 1 any will do
        dilated, strided = max(self.dilation) > 1, max(self.strides) > 1
        self.spread = strided and (dilated or (depthwise and len(set(self.strides)) > 1))
        self.blocked = dilated or self.spread
        if window.padding == "causal":
            self.padding = window.pads(sizes, kernel_size)
        if self.blocked:
            self._take_apart(window.pads(sizes, kernel_size), kernel_size)

    def _take_apart(self, pads, kernel_size):
        n, *spatial, channels = self.sizes
        padded = [size + before + after for size, (before, after) in zip(spatial, pads, strict=True)]
        fill = [-size % d for size, d in zip(padded, self.dilation, strict=True)]
        self.paddings = [[before, after + f] for (before, after), f in zip(pads, fill, strict=True)]
        self.crops = [[0, f] for f in fill]
        blocks = [(size + f) // d for size, f, d in zip(padded, fill, self.dilation, strict=True)]
        reach = [size - d * (k - 1) for size, d, k in zip(padded, self.dilation, kernel_size, strict=True)]
        self.positions = [n, *reach, None]
        self.steps, self.strides, self.padding = self.strides, (1,) * len(spatial), "VALID"
        self.sizes = [n * math.prod(self.dilation), *blocks, channels]

    def split_input(self, x):
        """x as the ordinary convolution sees it."""
        return tf.space_to_batch(x, self.dilation, self.paddings) if self.blocked else x

    def split(self, dy):
        """dy as the ordinary convolution receives it."""
        if self.spread:
            shape = [*self.positions[:-1], dy.shape[-1]]
            dy = kernels.strided_slice_grad(dy, tf.stack(shape), [0] * len(shape), shape, [1, *self.steps, 1])
        return tf.space_to_batch(dy, self.dilation, self.crops) if self.blocked else dy

    def join(self, dx):
        """The ordinary convolution's dx as the dx of the whole."""
        return tf.batch_to_space(dx, self.dilation, self.paddings) if self.blocked else dx


class Convolution(WeightGradient):
    """dW[k] = Σₚ x[s·p + d·k]ᵀ·dy[p]: the gradient of a convolution's kernel.

    Args:
        x: what was convolved.
        dy: ∂E/∂y. (Of a transposed convolution, which is the adjoint of one, x is dy and dy is x.)
        kernel_shape: the shape of W.
        window: `Window`, how the kernel moved.
        depthwise: bool, every channel has kernels of its own.
    """

    def __init__(self, x: Any, dy: Any, kernel_shape: Any, window: Any, depthwise: Any = False) -> None:
        self.x, self.dy, self.kernel_shape = x, dy, [int(size) for size in kernel_shape]
        self.window, self.depthwise = window, depthwise
        self._product: Any = None

    def total(self) -> Any:
        return self._total(self.x, self.dy)

    def total_of_steps(self, steps: Any) -> Any:
        return sum_of_steps(self._total, self.kernel_shape, steps, self.x, self.dy)

    def _total(self, x, dy):
        return self.window.weight_gradient(x, self.kernel_shape, dy, self.depthwise)

    def per_example(self) -> Any:
        products = self._products().per_example()  # (n·g, k·i, o)
        k, groups = math.prod(self.kernel_shape[:-2]), self._groups()
        grouped = tf.reshape(products, [-1, groups, k, products.shape[1] // k, products.shape[2]])
        return tf.reshape(tf.transpose(grouped, [0, 2, 3, 1, 4]), [-1, *self.kernel_shape])

    def squared_norms(self) -> Any:
        return tf.reduce_sum(tf.reshape(self._products().squared_norms(), [-1, self._groups()]), 1)

    def weighted_total(self, c: Any) -> Any:
        product = self._product_so_far()
        if product is not None and product.singles is not None:  # less work than x and dy
            if self._groups() == 1:
                return tf.reshape(product.weighted_total(c), self.kernel_shape)
            return super().weighted_total(c)
        c = tf.reshape(tf.cast(c, self.dy.dtype), [-1] + [1] * (len(self.dy.shape) - 1))
        return self._total(self.x, self.dy * c)

    def inner_products(self, V: Any) -> Any:
        if self.depthwise:
            return super().inner_products(V)
        # ⟨Σₚ xₚᵀ·dyₚ, V⟩ = ⟨dy, V ∗ x⟩
        y = self.window.apply(self.x, tf.cast(V, self.dy.dtype))
        return tf.reduce_sum(y * self.dy, axis=list(range(1, len(self.dy.shape))))

    def as_type(self, dtype: Any) -> "Convolution":
        x, dy = tf.cast(self.x, dtype), tf.cast(self.dy, dtype)
        other = Convolution(x, dy, self.kernel_shape, self.window, self.depthwise)
        other.shape, other.dtype = self.shape, self.dtype
        return other

    def only(self, kept: Any) -> "Convolution":
        x, dy = (tf.where(tf.reshape(kept != 0, [-1] + [1] * (len(a.shape) - 1)), a, 0) for a in (self.x, self.dy))
        other = Convolution(x, dy, self.kernel_shape, self.window, self.depthwise)
        other.shape, other.dtype = self.shape, self.dtype
        if self._product_so_far() is not None:
            other._product = self._product_so_far().only(tf.repeat(kept, self._groups()))
        return other

    def _groups(self):
        channels = self.x.shape[1 if self.window.channels_first else -1]
        return channels if self.depthwise else channels // self.kernel_shape[-2]

    def _products(self):
        """The same sum as a product of matrices: patches (n·g, t, k·i) and dy (n·g, t, o), g the groups of channels."""
        if self._product_so_far() is None:
            self._product = self._made_product()
        return self._product

    def _product_so_far(self):
        """It, if it has been made where it can be used; None else."""
        made = self._product is not None and all(map(_tensorflow.is_within_reach, self._product.factors))
        return self._product if made else None

    def _made_product(self):
        x, dy = self.window.patches(self.x, self.kernel_shape[:-2]), self.window.lift(self.dy)
        n, *spatial, o = keras.ops.shape(dy)
        t, g, k, i = math.prod(spatial), self._groups(), x.shape[-2], x.shape[-1]
        x, dy = tf.reshape(x, [n, t, k, g, i // g]), tf.reshape(dy, [n, t, g, o // g])
        if g > 1:
            x, dy = tf.transpose(x, [0, 3, 1, 2, 4]), tf.transpose(dy, [0, 2, 1, 3])
        return Contraction("i,o->io", tf.reshape(x, [n * g, t, k * (i // g)]), tf.reshape(dy, [n * g, t, o // g]))


def _same(size, kernel, stride, dilation):
    """The zeros that "same" puts before and after an axis."""
    total = (-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size
    total = tf.maximum(total, 0) if tf.is_tensor(total) else max(total, 0)
    return total // 2, total - total // 2


def _split_last(x, sizes):
    shape = keras.ops.shape(x)[:-1]
    return tf.reshape(x, [*shape, *sizes])


def each(rank: Any, value: Any) -> Any:
    """One value for each of `rank` axes."""
    return (value,) * rank if isinstance(value, int) else tuple(value)


def _lift_kernel(W):
    W = tf.convert_to_tensor(W)
    return tf.expand_dims(W, 0) if len(W.shape) == 3 else W
