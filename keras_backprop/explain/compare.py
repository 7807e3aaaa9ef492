"""Compare numbers that somebody calculated with those of an explanation, and name the usual mistake that reproduces one."""

import copy
import math
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np

from keras_backprop.explain.mistakes import Slips, read
from keras_backprop.explain.notation import brief, plain, precision

__all__ = ["Compared", "Comparison", "compare"]

UNKNOWN = "none I know"
NEAR = 2e-3
"""So far off, relatively, a number may be by rounding of intermediate results."""


@dataclass(frozen=True, eq=False)
class Compared:
    """One number, or one array, compared.

    Attributes:
        name: str, as it was given.
        value, expected: float or array, what was given and what is right.
        verdict: "exact" (right in all digits that were given), "rounding" (off by what rounding intermediate results makes),
            "mistake" (a usual mistake reproduces it) or "unknown".
        mistakes: list of str, sentences: the mistakes that reproduce the number, the likeliest first.
        difference: float, the largest |value − expected|.
        where: tuple, the place of the largest difference in an array.
        remark: str, what else there is to say.
    """

    name: str
    value: Any
    expected: Any
    verdict: str
    mistakes: list
    difference: float
    where: tuple = ()
    remark: str = ""

    @property
    def mistake(self) -> str | None:
        """The likeliest mistake; None where the number is right, "none I know" where no usual mistake reproduces it."""
        if self.verdict in ("exact", "rounding"):
            return None
        return self.mistakes[0] if self.mistakes else UNKNOWN

    @property
    def correct(self) -> bool:
        """Whether the number is right, but for rounding."""
        return self.verdict in ("exact", "rounding")

    def __str__(self) -> str:
        with precision(9):
            value, expected = brief(self.value), brief(self.expected)
        if self.verdict == "exact":
            return f"{self.name} = {value}: exact{_said(self.remark)}"
        off = f"largest difference {self.difference:.3g}" + (f" at {list(self.where)}" if self.where else "")
        if self.verdict == "rounding":
            word = "close" if np.size(self.value) > 1 else "rounding"
            return f"{self.name} = {value}: {word}{_said(self.remark)}; exactly {expected} ({off})"
        head = f"{self.name} = {value}: not {expected} ({off}). Mistake: "
        return head + ("; or: ".join(self.mistakes) if self.mistakes else UNKNOWN + _said(self.remark))

    def __repr__(self) -> str:
        return f"<Compared {self}>"


class Comparison(list):
    """The results of `explanation.compare`, a list of `Compared`. Printed it has a line for each."""

    @property
    def correct(self) -> bool:
        """Whether all numbers are right, but for rounding."""
        return all(one.correct for one in self)

    @property
    def verdict(self) -> str:
        """The verdict where one number was compared.

        Raises:
            ValueError: several were.
        """
        return self._only().verdict

    @property
    def mistake(self) -> str | None:
        """The likeliest mistake where one number was compared; of several the first that there is."""
        return next((one.mistake for one in self if one.mistake is not None), None)

    @property
    def mistakes(self) -> list:
        """All sentences."""
        return [sentence for one in self for sentence in one.mistakes]

    @property
    def difference(self) -> float:
        """The largest difference."""
        return max((one.difference for one in self), default=0.0)

    def _only(self):
        if len(self) != 1:
            raise ValueError(
                f"There are {len(self)} results: take one of them. Their verdicts: {[one.verdict for one in self]}"
            )
        return self[0]

    def __str__(self) -> str:
        return "\n".join(map(str, self))

    def __repr__(self) -> str:
        return str(self)

    def _repr_markdown_(self) -> str:
        signs = {"exact": "✓", "rounding": "≈", "mistake": "✗", "unknown": "?"}
        return "\n".join(f"* {signs[one.verdict]} {one}".replace("|", r"\|") for one in self)


def _said(remark):
    return f" ({remark})" if remark else ""


def compare(explanation: Any, spelling: Any, numbers: dict, example: Any) -> Comparison:
    """Compare numbers by name. See `Explanation.compare`."""
    comparer = _Comparer(explanation, spelling, example)
    return Comparison(one for name, value in numbers.items() for one in comparer.compared(name, value))


