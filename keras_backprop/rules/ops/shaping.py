"""Operations that move numbers, repeat them or leave some out: the gradient moves back and is summed over the copies."""

import math
import re

import keras
import tensorflow as tf

from keras_backprop import kernels
from keras_backprop._keras import ops
from keras_backprop.registry import backward_rule, not_differentiable, pullback
from keras_backprop.rule import Gradients
from keras_backprop.rules.layers.merging import split_like
from keras_backprop.rules.layers.reshaping import reshape_back
from keras_backprop.rules.ops.arithmetic import of_tensors
from keras_backprop.shapes import sizes_of

pullback(ops.Reshape, ops.Ravel, ops.ExpandDims, ops.Squeeze, reshape_back)

# Numbers that do not depend on the input's numbers.
not_differentiable(ops.OnesLike, ops.ZerosLike, ops.EmptyLike, ops.Arange)


def transpose_back(call, dy):
    """y = xᵀ        dx = dyᵀ by the inverse permutation"""
    axes, rank = call["axes"], len(dy.shape)
    if not axes:
        return tf.transpose(dy)
    axes = [a % rank for a in axes]
    return tf.transpose(dy, [axes.index(i) for i in range(rank)])


def swapaxes_back(call, dy):
    """y = x with two axes exchanged        dx = dy with the same two exchanged"""
    order = list(range(len(dy.shape)))
    first, second = call["axis1"], call["axis2"]
    order[first], order[second] = order[second], order[first]
    return tf.transpose(dy, order)


pullback(ops.Transpose, transpose_back)
pullback(ops.Swapaxes, swapaxes_back)
pullback(ops.Moveaxis, lambda call, dy: tf.experimental.numpy.moveaxis(dy, call["destination"], call["source"]))


def rot90_back(call, dy):
    """y = x turned by k quarters        dx = dy turned back"""
    first, second = (axis % len(dy.shape) for axis in call["axes"])
    k = call["k"] % 4
    if k == 0:
        return dy
    if k == 2:  # Keras mixes the numbers up if the sides differ: see where each one went
        x = call.input
        places = call.op.call(tf.reshape(tf.range(tf.size(x)), tf.shape(x)))
        return tf.reshape(tf.scatter_nd(tf.reshape(places, [-1, 1]), tf.reshape(dy, [-1]), [tf.size(x)]), tf.shape(x))
    order = list(range(len(dy.shape)))
    order[first], order[second] = second, first
    return tf.reverse(tf.transpose(dy, order), [second if k == 1 else first])


pullback(ops.Rot90, rot90_back)


def flip_back(call, dy):
    """y = x in reverse order        dx = dy in reverse order"""
    axis, rank = call["axis"], len(dy.shape)
    if axis is None:
        axis = range(rank)
    return tf.reverse(dy, [a % rank for a in (axis if hasattr(axis, "__iter__") else [axis])])


pullback(ops.Flip, flip_back)
pullback(ops.Fliplr, lambda call, dy: tf.reverse(dy, [1]))
pullback(ops.Flipud, lambda call, dy: tf.reverse(dy, [0]))


def roll_back(call, dy):
    """y = x rolled on        dx = dy rolled back"""
    shift = tf.negative(call["shift"])
    if call["axis"] is not None:
        return tf.roll(dy, shift, call["axis"])
    return reshape_back(call, tf.roll(tf.reshape(dy, [-1]), shift, 0))


pullback(ops.Roll, roll_back)


@backward_rule(ops.BroadcastTo, broadcasts=True)
def broadcast_to(call, dy):
    """y = x repeated along axes of size 1 and new ones        dx = Σ dy over the copies (the sweep sums)"""
    return Gradients(dy)


