"""What every weight gradient can be asked for; a function of others; and one of which only the sum is known."""

from typing import Any

import tensorflow as tf

from keras_backprop.weight_gradients.axes import last_sizes, product_of


class WeightGradient:
    """The contract: a subclass knows `total` and how it depends on the examples.

    Attributes:
        shape: the weight's shape, set by the sweep.
        dtype: in which it is computed, set by the sweep.
        whose: str, the rule that has returned it and its path, as errors say it, set by the sweep.
    """

    shape = None
    dtype = tf.float32
    whose = "a rule"

    def total(self) -> Any:
        """The gradient summed over the batch, a tensor (or `tf.IndexedSlices`) of the weight's shape."""
        raise NotImplementedError

    def total_of_steps(self, steps: Any) -> Any:
        """The total, where the rows are those of so many time steps, the steps first.

        Where the parts of single steps are of half precision they are added step by step, in single precision.
        """
        return self.total()

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
        return like(self, Combination(lambda dW: tf.cast(dW, dtype), self))


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
        return like(self, Combination(self.function, *(product.only(kept) for product in self.products)))


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
    sizes = last_sizes(x, len(x.shape) - 1)
    rows = tf.reshape(x, [-1, product_of(sizes)])  # `tf.tensordot` would transpose x
    return tf.reshape(tf.matmul(tf.cast(c, x.dtype)[None], rows), sizes)


def only_kept(x, kept, axis=0):
    """x with zeros for the examples along an axis that are not kept."""
    shape = [1] * len(x.shape)
    shape[axis] = -1
    return tf.where(tf.reshape(kept != 0, shape), x, tf.zeros([], x.dtype))


def like(product, other):
    other.shape, other.dtype = product.shape, product.dtype
    return other
