"""What a tf.data pipeline takes from outside: resources that its operations use, and those that the Python uses which it runs."""

import contextlib
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import tensorflow as tf
from tensorflow.python.ops.script_ops import FuncRegistry

from keras_backprop._tensorflow.execution import executed_by
from keras_backprop._tensorflow.graphs import operations_within

_RUN_PYTHON = ("EagerPyFunc", "PyFunc", "PyFuncStateless")


class Uses:
    """Notes which variables, tables and other resources a pipeline uses."""

    def __init__(self) -> None:
        self._handles: Any = weakref.WeakValueDictionary()  # by their `id`s, which others get when they are gone
        self.tokens: set = set()  # by which TensorFlow knows the functions in Python

    def note_operations(self, dataset: Any) -> None:
        """Note what the operations of a `tf.data.Dataset` use, and which Python it runs."""
        for function in _functions_of(dataset):
            self._handles.update((id(x), x) for x in function.captured_inputs if x.dtype == tf.resource)
            within = operations_within(function.graph)
            self.tokens.update(tf.compat.as_str(x.get_attr("token")) for x in within if x.type in _RUN_PYTHON)

    def any_of(self, numbers: Any) -> bool:
        """Whether it uses one of the resources whose handles have these numbers (`id`)."""
        return any(number in self._handles for number in numbers)

    def noting(self) -> Any:
        """A context: what is used by operations that this thread runs eagerly is noted."""
        return executed_by(self._execute)

    @contextlib.contextmanager
    def noting_python(self) -> Iterator[None]:
        """A context: what is used by Python that the pipeline runs is noted, whatever thread it runs in."""
        if not self.tokens:
            yield
            return
        with _lock:
            _listening.append(self)
            FuncRegistry.__call__ = _call
        try:
            yield
        finally:
            with _lock:
                _listening.remove(self)
                if not _listening:
                    FuncRegistry.__call__ = _call_of_tensorflow

    def _execute(self, run, kind, inputs):
        for x in inputs:
            handle = x.handle if isinstance(x, tf.Variable) else x  # which the operation reads by itself
            if isinstance(handle, tf.Tensor) and handle.dtype == tf.resource:
                self._handles[id(handle)] = handle
        return run()


def _functions_of(dataset):
    datasets, seen = [dataset], {}
    while datasets:
        one = datasets.pop()
        if id(one) in seen:  # a data set may be an input of several
            continue
        seen[id(one)] = one
        datasets += one._inputs()
        yield from (wrapper.function for wrapper in one._functions())


_lock = threading.Lock()
_listening: list = []
_call_of_tensorflow = FuncRegistry.__call__


def _call(registry, token, *given):
    with contextlib.ExitStack() as stack:
        for uses in [one for one in _listening if token in one.tokens]:
            stack.enter_context(uses.noting())
        return _call_of_tensorflow(registry, token, *given)
