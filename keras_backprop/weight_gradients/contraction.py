"""The weight gradient of a product: a sum of outer products over the batch and further positions."""

import functools
import math
from typing import Any

import tensorflow as tf

from keras_backprop import _tensorflow
from keras_backprop.weight_gradients import gram
from keras_backprop.weight_gradients.axes import as_rows, joined_shape, last_sizes, sum_leading
from keras_backprop.weight_gradients.base import WeightGradient, like, only_kept, weighted_sum
from keras_backprop.weight_gradients.steps import sum_of_steps


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
        self._singles: Any = None
        self.turned = False  # they are (n, o, i): the product is faster with the wider factor to the right

    @property
    def singles(self) -> Any:
        """The gradients of single examples, where their norms have needed them; None where nobody has, or out of reach."""
        return self._singles if _tensorflow.is_within_reach(self._singles) else None

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
        if self.batch == 1 and not self.explicit:
            return sum_of_steps(self._total, self._result_shape(), None, *self.factors)
        return self._total(*self.factors)

    def total_of_steps(self, steps: Any) -> Any:
        rows_first = self.batch == 0 and all(letters[0] == "n" for letters in self.letters if self.explicit)
        if not rows_first or _tensorflow.sparse_of(self.factors[0]) is not None:
            return self.total()
        return sum_of_steps(self._total, self._result_shape(), steps, *self.factors)

    def _total(self, *factors):
        if self.explicit:
            return tf.einsum(f"{','.join(self.letters)}->{self.result}", *factors)
        if len(factors) == 1:
            return sum_leading(factors[0], keep=len(self.letters[0]))
        x, dy = factors
        if self.result == "".join(self.letters):  # an outer product: one matmul, as the tape would do it
            product = tf.matmul(as_rows(x, len(self.letters[0])), as_rows(dy, len(self.letters[1])), transpose_a=True)
            return product if len(self.result) == 2 else tf.reshape(product, self._result_shape())
        if self.letters == [self.result, self.result]:  # an elementwise product (a scale)
            return sum_leading(x * dy, keep=len(self.result))
        return tf.einsum(
            f"Z{self.letters[0]},Z{self.letters[1]}->{self.result}", *map(self._merged, factors, self.letters)
        )

    def per_example(self) -> Any:
        if self.explicit:
            return tf.einsum(f"{','.join(self.letters)}->n{self.result}", *self.factors)
        if self.singles is not None:
            singles = tf.transpose(self.singles, [0, 2, 1]) if self.turned else self.singles
            return tf.reshape(singles, joined_shape([-1], self._result_shape()))
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
            self._singles = self._sums_of_positions()
            return tf.reduce_sum(tf.square(self._singles), axis=list(range(1, len(self._singles.shape))))
        if self.result != "".join(self.letters):
            return super().squared_norms()
        x, dy = self._matrices()
        positions, width_x, width_dy = dy.shape[1], x.shape[2], dy.shape[2]
        if positions == 1:  # ‖x·dyᵀ‖² = ‖x‖²·‖dy‖²
            return tf.reduce_sum(tf.square(x), axis=[1, 2]) * tf.reduce_sum(tf.square(dy), axis=[1, 2])
        if positions is None or width_x is None or positions * (width_x + width_dy) > width_x * width_dy:
            self.turned = width_x is not None and width_x > width_dy
            left, right = (dy, x) if self.turned else (x, dy)
            self._singles = tf.matmul(left, right, transpose_a=True)
            return tf.reduce_sum(tf.square(self._singles), axis=[1, 2])
        return gram.squared_norms(lambda dtype: tf.matmul(tf.cast(x, dtype), tf.cast(x, dtype), transpose_b=True), dy)

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
        return like(self, Contraction(f"{','.join(self.letters)}->{self.result}", *factors, batch=self.batch))

    def only(self, kept: Any) -> "Contraction":
        factors = []
        for factor, letters in zip(self.factors, self.letters, strict=True):
            axis = letters.find("n") if self.explicit else self.batch
            factors.append(factor if axis < 0 else only_kept(factor, kept, axis))
        product = Contraction(f"{','.join(self.letters)}->{self.result}", *factors, batch=self.batch)
        product._singles = None if self.singles is None else only_kept(self.singles, kept)
        product.turned = self.turned
        return like(self, product)

    def _matrices(self):
        """The two factors of an outer product, (n, t, i) and (n, t, o)."""
        return (
            tf.reshape(f, joined_shape(tf.shape(f)[:2], [-1]))
            for f in map(self._by_example, self.factors, self.letters)
        )

    def _merged(self, factor, letters):
        """(n, t…, i…) -> (n·t…, i…)"""
        return tf.reshape(factor, joined_shape([-1], last_sizes(factor, len(letters))))

    def _by_example(self, factor, letters):
        """(n, t…, i…) -> (n, t·…, i…)"""
        if self.batch:
            others = [axis for axis in range(len(factor.shape)) if axis != self.batch]
            factor = tf.transpose(factor, [self.batch, *others])
        if len(factor.shape) == len(letters) + 1:
            return tf.expand_dims(factor, 1)
        positions = factor.shape[1 : len(factor.shape) - len(letters)]
        positions = math.prod(positions) if None not in positions else -1
        return tf.reshape(factor, joined_shape(tf.shape(factor)[:1], [positions], last_sizes(factor, len(letters))))

    def _result_shape(self):
        sizes: dict = {}
        for factor, letters in zip(self.factors, self.letters, strict=True):
            sizes.update(zip(letters, last_sizes(factor, len(letters)), strict=True))
        return [sizes[letter] for letter in self.result]
