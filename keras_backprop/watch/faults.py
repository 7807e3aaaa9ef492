"""Where a step turns non-finite: the first link, the direction, the operation, the examples and the likely cause.

The batch is run once more, operation by operation, with the weights of before the step. From a loss that is not finite the walk
goes back through the operations that ran, from a gradient that is not finite through the links of the backward pass, each time
to one whose result is not finite although all that went into it is. What is not finite and does not reach the loss or a gradient,
because somebody masks it on purpose, is never walked through.
"""

from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_backprop import scopes
from keras_backprop.backward_pass import backward
from keras_backprop.training.drawn import plan_of
from keras_backprop.training.snapshot import Snapshot
from keras_backprop.watch.causes import Circumstances, cause_of

FORWARD, INCOMING, OWN, UPDATE = "forward value", "incoming delta", "rule's own output", "update"


class NonFiniteError(FloatingPointError):
    """A value or a gradient of a training step is NaN or infinite. `fault` is the `Fault`."""

    def __init__(self, fault: Any) -> None:
        super().__init__(str(fault))
        self.fault = fault


@dataclass
class Frame:
    """The extremes of one step.

    Attributes:
        step: int, how many steps before the fault it was: -1 is the one just before.
        loss: float; of a step at the end of a compiled call NaN, for the loss is not known there.
        gradients, weights: dict, path of a weight -> float, the largest |entry| of its gradient, and of itself before the update.
    """

    step: int
    loss: float
    gradients: dict = field(default_factory=dict)
    weights: dict = field(default_factory=dict)


@dataclass
class Fault:
    """A value that is not finite, and where it comes from.

    Attributes:
        path: str, of the link in which it arises.
        direction: "forward value", "incoming delta", "rule's own output" (what the link sends back), or "update" (what the
            optimizer makes of finite gradients).
        operation: str, the type of TensorFlow's operation in the link; "" if none can be told.
        cause, remedy: str, what is likely wrong and what helps.
        examples: list of int, the rows of the batch that are concerned; empty if none can be told.
        values: array, what went into the operation where its result is not finite, or into its gradient: a few numbers.
        epoch, step: int, as Keras's callbacks count, from 0; the step within the epoch.
        indices: list of int or None, where `examples` lie in the data that `fit` was given.
        batch: the batch `(x, y, sample_weight)`, as NumPy arrays.
        weight: str or None, path of a weight whose gradient, or which itself, is not finite.
        frames: list of `Frame`, the last steps before, oldest first.
        action: str, what was done.
    """

    path: str
    direction: str
    operation: str
    cause: str
    remedy: str
    examples: list = field(default_factory=list)
    values: Any = None
    epoch: Any = None
    step: Any = None
    indices: Any = None
    batch: Any = None
    weight: Any = None
    frames: list = field(default_factory=list)
    action: str = ""

    def __str__(self) -> str:
        where = "" if self.epoch is None else f"Epoch {self.epoch + 1}, step {self.step + 1}: "
        what = {
            FORWARD: "a forward value is not finite",
            INCOMING: "the delta that comes in is not finite",
            OWN: "what the rule sends back is not finite",
            UPDATE: "the update makes a weight that is not finite",
        }[self.direction]
        lines = [f"{where}{what}, first at '{self.path}' ({self.direction})."]
        inside = [f"operation {self.operation}"] if self.operation else []
        if self.values is not None and np.size(self.values):
            inside.append(f"of the values {_few(np.asarray(self.values).ravel(), '{:.6g}')}")
        if self.examples:
            inside.append(f"in the examples {_few(self.examples)} of the batch")
        if self.indices:
            inside.append(f"which are {_few(self.indices)} in the data")
        if self.weight:
            inside.append(f"weight '{self.weight}'")
        if inside:
            lines.append(f"  {', '.join(inside)}.")
        lines.append(f"  Likely cause: {self.cause}.")
        lines.append(f"  Remedy: {self.remedy}.")
        if self.action:
            lines.append(f"  {self.action}")
        return "\n".join(lines)

    def save(self, path: Any) -> None:
        """Write the batch to an `.npz` file, to reproduce the fault: `keras_backprop.backward(model, *load_batch(path))`.

        Raises:
            ValueError: the batch was not kept.
        """
        if self.batch is None:
            raise ValueError("The batch of this fault was not kept: only those of the last faults are (`keep`).")
        arrays = {}
        for name, part in zip(("x", "y", "sample_weight"), self.batch, strict=False):
            if part is not None:
                arrays.update({f"{name}{key}": value for key, value in _leaves(part)})
        np.savez(path, **arrays)


