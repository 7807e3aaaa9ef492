"""Figures of several small tensors of one shape at once.

An operation on a few thousand numbers takes TensorFlow half a microsecond, of which the numbers are a fifth. Where a tensor has
many figures, it pays to copy it next to others first: a copy is an operation's worth, and each figure after that is one operation
for all of them. What is joined stays within the cache, and within what one thread works on.
"""

import itertools
import math
from typing import Any

import tensorflow as tf

from keras_backprop.watch.moments import joined_moments

LARGEST = 8192
"""Elements of a tensor, above which the numbers are most of the time."""

TOGETHER = 2**14
"""Elements of all tensors that are joined: 64 KiB of single precision. Of more, Eigen makes work for several threads."""

WORTH = 3
"""So many figures, and the copy pays."""


def may_join(x: Any) -> bool:
    """Whether a tensor can be joined with others: its shape is known, and it is small."""
    return isinstance(x, tf.Tensor) and x.shape.is_fully_defined() and 1 < x.shape.num_elements() <= LARGEST


def row_of(widths: list, joinable: list, number: Any, dtype: Any, given: Any = ()) -> Any:
    """A row of figures.

    Args:
        widths: list of int, how many numbers each column has.
        joinable: list of (tensor of single or double precision, dict name of a moment -> its column), what may be measured
            together.
        number: function (column) -> its figure, a tensor: for what is measured alone.
        dtype: of the row.
        given: list of (vector, the columns that it holds), what has been measured in another way.

    Returns:
        A tensor of shape `(sum(widths),)`.
    """
    vectors, columns = (
        [x for x, _ in given],
        [places for _, places in given],
    )  # what is stacked, and which columns' it is
    for tensors, names, places in groups(joinable):
        made = joined_moments(names, tensors)
        vectors += [made[name] for name in names]
        columns += [[place[name] for place in places] for name in names]
    joined = {i for group in columns for i in group}
    alone = {i: number(i) for i in range(len(widths)) if i not in joined}
    scalars: dict = {}
    for i, x in alone.items():
        if widths[i] == 1:
            scalars.setdefault(x.dtype, []).append(i)
        else:
            vectors.append(tf.reshape(x, [-1]))
            columns.append([i])
    vectors += [tf.stack([alone[i] for i in group]) for group in scalars.values()]  # one conversion for all of a dtype
    columns += scalars.values()
    vectors = [x if x.dtype == dtype else tf.cast(x, dtype) for x in vectors]
    row = vectors[0] if len(vectors) == 1 else tf.concat(vectors, 0)
    order = [i for group in columns for i in group]
    if order == sorted(order):
        return row
    first = dict(zip(order, itertools.accumulate([widths[i] for i in order], initial=0), strict=False))
    return tf.gather(row, [first[i] + k for i, width in enumerate(widths) for k in range(width)])


def groups(joinable: list) -> list[Any]:
    """What is measured together.

    Args:
        joinable: as `row_of` takes it.

    Returns:
        list of (tensors of the same shape, names of moments of each of them, the columns of each).
    """
    alike: dict = {}
    for x, places in joinable:
        if may_join(x) and len(places) >= WORTH:
            alike.setdefault((x.dtype, tuple(x.shape), tuple(sorted(places))), []).append((x, places))
    found = []
    for (_, shape, names), members in alike.items():
        count = max(TOGETHER // math.prod(shape), 2)
        for some in (members[i : i + count] for i in range(0, len(members), count)):
            if len(some) > 1:
                found.append(([x for x, _ in some], names, [places for _, places in some]))
    return found