class _Comparer:
    def __init__(self, explanation, spelling, example):
        self.explanation, self.spelling, self.graph = explanation, spelling, spelling.graph
        self.example, self.slips = example, Slips(explanation, spelling)
        if example is not None and not 0 <= example < explanation.examples:
            raise IndexError(f"`example` must be from 0 to {explanation.examples - 1}. Received: {example!r}")

    def compared(self, name, value):
        if (
            isinstance(value, (list, tuple))
            and value
            and any(np.ndim(v) for v in value)
            and len({np.shape(v) for v in value}) > 1
        ):
            return self._list(name, value)
        return [self._one(name, self._found(name, value), value)]

    def _list(self, name, values):
        """A list of arrays, in the order of the weights: of gradients (`gradients=`, `dW=`) or of new weights (`weights=`)."""
        kind = "update" if name.rstrip("'").lower() in ("weights", "updates", "update", "new", "w_new") else "gradient"
        weights = self.explanation.weights
        if name.lower() == "dw" and len(values) != len(weights):
            weights = [w for w in weights if np.ndim(w.value) > 1]
        if len(values) != len(weights):
            raise ValueError(
                f"{name!r} must have an array for each of the {len(weights)} weights. Received: {len(values)} arrays"
            )
        from keras_backprop.explain.spelling import Found

        return [
            self._one(f"{name}[{i}] ({w.path})", Found(kind, path=w.path, latex=w.symbol.latex), value)
            for i, (w, value) in enumerate(zip(weights, values, strict=True))
        ]

    def _found(self, name, value):
        try:
            return self.spelling.quantity(name)
        except KeyError:
            if name.lower() in ("dw", "db", "w", "b", "w_new", "b_new", "dw_new"):
                return self._by_shape(name, np.shape(_floats(value)))
            raise

    def _by_shape(self, name, shape):
        """The weight that `dW` means where there are several: the one of that shape."""
        from keras_backprop.explain.spelling import Found

        bias = "b" in name.lower()
        same = [w for w in self.explanation.weights if (w.symbol.letter == "b") == bias and np.shape(w.value) == shape]
        if len(same) != 1:
            names = ", ".join(f"{w.symbol} of shape {np.shape(w.value)}" for w in self.explanation.weights)
            raise ValueError(
                f"Which weight {name!r} of shape {shape} is of is not clear. The weights are {names}: say "
                f"d{names[:2]}, for instance."
            )
        kind = "update" if name.endswith("_new") else "gradient" if name.startswith("d") else "weight"
        return Found(kind, path=same[0].path, latex=same[0].symbol.latex)

    def _key(self, found):
        position = next((i for i, node in enumerate(self.graph.nodes) if node is found.node), None)
        edge, of = None, None
        if found.of is not None:
            edge, of = next(i for i, e in enumerate(found.node.edges) if e is found.of[0]), found.of[1]
        return [found.kind, position, found.unit, found.path, found.index, edge, of]

    def _one(self, name, found, given):
        value = _floats(given)
        key, kind = self._key(found), found.kind
        expected = self._right(found, key)
        if np.size(value) == np.size(expected) and np.shape(value) != np.shape(expected):
            value = np.reshape(value, np.shape(expected))
        if np.shape(value) != np.shape(expected):
            if (
                np.ndim(value) == 0
                and kind in ("value", "delta", "factor")
                and self.explanation.examples > 1
                and self.example is None
            ):
                raise ValueError(
                    f"{name!r} has a number for each of the {self.explanation.examples} examples: say which one, "
                    "example=0 for instance."
                )
            raise ValueError(f"{name!r} has the shape {np.shape(expected)}. Received: shape {np.shape(value)}")
        difference = np.abs(value - expected)
        worst = float(np.max(difference, initial=0.0))
        where = (
            tuple(int(i) for i in np.unravel_index(int(np.argmax(difference)), np.shape(difference)))
            if np.ndim(value)
            else ()
        )
        how = _Given(given)
        how.value = value
        verdict, mistakes, remark = self._judged(found, key, value, expected, how)
        return Compared(name, _plain(value), _plain(expected), verdict, mistakes, worst, where, remark)

    def _right(self, found, key):
        """What is right, from the record."""
        weight = self.spelling.weights.get(found.path)
        place = found.index if found.index is not None else ...
        if found.kind == "error":
            return np.float64(self.explanation.loss)
        if found.kind == "gradient":
            return np.asarray(0.0 * weight.value if weight.gradient is None else weight.gradient, "float64")[place]
        if found.kind == "update":
            return np.asarray(weight.updated, "float64")[place]
        if found.kind == "change":
            return np.asarray(weight.updated, "float64")[place] - np.asarray(weight.value, "float64")[place]
        return np.asarray(read(self.graph, key, self.example), "float64")

    def _judged(self, found, key, value, expected, given):
        """(verdict, mistakes, remark)"""
        if not np.all(np.isfinite(value)):
            return "unknown", [], ""
        if given.is_of(expected, exact=True):
            return "exact", [], "" if given.full else f"in the {given.significant} digits given"
        near = _relative(value, expected) <= NEAR
        rounding = self._rounding(found, key, value, given) if near or not given.full else None
        if rounding is not None and _relative(value, expected) <= 0.02:
            return "rounding", [], rounding
        mistakes = self._mistakes(found, key, given, expected)
        if mistakes and not (near and given.significant < 6):
            return "mistake", mistakes, ""
        if near:
            return "rounding", [], "intermediate results were rounded"
        if not given.full:
            mistakes = self._rounded_mistakes(found, key, given, expected)
        if mistakes:
            return "mistake", mistakes, ""
        return "unknown", [], "" if self.slips.small else "in so large a network only mistakes in the result were tried"

    def _rounding(self, found, key, value, given):
        for decimals, graph in self.slips.rounded():
            for result in self._results(found, key, graph):
                if given.is_of(np.reshape(result, value.shape) if np.size(result) == value.size else result):
                    return f"intermediate results were rounded to {decimals} decimals"
        return None

    def _results(self, found, key, graph):
        """What a changed graph gives for the number; nothing where it cannot be said."""
        if found.kind in ("update", "change"):
            gradient = graph.gradient_of(found.path)
            new = self._updated(found, gradient)
            if new is not None:
                yield new if found.kind == "update" else new - self._before(found)
        elif not (found.kind == "error" and not graph.errors):
            yield np.asarray(read(graph, key, self.example))

    def _before(self, found):
        return np.asarray(self.spelling.weights[found.path].value, "float64")[
            found.index if found.index is not None else ...
        ]

    def _updated(self, found, gradient, **numbers):
        formula, weight = self.explanation.update, self.spelling.weights[found.path]
        if formula is None or formula.remarks:
            return None
        formula = formula._replace(numbers={**formula.numbers, **numbers})
        with np.errstate(all="ignore"):
            new = formula.evaluate(np.asarray(weight.value, "float64"), gradient, found.path)["w"]
        return np.asarray(new)[found.index if found.index is not None else ...]

    def _mistakes(self, found, key, given, expected):
        named = []
        for sentence, result in self._wrong(found, key, expected):
            result = np.asarray(result)
            if np.shape(result) == np.shape(expected) and given.is_of(result) and not _same(result, expected):
                named.append(sentence)
        return list(dict.fromkeys(named))

    def _rounded_mistakes(self, found, key, given, expected):
        """Mistakes made with rounded intermediate results."""
        named = []
        for _, graph in list(self.slips.rounded())[:4]:
            other = copy.copy(self)
            other.graph = graph
            other.spelling = copy.copy(self.spelling)
            other.spelling.graph = graph
            other.slips = Slips(self.explanation, other.spelling)
            right = next(iter(other._results(found, key, graph)), None)
            if right is None:
                continue
            for sentence, result in other._wrong(found, key, right):
                if (
                    np.shape(result) == np.shape(expected)
                    and given.is_of(np.asarray(result))
                    and not _same(result, expected)
                ):
                    named.append(sentence)
        return list(dict.fromkeys(named))

    def _wrong(self, found, key, right):
        """(sentence, what the mistake gives), the likeliest first."""
        n, outputs = (
            self.explanation.examples,
            max((h.node.units for h in self.graph.heads if h.targets is not None), default=1),
        )
        kind = found.kind
        if kind in ("gradient", "delta"):
            yield from self._scaled(right, n, outputs)
        if kind == "factor":
            yield from [("the sign is wrong", -right), ("1 over the factor", 1 / right if np.all(right) else np.inf)]
        if kind in ("update", "change"):
            yield from self._of_update(found, right, n, outputs)
        if kind == "error":
            yield from self._of_error(right, n, outputs)
        if kind in ("gradient", "delta", "value", "error", "update", "change"):
            for sentence, graph in self.slips.of_gradients():
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

    def _of_gradient(self, found, key):
        weight, graph = self.spelling.weights[found.path], self.graph
        uses = [use for use in graph.uses if use.path == found.path]
        place = found.index if found.index is not None else ...
        yield from self._sources(uses, found, place)
        if self.explanation.examples > 1 and len(uses) == 1:
            use, n = uses[0], self.explanation.examples
            parts = graph.by_example(use)
            for example in range(n):
                yield (
                    f"only example {example + 1} was counted: ∂E/∂w is the sum over all examples",
                    parts[example][place],
                )
                yield (
                    f"only example {example + 1} was counted, without the 1/{n} of the mean",
                    parts[example][place] * n,
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
        yield "that is the new weight, not its gradient", np.asarray(weight.updated)[place]

    def _sources(self, uses, found, place):
        """What a wrong last factor ∂z/∂w gives."""
        for sentence, put in (
            ("the last factor is missing: ∂z/∂w, what goes into the weight", np.ones_like),
            ("the last factor ∂z/∂w was multiplied twice", np.square),
        ):
            if uses and all(use.edge is not None for use in uses):
                yield sentence, self._with_sources(uses, found, [put(use.edge.source.value) for use in uses])[place]
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
            use = uses[0]
            for edge in use.node.edges:
                for unit in range(edge.source.units):
                    with_x = (use.node.gradient * edge.source.value[:, unit : unit + 1]).sum(0)
                    name = plain(edge.source.name(unit))
                    yield f"∂z/∂b is 1: {name} was multiplied to the gradient of a bias", np.asarray(with_x)[place]

    def _with_sources(self, uses, found, values):
        total = np.zeros_like(self.graph.weights[found.path])
        for use, x in zip(uses, values, strict=True):
            total[..., use.columns] += np.einsum("ni,no->io", x, use.node.gradient)
        return total

    def _of_node(self, found, key, right):
        if found.node is None:
            return
        kind, position, unit, *_ = key
        node = self.graph.nodes[position]
        if kind == "value":
            for edge in node.edges:
                if edge.function:
                    z = edge.source.value if unit is None else edge.source.value[:, unit]
                    z = z if self.example is None and len(z) > 1 else z[self.example or 0]
                    yield "the activation was not applied: that is z", z
                    yield "tanh instead of the sigmoid", np.tanh(z)
                    with np.errstate(over="ignore"):
                        yield "the sign in the exponent: 1/(1 + eᶻ) instead of 1/(1 + e⁻ᶻ)", 1 / (1 + np.exp(z))
                        yield "the sigmoid instead of this activation", 1 / (1 + np.exp(-z))
            for consumer, edge in self.graph.consumers(node):
                if edge.function:
                    a = consumer.value if unit is None else consumer.value[:, unit]
                    yield (
                        "the activation was applied already: that is a",
                        a if self.example is None and len(a) > 1 else a[self.example or 0],
                    )
        for other in range(node.units if unit is not None else 0):
            if other != unit:
                yield (
                    f"another unit: that is the number of {plain(node.name(other))}",
                    read(self.graph, [kind, position, other, *key[3:]], self.example),
                )
        if self.example is not None:
            for example in range(self.explanation.examples):
                if example != self.example:
                    yield (
                        f"another example: that is the number of example {example + 1}",
                        read(self.graph, key, example),
                    )
        if kind == "delta":
            yield "that is the value, not the error δ", read(self.graph, ["value", *key[1:]], self.example)
            for edge in node.edges:
                if edge.function:
                    other = self.graph.nodes.index(edge.source)
                    yield (
                        "that is ∂E/∂z, not ∂E/∂a: σ′ is in it",
                        read(self.graph, ["delta", other, unit, *key[3:]], self.example),
                    )
            for consumer, edge in self.graph.consumers(node):
                if edge.function:
                    other = self.graph.nodes.index(consumer)
                    yield (
                        "that is ∂E/∂a, not δ = ∂E/∂z: the factor σ′ is missing",
                        read(self.graph, ["delta", other, unit, *key[3:]], self.example),
                    )
        if kind == "factor":
            edge = node.edges[key[5]]
            if edge.function and edge.local is not None:
                row, u = self.example or 0, unit or 0
                a, z = node.value[row, u], edge.source.value[row, u]
                yield "a instead of a(1 − a): that is the activation itself", a
                yield "(1 − a) instead of a(1 − a)", 1 - a
                yield "z(1 − z) instead of a(1 − a)", z * (1 - z)
                yield "1 − a² (tanh′) instead of a(1 − a)", 1 - a**2
                yield "a(1 − a) instead of 1 − a²", a * (1 - a)
                if edge.derive is not None and node.compute is not None:
                    again = edge.derive(node.compute(node.value), node.value)
                    yield "σ′ was taken at a instead of z: σ′(a) instead of σ′(z)", again[row, u]

    def _of_update(self, found, right, n, outputs):
        weight = self.spelling.weights[found.path]
        if weight.gradient is None:
            return
        g, before = np.asarray(weight.gradient, "float64"), self._before(found)
        place = found.index if found.index is not None else ...
        change = found.kind == "change"
        eta = self.explanation.update.numbers["eta"] if self.explanation.update else None

        def said(new):
            return new - before if change else new

        new = self._updated(found, -g)
        if new is not None:
            yield "the sign: η·∂E/∂w was added instead of subtracted", said(new)
        for sentence, scaled in self._scaled(g, n, outputs):
            new = None if sentence.startswith("the sign") else self._updated(found, scaled)
            if new is not None:
                yield f"in the gradient: {sentence}", said(new)
        if eta:
            for sentence, rate in (
                ("the learning rate is missing: w − ∂E/∂w", 1.0), ("the learning rate was multiplied twice", eta**2),
                ("divided by the learning rate", 1 / eta),
            ):  # fmt: skip
                new = self._updated(found, g, eta=rate)
                if new is not None:
                    yield sentence, said(new)
        if not change:
            yield "that is only the change of the weight: the old weight is missing", right - before
            yield "that is only η·∂E/∂w: the old weight is missing", before - right
            yield "that is the gradient, not the new weight", g[place]
            yield "that is the weight before the update", before
        else:
            yield "that is the gradient: the learning rate and the sign are missing", g[place]
            yield "the sign of the change is wrong", -right
            yield "that is the new weight, not its change", right + before
        if found.index is not None:
            for sentence, gradient in self._of_gradient(found, None):
                if sentence.startswith("another index") or sentence.startswith("that is the new"):
                    continue
                full = g.copy()
                full[found.index] = gradient
                new = self._updated(found, full)
                if new is not None:
                    yield f"in the gradient: {sentence}", said(new)
            for path, other in self.spelling.weights.items():
                for index in np.ndindex(np.shape(other.updated)) if np.size(other.updated) <= 64 else ():
                    if (path, index) != (found.path, found.index) and not change:
                        yield (
                            f"another index: that is the new {plain(self.spelling.name(path, index))}",
                            np.asarray(other.updated)[index],
                        )

    def _of_error(self, right, n, outputs):
        formulas = [head.formula for head in self.graph.heads if head.formula is not None]
        halved, mean = any(f.factor == 0.5 for f in formulas), any(f.mean for f in formulas)
        yield ("the ½ of the error is missing" if halved else "a factor 2 too much"), right * 2
        yield ("the ½ of the error was multiplied twice" if halved else "a ½ too much: this error has none"), right / 2
        if n > 1:
            yield f"the sum over the {n} examples instead of the mean", right * n
            yield f"the mean over the {n} examples was taken once more", right / n
        if outputs > 1 and mean:
            yield f"the sum over the {outputs} outputs instead of the mean", right * outputs
        elif outputs > 1:
            yield f"the mean over the {outputs} outputs instead of the sum", right / outputs
        yield "the sign is wrong", -right
        yield "log₁₀ instead of the natural logarithm", right / math.log(10)
        yield "log₂ instead of the natural logarithm", right / math.log(2)
        for head in self.graph.heads:
            if head.targets is not None and np.shape(head.targets) == head.prediction.value.shape:
                d = np.asarray(head.targets, "float64") - head.prediction.value
                yield "the square is missing: |T − a|", np.abs(d).sum()
                yield "the square of the sum instead of the sum of the squares", d.sum() ** 2
                yield "the square of the sum instead of the sum of the squares", d.sum() ** 2 / 2
                yield "the square is missing: ½·|T − a|", np.abs(d).sum() / 2
                yield "the square is missing: T − a", d.sum()
                for unit in range(d.shape[1]) if d.shape[1] > 1 else ():
                    yield f"only output {unit + 1} was counted", right * (d[:, unit] ** 2).sum() / (d**2).sum()
        if n > 1:
            for node, function in self.graph.errors:
                for example in range(n):
                    base = self._error_of(function, node.value, example)
                    if base is not None:
                        yield f"only example {example + 1} was counted", base * n
                        yield f"only example {example + 1} was counted, and divided by {n}", base
        weighted = self.graph.penalties
        if abs(weighted) > 1e-12:
            yield "the penalty on the weights is missing", right - weighted

    @staticmethod
    def _error_of(function, values, example):
        """The part of one example in an error that is a sum over them."""
        rows = getattr(function, "rows", None)
        return None if rows is None else rows(values)[example]


class _Given:
    """How exactly a number was given: by its decimals."""

    def __init__(self, given):
        array = np.asarray(given) if not isinstance(given, str) else np.asarray(float(given))
        self.value = np.asarray(array, "float64")
        self.full = array.ndim > 0 or array.dtype == np.float32
        self.single = array.dtype in (np.float32, np.float16)
        text = given.strip() if isinstance(given, str) else repr(float(self.value)) if array.ndim == 0 else "0"
        if array.ndim == 0 and array.dtype == np.float32:
            text = str(np.float32(given))
        try:
            decimal = Decimal(text)
        except ArithmeticError:
            decimal = Decimal(0)
        exponent = decimal.as_tuple().exponent
        digits = decimal.as_tuple().digits
        if not isinstance(given, str) and isinstance(exponent, int):  # 0.5 may be 0.50 and so on
            digits = Decimal(text).normalize().as_tuple().digits
            exponent = Decimal(text).normalize().as_tuple().exponent
        self.significant = len(digits) if array.ndim == 0 else 16
        self.full = self.full or self.significant >= 12
        self.half = 0.5 * 10.0**exponent if isinstance(exponent, int) else 0.0

    def is_of(self, number, exact=False):
        """Whether the number that was given is this one, as exactly as it was given."""
        number = np.asarray(number, "float64")
        if number.shape != self.value.shape or not np.all(np.isfinite(number)):
            return False
        difference, size = np.abs(self.value - number), np.abs(number)
        if self.full:
            tolerance = 2e-6 if self.single else 1e-7 if not exact else 1e-8
            largest = float(np.max(size, initial=0.0))
            return bool(
                np.all(
                    difference
                    <= (2e-5 if self.single and self.value.ndim else tolerance) * max(largest, 1e-300) + 1e-15
                )
            )
        share = 0.03 if exact else 1e-3
        difference, size = np.max(difference), np.max(size)
        return bool(difference <= min(self.half * (1 + 1e-9), share * float(size)) + 1e-15)


def _floats(value):
    if isinstance(value, str):
        value = float(value)
    if hasattr(value, "numpy"):
        value = value.numpy()
    return np.asarray(value, "float64")


def _plain(value):
    return float(value) if np.ndim(value) == 0 else value


def _relative(value, expected):
    largest = float(np.max(np.abs(expected), initial=0.0))
    return (
        float(np.max(np.abs(value - expected), initial=0.0)) / largest
        if largest
        else float(np.max(np.abs(value), initial=0.0))
    )


def _same(result, expected):
    return np.allclose(result, expected, rtol=1e-6, atol=1e-12)
