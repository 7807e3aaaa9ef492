"""Which variables a thread assigns to eagerly, whoever made them."""

import contextlib

import keras
import tensorflow as tf
from tensorflow.python.ops import gen_array_ops, gen_resource_variable_ops

from keras_backprop import _keras
from keras_backprop._tensorflow.context import functions_run_eagerly

_BEGINNINGS = ("assign_", "resource_scatter_", "resource_strided_slice_assign")
"""Of the names of TensorFlow's functions that assign to a variable."""


class Assignments:
    """Notes the variables that are assigned to in the block, in this thread, and what they were before. A `tf.function` runs
    operation by operation.

    with Assignments(known) as assigned:
        …
    assigned.variables

    Args:
        known: list of Keras or TensorFlow variables, of which nothing is noted.

    Attributes:
        variables: list of (`AssignedVariable`, tensor), each with its value before.
    """

    def __init__(self, known):
        values = [variable.value if isinstance(variable, keras.Variable) else variable for variable in known]
        self._known = {id(one.handle) for value in values for one in getattr(value, "values", (value,))}
        self.variables: list = []
        self._stack = contextlib.ExitStack()

    def __enter__(self):
        for module in (gen_resource_variable_ops, gen_array_ops):
            names = [name for name in vars(module) if name.startswith(_BEGINNINGS)]
            replacements = {name: self._noting(module, name) for name in names if callable(getattr(module, name))}
            self._stack.enter_context(_keras.replaced(module, **replacements))
        self._stack.enter_context(functions_run_eagerly())
        return self

    def __exit__(self, *exception):
        return self._stack.__exit__(*exception)

    def _noting(self, module, name):
        def assign(*args, **kwargs):
            handle = args[0] if args else kwargs.get("resource", kwargs.get("ref"))
            if tf.executing_eagerly() and id(handle) not in self._known:
                self._known.add(id(handle))
                if tf.raw_ops.VarIsInitializedOp(resource=handle):  # else it is being made
                    variable = AssignedVariable(handle)
                    self.variables.append((variable, tf.identity(variable.value)))
            return _keras.current(module, name)(*args, **kwargs)

        return assign


class AssignedVariable:
    """A variable of which the handle is known.

    Args:
        handle: eager tensor, of resources.
    """

    def __init__(self, handle):
        self._handle = handle
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
