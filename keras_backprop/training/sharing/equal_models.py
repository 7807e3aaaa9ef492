"""One trace for all models that are alike: a search over settings builds the same network many times.

The trace of a step holds everything that its model is, but for the values of its variables, which it takes as inputs. So a
model that is alike (`likeness.py`) would be traced to the same operations. Keras's function for it is given a copy of them, with
its own variables as inputs, and its loops are those of the other model, called with its variables. Whether it is alike is looked
at when Keras would trace, and once more when its metrics and its optimizer have been built.

A few traces are kept, of small models, for as long as the program runs; with a trace, the variables that it was made with.
"""

import collections
import threading
import weakref
from typing import Any

import keras
import tensorflow as tf

from keras_backprop import _keras, _tensorflow
from keras_backprop.training.sharing.likeness import Description, NotComparableError
from keras_backprop.training.snapshot import LARGEST, size
from keras_backprop.training.update import lean_updates

KEPT = 8
"""So many traces are kept, those that were used last, and so many loops for each."""

_OPTIMIZERS = {
    getattr(keras.optimizers, name)
    for name in (
        "SGD", "RMSprop", "Adam", "AdamW", "Adadelta", "Adagrad", "Adamax", "Adafactor", "Nadam", "Ftrl", "Lion", "Lamb",
    )
}  # fmt: skip
"""Those that build what their update needs, and do nothing else, when they are built."""

_traces: collections.OrderedDict = collections.OrderedDict()
_lock = threading.Lock()


def forget():
    """Keep no trace, so that the next model is traced, whatever it is like."""
    with _lock:
        _traces.clear()


class Trace:
    """What is kept of the trace of a step.

    Args:
        step: the `tf.ConcreteFunction`.
        after: `Description` of its model when it had been traced.
    """

    def __init__(self, step, after):
        self.step, self.words, self.handles = step, after.words, handles(after.variables)
        self._loops: collections.OrderedDict = collections.OrderedDict()

    def outputs(self, variables, batch):
        """Put a copy of the step's operations into the graph at hand.

        Args:
            variables: list of `keras.Variable`, those in the places of the trace's own.
            batch: nested tensors.

        Returns:
            What the step returns; None if the trace is of batches of another shape.
        """
        given = [x for x in tf.nest.flatten(batch) if x is not None]
        places = self.step.inputs[: len(given)]
        if [(x.dtype, x.shape.as_list()) for x in given] != [(x.dtype, x.shape.as_list()) for x in places]:
            return None
        own = exchanged(self.step.captured_inputs, self.handles, variables)
        wanted = tf.nest.flatten(self.step.structured_outputs)
        operations = _tensorflow.with_effects(self.step.graph, wanted)
        inputs = list(zip(self.step.inputs, [*given, *own], strict=True))
        copies = _tensorflow.copy_operations(operations, inputs, True, wanted)
        return tf.nest.pack_sequence_as(self.step.structured_outputs, copies)

    def loop(self, kind, variables, make, move):
        """A compiled loop around the step: that of another model, if there is one.

        Args:
            kind: hashable.
            variables: list of `keras.Variable`, as above.
            make: function without arguments that traces it.
            move: function (loop, function list of handles -> list of handles), which makes one like it for these variables.
        """
        with _lock:
            known = self._loops.get(kind)
        if known is not None:
            loop, before = known
            return move(loop, lambda captured: exchanged(captured, before, variables))
        loop = make()
        if _takes_only(loop.captured, variables):
            with _lock:
                self._loops[kind] = loop.of_no_model(), handles(variables)
                if len(self._loops) > KEPT:
                    self._loops.popitem(last=False)
        return loop


