"""Which compiled functions may, and should, run in one thread."""

import pytest
import tensorflow as tf

from keras_backprop.training.executor import context, is_small, never_waits, one_thread


def traced(function, *shapes):
    with one_thread():
        return tf.function(function, autograph=False).get_concrete_function(*(tf.TensorSpec(shape) for shape in shapes))


def loop(x):
    return tf.while_loop(lambda i, _: i < 3, lambda i, x: (i + 1, tf.tanh(x)), (0, x))[1]


def branch(x):
    return tf.cond(x[0] > 0, lambda: x + 1, lambda: x)


def call(x):
    return tf.function(tf.sin)(x)


@pytest.mark.parametrize(
    ("function", "expected"),
    [(tf.tanh, True), (loop, True), (branch, False), (call, False)],
    ids=lambda x: getattr(x, "__name__", str(x)),
)
def test_only_loops_run_where_they_are(function, expected):
    assert never_waits(traced(function, (4,))) is expected
    nested = traced(lambda x: tf.while_loop(lambda i, _: i < 3, lambda i, x: (i + 1, function(x)), (0, x))[1], (4,))
    assert never_waits(nested) is expected


def test_a_loop_in_one_thread_gives_the_same():
    function = tf.function(loop, autograph=False)
    with one_thread():
        inside = function(tf.constant([0.5, 1.0]))
    assert inside.numpy().tolist() == loop(tf.constant([0.5, 1.0])).numpy().tolist()


@pytest.mark.parametrize(
    ("function", "shapes", "expected"),
    [
        (tf.matmul, [(32, 64), (64, 128)], True),
        (tf.matmul, [(None, 64), (64, 128)], True),
        (tf.matmul, [(128, 784), (784, 512)], False),
        (lambda a, b: tf.matmul(a, b, transpose_a=True), [(4096, 64), (4096, 128)], False),
        (lambda a, b: tf.matmul(a, b, transpose_a=True), [(64, 8), (64, 8)], True),
        (tf.add, [(1000, 1000), (1,)], False),
        (lambda x, w: tf.nn.conv2d(x, w, 1, "SAME"), [(1, 4, 4, 1), (3, 3, 1, 1)], False),
    ],
)
def test_small_is_what_takes_no_longer_than_handing_it_over(function, shapes, expected):
    assert is_small(traced(function, *shapes).graph.get_operations()) is expected


def test_the_options_are_those_of_before_again():
    """Inside, without the graph optimizer."""

    def optimizer_is_off():
        config = tf.compat.v1.ConfigProto.FromString(context().function_call_options.config_proto_serialized)
        return config.graph_options.rewrite_options.disable_meta_optimizer

    assert not optimizer_is_off()
    with one_thread():
        assert optimizer_is_off()
        with one_thread():
            assert optimizer_is_off()
    assert not optimizer_is_off()
