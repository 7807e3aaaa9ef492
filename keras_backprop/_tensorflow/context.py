"""What surrounds a call: how functions run, on which device, who is told, what is within reach."""

import contextlib

import tensorflow as tf
from tensorflow.python.autograph.core import config as autograph
from tensorflow.python.eager import context
from tensorflow.python.framework.ops import EagerTensor

# AutoGraph rewrites whatever a user's `tf.function` calls, library code too; there is nothing to rewrite here.
autograph.CONVERSION_RULES = (autograph.DoNotConvert("keras_backprop"), *autograph.CONVERSION_RULES)


@contextlib.contextmanager
def functions_run_eagerly(wanted=True):
    """For the duration of the block, a `tf.function` runs operation by operation; or, if not `wanted`, compiled."""
    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(wanted)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


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
