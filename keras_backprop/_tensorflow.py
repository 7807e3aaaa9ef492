"""The only door to private TensorFlow: the operations that run, and the gradient function that is registered for each type.

Everything this package takes from `tensorflow.python` for following a call is here, so that a new release can break one file.
"""

import contextlib
import functools

import tensorflow as tf
from tensorflow.python import pywrap_tfe
from tensorflow.python.autograph.core import config as autograph
from tensorflow.python.eager import backprop, backprop_util, context, record
from tensorflow.python.eager.polymorphic_function import polymorphic_function
from tensorflow.python.eager.polymorphic_function.concrete_function import ConcreteFunction
from tensorflow.python.framework import auto_control_deps_utils, op_callbacks, ops
from tensorflow.python.framework.func_graph import FuncGraph
from tensorflow.python.framework.ops import EagerTensor
from tensorflow.python.ops import default_gradient, gradients_util
from tensorflow.python.ops.resource_variable_ops import ResourceVariable

from keras_backprop import _keras


def operation_count(graph):
    """How many operations a graph has."""
    return len(graph.get_operations())


__all__ = [
    "CustomGradient", "Eager", "EagerOperation", "EagerTensor", "copy_operations", "functions_run_eagerly", "is_trainable",
    "operation_count", "registered_gradient", "with_effects", "zeros_like",
]  # fmt: skip


# AutoGraph rewrites whatever a user's `tf.function` calls, library code too; there is nothing to rewrite here.
autograph.CONVERSION_RULES = (autograph.DoNotConvert("keras_backprop"), *autograph.CONVERSION_RULES)


def is_trainable(x):
    """Whether a gradient can flow to a tensor: floating-point and complex numbers, lists of tensors, handles of variables."""
    dtype = x.dtype
    if dtype in _HANDLES:
        return backprop_util.IsTrainable(x)  # of what the handle is for
    return _is_trainable_dtype(dtype)


_HANDLES = (tf.resource, tf.variant)
_is_trainable_dtype = functools.cache(backprop_util.IsTrainable)


def zeros_like(x):
    """A gradient of zeros for what an operation put out and nobody used, handles of variables included."""
    return default_gradient.zeros_like(x)


def registered_gradient(operation):
    """The gradient function that TensorFlow has registered for an operation, control flow and calls of functions included.

    Args:
        operation: a `tf.Operation`, or an `EagerOperation`.

    Returns:
        A function `(operation, *dys) -> dxs`; None where the type is declared not differentiable.

    Raises:
        LookupError: TensorFlow has no gradient for this type of operation.
    """
    if isinstance(operation, CustomGradient):
        return lambda operation, *dys: operation.backward(*dys)
    if isinstance(operation, EagerOperation):
        return ops.gradient_registry.lookup(operation.type)
    return ops.get_gradient_function(operation)


def gradients_by_type():
    """TensorFlow's types of operations: a dict, type -> gradient function, or None for what is declared not differentiable."""
    return {name: ops.gradient_registry.lookup(name) for name in ops.gradient_registry.list()}


class EagerOperation:
    """An operation that ran eagerly; to a registered gradient function it looks like a `tf.Operation`.

    Attributes:
        type: str.
        inputs, outputs: lists of tensors.
        attributes: tuple, names and values in turn.
        skip_input_indices: set, inputs whose gradients nobody needs.
    """

    __slots__ = ("attributes", "inputs", "outputs", "skip_input_indices", "type")
    name = None

    def __init__(self, kind, inputs, attributes, outputs):
        self.type = kind.decode() if isinstance(kind, bytes) else kind
        self.inputs, self.attributes, self.outputs = inputs, attributes, outputs
        self.skip_input_indices = None

    def get_attr(self, name):
        """As `tf.Operation.get_attr`."""
        position = self.attributes.index(name) if name in self.attributes[::2] else None
        if position is None:
            raise ValueError(f"Operation {self.type!r} has no attribute {name!r}.")
        kind = backprop.op_attr_type(self.type, name)
        return backprop.make_attr(kind, self.attributes[position + 1])


class CustomGradient(EagerOperation):
    """What a `tf.custom_gradient` did eagerly: its own function is the gradient."""

    __slots__ = ("backward",)

    def __init__(self, kind, inputs, outputs, backward):
        super().__init__(kind, inputs, (), outputs)
        self.backward = backward


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
        self._stack.callback(op_callbacks.remove_op_callback, self._note)
        recording = {"record_operation": self._record_operation, "could_possibly_record": lambda: True}
        self._stack.enter_context(_keras.replaced(record, **recording))
        self._stack.enter_context(_keras.replaced(pywrap_tfe, TFE_Py_FastPathExecute=_execute))
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


def _execute(context, kind, name, *given):
    """One eager operation. A `tf.Variable` that it is given as such it would read by itself, where no callback sees it."""
    if not kind.startswith("Resource") and "Variable" not in kind:
        given = tuple(map(_with_values, given))
    return _keras.current(pywrap_tfe, "TFE_Py_FastPathExecute")(context, kind, name, *given)


def _with_values(x):
    if isinstance(x, (list, tuple)):
        return [_with_values(one) for one in x] if any(isinstance(one, tf.Variable) for one in x) else x
    return value_of(x) if isinstance(x, tf.Variable) else x


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


def value_of(variable):
    """The value of a `tf.Variable`: as `read_value`, outside of a function in a tenth of the time for a plain variable."""
    if type(variable) is not ResourceVariable:
        return variable.read_value()
    return tf.raw_ops.ReadVariableOp(resource=variable.handle, dtype=variable.dtype)


@contextlib.contextmanager
def functions_run_eagerly(wanted=True):
    """For the duration of the block, a `tf.function` runs operation by operation; or, if not `wanted`, compiled."""
    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(wanted)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


