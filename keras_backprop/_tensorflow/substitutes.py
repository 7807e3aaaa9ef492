"""One operation in the place of several: in a trace stand those that run everywhere, in a compiled loop on a CPU the one.

A trace may be run by Keras's loop, or be compiled by XLA, which knows no operation that is not TensorFlow's own. So the one is
written beside the others, and put in their place when the loop takes copies of them.
"""

import tensorflow as tf

_ATTRIBUTE, _MARKED = "_substitute", "IdentityN"
_types: set = set()


def substitutable(result, inputs, node):
    """A tensor, marked: another operation may be put in the place of all that computes it.

    Args:
        result: tensor of a graph.
        inputs: list of tensors, what the other operation takes.
        node: `NodeDef` of that operation, with its type and attributes. It never waits, and has one output, equal to `result`.

    Returns:
        A tensor, equal to `result`.
    """
    _types.add(node.op)
    # What it takes stands among the inputs, where it is followed by whoever copies, renames or cuts a graph.
    marked = tf.raw_ops.IdentityN(input=[result, *inputs], name="substitutable")[0]
    marked.op._set_attr(_ATTRIBUTE, tf.compat.v1.AttrValue(s=node.SerializeToString()))
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


def substitute(nodes):
    """Put the substitutes into a list of `NodeDef`, those that have one changed in place."""
    for node in nodes:
        if _has_substitute(node):
            other = tf.compat.v1.NodeDef.FromString(node.attr[_ATTRIBUTE].s)
            node.op = other.op
            del node.input[0]
            node.ClearField("attr")
            for name, value in other.attr.items():
                node.attr[name].CopyFrom(value)


def _has_substitute(node):
    return node.op == _MARKED and _ATTRIBUTE in node.attr
