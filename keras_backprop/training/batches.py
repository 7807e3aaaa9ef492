"""A loop over the batches of examples, inside a compiled function."""

import keras
import tensorflow as tf


class Batches:
    """Cuts tensors into batches and runs a step on each.

    Args:
        examples: `Examples`, for their sizes.
        shuffle: bool, whether the order of the examples changes. One batch of all examples stays as it is.
        fixed_sizes: bool, give every batch a size that XLA knows. The smaller last batch then is a step of its own. While
            tracing the sizes are unknown all the same, as in Keras's loop, which some metrics take notice of.
    """

    def __init__(self, examples, shuffle=False, fixed_sizes=False):
        self.n, self.size, self.steps = examples.n, examples.batch_size, examples.steps
        self.shuffle = bool(shuffle) and self.steps > 1
        self.for_xla = fixed_sizes
        self.fixed = fixed_sizes or not examples.ragged
        self.rest_apart = fixed_sizes and examples.ragged

    def order(self, seed):
        """A permutation of the examples for an integer tensor `seed` of shape (2,); None for the order they are in."""
        if not self.shuffle:
            return None
        if self.for_xla:  # which has no shuffle
            return tf.argsort(tf.random.stateless_uniform([self.n], seed), stable=True)
        return tf.random.experimental.stateless_shuffle(tf.range(self.n), seed)

    def run(self, step, tensors, order, first, last):
        """Run `step(batch)` on the batches first, …, last − 1."""
        if self.steps == 1:
            step(tensors)
            return
        alike = self.steps - self.rest_apart

        def body(number):
            step(self._take(tensors, order, number))
            return (number + 1,)

        def rest(number):
            step(self._take(tensors, order, alike))
            return (number + 1,)

        first = tf.convert_to_tensor(first)
        tf.while_loop(lambda number: number < tf.minimum(last, alike), body, (first,))
        if self.rest_apart:
            tf.while_loop(lambda number: number < last, rest, (tf.maximum(first, alike),))

    def _take(self, tensors, order, number):
        """The examples of a batch."""
        start = number * self.size
        if isinstance(number, int):
            size = self.n - start
        else:
            size = self.size if self.fixed else tf.minimum(self.size, self.n - start)
        indices = None if order is None else tf.slice(order, [start], [size])

        def take(x):
            if x is None:
                return None
            if indices is not None:
                return tf.gather(x, indices)
            return tf.slice(x, [start] + [0] * (len(x.shape) - 1), [size, *x.shape[1:]])

        batch = keras.tree.map_structure(take, tensors)
        return keras.tree.map_structure(_of_unknown_size, batch) if self.rest_apart else batch


def _of_unknown_size(x):
    return None if x is None else tf.compat.v1.placeholder_with_default(x, [None, *x.shape[1:]])
