"""What surrounds a call: how functions run, on which device, who is told, what is within reach."""

import contextlib
import threading

import tensorflow as tf
from tensorflow.python.autograph.core import config as autograph
from tensorflow.python.eager import context, def_function
from tensorflow.python.eager.polymorphic_function import eager_function_run as _flags
from tensorflow.python.framework.ops import EagerTensor

from keras_backprop import _keras

# AutoGraph rewrites whatever a user's `tf.function` calls, library code too; there is nothing to rewrite here.
autograph.CONVERSION_RULES = (autograph.DoNotConvert("keras_backprop"), *autograph.CONVERSION_RULES)


class _Flag:
    """Stands in for TensorFlow's flag, which is one for the process: in a thread that has set it for itself it is that."""

    def __init__(self, before):
        self.before, self.users = before, 0

    def __bool__(self):
        return _wanted()[-1] if _wanted() else self.before


_lock, _local = threading.Lock(), threading.local()


def _wanted():
    """What this thread has set for itself, outermost first."""
    return vars(_local).setdefault("wanted", [])


def _set(wanted):
    _wanted()[-1] = bool(wanted)


@contextlib.contextmanager
def functions_run_eagerly(wanted=True):
    """For the duration of the block, a `tf.function` runs operation by operation; or, if not `wanted`, compiled.

    Other threads are not concerned: they may train, or serve, or be in a block of their own.
    """
    with _lock:
        flag = _flags.RUN_FUNCTIONS_EAGERLY
        if not isinstance(flag, _Flag):
            flag = _flags.RUN_FUNCTIONS_EAGERLY = _Flag(flag)
        flag.users += 1
    stack = contextlib.ExitStack()
    if not _wanted():  # TensorFlow sets the flag back and forth itself, in `tf.vectorized_map` for one
        for module in (_flags, def_function):
            its_own = {"functions_run_eagerly": lambda: _wanted()[-1], "run_functions_eagerly": _set}
            stack.enter_context(_keras.replaced(module, **its_own))
    _wanted().append(wanted)
    try:
        with stack:
            yield
    finally:
        _wanted().pop()
        with _lock:
            flag.users -= 1
            if not flag.users and _flags.RUN_FUNCTIONS_EAGERLY is flag:
                _flags.RUN_FUNCTIONS_EAGERLY = flag.before


def device():
    """On which device the operations of this thread are asked to run; empty where nothing was asked."""
    return context.context().device_name


def operations_are_watched():
    """Whether something is told of every operation that is made, and may put others beside it: checks of numbers, a dump."""
    return bool(context.context().op_callbacks)


def is_within_reach(x):
    """Whether there is a tensor and it can be used here: not if it was made in a function that is traced inside of this one."""
    if isinstance(x, EagerTensor):
        return True
    graph = None if x is None or tf.executing_eagerly() else tf.compat.v1.get_default_graph()
    while graph is not None and graph is not x.graph:
        graph = getattr(graph, "outer_graph", None)
    return graph is not None
