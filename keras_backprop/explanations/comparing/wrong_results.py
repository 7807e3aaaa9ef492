"""What the usual mistakes make of a gradient and of an update: a factor, the sign, an index, another example."""

import re
from typing import Any

import numpy as np

from keras_backprop.explanations.comparing.wrong_values import WrongValues
from keras_backprop.explanations.writing.notation import plain

__all__ = ["WrongResults"]


_LEFT_OUT = (
    ("the bias correction of the moments is missing", r"sqrt\(1 - beta2\*\*t\)/\(1 - beta1\*\*t\)", "1"),
    ("the bias correction of the moment is missing", r"\(1 - beta1\*\*t\)\*", ""),
    ("the root is missing: v instead of √v", r"sqrt\((v|u)( \+ eps)?\)", r"(\1\2)"),
    ("the roots are missing: v instead of √v", r"sqrt\(([^()]*)\)", r"(\1)"),
    ("the factor 1 − β₁ or 1 − β₂ of the new part is missing", r"\(1 - (?:beta1|beta2|rho)\)\*g", "g"),
    ("g instead of g² in the second moment", r"g\*\*2", "g"),
    ("the momentum is missing", r"mu\*m", "0*m"),
)
"""(sentence, what is replaced in the lines of an optimizer, by what)"""


