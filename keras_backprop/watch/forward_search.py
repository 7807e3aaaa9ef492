"""From a forward value that is not finite back through the operations that ran, to the one in which it arises."""

from typing import Any

import numpy as np

from keras_backprop.watch.causes import Circumstances, cause_of
from keras_backprop.watch.faults import FORWARD, OWN, Fault
from keras_backprop.watch.rerun import Rerun, dtype_of, has_nan, numpy_of, values_there

_PASSING = ("Cast", "Identity", "Reshape", "ExpandDims", "Squeeze", "Pack")


class ForwardSearch:
    """Looks for the origin of forward values.

    Args:
        rerun: `Rerun`.
    """

    def __init__(self, rerun: Rerun) -> None:
        self.rerun, self.operations, self.finite = rerun, rerun.operations, rerun.finite

    def of_loss(self) -> Fault:
        """The fault of a loss that is not finite."""
        fault = self.of_value(self.rerun.result.loss, constants=True)
        return fault or self.rerun.told("compute_loss", FORWARD, "", "the loss is not finite", "look at `compute_loss`")

    def of_value(self, tensor: Any, constants: bool = False) -> Any:
        """The fault of a forward value; None if it is an infinity that somebody has put there as a constant, and no NaN, unless
        `constants` are faults too.
        """
        walk, source = self._walk(tensor)
        if not walk:  # it is none of the operations' results
            return None
        at, named = walk[-1], None if source is None else self.rerun.named(source)
        if named is not None and named[0] != "weight":  # the layer that takes the data, not what casts them before
            at = next((i for i in reversed(walk) if self.operations[i].type not in _PASSING), at)
        if named is None:
            masked = next((i for i in walk if self._all_masked(i)), None)
            born = next((i for i in walk if self._nan_is_born(i)), None)
            if masked is not None:
                at = masked
            elif source is not None:  # of an infinity that is a constant: a mask, for instance
                if born is None and not constants:
                    return None
                if born is not None and (not constants or self._is_suspicious(born)):
                    at = born
                else:  # what explains the NaN, ∞ − ∞ in a product for instance, is the infinity
                    named = ("constant", "")
        return self._of_operation(at, named, source)

    def suspect(self) -> Any:
        """A fault of an operation that was taken where its derivative is infinite, though here nothing came of it."""
        for at, one in enumerate(self.operations):
            if one is None or not Circumstances.suspicious(one.type, [numpy_of(x) for x in one.inputs]):
                continue
            x = [numpy_of(x) for x in one.inputs]
            bad = np.zeros(0, bool)
            if one.type in ("Sqrt", "Rsqrt", "Log") and x[0].ndim:
                bad = x[0] <= 0
            circumstances = Circumstances(
                one.type, x, bad, dtype_of(one), self.rerun.frames, backward=True, layer=self.rerun.path(at)
            )
            cause, remedy = cause_of(circumstances)
            return self.rerun.told(self.rerun.path(at), OWN, one.type, cause, remedy, bad, values_there(one, bad))
        return None

    def _walk(self, tensor):
        """Back to the origin: the positions of operations, and the tensor without a producer that they end in, or None."""
        walk, seen = [], set()
        while True:
            at = self.rerun.producer.get(id(tensor))
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
            tensor = min(bad, key=lambda t: (self._rank(t), self.rerun.producer.get(id(t), -1)))

    def _rank(self, tensor):
        return 1 if id(tensor) not in self.rerun.producer and self.rerun.named(tensor) is None else 0

    def _nan_is_born(self, at):
        one = self.operations[at]
        return any(has_nan(y) for y in one.outputs) and not any(has_nan(x) for x in one.inputs)

    def _is_suspicious(self, at):
        one = self.operations[at]
        return Circumstances.suspicious(one.type, [numpy_of(x) for x in one.inputs])

    def _all_masked(self, at):
        one = self.operations[at]
        if one.type not in ("Softmax", "LogSoftmax") or not self._nan_is_born(at):
            return False
        x = numpy_of(one.inputs[0])
        return bool((np.isneginf(x).all(-1)).any())

    def _of_operation(self, at, named, data):
        one = self.operations[at]
        output = next(y for y in one.outputs if not self.finite(y)) if not all(map(self.finite, one.outputs)) else None
        source = next((x for x in one.inputs if not self.finite(x)), None)
        bad = ~np.isfinite(numpy_of(output if output is not None else source))
        if named and named[0] in ("x", "y", "sample_weight"):
            return self.of_data(self.rerun.path(at), one.type, named, data)
        if named and named[0] == "weight":
            bad, values = np.zeros(0, bool), None
        else:
            values = values_there(one, bad)
        circumstances = Circumstances(
            one.type,
            [numpy_of(x) for x in one.inputs],
            bad,
            dtype_of(one),
            self.rerun.frames,
            named=named,
            layer=self.rerun.path(at),
        )
        cause, remedy = cause_of(circumstances)
        path = self.rerun.path(at)
        if named and named[0] == "weight":
            path = self._reader_of(at)
        weight = named[1] if named and named[0] == "weight" else None
        return self.rerun.told(path, FORWARD, one.type, cause, remedy, bad, values, weight)

    def of_data(self, path: str, kind: str, named: Any, tensor: Any) -> Fault:
        """The fault of data that are not finite, in the link that takes them; `named`: what `Rerun.named` says of the tensor."""
        bad = ~np.isfinite(numpy_of(tensor))
        cause, remedy = cause_of(Circumstances(kind, [], bad, tensor.dtype, self.rerun.frames, named=named, layer=path))
        return self.rerun.told(path, FORWARD, kind, cause, remedy, bad, numpy_of(tensor)[bad][:8])

    def _reader_of(self, at):
        """The path of what took a weight that was read at a position."""
        outputs = {id(y) for y in self.operations[at].outputs}
        for i, one in enumerate(self.operations):
            if one is not None and any(id(x) in outputs for x in one.inputs):
                return self.rerun.path(i)
        return self.rerun.path(at)
