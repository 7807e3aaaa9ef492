"""A weight gradient is a product that has not been summed over the batch yet.

A rule returns its weight gradients as one of these products. Training asks for `total()`. Because the product is still whole
after the backward pass, whoever needs the gradient of every single example, its norm, or a weighted sum over examples
asks for that instead, and no second backward pass is run.

    total()            Σₙ dWₙ            shape of W
    per_example()      dWₙ for every n   (n, *shape of W)
    squared_norms()    ‖dWₙ‖² for every n, shape (n,); without building the dWₙ where mathematics allows
    weighted_total(c)  Σₙ cₙ·dWₙ         shape of W, for c of shape (n,)
    squared_total(c)   Σₙ (cₙ·dWₙ)²      entry by entry, shape of W
    inner_products(V)  ⟨dWₙ, V⟩          shape (n,), for V of the shape of W
    only(kept)         the same product with dWₙ = 0 where keptₙ = 0, also if there were infinities
    as_type(dtype)     the same product, of factors of another precision

The squared norm of a sum of outer products is Goodfellow's ("Efficient Per-Example Gradient Computations", 2015) for one
position and the Gram-matrix form of Rochette et al. (2019) for several.
"""

import functools
import math
from typing import Any

import tensorflow as tf

from keras_backprop import _tensorflow
from keras_backprop.shapes import sizes_of


class WeightGradient:
    """The contract: a subclass knows `total` and how it depends on the examples.

    Attributes:
        shape: the weight's shape, set by the sweep.
        dtype: in which it is computed, set by the sweep.
    """

    shape = None
    dtype = tf.float32

    def total(self) -> Any:
        """The gradient summed over the batch, a tensor (or `tf.IndexedSlices`) of the weight's shape."""
        raise NotImplementedError

    def per_example(self) -> Any:
        """The gradient of each example, a tensor of shape `(n, *shape)`."""
        raise NotImplementedError

    def squared_norms(self) -> Any:
        """The squared Euclidean norm of each example's gradient, a tensor of shape `(n,)`."""
        per_example = self.per_example()
        return tf.reduce_sum(tf.square(per_example), axis=list(range(1, len(per_example.shape))))

    def weighted_total(self, c: Any) -> Any:
        """Σₙ cₙ·dWₙ for the weights `c` of shape `(n,)`."""
        return weighted_sum(c, self.per_example())

    def squared_total(self, c: Any) -> Any:
        """Σₙ (cₙ·dWₙ)², entry by entry, for the weights `c` of shape `(n,)`."""
        return weighted_sum(tf.square(c), tf.square(self.per_example()))

    def inner_products(self, V: Any) -> Any:
        """⟨dWₙ, V⟩ for a tensor V of the weight's shape: shape `(n,)`."""
        per_example = self.per_example()
        return tf.tensordot(per_example, tf.cast(V, per_example.dtype), axes=len(V.shape))

    def only(self, kept: Any) -> "WeightGradient":
        """The product without the examples for which `kept`, of shape `(n,)`, is 0, whatever their numbers are."""
        raise NotImplementedError

    def as_type(self, dtype: Any) -> "WeightGradient":
        """The same in another dtype, in which squares do not overflow: where there are factors, of these."""
        return _like(self, Combination(lambda dW: tf.cast(dW, dtype), self))


