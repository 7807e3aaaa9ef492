"""What each example contributes to the gradient of a weight, wherever in the chain the weight is read.

Rules of layers return products that are not summed over the batch yet. Where a weight enters between layers, its gradient is
a sum over the batch; but it is linear in the upstream gradients of the links that it enters, and these have rows of their own
for every example. With a factor cₙ on the rows of each example the same rules give Σₙ cₙ·dWₙ; with all but one of them 0, dWₙ.
"""

import functools

import tensorflow as tf

from keras_backprop.chain.mixing import kind_of, mixing
from keras_backprop.chain.reduction import reduction
from keras_backprop.chain.rows import MIXED, Rows
from keras_backprop.chain.sweep import reachable, sweep
from keras_backprop.rule import Operation
from keras_backprop.weight_gradients import SUMMED, Total, WeightGradient, add


class Followed(WeightGradient):
    """The gradient of a weight by the rules of the links that it enters.

    Args:
        weighted: function, c of shape `(n,)` -> Σₙ cₙ·dWₙ.
        n: int or scalar tensor, how many examples there are.
    """

    def __init__(self, weighted, n):
        self._weighted, self.n = weighted, n

    def total(self):
        return self._weighted(tf.ones([self.n]))

    def per_example(self):
        single = tf.vectorized_map(lambda c: tf.convert_to_tensor(self._weighted(c)), tf.eye(self.n))
        return tf.ensure_shape(single, tf.TensorShape([None]).concatenate(self.shape))

    def weighted_total(self, c):
        return self._weighted(c)

    def only(self, kept):
        return self  # its links have no numbers of single examples that could be left out


class Contributions:
    """The backward pass of one batch by examples. Nothing is looked at before somebody asks.

    Args:
        calls: list of `Call`, in the order they ran.
        seen: list of (call, dys, dxs, weight gradients by name), as the sweep told them.
        upstream: list of (tensor, gradient), where the error starts from.
        record: the `Record` of the forward pass.
        batch: list of the tensors of the batch.
        values: a context in which the weights have the values of the forward pass.
    """

    def __init__(self, calls, seen, upstream, record, batch, values):
        self.calls, self.seen, self._upstream, self.record = calls, seen, upstream, record
        self._batch, self._values = batch, values

    @functools.cached_property
    def _rows(self):
        return Rows(self.record, self._batch)

    @functools.cached_property
    def _free(self):
        """The links that depend on no example."""
        return [call for call in self.calls if not self._depends(call)]

    @property
    def _swept(self):
        return [(call, dys, parts) for call, dys, _, parts in self.seen if self._depends(call)]

    @functools.cached_property
    def _coupled(self):
        """Tensors whose gradients depend on other examples: a dict, id -> why."""
        coupled: dict = {}
        for call, _, _, _ in self.seen:  # in backward order
            why = call.rule.couples(call) if call.rule.couples else None
            why = next((coupled[id(y)] for y in call.outputs if id(y) in coupled), why)
            if why:
                coupled.update((id(x), why) for x in call.inputs)
        return coupled

    def of(self, weight, parts):
        """The gradient of a weight by examples, and what of it is no example's: penalties.

        Args:
            weight: a `keras.Variable`.
            parts: list of its `WeightGradient`s, one for each use.

        Returns:
            Two lists of `WeightGradient`.
        """
        needed = reachable(self._free, {id(weight)}, set())
        free = [call for call in self._free if any(id(y) in needed for y in call.outputs)]
        whole = {id(part) for part in parts}
        entered, penalties, kept = [], [], []
        for call, dys, named in self._swept:
            own = [part for part in named.values() if id(part) in whole]
            enters = bool(own) or any(id(x) in needed for x in call.inputs)
            why = next((self._coupled[id(y)] for y in call.outputs if id(y) in self._coupled), None)
            if enters and why:
                return [Total(None, why)], []
            if any(id(x) in needed for x in call.inputs) or any(map(_is_summed, own)):
                (penalties if _adds_a_number(call, needed) else entered).append((call, dys))
                continue
            used = [
                y for y, dy in _pairs(call, dys) if dy is not None
            ]  # a state that nobody takes has no rows that are known
            if own and call.repeats is None and any(self._rows.of(y) != 1 for y in used):
                entered.append((call, dys))
                continue
            kept += own
        penalised = [(tensor, dy) for tensor, dy in self._upstream if id(tensor) in needed]
        penalties = [Total(one) for one in self._sums(free, weight, penalties, penalised)]
        return kept + ([self._followed(free, weight, entered)] if entered else []), penalties

    def mixing(self):
        """The links that mix the examples on the way from weights to the error: a dict, path -> why."""
        return mixing(self.seen, self._upstream, self._rows)

    def reduction(self):
        """Whether the error is the mean or the sum of the examples': "mean" or "sum" and None, or None and why."""
        return reduction(self.seen, self._upstream, self._rows, self._batch[0].shape[0])

    def depends(self, x):
        """Whether a tensor of the forward pass depends on the examples."""
        return self._rows.depends(x)

    def _depends(self, call):
        return any(map(self._rows.depends, call.outputs))

    def _followed(self, free, weight, entered):
        part = self._mixed(free, weight, entered)
        if part is None:

            def weighted(c):
                scaled = [(call, [self._scaled(y, dy, c) for y, dy in _pairs(call, dys)]) for call, dys in entered]
                return add(self._sums(free, weight, scaled))

            part = Followed(weighted, tf.shape(self._batch[0])[0])
        part.shape = weight.shape
        return part

    def _mixed(self, free, weight, entered):
        """The gradient as a sum alone, where a link that the weight enters has mixed the examples; or None."""
        for call, dys in entered:
            if any(
                dy is not None and (not self._rows.depends(y) or self._rows.of(y) is MIXED)
                for y, dy in _pairs(call, dys)
            ):
                reason = f"the result of '{call.path}' ({kind_of(call.op)}) has no rows that belong to one example each"
                return Total(add(self._sums(free, weight, entered)), reason)
        return None

    def _scaled(self, y, dy, c):
        if dy is None:
            return None
        c = tf.repeat(tf.cast(c, dy.dtype), self._rows.of(y))
        return dy * tf.reshape(c, [-1] + [1] * (len(y.shape) - 1))

    def _sums(self, free, weight, entered, upstream=()):
        """The gradients of a weight, one for each link that it enters, and one for the upstream gradients of penalties."""
        sums = []
        with self._values:
            for call, dys in entered:
                start = [(y, dy) for y, dy in _pairs(call, dys) if dy is not None]
                sums.append(sweep([*free, call], start, [weight]).gradient(weight))
            if upstream:
                sums.append(sweep(free, upstream, [weight]).gradient(weight))
        return [dW for dW in sums if dW is not None]


def _pairs(call, dys):
    return zip(call.outputs, dys, strict=True)


def _is_summed(part):
    return isinstance(part, Total) and part.reason == SUMMED


def _adds_a_number(call, needed):
    """Whether a link adds a number that depends on weights alone to another number: a penalty to the error."""
    is_sum = isinstance(call.op, Operation) and call.op.name in ("Add", "AddN", "AddV2", "Pack", "Sub")
    return is_sum and any(id(x) in needed for x in call.inputs) and all(x.shape.rank == 0 for x in call.inputs)
