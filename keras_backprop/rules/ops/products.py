"""Products of matrices and tensors: y = a·b, da = dy·bᵀ, db = aᵀ·dy."""

import functools

import keras
import tensorflow as tf

from keras_backprop._keras import ops
from keras_backprop.registry import backward_rule
from keras_backprop.rule import Gradients
from keras_backprop.rules.layers.core import times_transposed
from keras_backprop.rules.ops.arithmetic import of_tensors, operands


@backward_rule(ops.Matmul, broadcasts=True)
def matmul(call, dy):
    """y = a·b        da = dy·bᵀ        db = aᵀ·dy        (a vector is a matrix of one row, or of one column)"""
    a, b = operands(call)
    vector_a, vector_b = len(a.shape) == 1, len(b.shape) == 1
    a = a[None, :] if vector_a else a
    b = b[:, None] if vector_b else b
    dy = dy[..., None] if vector_b else dy
    dy = tf.expand_dims(dy, -2) if vector_a else dy

    def da():
        product = (
            times_transposed(dy, b)
            if len(b.shape) == 2 and b.shape[0] is not None
            else tf.matmul(dy, b, transpose_b=True)
        )
        return tf.squeeze(product, -2) if vector_a else product

    def db():
        product = transposed_times(a, dy) if len(b.shape) == 2 else tf.matmul(a, dy, transpose_a=True)
        return tf.squeeze(product, -1) if vector_b else product

    return of_tensors(call, x1=da, x2=db)


def transposed_times(a, dy):
    """aᵀ·dy over all axes but the last."""
    if len(a.shape) > 2:
        a, dy = tf.reshape(a, tf.stack([-1, tf.shape(a)[-1]])), tf.reshape(dy, tf.stack([-1, tf.shape(dy)[-1]]))
    return tf.matmul(a, dy, transpose_a=True)


@backward_rule(ops.Tensordot)
def tensordot(call, dy):
    """y = Σ a·b over pairs of axes        da = Σ dy·b over b's other axes        db = Σ a·dy over a's other axes"""
    a, b = operands(call)
    axes = call["axes"]
    if isinstance(axes, int):
        axes = [list(range(len(a.shape) - axes, len(a.shape))), list(range(axes))]
    axes_a, axes_b = ([part] if isinstance(part, int) else list(part) for part in axes)
    return contracted(call, a, b, axes_a, axes_b, dy)


def contracted(call, a, b, axes_a, axes_b, dy):
    """The gradients of y = Σ a·b over the paired axes; y has a's other axes and then b's."""
    axes_a, axes_b = [i % len(a.shape) for i in axes_a], [i % len(b.shape) for i in axes_b]
    free_a = [i for i in range(len(a.shape)) if i not in axes_a]
    free_b = [i for i in range(len(b.shape)) if i not in axes_b]
    split = len(free_a)

    def da():
        product = tf.tensordot(dy, b, [list(range(split, split + len(free_b))), free_b])
        places = [*free_a, *(i for _, i in sorted(zip(axes_b, axes_a, strict=True)))]
        return _in_order(product, places)

    def db():
        product = tf.tensordot(a, dy, [free_a, list(range(split))])
        places = [*(i for _, i in sorted(zip(axes_a, axes_b, strict=True))), *free_b]
        return _in_order(product, places)

    return of_tensors(call, x1=da, x2=db)


def _in_order(x, places):
    """x with axis i moved to places[i]."""
    if places == list(range(len(places))):
        return x
    return tf.transpose(x, [places.index(i) for i in range(len(places))])


@backward_rule(ops.Dot, ops.Inner)
def dot(call, dy):
    """y = Σ a·b over a's last axis and b's last but one (inner, or a vector b: the last); a number multiplies"""
    a, b = operands(call)
    if not a.shape.rank or not b.shape.rank:
        return of_tensors(
            call,
            x1=lambda: dy * b if a.shape.rank else tf.reduce_sum(dy * b),
            x2=lambda: dy * a if b.shape.rank else tf.reduce_sum(dy * a),
        )
    last = isinstance(call.op, ops.Inner) or b.shape.rank == 1
    return contracted(call, a, b, [-1], [-1 if last else -2], dy)


@backward_rule(ops.Vdot)
def vdot(call, dy):
    """y = Σ a·b over everything        da = dy·b        db = dy·a"""
    a, b = operands(call)
    return of_tensors(
        call,
        x1=lambda: dy * tf.reshape(b, tf.shape(a)),
        x2=lambda: dy * tf.reshape(a, tf.shape(b)),
    )


