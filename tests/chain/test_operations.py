"""TensorFlow's operations as links: which there are, how they are called, and when a closed link is opened."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_backprop import backward
from keras_backprop._keras import ops as _ops
from keras_backprop._tensorflow import Eager
from keras_backprop.chain.record import Record
from keras_backprop.chain.sweep import sweep
from keras_backprop.rule import MissingRuleError, Operation
from tests.checking import normal

X = normal(5, 4).astype("float32")
WAYS = pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])


class Norm(layers.Layer):
    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), name="scale")

    def call(self, x):
        return (x - tf.reduce_mean(x, -1, keepdims=True)) / tf.reduce_max(tf.abs(x)) * self.scale / 2.0


class Gradient(layers.Layer):
    """A user's own tape over a layer that has a rule."""

    def build(self, shape):
        self.dense = layers.Dense(3, "tanh", name="inner")
        self.dense.build(shape)

    def call(self, x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = self.dense(x)
        return y[:, :1] * tape.gradient(y, x)


def paths_of(layer, compiled):
    found = []

    def run(x):
        record = Record()
        y = record.run(layer, x)
        found.append([(call.path, isinstance(call.op, Operation)) for call in record.calls])
        return y

    (tf.function(run, autograph=False) if compiled else run)(tf.constant(X))
    return found[0]


def assert_equals_the_tape(layer, x, compiled, atol=1e-6):
    """Gradients of Σ sin(y) by weights and input."""

    def explicit(x):
        record = Record()
        y = record.run(layer, x)
        result = sweep(record.calls, [(y, tf.cos(y))], layer.trainable_variables, [x])
        return [
            tf.convert_to_tensor(g)
            for g in (*map(result.gradient, layer.trainable_variables), result.input_gradient(x))
        ]

    def by_tape(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            error = tf.reduce_sum(tf.sin(layer(x)))
        return [
            tf.convert_to_tensor(g) for g in tape.gradient(error, [*(v.value for v in layer.trainable_variables), x])
        ]

    x = tf.constant(x)
    ours = (tf.function(explicit, autograph=False) if compiled else explicit)(x)
    for a, b in zip(ours, by_tape(x), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=atol)


@WAYS
def test_operations_are_named_after_the_layer_the_same_every_time(compiled):
    layer = Norm(name="my_norm")
    layer(X)
    names = [path for path, is_operation in paths_of(layer, compiled) if is_operation]
    tf.constant(X) / 2  # something between the runs
    assert names == [path for path, is_operation in paths_of(layer, compiled) if is_operation]
    assert "my_norm/truediv" in names and "my_norm/truediv·2" in names and "my_norm/multiply" in names
    assert not any(name[-1].isdigit() and "_" in name.rsplit("/", 1)[1] for name in names)


@WAYS
@pytest.mark.parametrize("layer", [Norm, Gradient])
def test_gradients_equal_the_tapes(layer, compiled):
    layer = layer()
    layer(X)
    assert_equals_the_tape(layer, X, compiled)


@WAYS
def test_a_link_that_somebody_looks_into_is_opened(compiled):
    layer = Gradient()
    layer(X)
    assert not any(path.endswith("inner") for path, is_operation in paths_of(layer, compiled) if not is_operation)
    assert next(path for path, _ in paths_of(layer.dense, compiled)).endswith("inner")  # by itself it is closed


@WAYS
@pytest.mark.parametrize("inside", ["while_loop", "cond", "map_fn", "function"])
def test_weights_read_inside_get_their_gradients(inside, compiled):
    class Inside(layers.Layer):
        def build(self, shape):
            self.w, self.v = (self.add_weight(shape=(4, 4), name=name) for name in "wv")

        def call(self, x):
            run = {
                "while_loop": lambda: tf.while_loop(
                    lambda i, _: i < 3, lambda i, h: (i + 1, tf.tanh(h @ self.w)), (0, x)
                )[1],
                "cond": lambda: tf.cond(tf.reduce_sum(x) > 0, lambda: x @ self.w, lambda: x @ self.v),
                "map_fn": lambda: tf.map_fn(lambda row: tf.linalg.matvec(self.w, row), x),
                "function": lambda: tf.function(lambda x: tf.nn.relu(x @ self.w), autograph=False)(x),
            }[inside]
            return run() + x @ self.w @ self.v

    layer = Inside()
    layer(X)
    assert_equals_the_tape(layer, X, compiled)


@WAYS
def test_arguments_may_have_any_name(compiled):
    class Named(layers.Layer):
        def build(self, shape):
            self.attention = layers.MultiHeadAttention(2, 3)
            self.attention.build((None, 4, 4), (None, 4, 4))
            self.inner = Inner()

        def call(self, x):
            a = self.attention(query=x[None], value=x[None], key=x[None])
            return a + self.inner(x, op=2.0, call=None, key=3.0, path=0.5, layer=None, operation=None, record=None)

    class Inner(layers.Layer):
        def call(self, x, op, call, key, path, layer, operation, record):
            return x * op * key + path

    layer = Named()
    layer(X)
    assert_equals_the_tape(layer, X, compiled)


@WAYS
def test_a_custom_gradient_keeps_what_it_defines(compiled):
    class Reversed(layers.Layer):
        def build(self, shape):
            self.w = self.add_weight(shape=(4, 4))

        def call(self, x):
            return tf.custom_gradient(lambda z: (tf.exp(z), lambda dy: -0.5 * dy))(x @ self.w)

    layer = Reversed()
    layer(X)
    assert_equals_the_tape(layer, X, compiled)


def _recomputed_by_hand(f):
    @tf.custom_gradient
    def g(z):
        def gradient(dy, variables=None):
            with tf.GradientTape() as tape:
                tape.watch([z, *variables])
                y = f(z)
            dz, *dw = tape.gradient(y, [z, *variables], dy)
            return dz, dw

        return f(z), gradient

    return g


@WAYS
@pytest.mark.parametrize(
    "recomputed",
    [tf.recompute_grad, keras.remat, _recomputed_by_hand, lambda f: tf.function(tf.recompute_grad(f), autograph=False)],
    ids=["recompute_grad", "remat", "by_hand", "in_a_function"],
)
def test_a_gradient_function_that_reads_weights_under_a_tape_of_its_own(recomputed, compiled):
    class Recomputed(layers.Layer):
        def build(self, shape):
            self.w = self.add_weight(shape=(4, 4), name="w")

        def call(self, x):
            return recomputed(lambda z: tf.tanh(keras.ops.matmul(z, self.w)))(x)

    layer = Recomputed()
    layer(X)
    model = keras.Sequential([keras.Input((4,)), layer])

    def explicit(x):
        result = backward(model, x, loss=tf.sin)
        return [*result.gradients, *result.inputs]

    with tf.GradientTape() as tape:
        x = tf.constant(X)
        tape.watch(x)
        error = tf.reduce_mean(tf.sin(tf.tanh(x @ layer.w.value)))
    run = tf.function(explicit, autograph=False) if compiled else explicit
    for a, b in zip(run(x), tape.gradient(error, [layer.w.value, x]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_a_variable_that_an_eager_operation_reads_by_itself_gets_its_gradient():
    class Handed(layers.Layer):
        def build(self, shape):
            self.w, self.b = self.add_weight(shape=(4, 3)), self.add_weight(shape=(3,))

        def call(self, x):
            return tf.nn.bias_add(tf.matmul(x, self.w.value), self.b.value)

    layer = Handed()
    layer(X)
    assert_equals_the_tape(layer, X, compiled=False)


def test_a_tape_of_the_users_is_told_of_variables_that_are_handed_over():
    class Penalized(layers.Layer):
        def build(self, shape):
            self.w = tf.Variable(tf.ones(shape[1:]))

        def call(self, x):
            with tf.GradientTape() as tape:
                e = tf.reduce_sum(tf.square(tf.multiply(x, self.w)))
            return tape.gradient(e, self.w)

    layer = Penalized()
    expected = layer(X)
    with Eager():
        np.testing.assert_array_equal(layer(X), expected)


def test_a_constant_that_shares_the_memory_of_a_weight_is_no_read_of_it():
    class Scaled(layers.Layer):
        def build(self, shape):
            self.scale = self.add_weight(shape=(), initializer="ones")

        def call(self, x):
            return 1.0 * x * self.scale + 1.0

    layer = Scaled()
    layer(X)
    assert_equals_the_tape(layer, X, compiled=False)


def test_sparse_updates_stay_slices():
    class Table(layers.Layer):
        def build(self, shape):
            self.table = self.add_weight(shape=(9, 3))

        def call(self, indices):
            return tf.gather(self.table, indices)

    layer = Table()
    layer.build(())
    record = Record()
    y = record.run(layer, tf.constant([1, 4, 1]))
    gradient = sweep(record.calls, [(y, tf.ones_like(y))], layer.trainable_variables).gradient(layer.table)
    assert isinstance(gradient, tf.IndexedSlices)
    np.testing.assert_array_equal(tf.convert_to_tensor(gradient)[:, 0], [0, 2, 0, 0, 1, 0, 0, 0, 0])


@WAYS
def test_an_operation_without_a_gradient_is_named(compiled):
    layer = layers.Lambda(lambda x: tf.raw_ops.Lu(input=x)[0], name="factors")

    def run(x):
        record = Record()
        y = record.run(layer, x)
        sweep(record.calls, [(y, y)], inputs=[x])
        return y

    with pytest.raises(
        MissingRuleError, match="'factors/lu' is an operation of type 'Lu', for which TensorFlow has no"
    ):
        (tf.function(run, autograph=False) if compiled else run)(tf.eye(3)[None])


def test_what_nobody_needs_is_no_link():
    record = Record(weights=[], inputs=[])
    record.run(Norm(), tf.constant(X))
    assert record.calls == []


@WAYS
def test_what_is_followed_takes_no_number(compiled):
    """A layer that is made after a training, or in it, has the name that it has in stock Keras."""
    made = []

    class Scaled(layers.Layer):
        def call(self, x):
            made.append(layers.Multiply().name)
            return keras.ops.multiply(x, keras.ops.mean(x))

    model = keras.Sequential([keras.Input((4,)), layers.Dense(2), Scaled()])
    made[:] = [layers.Multiply().name]
    step = lambda: backward(model, X, tf.ones((5, 2)), loss="mse").gradients  # noqa: E731
    (tf.function(step, autograph=False) if compiled else step)()
    first, second, third = (int(name.partition("_")[2] or 0) for name in [*made, layers.Multiply().name])
    assert (second, third) == (first + 1, first + 2)


def test_functions_of_keras_outside_of_a_record_stay_keras_own():
    before = keras.Operation.symbolic_call
    with Record():
        assert keras.Operation.symbolic_call is not before
        keras.ops.softmax(tf.constant(X))
        symbolic = keras.ops.softmax(keras.KerasTensor((None, 4)))  # a graph that is made meanwhile
        assert isinstance(symbolic, keras.KerasTensor)
    assert keras.Operation.symbolic_call is before


def _jacobian(x):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.tanh(x)
    return tf.reduce_sum(tape.jacobian(y, x), [0, 1]) * x


def _jvp(x):
    with tf.autodiff.ForwardAccumulator(x, tf.ones_like(x)) as accumulator:
        y = tf.tanh(x) ** 2
    return accumulator.jvp(y)


def scaled(function):
    """A built layer: a function of its input and of its weight, one for each column."""

    class Scaled(layers.Layer):
        def build(self, shape):
            self.w = self.add_weight(shape=shape[-1:], name="w")

        def call(self, x):
            return function(x, self.w)

    layer = Scaled()
    layer(X)
    return layer


@WAYS
@pytest.mark.parametrize(
    "call",
    [
        lambda x: tf.vectorized_map(lambda row: row * tf.reduce_sum(row), x),
        _jacobian,
        lambda x: tf.py_function(lambda x: x**3, [x], x.dtype),
    ],
    ids=["vectorized_map", "jacobian", "py_function"],
)
def test_functions_that_tensorflow_calls_by_itself_are_followed(call, compiled):
    layer = scaled(lambda x, w: keras.ops.multiply(tf.ensure_shape(call(w * x), x.shape), w))
    assert_equals_the_tape(layer, X, compiled)


def test_forward_mode_is_followed_in_a_graph_and_refused_eagerly():
    layer = scaled(lambda x, w: _jvp(w * x))
    assert_equals_the_tape(layer, X, compiled=True)
    with pytest.raises(MissingRuleError, match="_jvp_"):
        assert_equals_the_tape(layer, X, compiled=False)


@WAYS
@pytest.mark.parametrize(
    "call",
    [
        lambda x: keras.ops.softmax(x, axis=(0, 1)),
        lambda x: keras.ops.log_softmax(x, axis=(0, 1)),
        lambda x: keras.ops.angle(keras.ops.view_as_complex(keras.ops.reshape(x, (-1, 2)))),
        lambda x: x * keras.ops.cast(keras.ops.histogram(x[0], bins=3)[0][0], x.dtype),
    ],
    ids=["softmax of several axes", "log_softmax of several axes", "view_as_complex", "histogram"],
)
def test_functions_of_keras_that_do_more_than_their_operations(call, compiled):
    layer = scaled(lambda x, w: call(w * x))
    assert_equals_the_tape(layer, X, compiled)


def test_layers_have_numbers_after_an_operation_that_could_not_be_made(monkeypatch):
    """Operations that are made only to be followed have none."""

    def interrupted(self):
        raise KeyboardInterrupt

    class Numbered(layers.Layer):
        pass

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(_ops.Sin, "__init__", interrupted)
        Record().run(keras.ops.sin, tf.constant(X))
    names = []
    Record().run(lambda x: names.extend(Numbered().name for _ in range(2)) or x, tf.constant(X))
    assert names[0] != names[1]


LISTED = {
    "Add": lambda x: keras.ops.add([[1.0, 2.0], [3.0, 4.0]], x),
    "Matmul": lambda x: keras.ops.matmul([[1.0, 2.0], [3.0, 4.0]], x),
    "Solve": lambda x: keras.ops.solve([[2.0, 1.0], [1.0, 3.0]], x),
    "SolveTriangular": lambda x: keras.ops.solve_triangular([[2.0, 0.0], [1.0, 3.0]], x, lower=True),
}


@WAYS
@pytest.mark.parametrize("name", LISTED)
def test_a_list_of_numbers_is_an_array_to_a_rule(name, compiled):
    kinds, x = [], tf.constant(normal(2, 2).astype("float32"))

    def explicit(x):
        record = Record()
        y = record.run(LISTED[name], x)
        kinds.extend(type(call.op).__name__ for call in record.calls)
        return sweep(record.calls, [(y, y)], inputs=[x]).input_gradient(x)

    with tf.GradientTape() as tape:
        tape.watch(x)
        error = 0.5 * tf.reduce_sum(LISTED[name](x) ** 2)
    ours = (tf.function(explicit, autograph=False) if compiled else explicit)(x)
    np.testing.assert_allclose(ours, tape.gradient(error, x), rtol=1e-5)
    assert kinds == [name]
