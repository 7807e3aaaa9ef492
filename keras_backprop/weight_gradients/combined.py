"""Weight gradients that are made of others."""

from typing import Any

import tensorflow as tf

from keras_backprop.weight_gradients.base import WeightGradient, like
from keras_backprop.weight_gradients.sums import add


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

    def total_of_steps(self, steps: Any) -> Any:
        return self._joined([part.total_of_steps(steps) for part in self.parts])

    def per_example(self) -> Any:
        return self._joined([part.per_example() for part in self.parts], examples=1)

    def squared_norms(self) -> Any:
        return tf.add_n([part.squared_norms() for part in self.parts])

    def weighted_total(self, c: Any) -> Any:
        return self._joined([part.weighted_total(c) for part in self.parts])

    def only(self, kept: Any) -> "Joined":
        return like(self, Joined(*(part.only(kept) for part in self.parts), axis=self.axis, stacked=self.stacked))

    def as_type(self, dtype: Any) -> "Joined":
        return like(self, Joined(*(part.as_type(dtype) for part in self.parts), axis=self.axis, stacked=self.stacked))

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
        return self.total_of_steps(1)

    def total_of_steps(self, steps: Any) -> Any:
        return add([part.total_of_steps(self.steps * steps) for part in self.parts])

    def per_example(self) -> Any:
        singles = tf.add_n([part.per_example() for part in self.parts])
        by_step = tf.concat([[self.steps, -1], tf.shape(singles)[1:]], 0)
        return tf.ensure_shape(tf.reduce_sum(tf.reshape(singles, by_step), 0), [None, *singles.shape[1:]])

    def weighted_total(self, c: Any) -> Any:
        return add([part.weighted_total(tf.tile(c, [self.steps])) for part in self.parts])

    def only(self, kept: Any) -> "Repeated":
        kept = tf.tile(kept, [self.steps])
        return like(self, Repeated(*(part.only(kept) for part in self.parts), steps=self.steps))

    def as_type(self, dtype: Any) -> "Repeated":
        return like(self, Repeated(*(part.as_type(dtype) for part in self.parts), steps=self.steps))