def is_within_reach(x):
    """Whether there is a tensor and it can be used here: not if it was made in a function that is traced inside of this one."""
    if isinstance(x, EagerTensor):
        return True
    graph = None if x is None or tf.executing_eagerly() else tf.compat.v1.get_default_graph()
    while graph is not None and graph is not x.graph:
        graph = getattr(graph, "outer_graph", None)
    return graph is not None


def with_effects(graph, outputs=(), without=()):
    """The operations of a traced function that change something, and all that these need, in order.

    Args:
        graph: the graph of a `tf.ConcreteFunction`.
        outputs: list of tensors of it that are needed besides.
        without: list of variables. What uses one of them is left out, unless the result is needed.
    """
    reads = auto_control_deps_utils.RESOURCE_READ_OPS  # they must run as well, says TensorFlow
    wanted = set()
    handles = {id(v.handle) for v in without}
    unwanted = {inner.op for outer, inner in graph.captures if id(outer) in handles}
    left_out = {one for one in graph.get_operations() if not unwanted.isdisjoint(x.op for x in one.inputs)}
    found = [one for one in graph.control_outputs if one.type not in reads and one not in left_out]
    found += [x.op for x in outputs]
    while found:
        operation = found.pop()
        if operation not in wanted:
            wanted.add(operation)
            found += [x.op for x in operation.inputs]
            found += _before(operation, left_out.__contains__)
    return [operation for operation in graph.get_operations() if operation in wanted]


def _before(operation, left_out):
    """The operations that must run before one; in place of those that are left out, those that must run before them.

    Args:
        operation: a `tf.Operation`.
        left_out: function `tf.Operation` -> bool.
    """
    found, seen = list(operation.control_inputs), set()
    while found:
        one = found.pop()
        if one not in seen:
            seen.add(one)
            if left_out(one):
                found += one.control_inputs
            else:
                yield one


def copy_operations(operations, inputs, lowered, outputs=()):
    """Put copies of the operations of one graph into the graph of the function that is being traced.

    Args:
        operations: list of `tf.Operation`, with all that they depend on.
        inputs: list of pairs, (a placeholder among them, the tensor that the copies get for it).
        lowered: bool, whether TensorFlow may take loops and branches apart, which an executor of one thread and XLA do not allow.
        outputs: list of tensors that the operations put out.

    Returns:
        The copies of `outputs`, a list of tensors.
    """
    if not operations:
        return []
    source, graph = operations[0].graph, tf.compat.v1.get_default_graph()
    for function in source._functions.values():
        graph._add_function_recursive(function)
    placeholders = {x.op.name for x, _ in inputs}
    names = {operation.name for operation in operations} - placeholders
    whole = source.as_graph_def()
    copies = tf.compat.v1.GraphDef(versions=whole.versions)
    copies.node.extend(node for node in whole.node if node.name in names)
    used = set()
    present = {operation.name: operation for operation in operations}
    for node in copies.node:
        if any(before.name not in present for before in present[node.name].control_inputs):
            before = _before(present[node.name], lambda one: one.name not in present)
            kept = [name for name in node.input if not name.startswith("^")]
            node.input[:] = [*kept, *(f"^{one.name}" for one in before if one.name in names)]
        used.update(name.split(":")[0] for name in node.input)
        node.attr.pop("_class", None)  # beside which other operation it is to run
        if not lowered and "_lower_using_switch_merge" in node.attr:
            node.attr["_lower_using_switch_merge"].b = False
    given = {x.name: value for x, value in inputs}
    replaced = {x.name: graph.capture(value) for x, value in inputs if x.op.name in used}
    wanted = [x.name for x in outputs if x.name not in given]
    made = dict(zip(wanted, tf.graph_util.import_graph_def(copies, replaced, wanted, name="step") or [], strict=True))
    return [made[x.name] if x.name in made else given[x.name] for x in outputs]


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
            return _plain_variable(kwargs)

    with tf.variable_creator_scope(create):
        yield


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


def _plain_variable(arguments):
    return ResourceVariable(**{name: arguments[name] for name in _OF_VARIABLES if name in arguments})


_OF_VARIABLES = (
    "initial_value", "trainable", "validate_shape", "caching_device", "name", "dtype", "constraint", "synchronization",
    "aggregation", "shape",
)  # fmt: skip


def remember_sparse(dense, sparse):
    """Let a dense tensor carry the sparse one that it was made of, for products that can make use of it."""
    dense._sparse = sparse


def sparse_of(dense):
    """The sparse tensor that a dense one was made of, or None."""
    return getattr(dense, "_sparse", None)


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


def with_captures(function, captures):
    """The same `tf.ConcreteFunction`, called with other tensors in the places of those that it has captured.

    Args:
        captures: list of tensors, of the same types.
    """
    other = ConcreteFunction(function.inference_fn)
    other._arg_keywords, other._num_positional_args = function._arg_keywords, function._num_positional_args
    other.set_external_captures(captures)
    other._of = function  # which takes the graph with it when it goes
    function.graph.variables = []  # a tape would ask for those of before
    return other


def device():
    """On which device the operations of this thread are asked to run; empty where nothing was asked."""
    return context.context().device_name


def operations_are_watched():
    """Whether something is told of every operation that is made, and may put others beside it: checks of numbers, a dump."""
    return bool(context.context().op_callbacks)


def draws_by_itself(graph):
    """Whether operations of a graph draw random numbers by seeds of their own, which every trace numbers anew."""
    definition = graph.as_graph_def()
    nodes = [*definition.node, *(node for inner in definition.library.function for node in inner.node_def)]
    return any("seed" in node.attr or "seed2" in node.attr for node in nodes)
