"""The operations that a thread runs eagerly, as they run."""

import contextlib
import functools

import tensorflow as tf
from tensorflow.python import pywrap_tfe
from tensorflow.python.eager import context, record
from tensorflow.python.framework import op_callbacks, op_def_registry
from tensorflow.python.ops import gradients_util

from keras_backprop import _keras
from keras_backprop._tensorflow.context import functions_run_eagerly
from keras_backprop._tensorflow.operations import CustomGradient, EagerOperation, is_trainable


class Eager:
    """Notes the operations that this thread runs eagerly. Calls of a `tf.function` run as what they are made of.

    with Eager() as eager:
        …
    eager.operations
    """

    def __init__(self):
        self.operations: list = []
        self._stack = contextlib.ExitStack()

    def __enter__(self):
        op_callbacks.add_op_callback(self._note)
        # Not by `op_callbacks.remove_op_callback`: it also takes a patch of the process back, by which other threads are told.
        self._stack.callback(context.context().remove_op_callback, self._note)
        recording = {"record_operation": self._record_operation, "could_possibly_record": lambda: True}
        self._stack.enter_context(_keras.replaced(record, **recording))
        execute = functools.partial(_execute, _keras.standing(pywrap_tfe, "TFE_Py_FastPathExecute"))
        self._stack.enter_context(_keras.replaced(pywrap_tfe, TFE_Py_FastPathExecute=execute))
        self._stack.enter_context(_keras.replaced(gradients_util, PossibleTapeGradientTypes=_gradients_of_functions))
        self._stack.enter_context(functions_run_eagerly())
        return self

    def __exit__(self, *exception):
        return self._stack.__exit__(*exception)

    def _note(self, kind, inputs, attributes, outputs, op_name=None, graph=None):
        if graph is None:
            self.operations.append(EagerOperation(kind, inputs, attributes, [y for y in outputs if y is not None]))

    def _record_operation(self, op_type, output_tensors, input_tensors, backward_function, forward_function=None):
        """A custom gradient takes the place of whatever made its results."""
        original = _keras.current(record, "record_operation")
        original(op_type, output_tensors, input_tensors, backward_function, forward_function)
        if not tf.executing_eagerly() or "_jvp_" in str(op_type):
            # A function is being traced; or forward-mode differentiation, which is given what operations put out under another
            # identity, so that a gradient would be lost: without one it is refused.
            return
        produced = {id(y) for y in output_tensors}
        for position in range(len(self.operations) - 1, -1, -1):
            if not produced:
                break
            operation = self.operations[position]
            made = {id(y) for y in operation.outputs} & produced if operation is not None else set()
            if made:
                self.operations[position] = None
                produced -= made
        self.operations.append(CustomGradient(op_type, list(input_tensors), list(output_tensors), backward_function))


def _execute(original, context, kind, name, *given):
    """One eager operation. A `tf.Variable` that it is given as such it would read by itself, where no callback sees it."""
    for x in given:
        if isinstance(x, _MAY_BE_READ):
            read = list(given)
            for place in _inputs_of_values(kind):
                read[place] = _with_values(read[place])
            return original(context, kind, name, *read)
    return original(context, kind, name, *given)


_MAY_BE_READ = (tf.Variable, list, tuple)


@functools.cache
def _inputs_of_values(kind):
    """The places of the inputs of a type of operation that are no handles of variables."""
    inputs = op_def_registry.get(kind).input_arg
    return [place for place, one in enumerate(inputs) if one.type != tf.resource.as_datatype_enum]


def _with_values(x):
    if isinstance(x, (list, tuple)):
        return [_with_values(one) for one in x] if any(isinstance(one, tf.Variable) for one in x) else x
    return x.read_value() if isinstance(x, tf.Variable) else x  # of which a tape of the user's is told


def _gradients_of_functions(tensors):
    """Which gradients of a traced function that is called eagerly will be wanted: as if a tape watched what it is given.

    `tf.vectorized_map` and Jacobians call such functions even where functions run eagerly. With a tape in sight TensorFlow makes
    the backward pass of the function, and `record_operation` is told of it.
    """
    wanted = _keras.current(gradients_util, "PossibleTapeGradientTypes")(tensors)
    unseen = wanted == gradients_util.POSSIBLE_GRADIENT_TYPES_NONE
    if unseen and tf.executing_eagerly() and any(map(is_trainable, tensors)):
        return gradients_util.POSSIBLE_GRADIENT_TYPES_FIRST_ORDER
    return wanted