class WrongResults(WrongValues):
    """The mistakes that give another result, with a sentence each. `compare.py` has the class that judges by them."""

    def _results(self, found: Any, key: Any, graph: Any) -> Any:
        raise NotImplementedError

    def _before(self, found: Any) -> Any:
        raise NotImplementedError

    def _updated(self, found: Any, gradient: Any, steps: Any = None, **numbers: Any) -> Any:
        raise NotImplementedError

    def _wrong(self, found, key, right):
        """(sentence, what the mistake gives), the likeliest first."""
        n, outputs = (
            self.explanation.examples,
            max((h.node.units for h in self.graph.heads if h.targets is not None), default=1),
        )
        kind = found.kind
        if kind == "gradient":
            yield from self._of_penalty(found, right)
        if kind in ("gradient", "delta"):
            yield from self._scaled(right, n, outputs)
        if kind == "factor":
            yield from [("the sign is wrong", -right), ("1 over the factor", 1 / right if np.all(right) else np.inf)]
        if kind in ("update", "change"):
            yield from self._of_update(found, right, n, outputs)
        if kind == "error":
            yield from self._of_error(right, n, outputs)
        if kind in ("gradient", "delta", "value", "error", "update", "change"):
            for sentence, graph in self.mistakes.of_gradients():
                if graph is not None:
                    for result in self._results(found, key, graph):
                        yield sentence, result
        if kind == "gradient":
            yield from self._of_gradient(found, key)
        if kind in ("value", "delta", "factor"):
            yield from self._of_node(found, key, right)

    def _scaled(self, right, n, outputs):
        """What factors that are usually forgotten or doubled make of a gradient."""
        formulas = [head.formula for head in self.graph.heads if head.formula is not None]
        halved = any(f.times * f.factor == 1 and f.factor == 0.5 for f in formulas)
        squared = any(f.times == 2 for f in formulas)
        mean = any(f.mean for f in formulas) or not formulas
        yield "the sign is wrong: T − a instead of a − T", -right
        if halved:
            yield "a factor 2: the ½ of the error is missing, so that the 2 of the square remained", right * 2
            yield "a factor ½: the ½ of the error was kept, the 2 of the square forgotten", right / 2
        elif squared:
            yield "a factor ½: the 2 of the square is missing; this error has no ½ that cancels it", right / 2
            yield "a factor 2 too much", right * 2
        if n > 1:
            yield f"the sum over the {n} examples instead of the mean", right * n
            yield f"the mean over the {n} examples was taken once more", right / n
        if outputs > 1 and mean:
            yield f"the sum over the {outputs} outputs instead of the mean", right * outputs
        if outputs > 1:
            again = (
                "the mean over the {} outputs was taken once more"
                if mean
                else "the mean over the {} outputs instead of the sum"
            )
            yield again.format(outputs), right / outputs
        if outputs > 1 and n > 1 and mean:
            yield f"the sum over {n} examples and {outputs} outputs instead of the mean", right * n * outputs
        if not (halved or squared):
            yield "a factor 2 too much", right * 2
            yield "a factor ½ too much", right / 2

    def _of_penalty(self, found, right):
        """What a penalty adds to a gradient."""
        extra = self.graph.extra.get(found.path)
        if extra is not None:
            part = np.asarray(extra)[found.index if found.index is not None else ...]
            yield "the gradient of the penalty on the weight is missing", right - part
            yield "λ·w instead of 2·λ·w: half of the penalty's gradient is missing", right - part / 2
            yield "the gradient of the penalty has the wrong sign", right - 2 * part
            yield "that is the gradient of the penalty alone", part

    def _of_gradient(self, found, key):
        weight, graph = self.spelling.weights[found.path], self.graph
        uses = [use for use in graph.uses if use.path == found.path]
        place = found.index if found.index is not None else ...
        yield from self._sources(uses, found, place)
        if self.explanation.examples > 1 and len(uses) == 1:
            use, n = uses[0], self.explanation.examples
            for example in range(n):
                part = use.gradient(np.shape(weight.value), example)[place]
                yield (
                    f"only example {example + 1} was counted: ∂E/∂w is the sum over all examples",
                    part,
                )
                yield (
                    f"only example {example + 1} was counted, without the 1/{n} of the mean",
                    part * n,
                )
        gradient = graph.gradient_of(found.path)
        if gradient.ndim == 2 and gradient.shape[0] == gradient.shape[1] > 1:
            turned = gradient.T[place]
            yield f"the indices are the other way round: that is the transposed entry of ∂E/∂{weight.symbol}", turned
        if found.index is not None:
            for path, other in self.spelling.weights.items():
                if other.gradient is None:
                    continue
                for index in np.ndindex(np.shape(other.gradient)) if np.size(other.gradient) <= 64 else ():
                    if (path, index) != (found.path, found.index):
                        name = plain(self.spelling.name(path, index))
                        yield f"another index: that is ∂E/∂{name}", np.asarray(other.gradient)[index]
        if self.explanation.examples > 1 and len(uses) == 1 and uses[0].edge is not None:
            x = uses[0].edge.source.value
            product = uses[0].gradient(np.shape(weight.value), x=np.broadcast_to(x.mean(0), x.shape))
            yield (
                "the mean of x times the mean of δ: products are made example by example, and then added",
                product[place],
            )
        if len(uses) == 1 and uses[0].edge is not None:
            alone = uses[0].gradient(np.shape(weight.value), x=np.ones_like(uses[0].edge.source.value))
            with_w = np.asarray(weight.value, "float64") * alone
            yield "w itself instead of the last factor ∂z/∂w, which is what goes into the weight", with_w[place]
        yield "that is the new weight, not its gradient", np.asarray(weight.updated)[place]

    def _sources(self, uses, found, place):
        """What a wrong last factor ∂z/∂w gives."""
        for sentence, put in (
            ("the last factor is missing: ∂z/∂w, what goes into the weight", np.ones_like),
            ("the last factor ∂z/∂w was multiplied twice", np.square),
        ):
            if uses and all(use.edge is not None for use in uses):
                yield sentence, self._with_sources(uses, found, [put(use.edge.source.value) for use in uses])[place]
        further = [
            next(
                (use.edge.source.value * e.local for e in use.edge.source.edges if e.function and e.local is not None),
                None,
            )
            for use in uses
            if use.edge is not None
        ]
        if further and len(further) == len(uses) and all(values is not None for values in further):
            yield (
                "one factor too many: the chain of this weight ends at ∂z/∂w, and does not go on through the layer before",
                self._with_sources(uses, found, further)[place],
            )
        before = [
            next((e.source.value for e in use.edge.source.edges if e.function), None)
            for use in uses
            if use.edge is not None
        ]
        if before and len(before) == len(uses) and all(values is not None for values in before):
            yield (
                "z instead of a as the last factor: what goes into the weight is the activation",
                self._with_sources(uses, found, before)[place],
            )
        if len(uses) == 1 and uses[0].edge is None:
            use, shape = uses[0], np.shape(self.graph.weights[found.path])
            for edge in use.node.edges:
                for unit in range(edge.source.units):
                    with_x = use.gradient(shape, x=edge.source.value[:, unit : unit + 1])
                    name = plain(edge.source.name(unit))
                    yield f"∂z/∂b is 1: {name} was multiplied to the gradient of a bias", with_x[place]

    def _with_sources(self, uses, found, values):
        shape = np.shape(self.graph.weights[found.path])
        return sum((use.gradient(shape, x=x) for use, x in zip(uses, values, strict=True)), np.zeros(shape))

    def _other_steps(self, found):
        """The lines of the optimizer with something left out."""
        formula = self.explanation.update and self.explanation.update.of(found.path)
        steps = list(formula.steps) if formula else []
        for sentence, pattern, put in _LEFT_OUT:
            other = [(letter, re.sub(pattern, put, text)) for letter, text in steps]
            if other != steps:
                yield sentence, other
        if len(steps) > 1:
            yield "plain gradient descent, w − η·g, and not this optimizer", [("w", "w - eta*g")]

    def _of_update(self, found, right, n, outputs):
        weight = self.spelling.weights[found.path]
        if weight.gradient is None:
            return
        g, before = np.asarray(weight.gradient, "float64"), self._before(found)
        change = found.kind == "change"
        for sentence, new in self._wrong_updates(found, g, n, outputs):
            if new is not None:
                yield sentence, new - before if change else new
        at = g[found.index if found.index is not None else ...]
        if change:
            yield "that is the gradient: the learning rate and the sign are missing", at
            yield "the sign of the change is wrong", -right
            yield "that is the new weight, not its change", right + before
        else:
            yield "that is only the change of the weight: the old weight is missing", right - before
            yield "that is only η·∂E/∂w: the old weight is missing", before - right
            yield "that is the gradient, not the new weight", at
            yield "that is the weight before the update", before
        if found.index is not None:
            for sentence, new in self._updates_by_wrong_entries(found, g):
                yield sentence, new - before if change else new
            if not change:
                yield from self._other_new_weights(found)

    def _wrong_updates(self, found, g, n, outputs):
        """The new weight by a wrong sign, a wrong gradient, a wrong rate, another optimizer; None where it is not known."""
        yield "the sign: η·∂E/∂w was added instead of subtracted", self._updated(found, -g)
        for sentence, scaled in self._scaled(g, n, outputs):
            if not sentence.startswith("the sign"):
                yield f"in the gradient: {sentence}", self._updated(found, scaled)
        eta = self.explanation.update.numbers["eta"] if self.explanation.update else None
        if eta:
            yield "the learning rate is missing: w − ∂E/∂w", self._updated(found, g, eta=1.0)
            yield "the learning rate was multiplied twice", self._updated(found, g, eta=eta**2)
            yield "divided by the learning rate", self._updated(found, g, eta=1 / eta)
        for sentence, steps in self._other_steps(found):
            yield sentence, self._updated(found, g, steps=steps)

    def _updates_by_wrong_entries(self, found, g):
        """The new weight by what the usual mistakes make of its entry of the gradient."""
        for sentence, entry in self._of_gradient(found, None):
            if sentence.startswith("another index") or sentence.startswith("that is the new"):
                continue
            full = g.copy()
            full[found.index] = entry
            new = self._updated(found, full)
            if new is not None:
                yield f"in the gradient: {sentence}", new

    def _other_new_weights(self, found):
        for path, other in self.spelling.weights.items():
            for index in np.ndindex(np.shape(other.updated)) if np.size(other.updated) <= 64 else ():
                if (path, index) != (found.path, found.index):
                    name = plain(self.spelling.name(path, index))
                    yield f"another index: that is the new {name}", np.asarray(other.updated)[index]
