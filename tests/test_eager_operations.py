"""An operation that ran eagerly says of its attributes what a `tf.Operation` says, of those too of which nothing was said."""

import pytest
import tensorflow as tf

from keras_backprop._tensorflow.operations import EagerOperation

CASES = [
    ("VarHandleOp", "shape", lambda x: tf.raw_ops.VarHandleOp(dtype=tf.float32, shape=None)),
    ("Conv2D", "dilations", lambda x: tf.raw_ops.Conv2D(input=x, filter=x, strides=[1] * 4, padding="SAME")),
    ("Squeeze", "squeeze_dims", lambda x: tf.raw_ops.Squeeze(input=x)),
    ("MatMul", "transpose_a", lambda x: tf.raw_ops.MatMul(a=x[0, 0], b=x[0, 0])),
]


@pytest.mark.parametrize("kind, name, call", CASES, ids=[kind for kind, *_ in CASES])
def test_an_attribute_of_which_nothing_was_said(kind, name, call):
    with tf.Graph().as_default() as graph:
        call(tf.zeros((1, 1, 1, 1)))
    [operation] = [one for one in graph.get_operations() if one.type == kind]
    for _ in range(2):
        assert EagerOperation(kind, [], (name, None), []).get_attr(name) == operation.get_attr(name)
