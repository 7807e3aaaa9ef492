"""What is collected while one step is traced: which figures of which tensors."""

import inspect
import re
from typing import Any

import tensorflow as tf

from keras_backprop.chain.sweep import weight_named
from keras_backprop.rule import Operation, WeightRead
from keras_backprop.watch import native, units
from keras_backprop.watch.joined import WORTH, may_join, row_of
from keras_backprop.watch.layout import Column, Figure, Layout
from keras_backprop.watch.moments import BINS, JOINED
from keras_backprop.watch.numbers import Numbers, plain
from keras_backprop.watch.quantities import ACTIVATION, ALL, DELTA, GRADIENT, OF_EXAMPLES, WEIGHT

_MOMENTS = {
    "norm": ("squares",), "mean": ("mean",), "std": ("mean", "spread"), "min": ("min",), "max": ("max",), "zeros": ("zeros",),
    "nonfinite": ("finite",), "histogram": ("histogram",),
}  # fmt: skip
_WITH_SIGN = ("squares", "mean", "max", "min")
_OF_SCALARS = {ACTIVATION: "mean", DELTA: "sum"}
"""What is made of a number that each replica has, see `Column`, unless it is a sum over its part of the batch."""

_OTHER = {"mean": "sum", "sum": "mean"}

_WITH_COUNT = ("mean", "std", "zeros", "nonfinite")


