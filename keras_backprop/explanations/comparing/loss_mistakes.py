"""The usual mistakes in the derivative of the error: the target, the softmax before it, another error than this network's."""

from typing import Any

import numpy as np

from keras_backprop.explanations.comparing.changed_graph import ChangedGraph
from keras_backprop.explanations.writing.notation import plain
from keras_backprop.formula_value import evaluate, with_parts

__all__ = ["LossMistakes", "error_terms", "targets_like"]


def targets_like(head: Any, a: Any) -> Any:
    """The targets in the shape of the predictions; classes one hot."""
    targets = np.asarray(head.targets, "float64")
    if targets.shape == a.shape:
        return targets
    if a.shape[-1] > 1 and targets.size == len(a):
        return np.eye(a.shape[-1])[targets.astype(int).reshape(-1)]
    return targets.reshape(a.shape) if targets.size == a.size else np.zeros_like(a)


def error_terms(head: Any) -> Any:
    """The terms of the error, before the mean or the sum; None where they cannot be told."""
    formula, a = head.formula, head.prediction.value
    if formula is None:
        return None
    try:
        with np.errstate(all="ignore"):
            values = {**head.options, "T": targets_like(head, a), "a": a}
            return evaluate(formula.term, with_parts([p for p in formula.parts if p[0][0] != "d"], values))
    except NameError:  # an option of the loss stands in it
        return None


def _of_logits(head):
    return head.formula is not None and bool(head.formula.when.get("from_logits"))


def _probabilities(head):
    """The predictions; of an error from logits what the sigmoid or softmax makes of them."""
    a = head.prediction.value
    if not _of_logits(head):
        return a
    return evaluate("softmax(a)" if "softmax" in head.formula.term else "sigmoid(a)", {"a": a})


class LossMistakes(ChangedGraph):
    """What could have gone wrong where the gradient comes in."""

    def _of_heads(self):
        for position, head in enumerate(self.graph.heads):
            if head.targets is None or head.slope is None:
                continue
            a, together = _probabilities(head), head.prediction is not head.node or _of_logits(head)

            def put(value, position=position):
                def change(graph):
                    graph.heads[position].value = value

                return self._changed(change)

            targets = targets_like(head, a)
            share = np.divide(head.value, a - targets, out=np.ones_like(a), where=a != targets)
            if together:
                name = plain(head.node.name(0))
                yield (
                    f"a(1 − a) was multiplied in addition: ∂E/∂{name} = a − T contains it already",
                    put(head.value * a * (1 - a)),
                )
                with np.errstate(divide="ignore", invalid="ignore"):
                    yield (
                        "∂E/∂a = −T/a was taken for ∂E/∂z: the derivative of the softmax is missing",
                        put(np.nan_to_num(-share * targets / a)),
                    )
                    yield (
                        "−T/a · a(1 − a): of the softmax only the diagonal was used, the other outputs were forgotten",
                        put(-share * targets * (1 - a)),
                    )
            if _of_logits(head):
                yield (
                    "the activation is missing: z − T instead of a − T, where a is the sigmoid or softmax of z",
                    put(share * (head.prediction.value - targets)),
                )
            elif not together and head.formula is not None and head.formula.shown_slope:
                with np.errstate(divide="ignore", invalid="ignore"):
                    below = targets_like(head, a).sum(-1, keepdims=True) / a.sum(-1, keepdims=True)
                    scale = np.divide(head.value, below - targets / a)
                    yield "−T/a alone: Keras divides a by its sum first, which adds ΣT/Σa", put(-scale * targets / a)
            yield "the target is missing: a instead of a − T", put(share * a)
            yield "the prediction is missing: −T instead of a − T", put(-share * targets)
            yield "|T − a| instead of a − T: the sign was lost", put(np.abs(head.value))
            yield "(T − a)² instead of its derivative: the error was not differentiated", put((targets - a) ** 2)
            yield from self._of_another_error(head, a, targets, put, together)

    def _of_another_error(self, head, a, targets, put, together):
        """The derivative of an error that is usual, and not the one that this network has."""
        formula, n, k = head.formula, len(a), a.shape[-1]
        if formula is None:
            return
        inner = a * (1 - a) if together else 1.0
        if "**2" not in formula.term:
            for factor in (2, 1, 2 / k, 1 / k):
                yield (
                    "the derivative of the squared error, and not of this one",
                    put(factor * (a - targets) / n * inner),
                )
        if formula.term != "abs(T - a)" and "log" not in formula.term:
            yield "the derivative of |T − a|, and not of this error", put(np.sign(a - targets) / n)
        if "**2" in formula.term and "log" not in formula.term and np.all((a > 0) & (a < 1)):
            crossed = (a - targets) / (a * (1 - a)) / n
            yield "the derivative of the cross-entropy, and not of this error", put(crossed)
        values = error_terms(head)
        if values is not None and values.shape == a.shape and "**2" not in formula.term:
            yield "the error itself instead of its derivative: it was not differentiated", put(values / n)
