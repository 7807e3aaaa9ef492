"""Which examples are in the batch of a step: Poisson sampling, or an order that is shuffled every epoch; with static shapes."""

import math
from typing import Any

import tensorflow as tf


class Sampler:
    """Draws the batches of a plan: step after step, whoever takes the step, so that a training can be interrupted anywhere.

    A batch has always `rows` rows. Those that are not needed repeat an example and have the weight 0.

    Args:
        examples, expected_batch_size, largest_batch_size: ints.
        sampling: "poisson": every example is in a batch with the chance expected_batch_size/examples, whatever else is in it and
            was in others; of a batch that is larger than the largest a random part is taken. "shuffled": the examples in a
            random order, a new one each epoch, cut into batches.
        parts: int, in how many parts a batch is handed out.
        randomness: a `FromSeed`.

    Attributes:
        steps_per_epoch: int, batches in an epoch.
        rows: int, of a part.
    """

    def __init__(
        self,
        examples: int,
        expected_batch_size: int,
        largest_batch_size: int,
        sampling: str,
        parts: int,
        randomness: Any,
    ) -> None:
        self.examples, self.expected, self.largest = examples, expected_batch_size, largest_batch_size
        self.sampling, self.parts, self.randomness = sampling, parts, randomness
        self.steps_per_epoch = math.ceil(examples / expected_batch_size)
        largest = largest_batch_size if sampling == "poisson" else expected_batch_size
        self.rows = math.ceil(largest / parts)

    @property
    def kind(self) -> tuple[Any, ...]:
        """Samplers of the same kind draw alike."""
        return self.examples, self.expected, self.largest, self.sampling, self.parts, id(self.randomness)

    def draw(self, count: Any, for_xla: bool = False) -> tuple[Any, Any]:
        """A part of a batch.

        Args:
            count: int64 scalar tensor, how many parts were handed out before.
            for_xla: bool, draw with operations that XLA can compile.

        Returns:
            indices, int32 of shape `(rows,)`, and weights, float32 of the same shape: 1 for an example that is in the batch, 0
            for a row that fills it up. Those that are in it come first.
        """
        step, part = count // self.parts, count % self.parts
        if self.sampling == "shuffled":
            indices, size = self._next(step)
        elif self.expected == self.examples:
            indices, size = tf.range(self.examples), tf.constant(self.examples)
        else:
            indices, size = self._drawn(step, for_xla)
        fill = self.rows * self.parts - indices.shape[0]
        indices = tf.pad(indices, [[0, fill]]) if fill else indices
        first = tf.cast(part, tf.int32) * self.rows
        weights = tf.cast(tf.range(self.rows) + first < size, tf.float32)
        return tf.slice(indices, [first], [self.rows]), weights

    def _drawn(self, step, for_xla):
        """Each example with the same chance; in a random order, so that the first ones are a random part."""
        # A chance is rounded down to a multiple of 2⁻³².
        threshold = math.floor(2**32 * self.expected / self.examples) - 2**31
        bits = self.randomness.bits(self.examples, step)
        if for_xla:  # which has no `tf.where` of unknown length
            lowest, indices = tf.math.top_k(~bits, self.largest)  # ~b = −1 − b, so that the least bits come first
            return indices, tf.reduce_sum(tf.cast(~lowest < threshold, tf.int32))
        drawn = tf.cast(tf.where(bits < threshold)[:, 0], tf.int32)
        drawn = tf.gather(drawn, tf.argsort(tf.gather(bits, drawn)))[: self.largest]
        size = tf.size(drawn)
        return tf.ensure_shape(tf.pad(drawn, [[0, self.largest - size]]), [self.largest]), size

    def _next(self, step):
        order = self.randomness.order(self.examples, step // self.steps_per_epoch)
        order = tf.pad(order, [[0, self.steps_per_epoch * self.expected - self.examples]])
        first = tf.cast(step % self.steps_per_epoch, tf.int32) * self.expected
        return tf.ensure_shape(tf.slice(order, [first], [self.expected]), [self.expected]), self.examples - first