class Contraction(WeightGradient):
    """dW = Σ x·dy over everything that W's indices do not name.

    Args:
        equation: the trailing axes of the factors and of the weight, `"i,o->io"`. All axes before them are the batch `n`
            and the positions `t…` and are summed over. Or, where the equation has an `n`, the whole of the axes:
            `"nti,nto->io"`.
        *factors: one or two tensors. The last is, or is linear in, `dy`.
        batch: int, which axis of the factors the batch is where the equation has no `n`: 1 where time comes first.
    """

    def __init__(self, equation: str, *factors: Any, batch: int = 0) -> None:
        operands, self.result = equation.replace(" ", "").split("->")
        self.letters = operands.split(",")
        if len(self.letters) != len(factors) or len(factors) not in (1, 2):
            raise ValueError(
                f"A Contraction takes one or two factors and an equation with as many operands. "
                f"Received: equation={equation!r} and {len(factors)} factors"
            )
        self.factors, self.batch = factors, batch
        self.explicit = any("n" in letters for letters in self.letters)
        self.singles: Any = None  # the gradients of single examples, where their norms have needed them
        self.turned = False  # they are (n, o, i): the product is faster with the wider factor to the right

    def total(self) -> Any:
        sparse = _tensorflow.sparse_of(self.factors[0])
        if sparse is not None and len(sparse.shape) == 2 and self.result == "".join(self.letters):
            # (n, i) and (n, o): the rows of dW that x touches, each once, for optimizers that square what they are given row
            # by row. To Keras an empty example touches the first.
            x, dy = tf.sparse.fill_empty_rows(sparse, tf.zeros((), sparse.dtype))[0], self.factors[1]
            touched, places = tf.unique(x.indices[:, 1])
            rows = tf.math.unsorted_segment_sum(
                x.values[:, None] * tf.gather(dy, x.indices[:, 0]), places, tf.size(touched)
            )
            return tf.IndexedSlices(rows, touched, tf.cast(self._result_shape(), tf.int64))
        return self._total(*self.factors)

    def _total(self, *factors):
        if self.explicit:
            return tf.einsum(f"{','.join(self.letters)}->{self.result}", *factors)
        if len(factors) == 1:
            return _sum_leading(factors[0], keep=len(self.letters[0]))
        x, dy = factors
        if self.result == "".join(self.letters):  # an outer product: one matmul, as the tape would do it
            product = tf.matmul(_rows(x, len(self.letters[0])), _rows(dy, len(self.letters[1])), transpose_a=True)
            return product if len(self.result) == 2 else tf.reshape(product, self._result_shape())
        if self.letters == [self.result, self.result]:  # an elementwise product (a scale)
            return _sum_leading(x * dy, keep=len(self.result))
        return tf.einsum(
            f"Z{self.letters[0]},Z{self.letters[1]}->{self.result}", *map(self._merged, factors, self.letters)
        )

    def per_example(self) -> Any:
        if self.explicit:
            return tf.einsum(f"{','.join(self.letters)}->n{self.result}", *self.factors)
        if self.singles is not None:
            singles = tf.transpose(self.singles, [0, 2, 1]) if self.turned else self.singles
            return tf.reshape(singles, _join([-1], self._result_shape()))
        if len(self.factors) == 1 or self.letters == [self.result, self.result]:
            return self._sums_of_positions()
        factors = [self._by_example(f, k) for f, k in zip(self.factors, self.letters, strict=True)]
        x, dy = self.letters
        return tf.einsum(f"nZ{x},nZ{dy}->n{self.result}", *factors)

    def _sums_of_positions(self):
        """What each example adds to the weight where nothing is multiplied but number by number."""
        product = functools.reduce(tf.multiply, self.factors)
        keep = len(self.letters[0])
        if len(product.shape) == keep + 1:
            return product
        axes = [axis for axis in range(len(product.shape) - keep) if axis != self.batch]
        return tf.reduce_sum(product, axis=axes)

    def squared_norms(self) -> Any:
        if self.explicit:
            return super().squared_norms()
        if len(self.factors) == 1 or self.letters == [self.result, self.result]:
            self.singles = self._sums_of_positions()
            return tf.reduce_sum(tf.square(self.singles), axis=list(range(1, len(self.singles.shape))))
        if self.result != "".join(self.letters):
            return super().squared_norms()
        x, dy = self._matrices()
        positions, width_x, width_dy = dy.shape[1], x.shape[2], dy.shape[2]
        if positions == 1:  # ‖x·dyᵀ‖² = ‖x‖²·‖dy‖²
            return tf.reduce_sum(tf.square(x), axis=[1, 2]) * tf.reduce_sum(tf.square(dy), axis=[1, 2])
        if positions is None or width_x is None or positions * (width_x + width_dy) > width_x * width_dy:
            self.turned = width_x is not None and width_x > width_dy
            left, right = (dy, x) if self.turned else (x, dy)
            self.singles = tf.matmul(left, right, transpose_a=True)
            return tf.reduce_sum(tf.square(self.singles), axis=[1, 2])
        # ‖Σₜ xₜ·dyₜᵀ‖² = Σₜₛ ⟨xₜ,xₛ⟩·⟨dyₜ,dyₛ⟩
        gram = tf.matmul(x, x, transpose_b=True) * tf.matmul(dy, dy, transpose_b=True)
        return tf.reduce_sum(gram, axis=[1, 2])

    def weighted_total(self, c: Any) -> Any:
        if self.singles is not None:
            summed = weighted_sum(c, self.singles)
            return tf.reshape(tf.transpose(summed) if self.turned else summed, self._result_shape())
        dy = self.factors[-1]
        n = self.letters[-1].index("n") if self.explicit and "n" in self.letters[-1] else self.batch
        if self.explicit and "n" not in self.letters[-1]:
            return super().weighted_total(c)
        shape = [1] * len(dy.shape)
        shape[n] = -1
        return self._total(*self.factors[:-1], dy * tf.reshape(tf.cast(c, dy.dtype), shape))

    def squared_total(self, c: Any) -> Any:
        plain = not self.explicit and not self.batch and self.result == "".join(self.letters)
        if not plain or any(len(f.shape) != len(k) + 1 for f, k in zip(self.factors, self.letters, strict=True)):
            return super().squared_total(c)
        dy = self.factors[-1]  # one position: (x·dy)² = x²·dy²
        dy *= tf.reshape(tf.cast(c, dy.dtype), [-1] + [1] * (len(dy.shape) - 1))
        return self._total(*map(tf.square, (*self.factors[:-1], dy)))

    def inner_products(self, V: Any) -> Any:
        if self.explicit or len(self.factors) == 1 or self.result != "".join(self.letters):
            return super().inner_products(V)
        x, dy = self._matrices()
        V = tf.reshape(tf.cast(V, dy.dtype), tf.stack([tf.shape(x)[2], tf.shape(dy)[2]]))
        return tf.reduce_sum(tf.matmul(x, V) * dy, axis=[1, 2])  # Σₜ xₜᵀ·V·dyₜ

    def as_type(self, dtype: Any) -> "Contraction":
        factors = [tf.cast(factor, dtype) for factor in self.factors]
        return _like(self, Contraction(f"{','.join(self.letters)}->{self.result}", *factors, batch=self.batch))

    def only(self, kept: Any) -> "Contraction":
        factors = []
        for factor, letters in zip(self.factors, self.letters, strict=True):
            axis = letters.find("n") if self.explicit else self.batch
            factors.append(factor if axis < 0 else _only(factor, kept, axis))
        product = Contraction(f"{','.join(self.letters)}->{self.result}", *factors, batch=self.batch)
        product.singles = None if self.singles is None else _only(self.singles, kept)
        product.turned = self.turned
        return _like(self, product)

    def _matrices(self):
        """The two factors of an outer product, (n, t, i) and (n, t, o)."""
        return (tf.reshape(f, _join(tf.shape(f)[:2], [-1])) for f in map(self._by_example, self.factors, self.letters))

    def _merged(self, factor, letters):
        """(n, t…, i…) -> (n·t…, i…)"""
        return tf.reshape(factor, _join([-1], _last(factor, len(letters))))

    def _by_example(self, factor, letters):
        """(n, t…, i…) -> (n, t·…, i…)"""
        if self.batch:
            others = [axis for axis in range(len(factor.shape)) if axis != self.batch]
            factor = tf.transpose(factor, [self.batch, *others])
        if len(factor.shape) == len(letters) + 1:
            return tf.expand_dims(factor, 1)
        positions = factor.shape[1 : len(factor.shape) - len(letters)]
        positions = math.prod(positions) if None not in positions else -1
        return tf.reshape(factor, _join(tf.shape(factor)[:1], [positions], _last(factor, len(letters))))

    def _result_shape(self):
        sizes: dict = {}
        for factor, letters in zip(self.factors, self.letters, strict=True):
            sizes.update(zip(letters, _last(factor, len(letters)), strict=True))
        return [sizes[letter] for letter in self.result]