class Step:
    """The figures of one step. A tensor that is two things, the delta of one link and ∂E/∂x of another, is measured once.

    Args:
        wanted: dict, kind of tensor -> set of quantities (`quantities.parsed`).
        several: bool, whether this is one of several replicas.
        at_once: bool, whether a tensor is measured where it is told of, while it is in the cache, and not when the row is made.
        natively: bool, whether operations of our own (`native/`) may measure.
    """

    def __init__(self, wanted: dict, several: bool, at_once: bool, natively: bool) -> None:
        self.wanted, self.several, self._at_once = wanted, several, at_once
        self.graph: Any = None
        self.paths: list = []
        self.scale: Any = None
        self.iterations: Any = None
        self.before: list = []
        self.read: dict = {}
        self.uses: dict = {}
        self._makers: dict = {}
        self._inputs: dict = {}
        self._figures: list = []
        self._columns: dict = {}
        self._known: dict = {}
        self._joinable: dict = {}
        self._measured: dict = {}
        moments = [{m for q in quantities for m in _MOMENTS.get(q, ())} for quantities in wanted.values()]
        self._many = any(len(one & JOINED) >= WORTH for one in moments)
        self._natively = natively
        self._numbers = Numbers()
        self._sums: list = []
        self._of_scalars: set = set()

    def link(self, link: Any) -> None:
        """The figures of an `ObservedLink`."""
        call, figures = link.call, []
        if isinstance(call.op, WeightRead):
            return
        self.scale = link.loss_scale
        self._drawn(link)
        if self.several and _is_sum(call):
            self._sums.append((call.inputs[0], call.outputs[0], link.upstream[0]))
        for k, y in enumerate(call.outputs):
            path = link.path if k == 0 else f"{link.path}[{k}]"
            if _is_real(y):
                figures += self._statistics(path, ACTIVATION, y)
                figures += self._of_units(path, call, y)
            if _is_real(link.upstream[k]):
                figures += self._statistics(path, DELTA, link.upstream[k])
        ups, downs = ([x for x in xs if _is_real(x)] for xs in (link.upstream, link.downstream))
        if "gain" in self.wanted[DELTA] and len(ups) == 1 and downs:
            columns = [self.column("squares", x, of=DELTA) for x in (*downs, *ups)]
            figures.append(Figure(link.path, DELTA, "gain", tuple(columns)))
        if "delta_by_step" in self.wanted[DELTA]:
            for k, delta in enumerate(call.deltas):
                if delta.shape[0] is not None:
                    path = link.path if k == 0 else f"{link.path}[{k}]"
                    column = self.column("by step", delta, delta.shape[0])
                    figures.append(Figure(path, DELTA, "delta_by_step", (column,)))
        self._figures = figures + self._figures  # links come in backward order

    def edges(self) -> list[tuple[str, str]]:
        """From which link to which tensors go, in the order of the forward pass."""
        made = self._makers
        return [(made[x], path) for path, xs in reversed(self._inputs.items()) for x in xs if x in made]

    def _drawn(self, link):
        """What a drawing needs to know: what goes where, and by which formula weights get their gradients."""
        call = link.call
        if all(x.shape.rank == 0 for x in call.inputs):
            self._of_scalars.update(id(y) for y in call.outputs)
        self._makers.update((id(y), link.path) for y in call.outputs)
        self._inputs[link.path] = [id(x) for x in call.inputs]
        formula = _formula(call.rule.backward.__doc__ or "")
        for name in link.weight_gradients:
            weight = weight_named(call, name)
            self.uses.setdefault(weight.path, (link.path, formula))
            value = weight.value
            if isinstance(value, tf.Tensor) and value.dtype == weight.dtype:  # what the forward pass has read
                self.read[id(weight)] = value

    def gradients(self, path: str, gradient: Any, given: Any, clipped: Any) -> None:
        """The figures of a weight's gradient.

        Args:
            path: str, the weight's.
            gradient, given, clipped: ∂E/∂W, what the optimizer is given, and what it makes of that; tensors, or None.
        """
        if gradient is not None:
            self._figures += self._statistics(path, GRADIENT, gradient, same=True)
        for quantity, x in (("scaled_norm", gradient), ("given_norm", given), ("clipped_norm", clipped)):
            if quantity in self.wanted[GRADIENT] and x is not None:
                self._figures.append(Figure(path, GRADIENT, quantity, (self.column("squares", x, same=True),)))

    def examples(self, result: Any, weights: list) -> None:
        """How the gradients of the single examples lie around their mean.

        Args:
            result: the `Backward` of the step.
            weights: list of variables, of each and of all of them together.

        Raises:
            ValueError: this is one of several replicas, or a weight's gradient exists as a sum over the batch only.
        """
        wanted = self.wanted[GRADIENT].intersection(OF_EXAMPLES)
        if not wanted or not weights:
            return
        if self.several:
            raise ValueError(
                f"The quantities {sorted(wanted)} are of the examples of one replica. Use them without a distribution strategy."
            )
        apart = result.apart()
        for path, some in [*((w.path, [w]) for w in weights), (ALL, list(weights))]:
            for quantity in ("example_variance", "noise_scale"):
                if quantity in wanted:
                    column = self.column("noise", (apart, *some), 2, same=True)
                    self._figures.append(Figure(path, GRADIENT, quantity, (column,)))
        if "example_cosine" in wanted:
            self._figures.append(Figure(ALL, GRADIENT, "example_cosine", (self.column("cosine", (apart,), same=True),)))

    def update(self, weight: Any, before: Any) -> None:
        """The change of a weight, which has been updated. `before`: its value before that."""
        columns = [self.column("change", (weight, before), same=True), self.column("squares", before, same=True)]
        self._figures.append(Figure(weight.path, WEIGHT, "update_ratio", tuple(columns)))

    def together(self, quantity: str, tensors: Any) -> None:
        """The norm of several gradients together."""
        columns = tuple(self.column("squares", x, same=True) for x in tensors if x is not None)
        if columns:
            self._figures.append(Figure(ALL, GRADIENT, quantity, columns))

    def layout(self, loss: Any, updated: Any) -> Layout:
        """The `Layout` of all that has been collected.

        Args:
            loss: scalar tensor.
            updated: scalar tensor, 1 if the weights have been updated, else 0; None where they always are.
        """
        loss = self.column("value", loss)
        scale = -1 if self.scale is None else self.column("value", self.scale, same=True)
        updated = -1 if updated is None else self.column("value", updated, same=True)
        summed = {id(t) for x, *ts in self._sums if id(x) not in self._of_scalars for t in ts}  # over the batch
        columns = [
            column._replace(scalar=_OTHER[column.scalar]) if column.scalar and id(x) in summed else column
            for _, column, x in self._columns.values()
        ]
        order = self._order()
        place = {number: i for i, number in enumerate(order)}
        figures = [f._replace(columns=tuple(place[number] for number in f.columns)) for f in self._figures]
        scale, updated, loss = (place.get(number, -1) for number in (scale, updated, loss))
        return Layout(
            tuple(columns[number] for number in order), tuple(figures), scale, updated, loss, self._is_double()
        )

    def row(self) -> Any:
        """The figures, a tensor of shape `(layout.width,)`."""
        numbers = Numbers()  # in another graph, perhaps
        columns = [(column, x) for _, column, x in self._columns.values()]

        def value(number):
            column, x = columns[number]
            return self._known[number] if number in self._known else numbers.of(column, x, self.scale)

        def otherwise(measured, columns):
            places = {column: i for i, column in enumerate(columns)}
            joinable = [(one.x, _places(one.columns, places, JOINED)) for one in measured]
            return row_of([1] * len(columns), joinable, lambda i: value(columns[i]), tf.float32)

        order = self._order()
        places = {number: i for i, number in enumerate(order)}
        joinable = [(plain(x), _places(names, places)) for x, names in self._joinable.values()]
        given = []
        if self._measured:
            vector, measured = native.vector_of(list(self._measured.values()), otherwise)
            given = [(vector, [places[number] for number in measured])]
        widths = [columns[number][0].width for number in order]
        dtype = tf.float64 if self._is_double() else tf.float32
        return row_of(widths, joinable, lambda i: value(order[i]), dtype, given)

    def _order(self):
        """The numbers of the columns, as they stand in a row: first those that come together, which then need not be moved."""
        first = native.columns_of(list(self._measured.values()))
        return first + sorted(set(range(len(self._columns))) - set(first))

    def column(self, name: str, x: Any, width: int = 1, same: bool = False, of: Any = None) -> int:
        """The number of a column, a new one if there is none of this moment of this tensor, an activation or a delta."""
        key = name, tuple(map(id, x)) if isinstance(x, tuple) else id(x)
        if key not in self._columns:  # which keeps the tensor, lest another be given its identity
            is_scalar = self.several and of in _OF_SCALARS and name in _WITH_SIGN and x.shape.rank == 0
            column = Column(name, width, same, _OF_SCALARS[of] if is_scalar else None)
            number = len(self._columns)
            self._columns[key] = number, column, x
            if self._natively and native.measures(name, x):
                native.Measured.of(name, x, self._measured, of_weight=same).columns[name] = number
            elif self._many and name in JOINED and may_join(x):
                self._joinable.setdefault(id(x), (x, {}))[1][name] = number
            elif self._at_once:
                self._known[number] = self._numbers.of(column, x, self.scale)
        return self._columns[key][0]

    def _statistics(self, path, of, x, same=False):
        figures = []
        size = x.shape.num_elements()
        for quantity, moments in _MOMENTS.items():
            if quantity not in self.wanted[of]:
                continue
            width = BINS if quantity == "histogram" else 1
            names = ["unscaled histogram"] if quantity == "histogram" and of != ACTIVATION else moments
            columns = [self.column(name, x, width, same, of) for name in names]
            if quantity in _WITH_COUNT and size is None:
                columns.append(self.column("count", x, same=same))
            figures.append(Figure(path, of, quantity, tuple(columns), size))
        return figures

    def _of_units(self, path, call, y):
        figures, wanted = [], self.wanted[ACTIVATION]
        if "dead" in wanted and units.can_die(call) and (y.shape.rank or 0) > 1 and y.shape[-1]:
            name, width = ("alive by unit", y.shape[-1]) if self.several else ("alive", 1)
            figures.append(Figure(path, ACTIVATION, "dead", (self.column(name, y, width),), y.shape[-1]))
        limits = units.saturation(call) if "saturated" in wanted else None
        if limits is not None:
            size = y.shape.num_elements()
            columns = [self.column("saturated", (limits, y))]
            columns += [self.column("count", y)] if size is None else []
            figures.append(Figure(path, ACTIVATION, "saturated", tuple(columns), size))
        return figures

    def _is_double(self):
        return any(_dtype(x) == tf.float64 for _, _, x in self._columns.values())


def _places(names, places, known=()):
    """The places of columns, of a dict name -> number; of those `known` only, if any are."""
    return {name: places[number] for name, number in names.items() if not known or name in known}


def _formula(docstring):
    """The formulas of a rule, which come first in its docstring, with commas between them."""
    formulas, _, _ = inspect.cleandoc(docstring).partition("\n\n")
    return ", ".join(one.strip(" ,") for one in re.split(r"\s{2,}|\n", formulas) if one.strip())


def _is_sum(call):
    """Whether a link adds up all that it is given to one number."""
    kind = call.op.operation.type if isinstance(call.op, Operation) else type(call.op).__name__
    return kind == "Sum" and call.outputs[0].shape.rank == 0 and len(call.inputs) > 0


def _is_real(x):
    return x is not None and x.dtype.is_floating


def _dtype(x):
    one = x[-1] if isinstance(x, tuple) else x
    return tf.as_dtype(getattr(one, "dtype", tf.float32))