@backward_rule(ops.Full, ops.FullLike)
def full(call, dy):
    """y = v everywhere        dv = Σ dy"""
    value = call.arguments["fill_value"]
    if not tf.is_tensor(value):
        return Gradients(*[None] * len(call.inputs))
    extra, last = tf.rank(dy) - tf.rank(value), tf.range(tf.rank(dy) - tf.rank(value), tf.rank(dy))
    ones = tf.boolean_mask(last, tf.shape(value) == 1)
    dv = tf.reshape(tf.reduce_sum(dy, tf.concat([tf.range(extra), ones], 0)), tf.shape(value))
    return Gradients(*[None] * (len(call.inputs) - 1), dv)


def tile_back(call, dy):
    """y = x repeated as a whole        dx = Σ dy over the copies"""
    x, repeats = call.input, call["repeats"]
    repeats = [repeats] if isinstance(repeats, int) else list(repeats)
    rank = max(len(x.shape), len(repeats))
    repeats = [1] * (rank - len(repeats)) + repeats
    sizes = [1] * (rank - len(x.shape)) + sizes_of(x)
    pairs = [part for pair in zip(repeats, sizes, strict=True) for part in pair]
    return reshape_back(call, tf.reduce_sum(tf.reshape(dy, pairs), list(range(0, 2 * rank, 2))))


pullback(ops.Tile, tile_back)


def repeat_back(call, dy):
    """y = x with every number repeated        dx = Σ dy over the copies"""
    x, axis, repeats = call.input, call["axis"], call["repeats"]
    if axis is None:
        x, axis = tf.reshape(x, [-1]), 0
    axis %= len(x.shape)
    front = tf.experimental.numpy.moveaxis(dy, axis, 0)
    size = x.shape[axis] if x.shape[axis] is not None else tf.shape(x)[axis]
    if isinstance(repeats, int):
        summed = tf.reduce_sum(tf.reshape(front, tf.concat([[size, repeats], tf.shape(front)[1:]], 0)), 1)
    else:
        copies = tf.broadcast_to(tf.reshape(tf.convert_to_tensor(repeats), [-1]), [size])
        summed = tf.math.unsorted_segment_sum(front, tf.repeat(tf.range(size), copies), size)
    return reshape_back(call, tf.experimental.numpy.moveaxis(summed, 0, axis))


pullback(ops.Repeat, repeat_back)


def pad_back(call, dy):
    """y = x with a border        dx = dy without it; a border that mirrors x adds its gradient to what it mirrors"""
    width, rank, mode = [tuple(pair) for pair in call["pad_width"]], len(dy.shape), call["mode"]
    width = width * rank if len(width) == 1 else width
    if mode != "constant":
        return kernels.mirror_pad_grad(dy, width, mode.upper())
    return dy[tuple(slice(low, -high if high else None) for low, high in width)]


pullback(ops.Pad, pad_back)


# What is joined is parted again.


@backward_rule(ops.Concatenate)
def concatenate(call, dy):
    """y = [x₁, x₂, …]        [dx₁, dx₂, …] = dy"""
    return Gradients(*split_like(dy, call.inputs, call["axis"]))


@backward_rule(ops.Append)
def append(call, dy):
    """y = [a, b], flattened first where there is no axis        [da, db] = dy"""
    a, b = (tf.convert_to_tensor(call[name]) for name in ("x1", "x2"))
    if call["axis"] is not None:
        da, db = split_like(dy, [a, b], call["axis"])
    else:
        da, db = _reshaped(tf.split(dy, [tf.size(a), tf.size(b)]), [a, b])
    return of_tensors(call, x1=da, x2=db)


@backward_rule(ops.Hstack, ops.Vstack, ops.Dstack)
def stack_along(call, dy):
    """y = [x₁, x₂, …] along the second, first or third axis        [dx₁, dx₂, …] = dy"""
    axis = {ops.Hstack: 1, ops.Vstack: 0, ops.Dstack: 2}[type(call.op)]
    xs = call.inputs
    if isinstance(call.op, ops.Hstack) and len(xs[0].shape) == 1:
        axis = 0
    sizes = [1 if len(x.shape) <= axis else tf.shape(x)[axis] for x in xs]
    return Gradients(*_reshaped(tf.split(dy, tf.stack(sizes), axis=axis), xs))


