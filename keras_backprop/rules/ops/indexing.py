"""Operations that pick numbers out or put numbers in: the gradient goes back to where the numbers came from."""

import tensorflow as tf

from keras_backprop import kernels
from keras_backprop._keras import ops
from keras_backprop.registry import backward_rule, not_differentiable
from keras_backprop.rule import Gradients
from keras_backprop.rules.layers.reshaping import reshape_back

not_differentiable(
    ops.Argsort, ops.Argpartition, ops.Nonzero, ops.OneHot, ops.MultiHot, ops.InTopK, ops.UnravelIndex
)  # fmt: skip
not_differentiable(ops.Unique, because="Take the values by index instead (`keras.ops.take`).")


def nothing_for_the_rest(call):
    """No gradient for the tensors behind the first: indices, which may also be given as arrays."""
    return [None] * (len(call.inputs) - 1)


@backward_rule(ops.GetItem)
def get_item(call, dy):
    """y = x[key]        dx = dy at the key, else 0"""
    return Gradients(
        kernels.strided_slice_grad(dy, tf.shape(call.input), **strides(call["key"])), *nothing_for_the_rest(call)
    )


def strides(key):
    """A key of ints, slices, `...` and None as the arguments of TensorFlow's strided slice."""
    key = tuple(key) if isinstance(key, (list, tuple)) else (key,)
    begin, end, step = [], [], []
    masks = dict.fromkeys(("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask"), 0)
    for i, part in enumerate(key):
        low, high, width = 0, 0, 1
        if part is Ellipsis:
            masks["ellipsis_mask"] |= 1 << i
        elif part is None:
            masks["new_axis_mask"] |= 1 << i
        elif isinstance(part, slice):
            width = 1 if part.step is None else part.step
            low, high = part.start, part.stop
            masks["begin_mask"] |= (low is None) << i
            masks["end_mask"] |= (high is None) << i
        else:
            masks["shrink_axis_mask"] |= 1 << i
            low, high = part, part + 1
        begin.append(0 if low is None else low)
        end.append(0 if high is None else high)
        step.append(width)
    return {"begin": begin, "end": end, "strides": step, **masks}


@backward_rule(ops.Slice)
def slice_out(call, dy):
    """y = x[start : start + shape]        dx = dy there, else 0"""
    start = tf.cast(tf.convert_to_tensor(call["start_indices"]), tf.int32)
    behind = tf.shape(call.input) - start - tf.shape(dy)
    return Gradients(tf.pad(dy, tf.stack([start, behind], 1)), *nothing_for_the_rest(call))


@backward_rule(ops.SliceUpdate)
def slice_update(call, dy):
    """y = x with u from `start` on        dx = dy, 0 where u is        du = dy where u is

    The start is moved so that u fits into x, as the forward kernel does.
    """
    x, u = call["inputs"], call["updates"]
    start = tf.cast(tf.convert_to_tensor(call["start_indices"]), tf.int32)
    start = tf.clip_by_value(start, 0, tf.shape(x) - tf.shape(u))
    behind = tf.shape(x) - start - tf.shape(u)
    return _by_name(
        call,
        inputs=lambda: dy * tf.pad(tf.zeros_like(u, dy.dtype), tf.stack([start, behind], 1), constant_values=1),
        updates=lambda: tf.slice(dy, start, tf.shape(u)),
    )


def _by_name(call, **gradients):
    """`Gradients` from those of the named arguments; every other tensor among the arguments has none."""
    return Gradients(
        *(
            gradients.get(name)
            for name, value in call.arguments.items()
            for x in tf.nest.flatten(value)
            if tf.is_tensor(x)
        )
    )