class Traces:
    """The traces of one model, and which of them are those of equal models."""

    def __init__(self, model):
        self._model = model
        self._known: Any = weakref.WeakKeyDictionary()
        """For the `tf.function` of a step a dict, batch -> (its trace, the `Trace` and variables to share or None)."""
        self._copied: Any = None

    def get(self, what, step, batch):
        """The trace of a step for such batches: a `tf.ConcreteFunction`, which Keras's loop runs as well.

        Args:
            what: str, "train" or "test".
            step: the `tf.function` of one step, as Keras has made it.
            batch: nested `tf.TypeSpec`.
        """
        known = self._known.setdefault(step, {})
        if str(batch) in known:
            return step.get_concrete_function(batch)
        before = self._description(batch)
        words = before and (what, before.words)
        with _lock:
            found = words and _traces.get(words)
            if found:
                _traces.move_to_end(words)
        variables = self._as_traced(found, batch) if found else None
        self._copied = None if variables is None else [found, variables, False]
        try:
            with _tensorflow.constants_made_at_once(), lean_updates(self._model):
                made = step.get_concrete_function(batch)
        finally:
            copied, self._copied = self._copied, None
        shared: Any = None
        if copied is not None and copied[2]:
            shared = found, variables
        elif before is not None:
            shared = self._kept(words, made, batch)
        known[str(batch)] = made, shared
        return made

    def outputs(self, batch):
        """What a step returns, if it is being traced and an equal model has been traced before; None else."""
        if self._copied is None or tf.executing_eagerly():
            return None
        found, variables, _ = self._copied
        outputs = found.outputs(variables, batch)
        self._copied[2] = outputs is not None
        if outputs is not None:
            _keras.mark_called(self._model)
        return outputs

    def loop(self, kind, steps, make, move):
        """As `Trace.loop`, for steps that `get` has returned."""
        shared = dict(pair for known in self._known.values() for pair in known.values())
        if any(shared.get(step) is None for step in steps):
            return make()
        traces = [shared[step][0] for step in steps]
        variables = shared[steps[-1]][1]  # the latest description has all that was built
        return traces[0].loop((kind, *traces[1:]), variables, make, move)

    def _description(self, batch):
        model = self._model
        if not model.built or type(model.optimizer) not in _OPTIMIZERS or _has_more(model):
            return None
        if not all(isinstance(x, (tf.TensorSpec, type(None))) for x in tf.nest.flatten(batch)) or size(model) > LARGEST:
            return None
        try:
            return Description(model, batch)
        except NotComparableError:
            return None

    def _as_traced(self, trace, batch):
        """Build the metrics, the loss and the optimizer.

        Returns:
            The variables, if the model then is like the traced one; else None, and Keras builds and traces as always.
        """
        model = self._model
        built = _keras.build_metrics_and_loss(model, batch)
        if not model.optimizer.built:
            _keras.build_optimizer(model.optimizer, model.trainable_variables)
        after = self._description(batch)
        if after is not None and after.words == trace.words:
            return after.variables
        _keras.undo_building(built)
        return None

    def _kept(self, words, step, batch):
        """Keep a trace for other models. Returns it and the variables of this one; None if it is not for others."""
        after = self._description(batch)
        if after is None or not _takes_only(step.captured_inputs, after.variables):
            return None
        if _tensorflow.draws_by_itself(step.graph):
            return None
        trace = Trace(step, after)
        with _lock:
            _traces[words] = trace
            if len(_traces) > KEPT:
                _traces.popitem(last=False)
        return trace, after.variables


def _has_more(model):
    """Whether a step depends on more than its model and its batch, or is compiled by XLA as one."""
    return bool(
        model._scopes or model._observers or model.compiled_rules or model.compiled_gradients
        or model.jit_compile or tf.distribute.has_strategy() or _keras.graph_of(model) is None
        or _tensorflow.operations_are_watched()
    )  # fmt: skip


def handles(variables):
    """What a function takes of variables as inputs, a list of tensors."""
    return [v.value.handle for v in variables]


def exchanged(captured, before, variables):
    """Handles, with those of other variables in the places of those of before."""
    places = {id(handle): place for place, handle in enumerate(before)}
    return [variables[places[id(x)]].value.handle if _is_handle(x) else x for x in captured]


def _takes_only(captured, variables):
    """Whether what a function takes besides its arguments are these variables, and constants."""
    known = set(map(id, handles(variables)))
    return all(id(x) in known for x in captured if _is_handle(x))


def _is_handle(x):
    """Whether it is a variable or another thing with a state, rather than numbers that are what they are."""
    return x.dtype in (tf.resource, tf.variant)
