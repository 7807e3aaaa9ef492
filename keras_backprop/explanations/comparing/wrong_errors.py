"""What the usual mistakes make of E: sums and means, the ½, the square, another error, another target."""

import math
from typing import Any

import numpy as np

from keras_backprop.explanations.comparing.loss_mistakes import error_terms, targets_like

__all__ = ["WrongErrors"]


class WrongErrors:
    """The mistakes in the error of the batch, with a sentence each."""

    explanation: Any
    spelling: Any
    graph: Any
    example: Any
    mistakes: Any

    def _of_error(self, right, n, outputs):
        heads = [head for head in self.graph.heads if head.formula is not None and head.targets is not None]
        formulas = [head.formula for head in heads]
        halved, mean = any(f.factor == 0.5 for f in formulas), any(f.mean for f in formulas)
        weighted = self.graph.penalties
        if abs(weighted) > 1e-12:
            yield "the penalty on the weights is missing", right - weighted
            yield "half of the penalty on the weights", right - weighted / 2
            yield "the penalty on the weights was counted twice", right + weighted
        yield from self._of_sums(right, n, outputs, mean)
        yield ("the ½ of the error is missing" if halved else "a factor 2 too much"), right * 2
        yield ("the ½ of the error was multiplied twice" if halved else "a ½ too much: this error has none"), right / 2
        half = ("the ½ is missing", 2) if halved else ("a ½ too much", 0.5)
        for sentence, result in self._of_sums(right * half[1], n, outputs, mean):
            yield f"{sentence}, and {half[0]}", result
        yield "the sign is wrong", -right
        if any("log" in f.term for f in formulas):
            yield "log₁₀ instead of the natural logarithm", right / math.log(10)
            yield "log₂ instead of the natural logarithm", right / math.log(2)
        for head in heads:
            yield from self._of_one(head, right, n)
        if n > 1:
            for node, function in self.graph.errors:
                for example in range(n):
                    base = self._error_of(function, node.value, example)
                    if base is not None:
                        yield f"only example {example + 1} was counted", base * n
                        yield f"only example {example + 1} was counted, and divided by {n}", base

    def _of_sums(self, right, n, outputs, mean):
        if n > 1:
            yield f"the sum over the {n} examples instead of the mean", right * n
            yield f"the mean over the {n} examples was taken once more", right / n
        if outputs > 1 and mean:
            yield f"the sum over the {outputs} outputs instead of the mean", right * outputs
        elif outputs > 1:
            yield f"the mean over the {outputs} outputs instead of the sum", right / outputs
        if n > 1 and outputs > 1 and mean:
            yield f"the sum over {n} examples and {outputs} outputs instead of the mean", right * n * outputs

    def _of_one(self, head, right, n):
        """What else an error could have been."""
        a, formula = head.prediction.value, head.formula
        T, terms = targets_like(head, a), error_terms(head)
        d, squared = T - a, "**2" in formula.term and "log" not in formula.term and "max" not in formula.term
        if squared:
            yield "the square is missing: |T − a|", np.abs(d).sum()
            yield "the square is missing: ½·|T − a|", np.abs(d).sum() / 2
            yield "the square is missing: T − a", d.sum()
            for divided in {1, n, d.size}:
                yield "the square of the sum instead of the sum of the squares", d.sum() ** 2 / divided
                yield "the square of the sum instead of the sum of the squares", d.sum() ** 2 / 2 / divided
            for unit in range(d.shape[1]) if d.shape[1] > 1 else ():
                yield f"only output {unit + 1} was counted", right * (d[:, unit] ** 2).sum() / (d**2).sum()
        else:
            for divided in {1, n, d.size}:
                yield "the squared error, and not the error of this network", (d**2).sum() / divided
                yield "½ of the squared error, and not the error of this network", (d**2).sum() / divided / 2
            if formula.term != "abs(T - a)":
                yield "|T − a|, and not the error of this network", np.abs(d).sum() / n
        if terms is None or np.shape(terms) != a.shape or "log" not in formula.term:
            return
        with np.errstate(all="ignore"):
            yield from self._of_logarithms(formula, T, a, n)

    def _of_logarithms(self, formula, T, a, n):
        """A cross-entropy or a divergence, with something in the wrong place."""
        if not np.all(a > 0) or np.any(a > 1):
            return
        if a.shape[1] == 1 and np.all(a < 1):
            other = -((1 - T) * np.log(a) + T * np.log(1 - a)).sum() / n
            yield "T and 1 − T exchanged: that is the error for the other class", other
            yield "only −T·log a: the part (1 − T)·log(1 − a) is missing", -(T * np.log(a)).sum() / n
            return
        yield "−Σ log a over all outputs: the targets are missing", -np.log(a).sum() / n
        if n == 1:
            for unit in range(a.shape[1]):
                if not T[0, unit]:
                    yield f"−log a of output {unit + 1}: another class than the target", -np.log(a[0, unit])
            yield "the probability of the right class: the logarithm is missing", (T * a).sum()
            yield "1 − a of the right class: the logarithm is missing", 1 - (T * a).sum()
        if "T/a" in formula.term:
            yield "the cross-entropy −Σ T·log a: the entropy of the targets is missing", -(T * np.log(a)).sum() / n
            yield "T and a exchanged: Σ a·log(a/T)", (a * np.log(a / T)).sum() / n
        else:
            yield "T and a exchanged: −Σ a·log T", -np.nan_to_num(a * np.log(T)).sum() / n

    @staticmethod
    def _error_of(function, values, example):
        """The part of one example in an error that is a sum over them."""
        rows = getattr(function, "rows", None)
        return None if rows is None else rows(values)[example]