def load_batch(path: Any) -> tuple:
    """The batch `(x, y, sample_weight)` that `Fault.save` wrote. Structures come back as nested lists, dicts and arrays."""
    parts: dict = {}
    with np.load(path) as arrays:
        for name in arrays:
            part, *keys = name.split("|")
            parts.setdefault(part, []).append((keys, arrays[name]))
    return tuple(_nested(parts.get(name)) for name in ("x", "y", "sample_weight"))


def locate(model: Any, x: Any, y: Any = None, sample_weight: Any = None, frames: Any = (), broken: bool = False) -> Any:
    """Where a step on a batch turns non-finite. Leaves the model as it is.

    Args:
        model: a compiled Keras model, with the weights of before the step.
        x, y, sample_weight: the batch, tensors or arrays.
        frames: list of `Frame`, what is known of the steps before.
        broken: bool, whether the step is known to be not finite as it is compiled: then an operation at the edge of its domain is
            named, if nothing else can be.

    Returns:
        A `Fault`, or None: the loss, all gradients and the update are finite. A loss scale is left out, so that what overflows
        because of it is no fault.
    """
    before = Snapshot(model)
    try:
        search = _Search(model, x, y, sample_weight, frames)
        return search.fault() or (search.suspect() if broken else None)
    finally:
        before.restore()


_PASSING = ("Cast", "Identity", "Reshape", "ExpandDims", "Squeeze", "Pack")


