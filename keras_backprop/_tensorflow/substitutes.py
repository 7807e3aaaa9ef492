"""Operations in the place of others: in a trace stand those that run everywhere, in a compiled loop on a CPU others.

A trace may be run by Keras's loop, or be compiled by XLA, which knows no operation that is not TensorFlow's own. So the others
are written beside them, and put in their place when the loop takes copies of them.
"""

import tensorflow as tf

_ATTRIBUTE, _MARKED = "_substitute", "IdentityN"
_types: set = set()


def substitutable(result, inputs, graph):
    """A tensor, marked: other operations may be put in the place of all that computes it.

    Args:
        result: tensor of a graph.
        inputs: list of tensors, what the other operations take.
        graph: `GraphDef` of those operations, in which "0", "1", … are the inputs. The output of the last is equal to `result`.
            None of them waits.

    Returns:
        A tensor, equal to `result`.
    """
    _types.update(node.op for node in graph.node)
    # What they take stands among the inputs, where it is followed by whoever copies, renames or cuts a graph.
    marked = tf.raw_ops.IdentityN(input=[result, *inputs], name="substitutable")[0]
    marked.op._set_attr(_ATTRIBUTE, tf.compat.v1.AttrValue(s=graph.SerializeToString()))
    return marked


def is_substitute(kind):
    """Whether a type of operations has been given to `substitutable`."""
    return kind in _types


def inputs_of(operation, substituted):
    """What an operation of a graph takes, or what its substitute takes if it has one, a list of tensors."""
    # The type first: to ask an operation for its definition is to serialise it.
    if substituted and operation.type == _MARKED and _has_substitute(operation.node_def):
        return list(operation.inputs)[1:]
    return operation.inputs


def substitute(nodes, in_one_thread):
    """Put the substitutes into a list of `NodeDef`, which is changed in place.

    Args:
        nodes: list of `NodeDef` of a graph.
        in_one_thread: bool. Then an operation of a substitute that takes one tensor, and else what takes nothing, comes before
            all others that take the tensor: the last of these may write its result over it.
    """
    made, looks = [], {}
    for node in nodes:
        made += _substitute_of(node, looks) if _has_substitute(node) else [node]
    if in_one_thread:
        looking = {name for names in looks.values() for name in names}
        for node in made:
            if node.name not in looking:
                first = dict.fromkeys(look for name in node.input for look in looks.get(_tensor(name), ()))
                node.input.extend(f"^{look}" for look in first)
    del nodes[:]
    nodes.extend(made)


def _substitute_of(marked, looks):
    """The nodes of the substitute; `looks`: tensor -> list of names of nodes that take only it, which is added to."""
    graph = tf.compat.v1.GraphDef.FromString(marked.attr[_ATTRIBUTE].s)
    given = {str(i): name for i, name in enumerate(name for name in marked.input[1:] if not name.startswith("^"))}
    names = {node.name: f"{marked.name}/{node.name}" for node in graph.node}
    names[graph.node[-1].name] = marked.name
    first = {node.name for node in graph.node if not node.input}
    before = [name for name in marked.input if name.startswith("^")]
    for node in graph.node:
        taken = [given[name] for name in node.input if name in given]
        looks_on = len(taken) == 1 and all(name in given or name in first for name in node.input)
        node.name = names[node.name]
        node.input[:] = [given.get(name) or _renamed(name, names) for name in node.input]
        waits = before if node.name == marked.name else []
        node.input.extend(waits)
        if looks_on and not waits:  # who takes the tensor may be what it waits for
            looks.setdefault(_tensor(taken[0]), []).append(node.name)
    return graph.node


def _renamed(name, names):
    inner = name.removeprefix("^")
    return name[: len(name) - len(inner)] + names[inner]


def _tensor(name):
    """One of the two names that the first output of an operation has."""
    return name.removesuffix(":0")


def _has_substitute(node):
    return node.op == _MARKED and _ATTRIBUTE in node.attr