class Joined(WeightGradient):
    """The gradient of a weight whose slices have products of their own, joined along an axis.

    Args:
        *parts: `WeightGradient`s of the slices, in order.
        axis: int, the axis of the weight along which they lie.
        stacked: bool, the slices lack that axis.
    """

    def __init__(self, *parts: Any, axis: int = -1, stacked: bool = False) -> None:
        self.parts, self.axis, self.stacked = parts, axis, stacked

    def total(self) -> Any:
        return self._joined([part.total() for part in self.parts])

    def per_example(self) -> Any:
        return self._joined([part.per_example() for part in self.parts], examples=1)

    def squared_norms(self) -> Any:
        return tf.add_n([part.squared_norms() for part in self.parts])

    def weighted_total(self, c: Any) -> Any:
        return self._joined([part.weighted_total(c) for part in self.parts])

    def only(self, kept: Any) -> "Joined":
        return _like(self, Joined(*(part.only(kept) for part in self.parts), axis=self.axis, stacked=self.stacked))

    def as_type(self, dtype: Any) -> "Joined":
        return _like(self, Joined(*(part.as_type(dtype) for part in self.parts), axis=self.axis, stacked=self.stacked))

    def _joined(self, slices, examples=0):
        axis = self.axis + examples if self.axis >= 0 else self.axis
        return tf.stack(slices, axis) if self.stacked else tf.concat(slices, axis)


