"""Odd styles on purpose: raw TensorFlow, Lambda layers, tf.function methods, tf.Variables, masks by hand, effects in `call`."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from tests.equality import compare
from tests.published import batches, fit, numbers

X, Y = numbers(23, 5, 4), numbers(23, 2, seed=1)


def train(k):
    """Lambda layers of every kind, operators on symbolic tensors, `tf.function` on `call` and on helpers."""

    class Helper(layers.Layer):
        def build(self, shape):
            self.w = self.add_weight(shape=(shape[-1], 3), name="w")
            self.v = tf.Variable(tf.ones((3,)), trainable=True, name="v")

        @tf.function
        def call(self, x, training=None):
            return self.helper(x) * self.v

        @tf.function(autograph=False)
        def helper(self, x):
            return tf.nn.relu(tf.tensordot(x, self.w, axes=[[-1], [0]]))

    inputs = keras.Input((5, 4))
    x = layers.Lambda(lambda x: x[:, 1:] - x[:, :-1])(inputs)
    x = layers.Lambda(tf.math.cumsum, arguments={"axis": 1})(x)
    x = Helper()(x)
    mean, variance = layers.Lambda(lambda x: tf.nn.moments(x, axes=[1]))(x)
    norm = layers.Lambda(lambda t: (t[0] - t[1][:, None]) * tf.math.rsqrt(t[2][:, None] + 1e-3))([x, mean, variance])
    x = ops.max(norm, axis=1) + 2 * ops.reshape(x, (-1, 12))[:, ::4] - mean
    x = layers.Lambda(lambda x: tf.nn.swish(x))(layers.Dense(3)(x))
    model = k.Model(inputs, layers.Dense(2, activation=tf.nn.tanh)(x))
    model.compile(tf.keras.optimizers.SGD(0.05), lambda y, p: tf.reduce_mean(tf.abs(y - p), axis=-1))
    return fit(model, batches(X, Y))


def train_variables(k):
    """A `tf.Variable` made in `build` is no weight to Keras; `tf.Module`s; state assigned in `call`; a loss that reads weights."""

    class Scale(tf.Module):
        def __init__(self, size):
            super().__init__()
            self.w = tf.Variable(tf.ones(size), name="scale")

        def __call__(self, x):
            return x * self.w

    class Odd(layers.Layer):
        def build(self, shape):
            self.module = Scale(shape[-1])
            self.v = tf.Variable(keras.initializers.GlorotNormal(seed=3)((shape[-1], 2)), name="v")
            self.w = self.add_weight(shape=(2,), initializer="ones", name="w")
            self.running = self.add_weight(shape=(2,), initializer="zeros", trainable=False, name="running")
            self.calls = tf.Variable(0, trainable=False)

        def call(self, x, training=None):
            y = tf.matmul(self.module(x), self.v) * self.w
            if training:
                self.running.assign(0.9 * self.running + 0.1 * tf.stop_gradient(tf.reduce_mean(y, axis=0)))
                self.calls.assign_add(1)
            tf.debugging.assert_all_finite(y, "finite")
            return y - self.running

    class Model(k.Model):
        def __init__(self):
            super().__init__()
            self.first, self.odd = layers.Dense(3, "tanh"), Odd()

        def call(self, x, training=None, mask=None):
            y = self.odd(self.first(tf.reshape(x, [tf.shape(x)[0], 20])), training=training)
            self.add_loss(1e-2 * tf.reduce_sum(tf.square(self.odd.w)))
            return y

    model = Model()
    model.compile("adam", "mse")
    seen = fit(model, batches(X, Y))
    return {
        **seen,
        "calls": int(model.odd.calls),
        "v": model.odd.v.numpy(),
        "evaluated": model.evaluate(X, Y, verbose=0),
    }


def train_masks(k):
    """Masks that layers make, change, swallow and read from tensors; a nested model between; `mask=` given by hand."""

    class Every(layers.Layer):
        """Only every second step is there."""

        def compute_mask(self, inputs, mask=None):
            there = ops.logical_and(ops.ones_like(inputs[:, :, 0], dtype="bool"), ops.arange(inputs.shape[1]) % 2 == 0)
            return there if mask is None else ops.logical_and(there, mask)

        def call(self, inputs):
            return inputs * 1.5

    class Weighted(layers.Layer):
        def __init__(self):
            super().__init__()
            self.supports_masking = True
            self.score = layers.Dense(1)

        def call(self, x, mask=None):
            score = self.score(x)
            if mask is not None:
                score = ops.where(mask[:, :, None], score, -1e9)
            self.seen = getattr(x, "_keras_mask", None) is not None
            return ops.sum(ops.softmax(score, axis=1) * x, axis=1)

        def compute_mask(self, inputs, mask=None):
            return None

    inner_in = keras.Input((5, 4))
    inner = keras.Model(inner_in, layers.LSTM(4, return_sequences=True)(Every()(inner_in)), name="inner")
    inputs = keras.Input((5, 4))
    x = layers.Masking(mask_value=0.0)(inputs)
    h = inner(x)
    a, b = Weighted()(h), layers.GlobalAveragePooling1D()(h)
    c = layers.GRU(3)(h, mask=ops.any(ops.not_equal(inputs, 0.0), axis=-1))
    model = k.Model(inputs, layers.Dense(2)(layers.concatenate([a, b, c])))
    model.compile(keras.optimizers.SGD(0.1), "mse")
    x = X.copy()
    x[::2, 3:] = 0
    return {**fit(model, batches(x, Y)), "inner": compare.observe(inner)}


def train_control(k):
    """`ops.cond`, `scan`, `fori_loop`, `map`, `switch`, weights read inside; a custom gradient; a straight-through estimator."""

    class Control(layers.Layer):
        def build(self, shape):
            self.w = self.add_weight(shape=(shape[-1],), initializer="ones", name="w")
            self.u = self.add_weight(shape=(shape[-1], shape[-1]), name="u")

        def call(self, x, training=False):
            x = ops.fori_loop(0, 3, lambda i, a: ops.tanh(ops.matmul(a, self.u)) + x, x)
            _, x = ops.scan(
                lambda carry, a: (carry * 0.5 + a * self.w,) * 2, ops.zeros_like(x[:, 0]), ops.transpose(x, (1, 0, 2))
            )
            x = ops.transpose(x, (1, 0, 2))
            x = ops.cond(ops.sum(x) > 0, lambda: x * self.w, lambda: x + self.w)
            x = ops.map(lambda a: a * ops.sigmoid(self.w), x)
            x = ops.switch(ops.cast(ops.shape(x)[1] % 2, "int32"), [lambda a: a, lambda a: a - self.w], x)
            hard = ops.cast(x > 0, x.dtype)
            return x * (ops.sigmoid(x) + ops.stop_gradient(hard - ops.sigmoid(x)))

    class Reversal(layers.Layer):
        def call(self, x):
            @tf.custom_gradient
            def reverse(x):
                return tf.identity(x), lambda dy: -0.3 * dy

            return reverse(x)

    inputs = keras.Input((5, 4))
    h = Control()(inputs)
    flat = layers.Flatten()(h)
    model = k.Model(
        inputs, [layers.Dense(2, name="task")(flat), layers.Dense(1, "sigmoid", name="domain")(Reversal()(flat))]
    )
    model.compile(keras.optimizers.SGD(0.02), ["mse", "binary_crossentropy"], loss_weights=[1.0, 0.5])
    return fit(model, batches(X, (Y, (Y[:, :1] > 0).astype("float32"))))


def train_eagerly(k):
    """Run eagerly: values decide in Python, NumPy on the side, lists that grow, printed numbers; a mutable default."""

    class Deep(layers.Layer):
        def __init__(self):
            super().__init__()
            self.layers, self.log = [layers.Dense(4, "tanh") for _ in range(3)], []

        def call(self, x, training=None):
            for i, layer in enumerate(self.layers):
                if float(ops.mean(ops.abs(x))) > 0.05 * i:
                    x = x + layer(x)
            self.log.append(float(np.mean(ops.convert_to_numpy(ops.stop_gradient(x)))))
            return x

    deep = Deep()

    class Model(k.Model):
        def __init__(self):
            super().__init__()
            self.deep, self.pool, self.out = deep, layers.GlobalAveragePooling1D(), layers.Dense(2)

        def call(self, x, training=None):
            return self.out(self.pool(self.deep(x)))

    model = Model()
    model.compile("adam", "mse", run_eagerly=True)
    return {**fit(model, batches(X, Y), epochs=3), "log": deep.log}
