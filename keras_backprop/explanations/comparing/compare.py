"""Compare numbers that somebody calculated with those of an explanation, and name the usual mistake that reproduces one."""

import copy
from typing import Any

import numpy as np

from keras_backprop.explanations.comparing.comparison import Compared, Comparison
from keras_backprop.explanations.comparing.given import Given
from keras_backprop.explanations.comparing.lists import BY_LETTER, kind_of_list, weights_of_list
from keras_backprop.explanations.comparing.mistakes import Mistakes, read, right_as_well
from keras_backprop.explanations.comparing.spelling import Found
from keras_backprop.explanations.comparing.wrong_results import WrongResults
from keras_backprop.explanations.observing.asked import number_of, place
from keras_backprop.explanations.writing.notation import plain

__all__ = ["compare"]


def compare(explanation: Any, spelling: Any, numbers: dict, example: Any) -> Comparison:
    """Compare numbers by name. See `Explanation.compare`."""
    comparer = _Comparer(explanation, spelling, example)
    return Comparison(one for name, value in numbers.items() for one in comparer.compared(name, value))


SINGLE = 2e-6
"""And so far off is what a model computes in single precision, in all its digits."""


class _Comparer(WrongResults):
    def __init__(self, explanation, spelling, example):
        self.explanation, self.spelling, self.graph = explanation, spelling, spelling.graph
        self.example, self.mistakes = example, Mistakes(explanation, spelling)
        if example is not None:
            place("example", example, explanation.examples)

    def compared(self, name, value):
        if not isinstance(name, str):
            raise TypeError(f"A number has a name, as in compare({{'dw5': 0.0822}}). Received: {name!r}")
        wanted = weights_of_list(name, value, self.explanation.weights)
        if wanted is not None:
            return self._list(name, value, wanted)
        value = number_of(name, value) if isinstance(value, str) else value
        return [self._one(name, self._found(name, _array(name, value)), value)]

    def _list(self, name, values, weights):
        """A list of arrays, in the order of the weights: of gradients (`gradients=`, `dW=`) or of new weights (`weights=`)."""
        kind = kind_of_list(name)
        if not isinstance(values, (list, tuple)) or len(values) != len(weights):
            paths = ", ".join(weight.path for weight in weights)
            received = f"{len(values)} arrays" if isinstance(values, (list, tuple)) else repr(values)
            raise ValueError(
                f"{name!r} must be a list with an array for each of the {len(weights)} weights: {paths}. Received: {received}"
            )
        return [
            self._one(f"{name}[{i}] ({w.path})", Found(kind, path=w.path, latex=w.symbol.latex), value)
            for i, (w, value) in enumerate(zip(weights, values, strict=True))
        ]

    def _found(self, name, value):
        try:
            return self.spelling.quantity(name)
        except KeyError:
            if name.lower() in BY_LETTER:
                return self._by_shape(name, np.shape(value))
            raise

    def _by_shape(self, name, shape):
        """The weight that `dW` means where there are several: the one of that shape."""
        bias = "b" in name.lower()
        same = [w for w in self.explanation.weights if (w.symbol.letter == "b") == bias and np.shape(w.value) == shape]
        if len(same) != 1:
            names = ", ".join(f"{w.symbol} of shape {np.shape(w.value)}" for w in self.explanation.weights)
            raise ValueError(
                f"Which weight {name!r} of shape {shape} is of is not clear. The weights are {names}: say "
                f"d{names[:2]}, for instance."
            )
        return Found(kind_of_list(name), path=same[0].path, latex=same[0].symbol.latex)

    def _key(self, found):
        position = next((i for i, node in enumerate(self.graph.nodes) if node is found.node), None)
        edge, of = None, None
        if found.of is not None:
            edge, of = next(i for i, e in enumerate(found.node.edges) if e is found.of[0]), found.of[1]
        return [found.kind, position, found.unit, found.path, found.index, edge, of]

    def _one(self, name, found, given):
        value = _array(name, given)
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
            units = np.shape(expected)[-1] if np.ndim(expected) else 0
            one = (
                f" For one of them give its number as well: {name}_1 to {name}_{units}."
                if found.node is not None and np.ndim(value) == 0 and found.unit is None
                else ""
            )
            raise ValueError(f"{name!r} has the shape {np.shape(expected)}. Received: shape {np.shape(value)}.{one}")
        difference = np.abs(value - expected)
        worst = float(np.max(difference, initial=0.0))
        where = (
            tuple(int(i) for i in np.unravel_index(int(np.argmax(difference)), np.shape(difference)))
            if np.ndim(value)
            else ()
        )
        single = any(np.asarray(w.value).dtype.itemsize <= 4 for w in self.explanation.weights)
        rounded = single or bool(self.graph.extra)  # the model computes with rounded numbers, or Keras with a rounded λ
        change = kind == "change"
        before = self._before(found) if change or kind == "update" else None
        how = Given(given, SINGLE if rounded else 0.0, _ulp(single), before, change)
        how.value = value
        verdict, mistakes, remark = self._judged(found, key, value, expected, how)
        return Compared(name, _plain(value), _plain(expected), verdict, mistakes, worst, where, remark)

    def _right(self, found, key):
        """What is right, from the record."""
        weight = self.spelling.weights.get(found.path)
        place = found.index if found.index is not None else ...
        if found.kind == "error":
            return np.float64(self.explanation.loss)
        if found.kind == "gradient" and not weight.trained:
            raise ValueError(
                f"{weight.symbol} ({found.path}) is frozen: its gradient is not computed, and it stays as it is."
            )
        if found.kind == "gradient":
            return np.asarray(0.0 * weight.value if weight.gradient is None else weight.gradient, "float64")[place]
        if found.kind == "update":
            return np.asarray(weight.updated, "float64")[place]
        if found.kind == "change":
            return self._change(found, weight)
        if found.kind == "delta" and self.graph.is_skipped(found.node):
            raise ValueError(
                f"{plain(found.latex)} is not known: the error and the activation that makes {plain(found.node.name())} are "
                "differentiated together. Compare ∂E/∂z instead."
            )
        return np.asarray(read(self.graph, key, self.example), "float64")

    def _judged(self, found, key, value, expected, given):
        """(verdict, mistakes, remark)"""
        if not np.all(np.isfinite(value)):
            return (
                "unknown",
                [],
                "inf and NaN are no numbers: somewhere something was divided by 0, or became too large",
            )
        if given.is_of(expected, exact=True) or (given.significant > 1 and given.rounds(expected)):
            return "exact", [], given.digits(expected)
        for other in right_as_well(self.graph, key, self.example):
            if given.is_of(other, exact=True) or given.rounds(other):
                return "exact", [], "Keras's own: a is divided by its sum first; −T/a alone gives the same ∂E/∂z"
        if given.rounds(expected):
            return "rounding", [], "in one digit it cannot be told from the exact number"
        near = given.is_near(expected)
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
        return (
            "unknown",
            [],
            "" if self.mistakes.small else "in so large a network only mistakes in the result were tried",
        )

    def _rounding(self, found, key, value, given):
        for decimals, graph in self.mistakes.rounded():
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

    def _change(self, found, weight):
        """new − old; in single precision as exactly as the optimizer's formula says it, where that is what Keras computed."""
        before = self._before(found)
        new = np.asarray(weight.updated, "float64")[found.index if found.index is not None else ...]
        kept = weight.gradient is None or np.asarray(weight.value).dtype.itemsize > 4
        by_formula = None if kept else self._updated(found, np.asarray(weight.gradient, "float64"))
        if by_formula is not None and Given(new, ulp=_ulp(True), before=before).is_of(by_formula):
            return by_formula - before
        return new - before

    def _before(self, found):
        return np.asarray(self.spelling.weights[found.path].value, "float64")[
            found.index if found.index is not None else ...
        ]

    def _updated(self, found, gradient, steps=None, **numbers):
        formula, weight = self.explanation.update, self.spelling.weights[found.path]
        formula = formula and formula.of(found.path)
        if formula is None or formula.remarks:
            return None
        formula = formula._replace(numbers={**formula.numbers, **numbers}, steps=steps or formula.steps)
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
        for _, graph in list(self.mistakes.rounded())[:4]:
            other = copy.copy(self)
            other.graph = graph
            other.spelling = copy.copy(self.spelling)
            other.spelling.graph = graph
            other.mistakes = Mistakes(self.explanation, other.spelling)
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


def _array(name, value):
    """A number or an array in float64."""
    value = value.numpy() if hasattr(value, "numpy") else value
    try:
        array = np.asarray(value)
        if array.dtype == bool or array.dtype.kind in "cO":
            raise TypeError
        return np.asarray(array, "float64")
    except (TypeError, ValueError):
        raise ValueError(
            f"What {name!r} is compared with is neither a number nor an array of numbers. Received: {value!r}"
        ) from None


def _ulp(single):
    """The relative distance of two neighbouring numbers."""
    return float(np.finfo("float32" if single else "float64").eps)


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
