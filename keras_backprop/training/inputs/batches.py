"""A loop over the batches of examples, inside a compiled function."""

import keras
import tensorflow as tf


class Batches:
    """Cuts tensors into batches and runs a step on each. It serves any number of examples, unless XLA has to know it.

    Args:
        examples: `Examples`, like those that will come.
        shuffle: bool, whether the order of the examples changes. One batch of all examples stays as it is.
        for_xla: bool, give every batch a size that XLA knows. The smaller last batch then is a step of its own.

    What takes its place, to choose other examples for a batch, needs `kind`, `specification`, `order`, `run` and `dataset`.

    Attributes:
        size: int, the number of examples in a batch.
        kind: tuple. Examples of the same kind are served by the same loop.
        specification: nested `tf.TensorSpec`, of the tensors of all examples.
        order_specification: `tf.TensorSpec` of what `order` returns, or None.
        never_waits: bool, whether taking a batch is done by the thread that asks for it.
    """

    never_waits = True

    def __init__(self, examples, shuffle=False, for_xla=False):
        self.size, self.ragged, self.single = examples.batch_size, examples.ragged, examples.steps == 1
        self.shuffle, self.for_xla = bool(shuffle) and not self.single, for_xla
        self.n = examples.n if for_xla or self.single else None  # None: it serves any number
        self.specification = keras.tree.map_structure(
            lambda x: None if x is None else tf.TensorSpec([self.n, *x.shape[1:]], x.dtype), examples.tensors
        )
        self.order_specification = tf.TensorSpec([self.n], tf.int32) if self.shuffle else None
        tensors = tuple(keras.tree.flatten(self.specification))
        self.kind = (self.size, self.ragged, self.single, self.shuffle, for_xla, tensors)

    def steps(self, tensors):
        """The number of batches, a tensor."""
        return -(-self._count(tensors) // self.size)

    def order(self, tensors, seed):
        """A permutation of the examples for an integer tensor `seed` of shape (2,); None for the order they are in."""
        if not self.shuffle:
            return None
        n = self._count(tensors)
        if self.for_xla:  # which has no shuffle
            return tf.argsort(tf.random.stateless_uniform([n], seed), stable=True)
        return tf.random.experimental.stateless_shuffle(tf.range(n), seed)

    def run(self, step, tensors, order, first, last, state=(), goes_on=None, origin=None):
        """Run steps on the batches first, …, last − 1.

        Args:
            step: function (number of the batch, batch, *state) -> the new state.
            origin: the number of the first batch of the call, if that is not `first`.
            state: tuple of tensors.
            goes_on: function (*state) -> bool tensor, asked after every step; None: always.

        Returns:
            The number after that of the last batch that a step was run on, and the state.
        """
        if self.single:
            return first + 1, step(first, tensors, *state)
        n = self._count(tensors)

        def batch(number, *state):
            start = number * self.size
            size = tf.minimum(self.size, n - start) if self.ragged and not self.for_xla else self.size
            return number + 1, *step(number, _take(tensors, order, start, size), *state)

        def rest(number, *state):
            start = n // self.size * self.size
            return number + 1, *step(number, _take(tensors, order, start, n - start), *state)

        def until(end):
            if goes_on is None:
                return lambda number, *state: number < end
            return lambda number, *state: (number < end) & goes_on(*state)

        alike = tf.minimum(last, n // self.size) if self.for_xla else last
        number, *state = tf.while_loop(until(alike), batch, (tf.convert_to_tensor(first), *state))
        if self.for_xla and self.ragged:
            start = tf.maximum(first, n // self.size)
            end, *state = tf.while_loop(until(last), rest, (start, *state))
            number = tf.where(end > start, end, number)
        return number, tuple(state)

    def dataset(self, examples, order, first):
        """The batches from `first` on as a `tf.data.Dataset`, for Keras's own functions.

        Args:
            examples: `Examples`.
            order: what `order` has returned.
            first: int.
        """

        def batch(number):
            start = number * self.size
            taken = _take(examples.tensors, order, start, tf.minimum(self.size, examples.n - start))
            return keras.tree.map_structure(
                lambda x, spec: None if x is None else tf.ensure_shape(x, spec.shape), taken, examples.batch
            )

        return tf.data.Dataset.range(first, examples.steps, output_type=tf.int32).map(batch)

    def _count(self, tensors):
        """The number of examples, an integer or a tensor."""
        return self.n or tf.shape(next(x for x in keras.tree.flatten(tensors) if x is not None))[0]


def _take(tensors, order, start, size):
    """The examples start, …, start + size − 1 in this order."""
    indices = None if order is None else tf.slice(order, [start], [size])

    def take(x):
        if x is None:
            return None
        if indices is not None:
            return tf.gather(x, indices)
        return tf.slice(x, [start] + [0] * (len(x.shape) - 1), [size, *x.shape[1:]])

    return keras.tree.map_structure(take, tensors)
