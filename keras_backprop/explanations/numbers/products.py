"""Layers that multiply by a weight, position by position: which numbers go in, and which entry each is multiplied by."""

from typing import Any, NamedTuple

import numpy as np
from keras import layers

from keras_backprop.explanations.numbers.nodes import places_in
from keras_backprop.explanations.numbers.windows import windows_of, windows_over

__all__ = ["Product", "Stage", "stages_of"]

MOST_PRODUCTS = 100_000
"""Of an example; more end the paths."""


class Product(NamedTuple):
    """One position.

    Attributes:
        taken: ints `(in,)`, units of the source, −1 for what is padded.
        entries: ints `(in, out)`, the entry of the weight between the two, −1 for none.
    """

    taken: np.ndarray
    entries: np.ndarray


class Stage(NamedTuple):
    """A weight, and all positions where it is used. A separable convolution has two.

    Attributes:
        weight: str, the attribute of the layer.
        products: list of `Product`, in the order of what comes out.
        shape: tuple, of what comes out, without the examples.
        positions: tuple, the part of it that is positions.
    """

    weight: str
    products: list
    shape: tuple
    positions: tuple


def stages_of(link: Any) -> list[Stage] | None:
    """The products of a link; None where it is no such layer, or in a layout that is not known here."""
    for kinds, stages in _STAGES:
        if isinstance(link.op, kinds):
            made = stages(link.of_one_step()) if link.weights else None
            if made is None or any(one is None for one in made):
                return None
            return made if link.steps is None else _in_every_step(made, link)
    return None


def _in_every_step(stages, link):
    """The products of one time step, again in each of them."""
    sizes = [int(np.prod(np.shape(link.inputs[0])[2:])), *(int(np.prod(stage.shape)) for stage in stages)]
    return [
        _stage(weight, (link.steps, *shape), (link.steps, *positions), [
            Product(np.where(taken < 0, -1, taken + step * size), entries)
            for step in range(link.steps) for taken, entries in products
        ])
        for (weight, products, shape, positions), size in zip(stages, sizes, strict=False)
    ]  # fmt: skip


def _stage(weight, shape, positions, products):
    return Stage(weight, products, tuple(shape), tuple(positions))


def _dense(link):
    x, y = np.shape(link.inputs[0])[1:], np.shape(link.outputs[0])[1:]
    entries = places_in(link.weights["kernel"])
    rows = np.arange(int(np.prod(x))).reshape(-1, x[-1])
    return [_stage("kernel", y, y[:-1], [Product(row, entries) for row in rows])]


def _convolution(link):
    kernel, groups, shape = link.weights["kernel"], link.op.groups, np.shape(link.outputs[0])[1:]
    seen = windows_of(link, kernel.shape[:-2])
    if seen is None:
        return None
    inside, out = kernel.shape[-2:]  # the channels of a group
    channel, filter_ = np.arange(inside * groups)[:, None], np.arange(out)
    same = channel // inside == filter_ // (out // groups)
    entries = np.where(same, places_in(kernel)[..., channel % inside, filter_], -1).reshape(-1, out)
    return [_stage("kernel", shape, shape[:-1], [Product(window.ravel(), entries) for window in seen])]


def _every_channel(link, name):
    """A window of every channel by itself."""
    kernel, positions = link.weights[name], np.shape(link.outputs[0])[1:-1]
    seen = windows_of(link, kernel.shape[:-2])
    if seen is None:
        return None
    channels, times = kernel.shape[-2:]
    channel, filter_ = np.arange(channels)[:, None], np.arange(channels * times)
    same = filter_ // times == channel
    entries = np.where(same, places_in(kernel)[..., channel, filter_ % times], -1).reshape(-1, channels * times)
    shape = (*positions, channels * times)
    return _stage(name, shape, positions, [Product(window.ravel(), entries) for window in seen])


def _depthwise(link):
    return [_every_channel(link, "kernel")]


