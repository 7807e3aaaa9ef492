"""In how many threads the operations of a function run."""

import contextlib
import functools

import tensorflow as tf
from tensorflow.python.eager.context import context, function_executor_type


@contextlib.contextmanager
def one_thread(wanted=True):
    """A context: the functions that are traced or called in it run their operations in one thread.

    TensorFlow's graph optimizer, which would look at them before their first call, is left out. It takes as long as 400 small
    steps and does not see into the bodies of loops, where all the operations are.
    """
    if not wanted:
        yield
        return
    with function_executor_type("SINGLE_THREADED_EXECUTOR"):
        options = context().function_call_options  # of this thread; restored at the end of the block
        options.config_proto_serialized = _without_graph_optimizer(options.config_proto_serialized)
        yield


@functools.cache
def _without_graph_optimizer(serialized):
    config = tf.compat.v1.ConfigProto.FromString(serialized)
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    return config