@backward_rule(ops.Take)
def take(call, dy):
    """y = x[indices] along an axis        dx[k] = Σ dy over the places where k was taken

    Along the first axis the gradient stays a list of rows, as that of an embedding.
    """
    x, axis = call.input, call["axis"]
    if axis is None:
        x, axis = tf.reshape(x, [-1]), 0
    axis %= len(x.shape)
    indices = tf.convert_to_tensor(call["indices"])
    size = tf.shape(x)[axis]
    indices = tf.where(indices < 0, indices + tf.cast(size, indices.dtype), indices)
    if axis == 0:
        rows = tf.reshape(dy, tf.concat([tf.reshape(tf.size(indices), [1]), tf.shape(x)[1:]], 0))
        dx = tf.IndexedSlices(rows, tf.reshape(indices, [-1]), tf.shape(x))
        dx = dx if call["axis"] is not None else reshape_back(call, tf.convert_to_tensor(dx))
    else:
        picked = list(range(axis, axis + len(indices.shape)))
        rest = [i for i in range(len(dy.shape)) if i not in picked]
        summed = tf.math.unsorted_segment_sum(tf.transpose(dy, picked + rest), indices, size)
        dx = tf.transpose(summed, [*range(1, axis + 1), 0, *range(axis + 1, len(x.shape))])
    return Gradients(dx, *nothing_for_the_rest(call))


@backward_rule(ops.TakeAlongAxis, broadcasts=True)
def take_along_axis(call, dy):
    """yᵢ = x[indicesᵢ] along an axis        dx[k] = Σ dyᵢ over the places i where k was taken"""
    x, axis, indices = call.input, call["axis"], tf.cast(call["indices"], tf.int64)
    if axis is None:
        dx = _picked_back(dy, indices, tf.size(x))
        return Gradients(reshape_back(call, dx), *nothing_for_the_rest(call))
    indices = tf.experimental.numpy.moveaxis(tf.broadcast_to(indices, tf.shape(dy)), axis, -1)
    moved = tf.experimental.numpy.moveaxis(dy, axis, -1)
    dx = tf.experimental.numpy.moveaxis(_picked_back(moved, indices, tf.shape(x)[axis]), -1, axis)
    return Gradients(dx, *nothing_for_the_rest(call))


def _picked_back(dy, indices, size):
    """Rows of dy added up at the places `indices` of rows of the given size."""
    size64 = tf.cast(size, indices.dtype)
    indices = tf.where(indices < 0, indices + size64, indices)
    width = tf.shape(indices)[-1]
    rows = tf.reshape(indices, tf.stack([-1, width]))
    count = tf.shape(rows)[0]
    places = rows + size64 * tf.cast(tf.range(count)[:, None], indices.dtype)
    summed = tf.math.unsorted_segment_sum(tf.reshape(dy, [-1]), tf.reshape(places, [-1]), count * size)
    return tf.reshape(summed, tf.concat([tf.shape(dy)[:-1], [size]], 0))


@backward_rule(ops.Scatter)
def scatter(call, dy):
    """y = 0 with v added at the indices        dv = dy at the indices"""
    return _by_name(call, values=lambda: tf.gather_nd(dy, call["indices"]))


@backward_rule(ops.ScatterUpdate, applies=lambda op: op.reduction != "mul")
def scatter_update(call, dy):
    """y = x with u at the indices        dx = dy, 0 at the indices        du = dy at the indices

    With reduction "add" dx = dy; with "max" and "min" equal numbers share.
    """
    x, u, indices, reduction = call["inputs"], call["updates"], call["indices"], call["reduction"]
    indices = tf.convert_to_tensor(indices)
    if reduction == "add":
        return _by_name(call, inputs=dy, updates=lambda: tf.gather_nd(dy, indices))
    if reduction is None:
        return _by_name(
            call,
            inputs=lambda: tf.tensor_scatter_nd_update(dy, indices, tf.zeros_like(u, dy.dtype)),
            updates=lambda: tf.gather_nd(dy, indices),
        )
    y = call.output
    x_taken = tf.cast(tf.equal(x, y), dy.dtype)
    u_taken = tf.cast(tf.equal(tf.cast(u, y.dtype), tf.gather_nd(y, indices)), dy.dtype)
    share = dy / (x_taken + tf.scatter_nd(indices, u_taken, tf.shape(x, indices.dtype)))
    return _by_name(call, inputs=lambda: share * x_taken, updates=lambda: tf.gather_nd(share, indices) * u_taken)


