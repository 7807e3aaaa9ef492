"""A fault of a step: what is told of a value that is not finite, in data and in words."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

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
