"""What a graph does if a boolean tensor is true, and the same graph where that is known."""

import tensorflow as tf
from tensorflow.python.framework.function_def_to_graph import function_def_to_graph_def

_NAME = "once_if"


def once_if(due, function):
    """Run a function without arguments if a boolean tensor is true: as a loop of at most one turn, which, unlike `tf.cond`, runs
    in the thread that it is in (see `training/loops/executor.py`).

    Args:
        due: scalar tensor of bool.
        function: what it returns is dropped.
    """
    if tf.executing_eagerly():
        if due:
            function()
        return

    def turn(_):
        function()
        return (tf.constant(False),)

    tf.while_loop(lambda due: due, turn, (due,), name=_NAME)


def is_once_if(operation):
    """Whether an operation of a graph is what `once_if` has made of its function."""
    return operation.type in ("While", "StatelessWhile") and operation.name.rpartition("/")[2].startswith(_NAME)


def put_in_line(nodes, library, names):
    """Put what `once_if` does conditionally in the place of the condition.

    Args:
        nodes: list of `NodeDef` of a graph, changed in place.
        library: the graph's `FunctionDefLibrary`.
        names: set of str, those of the nodes for which `is_once_if` and the condition is true.
    """
    functions = {function.signature.name: function for function in library.function}
    done, effects = [], {}
    for node in nodes:
        if node.name in names:
            inner, effects[node.name] = _in_line(node, functions[node.attr["body"].func.name])
            done += inner
        else:
            done.append(node)
    for node in done:
        if any(name.removeprefix("^") in names for name in node.input):
            kept = [name for name in node.input if name.removeprefix("^") not in names]
            after = dict.fromkeys(x for name in node.input for x in effects.get(name.removeprefix("^"), ()))
            node.input[:] = [*kept, *(x for x in after if x not in kept)]
    del nodes[:]
    nodes.extend(done)


def _in_line(loop, body):
    """The nodes of the body of a loop, as they run in its first turn, and the control inputs that say that it has run."""
    graph, _ = function_def_to_graph_def(body)
    outside = [name for name in loop.input if not name.startswith("^")]
    before = [name for name in loop.input if name.startswith("^")]
    given = dict(zip((argument.name for argument in body.signature.input_arg), outside, strict=True))
    handles = {x.name for x in body.signature.input_arg if x.type == tf.resource.as_datatype_enum}

    def renamed(name):
        control, name = name.startswith("^"), name.removeprefix("^")
        inner, _, _ = name.partition(":")
        return given[inner] if inner in given else f"{'^' * control}{loop.name}/{name}"

    nodes = []
    for node in graph.node:
        if node.name in given:
            continue
        acts = any(
            name.partition(":")[0] in handles for name in node.input
        )  # the order is that of what variables go through
        inputs = [renamed(name) for name in node.input] + (before if acts else [])
        node.name, node.input[:] = f"{loop.name}/{node.name}", inputs
        nodes.append(node)
    return nodes, [f"^{loop.name}/{name}" for name in body.control_ret.values()]
