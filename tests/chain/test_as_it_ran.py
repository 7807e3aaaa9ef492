"""Weights and settings that are others at each call of a layer: the rule of a link goes by those of its call."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_backprop import BackpropSequential, Gradients, backward, use_rules
from tests.checking import normal

X = normal(5, 6, 4).astype("float32")


class Assigned(keras.Model):
    """Layers that are called twice, and whose weights are others in between and afterwards."""

    def __init__(self, *used):
        super().__init__()
        self.used = used

    def call(self, x, training=None):
        for _ in range(2):
            for layer in self.used:
                x = layer(x)
                for v in layer.trainable_variables:
                    v.assign(0.6 * v + 0.01)
        return x


class Shared(keras.Model):
    def __init__(self, wrapped):
        super().__init__()
        self.normalised = layers.SpectralNormalization(wrapped)

    def call(self, x, training=None):
        return self.normalised(self.normalised(x, training=True), training=True)


class Dilated(keras.Model):
    """One kernel, looked through in several scales, as detectors do; and other settings that change."""

    def __init__(self):
        super().__init__()
        self.penalty = keras.regularizers.L2()
        self.convolution = layers.Conv1D(4, 3, padding="same", activity_regularizer=self.penalty)
        self.slope = layers.LeakyReLU()
        self.normalised = layers.LayerNormalization()

    def call(self, x, training=None):
        for scale in (1, 2, 3):
            self.convolution.dilation_rate = (scale,)
            self.penalty.l2 = 0.1 * scale
            self.slope.negative_slope = 0.2 * scale
            self.normalised.epsilon, self.normalised.note = 0.3 * scale, (x, scale)
            x = self.normalised(self.slope(self.convolution(x)))
        return x + sum(self.losses)


class Taken(keras.Model):
    """A bias that is there in one call of two; and what a cell is set to, in the place of its layer."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(4, bias_initializer="ones")
        self.recurrent = layers.GRU(4, return_sequences=True, reset_after=False, bias_initializer="ones")
        self.simple = layers.SimpleRNN(4, return_sequences=True)

    def build(self, shape):
        for layer in (self.dense, self.recurrent, self.simple):
            layer.build((None, 6, 4))
        self.biases = self.dense.bias, self.recurrent.cell.bias
        self.kernels = self.simple.cell.kernel, self.simple.cell.recurrent_kernel

    def call(self, x, training=None):
        for bias, other in ((self.biases, 1), ((None, None), 0)):
            self.dense.bias, self.recurrent.cell.bias = bias
            self.recurrent.cell.use_bias = bias[1] is not None
            self.simple.cell.recurrent_kernel = self.kernels[other]
            x = self.simple(self.recurrent(self.dense(x)))
        return x


class Exchanged(keras.Model):
    """A layer with another cell in each call of it, and with none afterwards."""

    def __init__(self):
        super().__init__()
        self.cells = [layers.GRUCell(4), layers.GRUCell(4, "relu", reset_after=False)]
        self.recurrent = layers.RNN(self.cells[0], return_sequences=True)
        self.recurrent.cells = self.cells

    def build(self, shape):
        self.recurrent.build((None, 6, 4))
        self.cells[1].build((None, 4))

    def call(self, x, training=None):
        for cell in self.cells:
            self.recurrent.cell = cell
            x = self.recurrent(x)
        self.recurrent.cell = None
        return x


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize(
    "make",
    [
        lambda: Shared(layers.Dense(4, "tanh")),
        lambda: Assigned(layers.Conv1D(4, 3, padding="same"), layers.LayerNormalization(), layers.PReLU()),
        lambda: Assigned(layers.GRU(4, return_sequences=True)),
        Dilated,
        Taken,
        Exchanged,
    ],
    ids=["spectral_normalization", "layers", "gru", "settings", "taken", "exchanged"],
)
def test_every_link_goes_by_what_was_then(make, compiled):
    model, x = make(), tf.constant(X)
    model(x)
    before = model.get_weights()
    with tf.GradientTape() as tape:
        tape.watch(x)
        error = tf.reduce_mean(tf.sin(model(x, training=True)))
    expected = tape.gradient(error, [*(v.value for v in model.trainable_variables), x])
    model.set_weights(before)

    def explicit(x):
        result = backward(model, x, loss=tf.sin)
        return [*result.gradients, *result.inputs]

    run = tf.function(explicit, autograph=False) if compiled else explicit
    for ours, tapes in zip(run(x), expected, strict=True):
        np.testing.assert_allclose(ours, tapes, rtol=1e-4, atol=1e-7)


