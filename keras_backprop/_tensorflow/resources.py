"""What operations that a thread runs eagerly may keep until they run again: variables, tables, queues, random numbers."""

import contextlib
import functools
import re
import weakref
from typing import Any, NamedTuple

import keras
import tensorflow as tf
from tensorflow.python.eager import context
from tensorflow.python.framework import op_def_registry
from tensorflow.python.framework.ops import EagerTensor

from keras_backprop._tensorflow.context import functions_run_eagerly
from keras_backprop._tensorflow.execution import executed_by

_CHANGES = re.compile(
    "LookupTable(Insert|Remove|Import)|Queue(Enqueue|Dequeue)|(OrderedMap|Map)?(Stage|Unstage)|Barrier(Insert|Take)"
)
"""How the types of operations begin that change a table or a queue."""

_GENERATES = re.compile("Rng|Stateful(Uniform|Standard|Truncated|Random)")
"""And of those that take the state of a `tf.random.Generator`."""


class Resources:
    """Notes the variables that operations take in the block, in this thread, whoever made them and by whatever function, and
    what they were before. A `tf.function` runs operation by operation.

    with Resources(known) as taken:
        …
    taken.variables()

    Args:
        known: list of Keras or TensorFlow variables, of which nothing is noted.

    Attributes:
        generators: set of the numbers (`numbers_of`) of variables that are states of random numbers.
        draws: bool, whether an operation has drawn random numbers whose state is in no variable; who reads it may set it back.
    """

    def __init__(self, known):
        self._known = {number for variable in known for number in numbers_of(variable)}
        self._noted: dict = {}
        self._changes: dict = {}  # (type of an operation, name of what it has changed) -> function () -> a handle, if it is there
        self._types = functools.cache(_types_in)
        self.generators: set = set()
        self.draws = False
        self._stack = contextlib.ExitStack()

    def __enter__(self):
        self._stack.enter_context(executed_by(self._execute))
        self._stack.enter_context(functions_run_eagerly())
        return self

    def __exit__(self, *exception):
        return self._stack.__exit__(*exception)

    def variables(self):
        """list of (`TakenVariable`, tensor): those that are still there, each with its value before; of one that was made in the
        block, its first."""
        return [(TakenVariable(one.of()), one.before) for one in self._noted.values() if one.of() is not None]

    def changed(self):
        """set of str: the types of operations that have changed tables and queues which are still there."""
        return {kind for (kind, _), of in self._changes.items() if of() is not None}

    def _execute(self, run, kind, inputs):
        taken = [x for x in inputs if isinstance(x, EagerTensor) and x.dtype == tf.resource]
        handles = [x for x in taken if _is_of_variable(x)]
        kinds = {kind}.union(*map(self._types, _functions_among((kind, *inputs))))
        made = [handle for handle in handles if not self._note(handle)]
        result = run()
        for handle in made:
            self._note(handle)
        self.draws = self.draws or any(map(_draws, kinds))
        if any(map(_GENERATES.match, kinds)):
            self.generators |= {id(handle) for handle in handles}
        for one in filter(_CHANGES.match, kinds):
            self._note_change(one, [x for x in taken if not _is_of_variable(x)])
        return result

    def _note_change(self, kind, handles):
        for handle in handles:
            name = str(handle)
            noted = self._changes.setdefault((kind, name), weakref.ref(handle))
            if noted() is not handle and 'container="Anonymous"' not in name:
                self._changes[kind, name] = _always  # it was there by its name when no handle was
        if not handles:  # it has a name alone, or is a function's own
            self._changes[kind, ""] = _always

    def _note(self, handle):
        """Returns False where the variable is not there yet."""
        number = id(handle)
        noted = self._noted.get(number)
        if number in self._known or (noted is not None and noted.of() is handle):
            return True
        self._known.add(number)  # for the operations that follow here
        try:
            there = bool(tf.raw_ops.VarIsInitializedOp(resource=handle))
            if there:
                self._noted[number] = _Noted(weakref.ref(handle), TakenVariable(handle).value)
            return there
        finally:
            self._known.discard(number)


class _Noted(NamedTuple):
    of: Any  # a weak reference: what is gone after a step keeps nothing
    before: Any


def numbers_of(variable):
    """By which a variable is known, of Keras, TensorFlow, or several replicas: a set of ints."""
    if isinstance(variable, TakenVariable):
        return {variable.number}
    value = variable.value if isinstance(variable, keras.Variable) else variable
    return {id(one.handle) for one in getattr(value, "values", (value,))}


def _is_of_variable(handle):
    return bool(handle._handle_data and handle._handle_data.is_set)


def _always():
    return True


def _functions_among(given):
    """The names of functions that are run as operations, or that operations are given as attributes."""
    for one in given:
        name = one if isinstance(one, str) or tf.is_tensor(one) else getattr(one, "name", None)
        if isinstance(name, (str, bytes)) and context.context().has_function(name):
            yield tf.compat.as_str(name)


def _types_in(name):
    """The types of the operations of a function, and of the functions that it calls."""
    types, names, seen = set(), [name], set()
    while names:
        name = names.pop()
        if name in seen or not context.context().has_function(name):
            continue
        seen.add(name)
        for node in context.context().get_function_def(name).node_def:
            types.add(node.op)
            names += [node.op, *(f.name for x in node.attr.values() for f in (x.func, *x.list.func))]
    return types


@functools.cache
def _draws(kind):
    """Whether operations of this type draw random numbers by a state of their own."""
    operation = op_def_registry.get(kind)
    return operation is not None and operation.is_stateful and "seed2" in {one.name for one in operation.attr}


class TakenVariable:
    """A variable of which the handle is known.

    Args:
        handle: eager tensor, of resources.
    """

    def __init__(self, handle):
        self._handle, self.number = handle, id(handle)
        (self._of,) = handle._handle_data.shape_and_type
        self.dtype = tf.as_dtype(self._of.dtype).name
        self.path = f"a variable of shape {tuple(tf.TensorShape(self._of.shape))} that no layer owns"

    @property
    def value(self):
        """A tensor."""
        return tf.raw_ops.ReadVariableOp(resource=self._handle, dtype=self.dtype)

    def assign(self, value):
        """Set it to a tensor."""
        tf.raw_ops.AssignVariableOp(resource=self._handle, value=value)
