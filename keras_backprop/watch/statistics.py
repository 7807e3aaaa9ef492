"""The observer that measures every link, weight and update, and keeps the figures of the steps that are noted."""

import threading
from typing import Any

import keras
import tensorflow as tf

from keras_backprop import _keras, _tensorflow, replicas
from keras_backprop.observers import BackwardObserver
from keras_backprop.training.update import unwrapped
from keras_backprop.watch.layout import Rows
from keras_backprop.watch.quantities import GRADIENT, OF_EXAMPLES, WEIGHT
from keras_backprop.watch.step import Step
from keras_backprop.watch.table import Table, first_of, local, outside, parts, variable


class Statistics(BackwardObserver):
    """Figures of the backward pass, of every step or of every so-many-th, in rings that are read between calls of the step.

    Args:
        selection: `Selection`, which links and weights.
        wanted: dict, kind of tensor -> set of quantities (`quantities.parsed`).
        always: bool, whether every step is noted; if not, `begin` says which.
        often: bool, whether so many are that it pays to compile an operation for them (`native/`).

    Attributes:
        edges: list of (path, path), from which link to which tensors go.
        uses: dict, path of a weight -> (path of the link that uses it last, the formulas of its rule).
    """

    def __init__(self, selection: Any, wanted: dict, always: bool, often: bool) -> None:
        super().__init__()
        self.selection, self.wanted, self.always, self._often = selection, wanted, always, often
        self.others: list = []
        self._tables: dict = {}
        self._tracing, self._lock = threading.local(), threading.Lock()
        self._step: Any = None
        self._when: Any = None
        self._copies: dict = {}
        self.edges: list = []
        self.uses: dict = {}

    def begin(self, strategy: Any, every: int, first: int, rows: Any, others: list) -> None:
        """Before training.

        Args:
            strategy: the model's `tf.distribute.Strategy`.
            every, first: int, the steps first, first + every, … from now on are noted.
            rows: how many there may be between two readings, see `Table`.
            others: list of str, paths that may be selected although the error does not go back through them.
        """
        self._strategy, self._capacity, self.others = strategy, rows, others
        self._tracing = threading.local()
        if self._step is None:
            with strategy.scope():
                self._step, self._every, self._offset = (variable(0, tf.int64) for _ in range(3))
        for table in self._tables.values():
            table.skip()
            table.hold(rows)
        when = every, -(self.steps + first) % every
        if when != self._when:
            for every_, offset in zip(parts(self._every), parts(self._offset), strict=True):
                every_.assign(when[0])
                offset.assign(when[1])
        self._when = when

    @property
    def steps(self) -> int:
        """How many steps there have been."""
        return 0 if self._step is None else int(first_of(self._step))

    @property
    def variables(self) -> list[Any]:
        counters = [] if self._step is None else [self._step, self._every, self._offset]
        return [
            *counters,
            *(v for t in self._tables.values() for v in t.variables),
        ]  # copies of weights are a step's own

    @property
    def notes(self) -> list[Any]:
        """What only a step that is noted writes to (see `training/loops/unnoted.py`); nothing where each is noted."""
        if self.always:
            return []
        return [*(v for t in self._tables.values() for v in t.variables), *(copy for _, copy in self._copies.values())]

    def until_noted(self) -> Any:
        """How many of the next steps are not noted, an integer tensor."""
        return -(local(self._step) + local(self._offset)) % local(self._every)

    @property
    def lost(self) -> int:
        """How many noted steps were written over before they were read."""
        return sum(table.lost for table in self._tables.values())

    def collect(self, before: Any = None, last: bool = False) -> list[Any]:
        """The figures of steps that have not been read yet: a list of (steps, `Rows`).

        Args:
            before: int, of steps before this one only; None for all.
            last: bool, of the last step only.
        """
        read = [(table, *table.read(before, last)) for table in self._tables.values()]
        found = [(steps, Rows(table.layout, rows)) for table, steps, rows in read if len(steps)]
        if last and found:
            found = [max(found, key=lambda pair: pair[0][-1])]
        return found

    def observe(self, link: Any) -> None:
        step = self._current()
        step.paths.append(link.path)
        if self.selection(link.path):
            step.link(link)

    def before_update(self, update: Any) -> None:
        step, result, wanted = self._current(), update.result, self.wanted[GRADIENT]
        self.selection.check([*step.paths, *(w.path for w in result.weights)], self.others)
        step.scale, step.iterations = result.scale, _iterations(update.optimizer)
        gradients = given = clipped = [None] * len(result.weights)
        if wanted - _OF_WHAT_IS_GIVEN:
            gradients = _over_replicas(result.gradients)
        if "given_norm" in wanted:
            is_same = update.given is result.gradients and wanted - _OF_WHAT_IS_GIVEN
            given = gradients if is_same else _over_replicas(update.given)
        if {"clipped_norm", "clipped_global_norm"} & wanted:
            clipped = _over_replicas(as_applied(update))
        for weight, *stages in zip(result.weights, gradients, given, clipped, strict=True):
            if self.selection(weight.path):
                step.gradients(weight.path, *stages)
        step.examples(result, [w for w in result.weights if self.selection(w.path)])
        if "global_norm" in wanted:
            step.together("global_norm", gradients)
        if "clipped_global_norm" in wanted:
            step.together("clipped_global_norm", clipped)
        if "update_ratio" in self.wanted[WEIGHT]:
            step.before = self._values([w for w in result.weights if self.selection(w.path)], step)

    def after_update(self, update: Any) -> None:
        step, updated = self._current(), None
        self._tracing.step = None
        for weight, before in step.before:
            step.update(weight, before)
        if step.iterations is not None:
            updated = tf.cast(_iterations(update.optimizer) - step.iterations, tf.float32)
        self.edges, self.uses = step.edges(), step.uses
        self._write(self._table(step.layout(update.result.loss, updated)), step)

    def _current(self):
        """What is being collected in this thread, for the graph that is being traced."""
        graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
        step = getattr(self._tracing, "step", None)
        if step is None or step.graph is not graph:
            several = replicas.several()
            natively = self._often and not several
            step = self._tracing.step = Step(self.wanted, several, self.always or several, natively)
            step.graph = graph
        return step

    def _due(self):
        return tf.equal(self.until_noted(), 0)

    def _values(self, weights, step):
        """The weights as they are, a list of (weight, value)."""
        if self.always or step.several:
            return [(w, step.read[id(w)] if id(w) in step.read else tf.convert_to_tensor(w.value)) for w in weights]
        # A value that is kept makes the optimizer copy the weight: here only the steps that are noted copy it, into variables.
        with self._lock:
            for w in weights:
                if id(w) not in self._copies:
                    copy = outside(lambda w=w: tf.Variable(tf.zeros(w.shape, w.value.dtype), trainable=False))
                    self._copies[id(w)] = w, copy
        pairs = [self._copies[id(w)] for w in weights]
        _tensorflow.once_if(self._due(), lambda: [copy.assign(w.value) for w, copy in pairs])
        return pairs

    def _table(self, layout):
        with self._lock:
            if layout not in self._tables:
                self._tables[layout] = Table(layout, self._capacity, self._strategy)
            return self._tables[layout]

    def _write(self, table, step):
        number = local(self._step)
        if self.always:
            table.write(step.row(), number.read_value())
        elif step.several:  # replicas wait for each other, which they cannot do inside of a loop
            table.write(step.row(), number.read_value(), wanted=self._due())
        else:
            _tensorflow.once_if(self._due(), lambda: table.write(step.row(), number.read_value()))
        number.assign_add(1)


