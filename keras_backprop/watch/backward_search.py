"""From a gradient that is not finite through the links of the backward pass, to the one in which it arises."""

from typing import Any

import numpy as np
import tensorflow as tf

from keras_backprop.watch.causes import Circumstances, cause_of
from keras_backprop.watch.faults import INCOMING, OWN
from keras_backprop.watch.forward_search import ForwardSearch
from keras_backprop.watch.rerun import Rerun, dtype_of, numpy_of, values_there


class BackwardSearch:
    """Looks for the origin of gradients.

    Args:
        rerun: `Rerun`.
    """

    def __init__(self, rerun: Rerun) -> None:
        self.rerun, self.finite = rerun, rerun.finite

    def of_weight(self, weight: str) -> Any:
        """The fault of gradients that are not finite.

        Args:
            weight: str, path of a weight that is given such a gradient.
        """
        links = self.rerun.result.links
        consumers: dict = {}
        for link in links:
            for x, dx in zip(link.call.inputs, link.downstream, strict=True):
                consumers.setdefault(id(x), []).append((link, dx))
        start = [link for link in links if self._bad_weight(link)]
        link = start[-1] if start else next(one for one in links if not all(map(self.finite, one.downstream)))
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
        search = ForwardSearch(self.rerun)
        for value in shown:
            fault = search.of_value(value)
            named = self.rerun.named(value) if fault is None else None
            if named is not None and named[0] != "weight":
                return search.of_data(link.path, "", named, value)
            if fault is not None:
                return fault
        return None

    def _bad_weight(self, link):
        return any(not self.finite(part.total()) for part in link.weight_gradients.values())

    def _of_link(self, link, direction, weight):
        dx = next((d for d in (*link.downstream, *link.upstream) if d is not None and not self.finite(d)), None)
        if dx is None:
            dx = next((p.total() for p in link.weight_gradients.values() if not self.finite(p.total())), None)
        dx = dx.values if isinstance(dx, tf.IndexedSlices) else dx
        bad = np.zeros(0, bool) if dx is None else ~np.isfinite(numpy_of(dx))
        one = self._operation_of(link)
        dtype = dtype_of(one) if one is not None else (link.call.outputs[0].dtype if link.call.outputs else None)
        kind = one.type if one is not None else ""
        inputs = [numpy_of(x) for x in one.inputs] if one is not None else [numpy_of(x) for x in link.call.inputs]
        gradient_of = None if dx is None else numpy_of(dx)
        circumstances = Circumstances(
            kind, inputs, bad, dtype, self.rerun.frames, backward=True, layer=link.path, gradient=gradient_of,
            direction=direction,
        )  # fmt: skip
        cause, remedy = cause_of(circumstances)
        values = None if one is None else values_there(one, bad)
        per_example = bad if bad.ndim and bad.shape[0] % self.rerun.n == 0 and bad.shape != () else np.zeros(0, bool)
        if not link.downstream or all(d is None or self.finite(d) for d in link.downstream):
            per_example = np.zeros(0, bool) if direction == OWN else per_example
        return self.rerun.told(
            link.path, direction, one.type if one is not None else "", cause, remedy, per_example, values, weight
        )

    def _operation_of(self, link):
        """The operation in a link whose derivative is not finite where it was taken, or the link's own."""
        operation = getattr(link.call.op, "operation", None)
        if operation is not None:
            return operation
        span = next(((c.first, c.last) for c in self.rerun.record._closed if c.call is link.call), None)
        inner = [one for one in self.rerun.operations[slice(*span)] if one is not None] if span else []
        suspects = [one for one in inner if Circumstances.suspicious(one.type, [numpy_of(x) for x in one.inputs])]
        return (suspects or inner or [None])[-1]
