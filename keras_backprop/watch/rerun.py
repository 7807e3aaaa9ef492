"""A step once more, operation by operation: what was computed in it, what of that is not finite, and whose it is."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_backprop import _keras
from keras_backprop.backward_pass import backward
from keras_backprop.chain.sweep import weight_named
from keras_backprop.rule import WeightRead
from keras_backprop.scopes import entered_for
from keras_backprop.watch.faults import Fault, Frame


class Rerun:
    """The step of a model on a batch, which changes the model: whoever asks for it puts that right.

    Args:
        model: a compiled Keras model, with the weights of before the step.
        x, y, sample_weight: the batch, tensors or arrays.
        frames: list of `Frame`, what is known of the steps before.

    Attributes:
        batch: `(x, y, sample_weight)`, of tensors.
        result: the `Backward` of the step.
        operations: list of the operations that ran, in order; None in the place of one that was forgotten.
        producer: dict, id of a tensor -> position of the operation that made it.
        frames: list of `Frame`, and one of this step if its weights are finite.
    """

    def __init__(self, model: Any, x: Any, y: Any, sample_weight: Any, frames: Any) -> None:
        self.model, self.frames = model, list(frames)
        self.batch = keras.tree.map_structure(
            lambda a: a if a is None or tf.is_tensor(a) else tf.convert_to_tensor(a), (x, y, sample_weight)
        )
        with entered_for(model):
            self.result = backward(model, *self.batch)
        self.record = self.result._examples.record
        self.operations = self.record.timeline.operations()
        self.producer = {id(t): i for i, one in enumerate(self.operations) if one is not None for t in one.outputs}
        weights = {v.path: extreme(v.value) for v in model.trainable_variables}
        if all(np.isfinite(w) for w in weights.values()):
            self.frames.append(Frame(0, float(self.result.loss), {}, weights))
        self.n = next(t.shape[0] for t in keras.tree.flatten(self.batch[0]) if t is not None)
        self._finite: dict = {}

    def finite(self, x: Any) -> bool:
        """Whether all entries are finite; what has no numbers, or numbers that are always finite, is."""
        if x is None:
            return True
        if id(x) not in self._finite:
            value = x.values if isinstance(x, tf.IndexedSlices) else x
            floats = getattr(value, "dtype", None) is not None and tf.as_dtype(value.dtype).is_floating
            self._finite[id(x)] = not floats or bool(tf.reduce_all(tf.math.is_finite(value)))
            self._kept = [*getattr(self, "_kept", ()), x]  # an `id` is good for as long as the tensor lives
        return self._finite[id(x)]

    def named(self, tensor: Any) -> Any:
        """What a tensor that no operation made is: ("x" | "y" | "sample_weight" | "weight", name), or None."""
        for part, given in zip(("x", "y", "sample_weight"), self.batch, strict=True):
            if any(t is tensor for t in keras.tree.flatten(given) if t is not None):
                return part, part
        made = self.producer.get(id(tensor))
        handle = self.operations[made].inputs[0] if made is not None and self.operations[made].inputs else None
        for v in self.model.variables:
            if handle is not None and getattr(_keras.stored_in(v), "handle", None) is handle:
                return "weight", v.path
            same = tuple(v.shape) == tuple(tensor.shape) and tf.as_dtype(v.dtype) == tensor.dtype
            if made is None and same and not self.finite(v.value) and _equal(v.value, tensor):
                return "weight", v.path
        return None

    def path(self, at: int) -> str:
        """Whose an operation is: the innermost closed link, or the innermost layer that runs."""
        spans = [(one.first, one.last, one.call.path) for one in self.record._closed]
        spans = [span for span in (*spans, *self.record._owners) if span[0] <= at < span[1]]
        if not spans:
            return "compute_loss"
        return min(spans, key=lambda span: span[1] - span[0])[2] or "model"

    def reader_of(self, weight: Any) -> str:
        """The path of the first link that takes a weight; the weight's own if none does."""
        reads = set()
        for link in self.result.links:
            call, op, names = link.call, link.call.op, link.weight_gradients
            if isinstance(op, WeightRead):
                reads.update(id(y) for y in link.call.outputs if op.variable is weight)
            elif any(weight_named(call, name) is weight for name in names) or not reads.isdisjoint(
                map(id, call.inputs)
            ):
                return link.path
        return weight.path

    def told(
        self, path: str, direction: str, operation: str, cause: str, remedy: str, bad: Any = None, values: Any = None,
        weight: Any = None,
    ) -> Fault:  # fmt: skip
        """A `Fault` of this step. `bad`: array of bool, where something is not finite; the other arguments as of a `Fault`."""
        examples = [] if bad is None else _rows(bad, self.n)
        batch = keras.tree.map_structure(lambda t: None if t is None else keras.ops.convert_to_numpy(t), self.batch)
        return Fault(
            path,
            direction,
            operation,
            cause,
            remedy,
            examples,
            values,
            batch=batch,
            weight=weight,
            frames=[f for f in self.frames if f.step],
        )


def _rows(bad, n):
    """The rows of a batch of n examples in which something is wrong; none where the first axis is not that of examples."""
    if not bad.ndim or not bad.size or not bad.any() or bad.shape[0] % n:
        return []
    rows = bad.reshape(n, -1).any(1)
    return np.flatnonzero(rows).tolist()


def values_there(one: Any, bad: Any) -> Any:
    """What went into an operation where its result is not finite: a few numbers; None if they cannot be told."""
    floats = [numpy_of(x) for x in one.inputs if tf.as_dtype(x.dtype).is_floating]
    if one.type in ("Softmax", "LogSoftmax") and bad.any() and floats[0].shape == bad.shape:
        width = bad.shape[-1]
        return floats[0].reshape(-1, width)[bad.reshape(-1, width).any(1)][0][:8]
    if one.type in ("RealDiv", "Div") and len(floats) == 2:
        below = floats[1][floats[1] == 0]  # what is divided by
        return below[:8] if below.size else None
    return next((x[bad][:8] for x in floats if x.shape == bad.shape and bad.any()), None)


def numpy_of(x: Any) -> Any:
    """A tensor as an array; an empty one of what has no numbers."""
    if getattr(x, "dtype", None) in (tf.resource, tf.variant, tf.string):
        return np.zeros(0)
    x = tf.convert_to_tensor(x)
    return keras.ops.convert_to_numpy(tf.cast(x, tf.float32) if x.dtype == tf.bfloat16 else x)


def has_nan(x: Any) -> bool:
    """Whether an entry is NaN."""
    return tf.as_dtype(x.dtype).is_floating and bool(tf.reduce_any(tf.math.is_nan(x)))


def _equal(one, other):
    return np.array_equal(numpy_of(one), numpy_of(other), equal_nan=True)


def dtype_of(one: Any) -> Any:
    """The dtype of what an operation puts out, or None."""
    return next((y.dtype for y in one.outputs), None)


def extreme(x: Any) -> float:
    """The largest |entry|."""
    return float(tf.reduce_max(tf.abs(x.values if isinstance(x, tf.IndexedSlices) else x)))