def test_no_weight_is_read_anew_where_another_one_is_assigned():
    """A read of its own would race the optimizer."""

    class Scaled(keras.Model):
        def __init__(self):
            super().__init__()
            self.layer = layers.SimpleRNN(4)

        def call(self, x, training=None):
            (recurrent,) = (v for v in self.layer.trainable_variables if v.name == "recurrent_kernel")
            recurrent.assign(0.6 * recurrent)
            return self.layer(x)

    model, x = Scaled(), tf.constant(X)
    model.layer.build(x.shape)
    run = tf.function(lambda x: backward(model, x, loss=tf.sin).gradients, autograph=False).get_concrete_function(x)
    reads = [one.name for one in run.graph.get_operations() if one.type == "ReadVariableOp"]
    assert reads and not [name for name in reads if name.startswith("backward/")]


def test_gradients_wait_for_all_that_a_call_of_a_function_reads():
    """Inlined, a call can give a weight's gradient, and the optimizer its new value, before all of it is read."""

    class Called(layers.Layer):
        def build(self, shape):
            self.w = self.add_weight(shape=(4, 4), name="w")
            recomputed = tf.recompute_grad(lambda z: tf.tanh(keras.ops.matmul(z, self.w)))
            self.function = tf.function(recomputed, autograph=False)

        def call(self, x):
            return self.function(x)

    model = keras.Sequential([keras.Input((6, 4)), Called()])
    run = tf.function(lambda x: backward(model, x, loss=tf.sin).gradients, autograph=False).get_concrete_function(X)
    calls = [one for one in run.graph.get_operations() if one.name.startswith("backward/") and "Call" in one.type]
    assert calls
    for call in calls:
        for taken in (one for y in call.outputs for one in y.consumers()):
            (waits_for,) = taken.control_inputs
            assert call in waits_for.control_inputs


def test_a_rule_may_count_and_draw():
    """What it assigns stays, in compiled steps as in eager ones."""
    noted = []
    for eager in (True, False):
        count, seed = keras.Variable(0.0, trainable=False), keras.random.SeedGenerator(1)
        drawn = keras.Variable(np.zeros(4, "float32"), trainable=False)

        def rule(call, dy, count=count, seed=seed, drawn=drawn):
            step = keras.ops.one_hot(keras.ops.cast(count, "int32"), 4)
            drawn.assign_add(step * keras.random.uniform((), seed=seed))
            count.assign_add(1)
            return Gradients(dy)

        model = BackpropSequential([keras.Input((4,)), layers.Dense(3), layers.ReLU()])
        model.compile("sgd", "mse", rules={layers.ReLU: rule}, run_eagerly=eager)
        model.fit(np.ones((8, 4)), np.ones((8, 3)), batch_size=2, verbose=0)
        noted.append([float(count), *drawn.numpy()])
    np.testing.assert_allclose(noted[1], noted[0])
    assert noted[1][0] == 4 and len(set(noted[1])) == 5


def test_what_a_rule_writes_on_its_layer_stays():
    class Twice(keras.Model):
        def __init__(self):
            super().__init__()
            self.layer = layers.LeakyReLU(0.1)
            self.layer.seen = 0

        def call(self, x):
            x = self.layer(x)
            self.layer.negative_slope = 0.3
            return self.layer(x)

    slopes, model, x = [], Twice(), tf.constant(X)

    def rule(call, dy):
        call.op.seen += 1
        slopes.append(call.op.negative_slope)
        return Gradients(dy)

    with use_rules({layers.LeakyReLU: rule}):
        backward(model, x, loss=tf.sin)
    assert model.layer.seen == 2 and slopes == [0.3, 0.1] and model.layer.negative_slope == 0.3