class _Search:
    def __init__(self, model, x, y, sample_weight, frames):
        self.model, self.frames = model, list(frames)
        self.batch = keras.tree.map_structure(
            lambda a: a if a is None or tf.is_tensor(a) else tf.convert_to_tensor(a), (x, y, sample_weight)
        )
        own = getattr(model, "_scope", None)
        with scopes.entered(*getattr(model, "_scopes", ()), *([] if own is None else [own])):
            self.result = backward(model, *self.batch)
        self.record = self.result._examples.record
        self.operations = self.record.timeline.operations()
        self.producer = {id(t): i for i, one in enumerate(self.operations) if one is not None for t in one.outputs}
        weights = {v.path: _extreme(v.value) for v in model.trainable_variables}
        if all(np.isfinite(w) for w in weights.values()):
            self.frames.append(Frame(0, float(self.result.loss), {}, weights))
        self.n = next(t.shape[0] for t in keras.tree.flatten(self.batch[0]) if t is not None)
        self._finite: dict = {}

    def fault(self):
        if not self.finite(self.result.loss):
            return self._forward()
        weights = self.result.weights
        raw = self.result.gradients
        make = getattr(self.model, "make_gradients", None) if plan_of(self.model) is None else None
        made = raw if make is None else make(self.result)
        bad = [v for v, g in zip(weights, made, strict=True) if not self.finite(g)]
        if bad and all(self.finite(g) for g in raw):
            return self._told(
                "compile(gradients=…)", OWN, "", "the function of `compile(gradients=…)` makes it of finite gradients",
                "look there for a division by a norm that is 0, or a logarithm or root of a gradient", weight=bad[0].path,
            )  # fmt: skip
        if bad:
            return self._backward(bad)
        return self._updated(made) if make is not None else None

    def finite(self, x):
        """Whether all entries are finite; what has no numbers, or numbers that are always finite, is."""
        if x is None:
            return True
        if id(x) not in self._finite:
            value = x.values if isinstance(x, tf.IndexedSlices) else x
            floats = getattr(value, "dtype", None) is not None and tf.as_dtype(value.dtype).is_floating
            self._finite[id(x)] = not floats or bool(tf.reduce_all(tf.math.is_finite(value)))
            self._kept = [*getattr(self, "_kept", ()), x]  # an `id` is good for as long as the tensor lives
        return self._finite[id(x)]

    # Forward: through the operations.

    def _forward(self):
        fault = self._forward_from(self.result.loss)
        return fault or self._told("compute_loss", FORWARD, "", "the loss is not finite", "look at `compute_loss`")

    def _forward_from(self, tensor):
        """The fault of a forward value; None if it is an infinity that somebody has put there as a constant, and no NaN."""
        walk, source = self._walk(tensor)
        if not walk:  # it is none of the operations' results
            return None
        at, named = walk[-1], None if source is None else self._named(source)
        if named is not None and named[0] != "weight":  # the layer that takes the data, not what casts them before
            at = next((i for i in reversed(walk) if self.operations[i].type not in _PASSING), at)
        if named is None:
            masked = next((i for i in walk if self._all_masked(i)), None)
            born = next((i for i in walk if self._nan_is_born(i)), None)
            if masked is not None:
                at = masked
            elif source is not None:  # of an infinity that is a constant: a mask, for instance
                if born is None:
                    return None
                at = born
        return self._of_operation(at, named)

    def suspect(self):
        """A fault of an operation that was taken where its derivative is infinite, though here nothing came of it."""
        for at, one in enumerate(self.operations):
            if one is None or not Circumstances.suspicious(one.type, [_numpy(x) for x in one.inputs]):
                continue
            x = [_numpy(x) for x in one.inputs]
            bad = np.zeros(0, bool)
            if one.type in ("Sqrt", "Rsqrt", "Log") and x[0].ndim:
                bad = x[0] <= 0
            circumstances = Circumstances(
                one.type, x, bad, _dtype(one), self.frames, backward=True, layer=self.path(at)
            )
            cause, remedy = cause_of(circumstances)
            return self._told(self.path(at), OWN, one.type, cause, remedy, bad, _values_there(one, bad))
        return None

    def _walk(self, tensor):
        """Back to the origin: the positions of operations, and the tensor without a producer that they end in, or None."""
        walk, seen = [], set()
        while True:
            at = self.producer.get(id(tensor))
            if at is None or at in seen:
                return walk, tensor
            seen.add(at)
            walk.append(at)
            one = self.operations[at]
            bad = [t for t in one.inputs if not self.finite(t)]
            if not bad:
                is_read = one.type == "ReadVariableOp"
                return walk, (tensor if is_read else None)
            # A source that has a name (data, weights) explains more than a constant; then what was computed first.
            tensor = min(bad, key=lambda t: (self._rank(t), self.producer.get(id(t), -1)))

    def _rank(self, tensor):
        return 1 if id(tensor) not in self.producer and self._named(tensor) is None else 0

    def _named(self, tensor):
        """What a tensor that no operation made is: ("x" | "y" | "sample_weight" | "weight", name), or None."""
        for part, given in zip(("x", "y", "sample_weight"), self.batch, strict=True):
            if any(t is tensor for t in keras.tree.flatten(given) if t is not None):
                return part, part
        made = self.producer.get(id(tensor))
        handle = self.operations[made].inputs[0] if made is not None and self.operations[made].inputs else None
        for v in self.model.variables:
            if handle is not None and getattr(v._value, "handle", None) is handle:
                return "weight", v.path
            same = tuple(v.shape) == tuple(tensor.shape) and tf.as_dtype(v.dtype) == tensor.dtype
            if made is None and same and not self.finite(v.value) and _equal(v.value, tensor):
                return "weight", v.path
        return None

    def _nan_is_born(self, at):
        one = self.operations[at]
        return any(_has_nan(y) for y in one.outputs) and not any(_has_nan(x) for x in one.inputs)

    def _all_masked(self, at):
        one = self.operations[at]
        if one.type not in ("Softmax", "LogSoftmax") or not self._nan_is_born(at):
            return False
        x = _numpy(one.inputs[0])
        return bool((np.isneginf(x).all(-1)).any())

    def _of_operation(self, at, named):
        one = self.operations[at]
        output = next(y for y in one.outputs if not self.finite(y)) if not all(map(self.finite, one.outputs)) else None
        source = next((x for x in one.inputs if not self.finite(x)), None)
        bad = ~np.isfinite(_numpy(output if output is not None else source))
        if named and named[0] in ("x", "y", "sample_weight"):
            tensor = next(t for t in keras.tree.flatten(self.batch) if t is not None and not self.finite(t))
            bad = ~np.isfinite(_numpy(tensor))
            values = _numpy(tensor)[bad][:8]
        elif named:
            bad, values = np.zeros(0, bool), None
        else:
            values = _values_there(one, bad)
        circumstances = Circumstances(
            one.type, [_numpy(x) for x in one.inputs], bad, _dtype(one), self.frames, named=named, layer=self.path(at)
        )
        cause, remedy = cause_of(circumstances)
        path = self.path(at)
        if named and named[0] == "weight":
            path = self._reader_of(at)
        weight = named[1] if named and named[0] == "weight" else None
        return self._told(path, FORWARD, one.type, cause, remedy, bad, values, weight)

    def _reader_of(self, at):
        """The path of what took a weight that was read at a position."""
        outputs = {id(y) for y in self.operations[at].outputs}
        for i, one in enumerate(self.operations):
            if one is not None and any(id(x) in outputs for x in one.inputs):
                return self.path(i)
        return self.path(at)

    def path(self, at):
        """Whose an operation is: the innermost closed link, or the innermost layer that runs."""
        spans = [(one.first, one.last, one.call.path) for one in self.record._closed]
        spans = [span for span in (*spans, *self.record._owners) if span[0] <= at < span[1]]
        if not spans:
            return "compute_loss"
        return min(spans, key=lambda span: span[1] - span[0])[2] or "model"

    # Backward: through the links.

    def _backward(self, bad_weights):
        links = self.result.links
        consumers: dict = {}
        for link in links:
            for x, dx in zip(link.call.inputs, link.downstream, strict=True):
                consumers.setdefault(id(x), []).append((link, dx))
        start = [link for link in links if self._bad_weight(link)]
        link = start[-1] if start else next(one for one in links if not all(map(self.finite, one.downstream)))
        weight = bad_weights[0].path
        seen: set = set()
        while id(link) not in seen:
            seen.add(id(link))
            incoming = [
                y
                for y, dy in zip(link.call.outputs, link.upstream, strict=True)
                if dy is not None and not self.finite(dy)
            ]
            if not incoming:
                return self._hidden(link) or self._of_link(link, OWN, weight)
            after = [m for y in incoming for m, dx in consumers.get(id(y), ()) if not self.finite(dx)]
            if not after:
                return self._of_link(link, INCOMING, weight)
            link = after[-1]
        return self._of_link(link, OWN, weight)

    def _hidden(self, link):
        """The fault of a forward value that went into a link, and that the loss does not show: a tanh hides an infinity."""
        if all(map(self.finite, link.call.inputs)):
            return None
        shown = [y for y in link.call.outputs if not self.finite(y)] + [
            x for x in link.call.inputs if not self.finite(x)
        ]
        return next((fault for fault in map(self._forward_from, shown) if fault is not None), None)

    def _bad_weight(self, link):
        return any(not self.finite(part.total()) for part in link.weight_gradients.values())

    def _of_link(self, link, direction, weight):
        dx = next((d for d in (*link.downstream, *link.upstream) if d is not None and not self.finite(d)), None)
        if dx is None:
            dx = next((p.total() for p in link.weight_gradients.values() if not self.finite(p.total())), None)
        dx = dx.values if isinstance(dx, tf.IndexedSlices) else dx
        bad = np.zeros(0, bool) if dx is None else ~np.isfinite(_numpy(dx))
        one = self._operation_of(link)
        dtype = _dtype(one) if one is not None else (link.call.outputs[0].dtype if link.call.outputs else None)
        kind = one.type if one is not None else ""
        inputs = [_numpy(x) for x in one.inputs] if one is not None else [_numpy(x) for x in link.call.inputs]
        gradient_of = None if dx is None else _numpy(dx)
        circumstances = Circumstances(
            kind, inputs, bad, dtype, self.frames, backward=True, layer=link.path, gradient=gradient_of,
            direction=direction,
        )  # fmt: skip
        cause, remedy = cause_of(circumstances)
        values = None if one is None else _values_there(one, bad)
        per_example = bad if bad.ndim and bad.shape[0] % self.n == 0 and bad.shape != () else np.zeros(0, bool)
        if not link.downstream or all(d is None or self.finite(d) for d in link.downstream):
            per_example = np.zeros(0, bool) if direction == OWN else per_example
        return self._told(
            link.path, direction, one.type if one is not None else "", cause, remedy, per_example, values, weight
        )

    def _operation_of(self, link):
        """The operation in a link whose derivative is not finite where it was taken, or the link's own."""
        operation = getattr(link.call.op, "operation", None)
        if operation is not None:
            return operation
        span = next(((c.first, c.last) for c in self.record._closed if c.call is link.call), None)
        inner = [one for one in self.operations[slice(*span)] if one is not None] if span else []
        suspects = [one for one in inner if Circumstances.suspicious(one.type, [_numpy(x) for x in one.inputs])]
        return (suspects or inner or [None])[-1]

    # The update.

    def _updated(self, gradients):
        """A fault of the optimizer, which makes a weight that is not finite of finite gradients."""
        model, weights = self.model, self.result.weights
        scaled = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
        if not weights or scaled or not model.optimizer.built:
            return None
        before = [self.finite(v.value) for v in weights]
        largest = max(float(tf.reduce_max(tf.abs(v.value))) if v.shape else abs(float(v.value)) for v in weights)
        model.update_weights(gradients, weights)
        for v, fine in zip(weights, before, strict=True):
            if fine and not bool(tf.reduce_all(tf.math.is_finite(v.value))):
                cause = (
                    "a learning rate that blows the weights up: the gradients are finite, the update is not (largest weight "
                    f"before it {largest:.3g})"
                )
                return self._told(
                    v.path, UPDATE, "", cause, "lower the learning rate, or clip gradients", weight=v.path
                )
        return None

    def _told(self, path, direction, operation, cause, remedy, bad=None, values=None, weight=None):
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