class Repeated(WeightGradient):
    """The gradient of a weight whose rule saw every example several times, as if it were several: time steps, for instance.

    Args:
        *parts: `WeightGradient`s whose batch is `steps·n`, the steps first. Their sum is the gradient.
        steps: int or scalar tensor.
    """

    def __init__(self, *parts: Any, steps: Any) -> None:
        self.parts, self.steps = parts, steps

    def total(self) -> Any:
        return add([part.total() for part in self.parts])

    def per_example(self) -> Any:
        singles = tf.add_n([part.per_example() for part in self.parts])
        by_step = tf.concat([[self.steps, -1], tf.shape(singles)[1:]], 0)
        return tf.ensure_shape(tf.reduce_sum(tf.reshape(singles, by_step), 0), [None, *singles.shape[1:]])

    def weighted_total(self, c: Any) -> Any:
        return add([part.weighted_total(tf.tile(c, [self.steps])) for part in self.parts])

    def only(self, kept: Any) -> "Repeated":
        kept = tf.tile(kept, [self.steps])
        return _like(self, Repeated(*(part.only(kept) for part in self.parts), steps=self.steps))

    def as_type(self, dtype: Any) -> "Repeated":
        return _like(self, Repeated(*(part.as_type(dtype) for part in self.parts), steps=self.steps))


class Lookup(WeightGradient):
    """The gradient of the rows of a table: dE[k] = Σ dy over the places where row k was looked up.

    Args:
        indices: integer tensor, shape `(n, …)`.
        dy: shape `(n, …, *row)`.
        rows: int, the number of rows of the table.
    """

    def __init__(self, indices: Any, dy: Any, rows: Any) -> None:
        self.indices, self.dy, self.rows = indices, dy, rows

    def total(self) -> Any:
        return self._total(self.dy)

    def _total(self, dy):
        row = dy.shape[len(self.indices.shape) :].as_list()
        return tf.IndexedSlices(
            tf.reshape(dy, [-1, *row]), tf.reshape(self.indices, [-1]), tf.constant([self.rows, *row], tf.int32)
        )

    def per_example(self) -> Any:
        n, row = tf.shape(self.indices)[0], self.dy.shape[len(self.indices.shape) :].as_list()
        indices = tf.cast(tf.reshape(self.indices, [n, -1]), tf.int32)
        places = indices + self.rows * tf.range(n)[:, None]
        summed = tf.math.unsorted_segment_sum(tf.reshape(self.dy, [-1, *row]), tf.reshape(places, [-1]), n * self.rows)
        return tf.reshape(summed, [n, self.rows, *row])

    def squared_norms(self) -> Any:
        # ‖Σₜ eₖ₍ₜ₎·dyₜᵀ‖² = Σₜₛ [kₜ = kₛ]·⟨dyₜ,dyₛ⟩
        n, row = tf.shape(self.indices)[0], self.dy.shape[len(self.indices.shape) :].as_list()
        indices = tf.reshape(self.indices, [n, -1])
        dy = tf.reshape(self.dy, [n, -1, math.prod(row)])
        same = tf.cast(indices[:, :, None] == indices[:, None, :], dy.dtype)
        return tf.reduce_sum(same * tf.matmul(dy, dy, transpose_b=True), axis=[1, 2])

    def weighted_total(self, c: Any) -> Any:
        shape = [-1] + [1] * (len(self.dy.shape) - 1)
        return self._total(self.dy * tf.reshape(tf.cast(c, self.dy.dtype), shape))

    def inner_products(self, V: Any) -> Any:
        rows = tf.gather(tf.cast(V, self.dy.dtype), self.indices)
        return tf.reduce_sum(rows * self.dy, axis=list(range(1, len(self.dy.shape))))

    def only(self, kept: Any) -> "Lookup":
        return _like(self, Lookup(self.indices, _only(self.dy, kept), self.rows))

    def as_type(self, dtype: Any) -> "Lookup":
        return _like(self, Lookup(self.indices, tf.cast(self.dy, dtype), self.rows))