def _separable(link):
    first = _every_channel(link, "depthwise_kernel")
    P, shape = link.weights["pointwise_kernel"], np.shape(link.outputs[0])[1:]
    entries = places_in(P).reshape(P.shape[-2:])
    rows = np.arange(int(np.prod(shape[:-1])) * len(entries)).reshape(-1, len(entries))
    return [first, _stage("pointwise_kernel", shape, shape[:-1], [Product(row, entries) for row in rows])]


def _transposed(link):
    """The windows lie over what comes out: a position gets from all those that cover it."""
    layer, kernel, shape = link.op, link.weights["kernel"], np.shape(link.outputs[0])[1:]
    if layer.data_format != "channels_last":
        return None
    size, rank, x = kernel.shape[:-2], kernel.ndim - 2, np.shape(link.inputs[0])[1:]
    dilation = tuple(np.broadcast_to(layer.dilation_rate, rank))
    steps = tuple(np.broadcast_to(layer.strides, rank))
    seen = windows_over(shape[:-1], x[:-1], size, steps, dilation, layer.padding).reshape(int(np.prod(x[:-1])), -1)
    entries = np.swapaxes(places_in(kernel), -1, -2).reshape(-1, x[-1], shape[-1])  # (place in the window, in, out)
    products = []
    for position in range(int(np.prod(shape[:-1]))):
        of, place = np.nonzero(seen == position)
        taken = (of[:, None] * x[-1] + np.arange(x[-1])).ravel()
        products.append(Product(taken, entries[place].reshape(-1, shape[-1])))
    return [_stage("kernel", shape, shape[:-1], products)]


def _equation(link):
    """x, W -> y of an equation, whose first axis is the examples."""
    W, shapes = link.weights["kernel"], [np.shape(link.inputs[0]), np.shape(link.outputs[0])]
    x, w, y = _letters(link.op.equation, len(shapes[0]))
    if x[0] != y[0] or x[0] in w:
        return None
    sizes = {**dict(zip(x, shapes[0], strict=True)), **dict(zip(w, W.shape, strict=True))}
    axes = sorted({*x, *w} - {x[0]})
    count = int(np.prod([sizes[axis] for axis in axes]))
    if count > MOST_PRODUCTS:
        return None
    at = dict(zip(axes, np.indices([sizes[axis] for axis in axes]).reshape(len(axes), -1), strict=True))
    of, entry, to = (_places(letters, at, sizes) for letters in (x[1:], w, y[1:]))
    if len(np.unique(np.stack([of, to]), axis=1)[0]) < count:
        return None  # several entries between the same two numbers
    steps = next((n for n, axis in enumerate(y[1:]) if axis in w), len(y) - 1)
    positions, shape = shapes[1][1 : 1 + steps], shapes[1][1:]
    units, products = int(np.prod(shape[steps:])), []
    for position in range(int(np.prod(positions))):
        here = to // units == position
        taken, row = np.unique(of[here], return_inverse=True)
        entries = np.full((len(taken), units), -1)
        entries[row, to[here] % units] = entry[here]
        products.append(Product(taken, entries))
    return [_stage("kernel", shape, positions, products)]


def _letters(equation, rank):
    """The letters of x, W and y; an ellipsis as letters of its own."""
    x, w, y = equation.replace(" ", "").replace("->", ",").split(",")
    spare = "".join(chr(ord("A") + n) for n in range(rank - len(x.replace("...", ""))))
    return (part.replace("...", spare) for part in (x, w, y))


def _places(letters, at, sizes):
    if not letters:
        return np.zeros(len(next(iter(at.values()))), int)
    return np.ravel_multi_index([at[axis] for axis in letters], [sizes[axis] for axis in letters])


_STAGES: tuple = (
    (layers.Dense, _dense),
    (layers.EinsumDense, _equation),
    ((layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose), _transposed),
    ((layers.DepthwiseConv1D, layers.DepthwiseConv2D), _depthwise),
    ((layers.SeparableConv1D, layers.SeparableConv2D), _separable),
    ((layers.Conv1D, layers.Conv2D, layers.Conv3D), _convolution),
)
"""(kinds of layers, function link -> stages); the first that fits."""
