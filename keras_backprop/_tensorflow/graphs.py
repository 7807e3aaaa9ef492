"""Graphs of traced functions: what is in them, copies of their operations, other captures."""

import weakref
from typing import Any

import tensorflow as tf
from tensorflow.python.eager.polymorphic_function.concrete_function import ConcreteFunction
from tensorflow.python.framework import auto_control_deps_utils

from keras_backprop._tensorflow.once import put_in_line
from keras_backprop._tensorflow.substitutes import inputs_of, substitute

_draw_by_themselves: Any = weakref.WeakKeyDictionary()


def operation_count(graph):
    """How many operations a graph has."""
    return len(graph.get_operations())


def operations_within(graph):
    """The operations of a graph, and those of the functions that these call."""
    functions = (function.graph for function in graph._functions.values())
    return [operation for one in (graph, *functions) for operation in one.get_operations()]


def draws_by_itself(graph):
    """Whether operations of a graph draw random numbers by seeds of their own, which every trace numbers anew.

    Args:
        graph: the graph of a `tf.ConcreteFunction`: it is looked at once.
    """
    if graph not in _draw_by_themselves:
        definition = graph.as_graph_def()
        nodes = [*definition.node, *(node for inner in definition.library.function for node in inner.node_def)]
        _draw_by_themselves[graph] = any(_draws(node) for node in nodes)
    return _draw_by_themselves[graph]


def _draws(node):
    if node.op.startswith("CudnnRNN") and not node.attr["dropout"].f:
        return False
    return "seed" in node.attr or "seed2" in node.attr


def changed_by(function):
    """The variables, tables and the like that a `tf.ConcreteFunction` changes: their handles, a list of eager tensors."""
    changed = set()
    for operation in function.graph.get_operations():
        _, written = auto_control_deps_utils.get_read_write_resource_inputs(operation)
        changed.update(id(x) for x in written)
    return [outer for outer, inner in function.graph.captures if id(inner) in changed]


def with_effects(graph, outputs=(), without=(), substituted=False):
    """The operations of a traced function that change something, and all that these need, in order.

    Args:
        graph: the graph of a `tf.ConcreteFunction`.
        outputs: list of tensors of it that are needed besides.
        without: list of variables. What uses one of them is left out, unless the result is needed.
        substituted: bool, whether substitutes (`substitutes.py`) are to run, which need other operations.
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
            found += [x.op for x in inputs_of(operation, substituted)]
            found += _before(operation, left_out.__contains__)
    return [operation for operation in graph.get_operations() if operation in wanted]


def copy_operations(operations, inputs, lowered, outputs=(), due=(), substituted=False):
    """Put copies of the operations of one graph into the graph of the function that is being traced.

    Args:
        operations: list of `tf.Operation`, with all that they depend on.
        inputs: list of pairs, (a placeholder among them, the tensor that the copies get for it).
        lowered: bool, whether TensorFlow may take loops and branches apart, which an executor of one thread and XLA do not allow.
        outputs: list of tensors that the operations put out.
        due: collection of operations for which `is_once_if`, and whose condition is known to be true.
        substituted: bool, as `with_effects` was given it.

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
    present = {operation.name: operation for operation in operations}
    for node in copies.node:
        if any(before.name not in present for before in present[node.name].control_inputs):
            before = _before(present[node.name], lambda one: one.name not in present)
            kept = [name for name in node.input if not name.startswith("^")]
            node.input[:] = [*kept, *(f"^{one.name}" for one in before if one.name in names)]
        node.attr.pop("_class", None)  # beside which other operation it is to run
        if not lowered and "_lower_using_switch_merge" in node.attr:
            node.attr["_lower_using_switch_merge"].b = False
    put_in_line(copies.node, whole.library, {operation.name for operation in due})
    if substituted:
        substitute(copies.node, in_one_thread=not lowered)
    used = {name.split(":")[0] for node in copies.node for name in node.input}
    given = {x.name: value for x, value in inputs}
    replaced = {x.name: graph.capture(value) for x, value in inputs if x.op.name in used}
    wanted = [x.name for x in outputs if x.name not in given]
    made = dict(zip(wanted, tf.graph_util.import_graph_def(copies, replaced, wanted, name="step") or [], strict=True))
    return [made[x.name] if x.name in made else given[x.name] for x in outputs]


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
