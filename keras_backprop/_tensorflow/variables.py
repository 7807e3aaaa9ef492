"""Variables: their values, and how they come into being while a function is traced."""

import contextlib
import threading

import tensorflow as tf
from tensorflow.python.eager.polymorphic_function import polymorphic_function
from tensorflow.python.framework.func_graph import FuncGraph
from tensorflow.python.ops.resource_variable_ops import ResourceVariable

from keras_backprop import _keras


def value_of(variable):
    """The value of a `tf.Variable`: as `read_value`, outside of a function in a tenth of the time for a plain variable."""
    if type(variable) is not ResourceVariable:
        return variable.read_value()
    return tf.raw_ops.ReadVariableOp(resource=variable.handle, dtype=variable.dtype)


@contextlib.contextmanager
def variables_made_at_once():
    """For the duration of the block, in a function that is being traced, variables come into being at once.

    TensorFlow would let them become part of the function, and trace it a second time without them. A variable whose first
    value is computed by the function itself still does.
    """
    if tf.executing_eagerly() or tf.distribute.has_strategy():
        yield
        return

    def create(next_creator, **kwargs):
        if isinstance(kwargs.get("initial_value"), tf.Tensor):
            return next_creator(**kwargs)
        with tf.init_scope():
            if not tf.executing_eagerly():
                return next_creator(**kwargs)
            _made.number += 1
            return _plain_variable(kwargs)

    with tf.variable_creator_scope(create):
        yield


@contextlib.contextmanager
def traced_once(state):
    """For the duration of the block, all of a function that is being traced, variables do not make TensorFlow trace it again.

    Where a state that Python keeps has changed meanwhile, it is traced again nevertheless: what the second trace draws or
    counts is what runs.

    Args:
        state: function without arguments, the state as something that can be compared; None where it counts as changed.
    """
    if tf.executing_eagerly():
        yield
        return
    before, made = state and state(), _made.number
    with variables_made_at_once():
        yield
    if _made.number > made and (state is None or state() != before):
        tf.Variable(0.0, trainable=False)  # a part of the function, for which TensorFlow traces it without


class _Made(threading.local):
    """How many variables this thread has made at once, within optimizers too."""

    number = 0


_made = _Made()


@contextlib.contextmanager
def constants_made_at_once():
    """For the duration of the block, in this thread, variables that a `tf.function` makes of zeros or ones are there at once.

    The function is traced a second time nevertheless, as TensorFlow does where there are new variables: Python may have noted
    that they are there. But in the first trace, of which nothing runs, no operation asks whether such a variable has a value,
    which takes 10 ms for each slot of an optimizer.
    """

    def make(add_initializers_to=None, **kwargs):
        if _keras.starts_constant(kwargs.get("initial_value")):
            with tf.init_scope():
                if tf.executing_eagerly():
                    return _plain_variable(kwargs)
        return _keras.current(polymorphic_function, "UnliftedInitializerVariable")(
            add_initializers_to=add_initializers_to, **kwargs
        )

    with _keras.replaced(polymorphic_function, UnliftedInitializerVariable=make):
        yield


@contextlib.contextmanager
def only_variables():
    """For the duration of the block, in a function that is being traced, only the variables that are made remain.

    Where a step makes variables, TensorFlow traces it twice and runs the second trace: what happens beside, as an optimizer is
    built (`ScheduleFreeAdamW` assigns to its slots), is in the first one alone. Eagerly it does happen.
    """
    if tf.executing_eagerly() or tf.distribute.has_strategy():
        yield
        return
    with FuncGraph("only_variables").as_default(), variables_made_at_once():
        yield


def _plain_variable(arguments):
    return ResourceVariable(**{name: arguments[name] for name in _OF_VARIABLES if name in arguments})


_OF_VARIABLES = (
    "initial_value", "trainable", "validate_shape", "caching_device", "name", "dtype", "constraint", "synchronization",
    "aggregation", "shape",
)  # fmt: skip