def _values_there(one, bad):
    """What went into an operation where its result is not finite: a few numbers; None if they cannot be told."""
    floats = [_numpy(x) for x in one.inputs if tf.as_dtype(x.dtype).is_floating]
    if one.type in ("Softmax", "LogSoftmax") and bad.any() and floats[0].shape == bad.shape:
        width = bad.shape[-1]
        return floats[0].reshape(-1, width)[bad.reshape(-1, width).any(1)][0][:8]
    if one.type in ("RealDiv", "Div") and len(floats) == 2:
        below = floats[1][floats[1] == 0]  # what is divided by
        return below[:8] if below.size else None
    return next((x[bad][:8] for x in floats if x.shape == bad.shape and bad.any()), None)


def _numpy(x):
    if getattr(x, "dtype", None) in (tf.resource, tf.variant, tf.string):
        return np.zeros(0)
    x = tf.convert_to_tensor(x)
    return keras.ops.convert_to_numpy(tf.cast(x, tf.float32) if x.dtype == tf.bfloat16 else x)


def _has_nan(x):
    return tf.as_dtype(x.dtype).is_floating and bool(tf.reduce_any(tf.math.is_nan(x)))


def _equal(one, other):
    return np.array_equal(_numpy(one), _numpy(other), equal_nan=True)