def _reshaped(parts, xs):
    return [tf.reshape(part, tf.shape(x)) for part, x in zip(parts, xs, strict=True)]


@backward_rule(ops.Stack)
def stack(call, dy):
    """y = [x₁, x₂, …] along a new axis        [dx₁, dx₂, …] = dy"""
    if tf.is_tensor(call["x"]):  # the xᵢ are its parts along the first axis
        return Gradients(tf.stack(tf.unstack(dy, axis=call["axis"])))
    return Gradients(*tf.unstack(dy, num=len(call.inputs), axis=call["axis"]))


# What is parted is joined again.


def axis_of_split(call):
    x, op = call.input, call.op
    if isinstance(op, (ops.Split, ops.ArraySplit)):
        return call["axis"]
    return {ops.Hsplit: min(1, len(x.shape) - 1), ops.Vsplit: 0, ops.Dsplit: 2}[type(op)]


pullback(
    ops.Split, ops.ArraySplit, ops.Hsplit, ops.Vsplit, ops.Dsplit,
    lambda call, dy: tf.concat(dy, axis_of_split(call)) if isinstance(dy, tuple) else dy,
)  # fmt: skip
pullback(ops.Unstack, lambda call, dy: tf.stack(dy if isinstance(dy, tuple) else [dy], axis=call["axis"]))


@backward_rule(ops.Meshgrid)
def meshgrid(call, dy):
    """yᵢ = xᵢ along its own axis, repeated along the others        dxᵢ = Σ dyᵢ over the others"""
    dys = dy if isinstance(dy, tuple) else (dy,)
    rank, dxs = len(dys), []
    for i, (x, d) in enumerate(zip(call["x"], dys, strict=True)):
        own = 1 - i if call["indexing"] == "xy" and i < 2 and rank > 1 else i
        if tf.is_tensor(x):
            dxs.append(tf.reshape(tf.reduce_sum(d, [axis for axis in range(rank) if axis != own]), tf.shape(x)))
    return Gradients(*dxs)


def depth_to_space_back(call, dy):
    """y = blocks of depth laid out in the plane        dx = dy put back into depth"""
    return _blocks(tf.nn.space_to_depth, dy, call)


def space_to_depth_back(call, dy):
    """y = blocks of the plane stacked in depth        dx = dy laid out again"""
    return _blocks(tf.nn.depth_to_space, dy, call)


def _blocks(move, dy, call):
    if call["data_format"] == "channels_last":
        return move(dy, call["block_size"])
    return tf.transpose(move(tf.transpose(dy, [0, 2, 3, 1]), call["block_size"]), [0, 3, 1, 2])


pullback(ops.DepthToSpace, depth_to_space_back)
pullback(ops.SpaceToDepth, space_to_depth_back)


def sequences_back(call, dy):
    """y = overlapping stretches of x        dx = Σ dy over the stretches a number is in"""
    step = call["sequence_stride"]
    dx = tf.signal.overlap_and_add(dy, step)
    missing = tf.shape(call.input)[-1] - tf.shape(dx)[-1]
    return tf.pad(dx, [[0, 0]] * (len(call.input.shape) - 1) + [[0, missing]])


pullback(ops.ExtractSequences, sequences_back)


def rearrange_back(call, dy):
    """y = x rearranged by the pattern "a -> b"        dx = dy rearranged by "b -> a" """
    given, wanted = call["pattern"].split("->")
    sizes = {name: size for name, size in call.arguments.items() if name not in ("tensor", "pattern")}
    for group, size in zip(re.findall(r"\w+|\(.*?\)", given), keras.ops.shape(call.input), strict=True):
        names = group.strip("()").split()
        inferred = [name for name in names if name not in sizes]
        if inferred:
            sizes[inferred[0]] = size // math.prod(sizes[name] for name in names if name in sizes)
    return call.op.call(dy, f"{wanted.strip()} -> {given.strip()}", **sizes)


pullback(ops.Rearrange, rearrange_back)