_OF_WHAT_IS_GIVEN = {"given_norm", "clipped_norm", "clipped_global_norm", *OF_EXAMPLES}
"""What is known without the gradients as the rules have made them."""


def as_applied(update: Any) -> list[Any]:
    """What an optimizer makes of the gradients that it is given, before it updates: without the loss scale, added up over the
    steps that it accumulates, in the step that updates, and clipped.

    Args:
        update: an `ObservedUpdate`.

    Returns:
        list of tensors, `tf.IndexedSlices` and None.
    """
    result, optimizer = update.result, update.optimizer
    inner, present = unwrapped(optimizer), [i for i, g in enumerate(update.given) if g is not None]
    gradients = [update.given[i] for i in present]
    if result.scale is not None:
        gradients = [g / tf.cast(result.scale, g.dtype) for g in gradients]
    if steps := inner.gradient_accumulation_steps:
        if not optimizer.built:
            optimizer.build(result.weights)
        sums = [_keras.accumulated(inner, result.weights[i]) for i in present]
        gradients = [(tf.convert_to_tensor(g) + sum_.value) / steps for g, sum_ in zip(gradients, sums, strict=True)]
    applied = dict(zip(present, _keras.clipped(inner, gradients), strict=True))
    return [applied.get(i) for i in range(len(update.given))]


def _over_replicas(gradients):
    """The gradients of the whole batch, of each replica's."""
    if not replicas.several():
        return gradients
    present = [i for i, g in enumerate(gradients) if g is not None]
    context = tf.distribute.get_replica_context()
    dense = [tf.convert_to_tensor(gradients[i]) for i in present]
    summed = dict(zip(present, context.all_reduce(tf.distribute.ReduceOp.SUM, dense), strict=True)) if dense else {}
    return [summed.get(i) for i in range(len(gradients))]


def _iterations(optimizer):
    """How many updates there have been, if a step may make none; else None."""
    inner = unwrapped(optimizer)
    if inner is optimizer and not inner.gradient_accumulation_steps:
        return None
    return tf.identity(keras.ops.convert_to_tensor(inner.iterations))