@backward_rule(ops.Outer)
def outer(call, dy):
    """yᵢⱼ = aᵢ·bⱼ        daᵢ = Σⱼ dyᵢⱼ·bⱼ        dbⱼ = Σᵢ dyᵢⱼ·aᵢ"""
    a, b = operands(call)
    return of_tensors(
        call,
        x1=lambda: tf.reshape(tf.linalg.matvec(dy, tf.reshape(b, [-1])), tf.shape(a)),
        x2=lambda: tf.reshape(tf.linalg.matvec(dy, tf.reshape(a, [-1]), transpose_a=True), tf.shape(b)),
    )


@backward_rule(ops.Kron)
def kron(call, dy):
    """y = blocks aᵢⱼ·b        daᵢⱼ = Σ dy·b over block ij        db = Σᵢⱼ aᵢⱼ·(block ij of dy)"""
    a, b = operands(call)
    rank = max(len(a.shape), len(b.shape))
    sizes = [tf.concat([tf.ones([rank - len(x.shape)], tf.int32), tf.shape(x)], 0) for x in (a, b)]
    blocks = tf.reshape(dy, tf.reshape(tf.stack(sizes, 1), [-1]))
    even, odd = list(range(0, 2 * rank, 2)), list(range(1, 2 * rank, 2))
    return of_tensors(
        call,
        x1=lambda: tf.reshape(tf.tensordot(blocks, tf.reshape(b, sizes[1]), [odd, list(range(rank))]), tf.shape(a)),
        x2=lambda: tf.reshape(tf.tensordot(blocks, tf.reshape(a, sizes[0]), [even, list(range(rank))]), tf.shape(b)),
    )


@backward_rule(ops.Cross, broadcasts=True)
def cross(call, dy):
    """y = a × b        da = b × dy        db = dy × a        (a vector of the plane is one of space without height)"""
    a, b = operands(call)
    axes = [call[name] for name in ("axisa", "axisb", "axisc")]
    sizes = [x.shape[axis] for x, axis in zip((a, b), axes, strict=False)]
    a, b = (_in_space(tf.experimental.numpy.moveaxis(x, axis, -1)) for x, axis in zip((a, b), axes, strict=False))
    if sizes == [2, 2]:
        dy = tf.pad(dy[..., None], [[0, 0]] * len(dy.shape) + [[2, 0]])
    else:
        dy = tf.experimental.numpy.moveaxis(dy, axes[2], -1)

    def back(u, v, size, axis):
        shape = tf.shape(dy)
        product = tf.linalg.cross(tf.broadcast_to(u, shape), tf.broadcast_to(v, shape))[..., :size]
        return tf.experimental.numpy.moveaxis(product, -1, axis)

    return of_tensors(call, x1=lambda: back(b, dy, sizes[0], axes[0]), x2=lambda: back(dy, a, sizes[1], axes[1]))


def _in_space(x):
    return tf.pad(x, [[0, 0]] * (len(x.shape) - 1) + [[0, 1]]) if x.shape[-1] == 2 else x


@backward_rule(ops.CDist, broadcasts=True)
def pairwise_distances(call, dy):
    """yᵢⱼ = ‖aᵢ − bⱼ‖        g = dy/y        daᵢ = Σⱼ gᵢⱼ·(aᵢ − bⱼ)        dbⱼ = Σᵢ gᵢⱼ·(bⱼ − aᵢ)"""
    a, b = operands(call, ("x", "y"))
    g = tf.math.divide_no_nan(dy, call.output)
    return of_tensors(
        call,
        x=lambda: a * tf.reduce_sum(g, -1)[..., None] - tf.matmul(g, b),
        y=lambda: b * tf.reduce_sum(g, -2)[..., None] - tf.matmul(g, a, transpose_a=True),
    )