def _dtype(one):
    return next((y.dtype for y in one.outputs), None)


def _few(values, form="{}"):
    shown = ", ".join(form.format(v) for v in values[:5])
    return f"{shown}, … ({len(values)})" if len(values) > 5 else shown


def _leaves(part, key=""):
    if isinstance(part, dict):
        for name, value in part.items():
            yield from _leaves(value, f"{key}|{name}")
    elif isinstance(part, (list, tuple)):
        for i, value in enumerate(part):
            yield from _leaves(value, f"{key}|#{i}")
    elif part is not None:
        yield key, np.asarray(part)


def _nested(leaves):
    if leaves is None:
        return None
    if len(leaves) == 1 and not leaves[0][0]:
        return leaves[0][1]
    groups: dict = {}
    for (key, *rest), array in leaves:
        groups.setdefault(key, []).append((rest, array))
    values = {key: _nested(group) for key, group in groups.items()}
    return list(values.values()) if next(iter(values)).startswith("#") else values


def extremes(model: Any, x: Any, y: Any = None, sample_weight: Any = None) -> Frame:
    """The `Frame` of a step that is not taken: the model stays as it is."""
    before = Snapshot(model)
    try:
        result = backward(model, x, y, sample_weight)
        pairs = [(v.path, v.value, g) for v, g in zip(result.weights, result.gradients, strict=True)]
        return Frame(
            -1,
            float(result.loss),
            {path: _extreme(g) for path, _, g in pairs if g is not None},
            {path: _extreme(value) for path, value, _ in pairs},
        )
    finally:
        before.restore()


def _extreme(x):
    return float(tf.reduce_max(tf.abs(x.values if isinstance(x, tf.IndexedSlices) else x)))
