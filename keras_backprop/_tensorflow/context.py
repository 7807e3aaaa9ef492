"""What surrounds a call: how functions run, on which device, who is told, what is within reach."""

import contextlib
import functools
import secrets
import threading

import tensorflow as tf
from tensorflow.python.autograph.core import config as autograph
from tensorflow.python.eager import context, def_function, forwardprop_util, record
from tensorflow.python.eager.polymorphic_function import eager_function_run
from tensorflow.python.eager.polymorphic_function.polymorphic_function import Function
from tensorflow.python.framework.ops import EagerTensor
from tensorflow.python.ops import gradients_util

from keras_backprop import _keras

# AutoGraph rewrites whatever a user's `tf.function` calls, library code too; there is nothing to rewrite here.
autograph.CONVERSION_RULES = (autograph.DoNotConvert("keras_backprop"), *autograph.CONVERSION_RULES)


_local = threading.local()


def _own():
    """What this thread wants of functions, True or False; None where it is not in a block of `functions_run_eagerly`."""
    return getattr(_local, "wanted", None)


def _answering(flag):
    """Stands in for what reads TensorFlow's flag, which is one for the process: in a block, the answer is the thread's."""

    @functools.wraps(flag)
    def answer(*args):
        return flag(*args) if _own() is None else _own()

    return answer


def _setting(set_flag):
    """TensorFlow sets the flag back and forth itself, in `tf.vectorized_map` for one: in a block, the thread's answer."""

    @functools.wraps(set_flag)
    def set_own(run_eagerly):
        if _own() is None:
            set_flag(run_eagerly)
        else:
            _local.wanted = bool(run_eagerly)

    return set_own


Function._run_functions_eagerly = property(_answering(Function._run_functions_eagerly.fget))
for _module in (eager_function_run, def_function):  # not `tf.config`, by which people read and set the flag itself
    _module.functions_run_eagerly = _answering(_module.functions_run_eagerly)
    _module.run_functions_eagerly = _setting(_module.run_functions_eagerly)


@contextlib.contextmanager
def functions_run_eagerly(wanted=True):
    """For the duration of the block, a `tf.function` runs operation by operation; or, if not `wanted`, compiled.

    Other threads are not concerned: they may train, or serve, or be in a block of their own. Nor is `tf.config`.
    """
    before = _own()
    try:
        _local.wanted = bool(wanted)
        yield
    finally:
        _local.wanted = before


@contextlib.contextmanager
def random_numbers_repeated():
    """For the duration of the block, eager operations with a random state of their own can be made to draw the same again.

    After it the seed of the process is what it was, and the numbers made of it go on where they were.

    Yields:
        function () after each call of which they draw the same numbers.
    """
    now, seed, repeated = context.context(), secrets.randbits(31), False
    seed_before, numbers = now._seed, getattr(now, "_rng", None)  # of a seed that was set
    numbers_before = None if numbers is None else numbers.getstate()

    def repeat():
        nonlocal repeated
        repeated = True
        tf.random.set_seed(seed)

    try:
        yield repeat
    finally:
        if repeated:  # not else: operations with seeds of their own would begin anew
            now._set_global_seed(seed_before)
            now._rng = numbers
        if numbers is not None:
            numbers.setstate(numbers_before)


def _one_order_more(orders):
    """Stands in for what tells how often tapes may differentiate: none, once, or several times."""

    @functools.wraps(orders)
    def answer(tensors):
        several = gradients_util.POSSIBLE_GRADIENT_TYPES_HIGHER_ORDER
        return several if orders(tensors) and getattr(_local, "differentiated", False) else orders(tensors)

    return answer


gradients_util.PossibleTapeGradientTypes = _one_order_more(gradients_util.PossibleTapeGradientTypes)


@contextlib.contextmanager
def differentiated_under_tapes():
    """For the duration of the block, what runs is going to be differentiated, and the tapes of before see how.

    Loops, branches and calls of functions in a graph put out more when they are differentiated, of which a tape that has noted
    them already would not know: its second derivatives would lack all that goes through. TensorFlow runs them in a function
    where it counts two tapes; our backward pass is no tape, and counts as one here.
    """
    before = getattr(_local, "differentiated", False)
    try:
        _local.differentiated = before or record.could_possibly_record()
        yield
    finally:
        _local.differentiated = before


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


def is_taped(values):
    """Whether a `tf.GradientTape` or a `tf.autodiff.ForwardAccumulator` of this thread follows one of these values.

    Args:
        values: list. Sparse and ragged tensors count as the tensors that they consist of; what is no tensor is not followed.
    """
    if not _keras.current(record, "could_possibly_record")():
        return False
    tensors = [x for x in tf.nest.flatten(values, expand_composites=True) if isinstance(x, tf.Tensor)]
    return record.should_record_backprop(tensors) or has_tangents(tensors)


def has_tangents(tensors):
    """Whether a `tf.autodiff.ForwardAccumulator` of this thread follows one of these tensors."""
    return bool(forwardprop_util.pack_tangents(tensors).tangents)