@backward_rule(ops.Correlate)
def correlate(call, dy):
    """yₜ = Σₘ aₜ₊ₘ·bₘ, a with or without a border of zeros        daₙ = Σₜ dyₜ·bₙ₋ₜ        dbₘ = Σₜ aₜ₊ₘ·dyₜ"""
    a, b = operands(call)
    n, m = tf.shape(a)[0], tf.shape(b)[0]
    border = m - 1
    whole = n + m - 1  # the length of y with borders on both sides
    cut = {"full": 0, "same": (whole - tf.maximum(n, m)) // 2, "valid": border}[call["mode"]]
    dy = tf.pad(dy, [[cut, whole - cut - tf.shape(dy)[0]]])
    return of_tensors(
        call,
        x1=lambda: _slide(tf.pad(dy, [[border, border]]), tf.reverse(b, [0]))[border : border + n],
        x2=lambda: _slide(tf.pad(a, [[border, border]]), dy),
    )


def _slide(x, window):
    """Σₘ xₜ₊ₘ·windowₘ for all t where the window fits."""
    return tf.nn.conv1d(x[None, :, None], window[:, None, None], stride=1, padding="VALID")[0, :, 0]


@backward_rule(ops.Einsum)
def einsum(call, dy):
    """y = Σ ∏ factors        dfactor = Σ dy·∏ of the other factors over what the factor's indices do not name"""
    factors = [tf.cast(x, call.output.dtype) for x in call["operands"]]
    letters, result, factors = spelled_out(call["subscripts"], factors)
    tensors = [i for i, x in enumerate(call["operands"]) if tf.is_tensor(x)]

    def dx(i):
        d, x = _factor_gradient(i, letters, result, factors, dy), call["operands"][i]
        return d if len(d.shape) == len(x.shape) else tf.reshape(d, tf.shape(x))

    return Gradients(*(functools.partial(dx, i) for i in tensors))


def _factor_gradient(i, letters, result, factors, dy):
    own = letters[i]
    unique = "".join(dict.fromkeys(own))
    others = [letters[j] for j in range(len(letters)) if j != i]
    given = set(result).union(*others)
    reduced = "".join(c for c in unique if c in given)
    others_factors = [factors[j] for j in range(len(factors)) if j != i]
    if reduced != result or others:
        dx = keras.ops.einsum(f"{','.join([result, *others])}->{reduced}", dy, *others_factors)
    else:
        dx = dy
    sizes = dict(zip(own, tf.unstack(tf.shape(factors[i])), strict=True)) if own else {}
    if reduced != unique:  # an index that was summed over alone: every number gets the same gradient
        shape = [sizes[c] if c in reduced else 1 for c in unique]
        dx = tf.broadcast_to(tf.reshape(dx, shape), [sizes[c] for c in unique])
    if unique != own:  # an index that occurs twice: the gradient is on the diagonal
        dx = _on_diagonal(dx, unique, own, sizes)
    return dx


def _on_diagonal(dx, unique, own, sizes):
    fresh = iter(c for c in _LETTERS if c not in own)
    target, eyes, equation = "", [], [unique]
    for c in own:
        if c in target:
            new = next(fresh)
            equation.append(c + new)
            eyes.append(tf.eye(sizes[c], dtype=dx.dtype))
            c = new
        target += c
    return tf.einsum(f"{','.join(equation)}->{target}", dx, *eyes)


_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def spelled_out(subscripts, factors):
    """An equation with its ellipsis written as letters and its result explicit.

    Returns:
        The letters of each factor, those of the result, and the factors: without the axes of size 1 that an ellipsis
        broadcast.
    """
    inputs, arrow, result = subscripts.replace(" ", "").partition("->")
    letters = inputs.split(",")
    if not arrow:
        once = sorted(c for c in set(inputs) if c.isalpha() and inputs.count(c) == 1)
        result = ("..." if "..." in inputs else "") + "".join(once)
    fresh = [c for c in _LETTERS if c not in subscripts]
    counts = [len(x.shape) - len(s.replace("...", "")) for x, s in zip(factors, letters, strict=True)]
    most = max(counts)
    names = fresh[:most]
    sizes = [1] * most
    for x, s, count in zip(factors, letters, counts, strict=True):
        start = s.find("...")
        for k in range(count if start >= 0 else 0):
            if x.shape[start + k] != 1:
                sizes[most - count + k] = x.shape[start + k]
    for i, (x, s, count) in enumerate(zip(factors, letters, counts, strict=True)):
        start = s.find("...")
        if start < 0:
            continue
        alone = [k for k in range(count) if x.shape[start + k] == 1 and sizes[most - count + k] != 1]
        kept = "".join(names[most - count + k] for k in range(count) if k not in alone)
        letters[i] = s.replace("...", kept)
        factors[i] = tf.squeeze(x, [start + k for k in alone]) if alone else x
    return letters, result.replace("...", "".join(names)), factors
