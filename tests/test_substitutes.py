"""Operations that are put in the place of others: when they run."""

import pytest
import tensorflow as tf

from keras_backprop import _tensorflow


def squaring(by_way_of_a_copy):
    """x², of one operation or of two."""
    graph = tf.compat.v1.GraphDef()
    if by_way_of_a_copy:
        graph.node.add(name="copy", op="Identity", input=["0"])
    graph.node.add(name="square", op="Square", input=["copy" if by_way_of_a_copy else "0"])
    for node in graph.node:
        node.attr["T"].type = tf.float32.as_datatype_enum
    return graph


@pytest.mark.parametrize("by_way_of_a_copy", [False, True])
def test_a_substitute_waits_for_what_its_place_waits_for(by_way_of_a_copy):
    """Here for an operation that takes the same tensor, and would itself wait for one that only looks at it."""
    total = tf.Variable(0.0)

    @tf.function(input_signature=[tf.TensorSpec([])])
    def step(x):
        square = x * x
        with tf.control_dependencies([total.assign_add(x)]):
            return _tensorflow.substitutable(square, [x], squaring(by_way_of_a_copy))

    step = step.get_concrete_function()
    operations = _tensorflow.with_effects(step.graph, step.outputs, substituted=True)

    @tf.function(input_signature=[tf.TensorSpec([])])
    def loop(x):
        inputs = list(zip(step.inputs, [x, *step.captured_inputs], strict=True))
        return _tensorflow.copy_operations(operations, inputs, False, step.outputs, substituted=True)

    assert [y.numpy() for y in loop(3.0)] == [9.0] and total.numpy() == 3.0
    nodes = loop.get_concrete_function().graph.as_graph_def().node
    (assigns,) = (node.name for node in nodes if node.op == "AssignAddVariableOp")
    (waits,) = (f"^{assigns}" in node.input for node in nodes if node.op == "Square")
    assert waits