class Combination(WeightGradient):
    """A linear combination of products, with coefficients that are taken out of the sum over the batch.

    Args:
        function: takes tensors like the products' sums, with or without a first axis for the examples.
        *products: the `WeightGradient`s.
    """

    def __init__(self, function: Any, *products: Any) -> None:
        self.function, self.products = function, products

    def total(self) -> Any:
        return self.function(*(product.total() for product in self.products))

    def per_example(self) -> Any:
        return self.function(*(product.per_example() for product in self.products))

    def weighted_total(self, c: Any) -> Any:
        return self.function(*(product.weighted_total(c) for product in self.products))

    def only(self, kept: Any) -> "Combination":
        return _like(self, Combination(self.function, *(product.only(kept) for product in self.products)))


SUMMED = "its rule gives the sum over the batch only"


class Total(WeightGradient):
    """Only the sum over the batch exists.

    Args:
        dW: the gradient, shape of the weight.
        reason: str, why there are no gradients of single examples.
    """

    def __init__(self, dW: Any, reason: str = SUMMED) -> None:
        self.dW, self.reason = dW, reason

    def total(self) -> Any:
        return self.dW

    def per_example(self) -> Any:
        raise ValueError(f"There is no gradient per example: {self.reason}.")

    squared_norms = per_example

    def weighted_total(self, c: Any) -> Any:
        return self.per_example()

    def only(self, kept: Any) -> Any:
        return self.per_example()


def weighted_sum(c: Any, x: Any) -> Any:
    """Σₙ cₙ·xₙ over the first axis of x, c of shape `(n,)`."""
    sizes = _last(x, len(x.shape) - 1)
    rows = tf.reshape(x, [-1, _product(sizes)])  # `tf.tensordot` would transpose x
    return tf.reshape(tf.matmul(tf.cast(c, x.dtype)[None], rows), sizes)


def _only(x, kept, axis=0):
    """x with zeros for the examples along an axis that are not kept."""
    shape = [1] * len(x.shape)
    shape[axis] = -1
    return tf.where(tf.reshape(kept != 0, shape), x, tf.zeros([], x.dtype))


def _like(product, other):
    other.shape, other.dtype = product.shape, product.dtype
    return other


def add(gradients: Any) -> Any:
    """The sum of gradients that are tensors or `tf.IndexedSlices`. Slices stay slices as long as all are."""
    if len(gradients) == 1:
        return gradients[0]
    if all(isinstance(g, tf.IndexedSlices) for g in gradients):
        return tf.IndexedSlices(
            tf.concat([g.values for g in gradients], 0),
            tf.concat([tf.cast(g.indices, tf.int64) for g in gradients], 0),
            gradients[0].dense_shape,
        )
    return tf.add_n([tf.convert_to_tensor(g) for g in gradients])


def cast(x: Any, dtype: Any) -> Any:
    """A gradient, a tensor or `tf.IndexedSlices`, in another dtype."""
    if x.dtype == dtype:
        return x
    if isinstance(x, tf.IndexedSlices):
        return tf.IndexedSlices(tf.cast(x.values, dtype), x.indices, x.dense_shape)
    return tf.cast(x, dtype)


def _last(x, count):
    """The sizes of the last `count` axes."""
    return sizes_of(x, len(x.shape) - count)


def _rows(x, count):
    """(n, t…, i…) -> (n·t…, ∏i), untouched where it is so already."""
    if count == 1 and len(x.shape) == 2:
        return x
    sizes = _last(x, count)
    return tf.reshape(x, [-1, _product(sizes)])


def _product(sizes):
    return math.prod(sizes) if all(isinstance(size, int) for size in sizes) else tf.reduce_prod(sizes)


def _sum_leading(x, keep):
    """Sum over all but the last `keep` axes, by the kernel of the bias gradient where it applies."""
    if keep == 1 and len(x.shape) >= 2:
        return tf.raw_ops.BiasAddGrad(out_backprop=x)
    return tf.reduce_sum(x, axis=list(range(len(x.shape) - keep)))


def _join(*parts):
    """A shape from pieces that are lists of ints, TensorShapes or shape tensors; static where it can be."""
    if not any(tf.is_tensor(part) or any(tf.is_tensor(s) for s in part) for part in parts):
        return [s for part in parts for s in part]
    return tf.concat(
        [
            part if tf.is_tensor(part) else tf.stack([tf.cast(s, tf.int32) for s in part])
            for part in parts
            if tf.is_tensor(part) or len(part)
        ],
        0,
    )