@backward_rule(ops.Sort)
def sort(call, dy):
    """y = x in ascending order        dx = dy in the order in which x was"""
    x, axis = call.input, call["axis"]
    if axis is None:
        x, dy, axis = tf.reshape(x, [-1]), tf.reshape(dy, [-1]), 0
    order = tf.experimental.numpy.moveaxis(tf.argsort(x, axis=axis), axis, -1)
    moved = tf.experimental.numpy.moveaxis(dy, axis, -1)
    dx = _picked_back(moved, tf.cast(order, tf.int64), tf.shape(order)[-1])
    return Gradients(reshape_back(call, tf.experimental.numpy.moveaxis(dx, -1, axis)))


@backward_rule(ops.TopK)
def top_k(call, dy):
    """y = the k largest of x, and where they are        dx = dy there, else 0"""
    values, _ = dy
    where = tf.cast(call.outputs[1], tf.int64)
    return Gradients(_picked_back(values, where, tf.shape(call.input)[-1]))


@backward_rule(ops.Select, broadcasts=True)
def select(call, dy):
    """y = the first choice whose condition holds, else the default        each gets dy where it was taken"""
    taken, left = [], tf.ones([], tf.bool)
    for condition in call["condlist"]:
        condition = tf.cast(condition, tf.bool)
        taken.append(left & condition)
        left = left & ~condition
    choices = zip([*call["choicelist"], call["default"]], [*taken, left], strict=True)
    return Gradients(
        *[None] * sum(tf.is_tensor(c) for c in call["condlist"]),
        *(tf.where(where, dy, tf.zeros([], dy.dtype)) for x, where in choices if tf.is_tensor(x)),
    )


# Numbers gathered into segments.


def of_segment(call, values):
    """The segment's value for each row of the data; 0 for rows that belong to none."""
    ids = call["segment_ids"]
    rows = tf.gather(values, tf.maximum(ids, 0))
    inside = tf.reshape(ids >= 0, [-1] + [1] * (len(rows.shape) - 1))
    return tf.where(inside, rows, tf.zeros([], rows.dtype))


def _segment_sum(call, x):
    return tf.math.unsorted_segment_sum(x, call["segment_ids"], tf.shape(call.output)[0])


@backward_rule(ops.SegmentSum)
def segment_sum(call, dy):
    """y_s = Σ x over the rows of segment s        dx = dy of the row's segment"""
    return Gradients(of_segment(call, dy), *nothing_for_the_rest(call))


@backward_rule(ops.SegmentMax, ops.SegmentMin)
def segment_extreme(call, dy):
    """y_s = max x over segment s        dx = dy·[x = y]/(number of x that equal y)"""
    x = call.input
    taken = tf.cast(tf.equal(x, of_segment(call, call.output)), dy.dtype)
    return Gradients(
        taken * of_segment(call, tf.math.divide_no_nan(dy, _segment_sum(call, taken))), *nothing_for_the_rest(call)
    )


@backward_rule(ops.SegmentProd)
def segment_product(call, dy):
    """y_s = ∏ x over segment s        dx = dy·(product of the others)

    It is y/x in a segment without 0; in a segment with one 0 only that one has a gradient.
    """
    x = call.input
    zero = x == 0
    safe = tf.where(zero, tf.ones([], x.dtype), x)
    product = tf.math.unsorted_segment_prod(safe, call["segment_ids"], tf.shape(call.output)[0])
    other_zeros = of_segment(call, _segment_sum(call, tf.cast(zero, x.dtype))) - tf.cast(zero, x.dtype)
    others = tf.where(other_zeros > 0, tf.zeros([], x.dtype), of_segment(call, product) / safe)
    return Gradients(of_segment(call, dy) * others, *nothing_for_the_rest(call))
