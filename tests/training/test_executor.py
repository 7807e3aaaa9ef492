"""Which compiled functions may, and should, run in one thread."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_backprop
from keras_backprop._tensorflow.executor import context, one_thread
from keras_backprop.training.loops import executor
from keras_backprop.training.loops.executor import is_small, never_waits


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


def filter_gradient(shape):
    return lambda x, dy: tf.raw_ops.Conv2DBackpropFilter(
        input=x, filter_sizes=shape, out_backprop=dy, strides=[1, 1, 1, 1], padding="SAME"
    )


@pytest.mark.parametrize(
    ("function", "shapes", "expected"),
    [
        (tf.matmul, [(32, 64), (64, 128)], True),
        (tf.matmul, [(None, 64), (64, 128)], True),
        (tf.matmul, [(128, 784), (784, 512)], False),
        (lambda a, b: tf.matmul(a, b, transpose_a=True), [(4096, 64), (4096, 128)], False),
        (lambda a, b: tf.matmul(a, b, transpose_a=True), [(64, 8), (64, 8)], True),
        (tf.add, [(1000, 1000), (1,)], False),
        (lambda x, w: tf.nn.conv2d(x, w, 1, "SAME"), [(None, 8, 8, 1), (3, 3, 1, 8)], True),
        (lambda x, w: tf.nn.conv2d(x, w, 1, "SAME"), [(32, 16, 16, 8), (3, 3, 8, 16)], False),
        (lambda dy, w: tf.nn.conv2d_transpose(dy, w, (32, 8, 8, 1), 1), [(32, 8, 8, 8), (3, 3, 1, 8)], True),
        (lambda dy, w: tf.nn.conv2d_transpose(dy, w, (32, 16, 16, 8), 1), [(32, 16, 16, 16), (3, 3, 8, 16)], False),
        (filter_gradient((3, 3, 1, 8)), [(None, 8, 8, 1), (None, 8, 8, 8)], True),
        (filter_gradient((3, 3, 8, 16)), [(32, 16, 16, 8), (32, 16, 16, 16)], False),
        (lambda x, w: tf.nn.depthwise_conv2d(x, w, [1, 1, 1, 1], "SAME"), [(1, 4, 4, 1), (3, 3, 1, 1)], False),
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


def mapped(x):
    return tf.map_fn(lambda row: row * 2.0, x)


def python(x):
    return tf.py_function(lambda row: row, [x], tf.float32)


def queue(x):
    waiting = tf.queue.FIFOQueue(1, [tf.float32])
    waiting.enqueue(x)
    return waiting.dequeue()


def taken(x):
    return next(iter(tf.data.Dataset.from_tensors(1.0).repeat())) + x


@pytest.mark.parametrize(("function", "expected"), [(python, False), (queue, False), (taken, False), (mapped, True)])
def test_what_waits_for_others(function, expected):
    assert never_waits(traced(function, (4,))) is expected


def test_an_operation_of_somebody_else_may_wait():
    node = tf.compat.v1.NodeDef(name="x", op="SomebodysOwn")
    assert executor._may_wait(node)


STEPS_THAT_COULD_HANG = """
import keras, numpy as np, tensorflow as tf
from keras_backprop import BackpropModel

class Model(BackpropModel):
    def __init__(self, odd):
        super().__init__()
        self.dense, self.gru, self.odd = keras.layers.Dense(4), keras.layers.GRU(4), odd

    def call(self, x):
        return self.dense(self.gru(keras.ops.expand_dims(x, -1)))

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self.odd(self(x)) - y))
        self.optimizer.apply_gradients(zip(tape.gradient(loss, self.trainable_weights), self.trainable_weights))
        return {"loss": loss}

inner = tf.function(lambda x: tf.cond(tf.reduce_sum(x) > 0, lambda: x * 2.0, lambda: x))
lock = tf.CriticalSection()
ODD = {
    "cond": lambda x: tf.cond(tf.reduce_sum(x) > 0, lambda: x * 2.0, lambda: x),
    "case": lambda x: tf.switch_case(tf.shape(x)[0] % 2, [lambda: x, lambda: x + 1.0]),
    "call": inner,
    "map": lambda x: tf.map_fn(inner, x),
    "python": lambda x: x * tf.numpy_function(lambda v: np.float32(1), [x], tf.float32),
    "locked": lambda x: lock.execute(lambda: x + 0.0),
    "loop": lambda x: tf.while_loop(lambda i, _: i < 3, lambda i, x: (i + 1, inner(x)), (0, x), maximum_iterations=3)[1],
}
x = np.ones((64, 4), "float32")
for name, odd in ODD.items():
    model = Model(odd)
    model.compile("sgd")
    model.fit(x, x, batch_size=8, epochs=2, verbose=0)
    assert model.fit_path.compiled, (name, model.fit_path)
    print(name, flush=True)
"""


def test_no_step_hangs():
    """With two threads, which all wait if one of those that wait runs in the pool: a hang shows as a time-out."""
    done = subprocess.run(
        [sys.executable, "-c", STEPS_THAT_COULD_HANG], timeout=240, capture_output=True, text=True, check=False,
        env={**os.environ, "TF_NUM_INTEROP_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0 and done.stdout.split() == [
        "cond",
        "case",
        "call",
        "map",
        "python",
        "locked",
        "loop",
    ], done.stderr[-2000:]


@pytest.mark.parametrize(("channels", "expected"), [(1, True), (128, False)])
def test_only_what_runs_in_one_thread_is_traced_for_one(channels, expected):
    """What is traced for one thread has no kernels of oneDNN's, without which a step of some size takes twice as long."""
    model = keras_backprop.BackpropSequential(
        [keras.Input((8, 8, 3)), keras.layers.Conv2D(channels, 3), keras.layers.GlobalAveragePooling2D()]
    )
    model.compile("sgd", "mse")
    model.fit(np.ones((64, 8, 8, 3)), np.ones((64, channels)), 32, verbose=0)
    (loop,) = model._loops.kept.values()
    assert (loop._in_one_thread, _lowered(loop)) == (expected, not expected)


def _lowered(loop):
    """Whether TensorFlow's graph optimizer sees the operations in the loops of a compiled loop."""
    nodes = loop._function.graph.as_graph_def().node
    return all(node.attr["_lower_using_switch_merge"].b for node in nodes if node.op in ("While", "StatelessWhile"))
