"""Series: a recurrent cell of one's own, graphs in time, temporal convolutions, stateful and unrolled networks, Time2Vec."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from tests.equality import compare
from tests.published import batches, fit, numbers

X, Y = numbers(23, 6, 3), numbers(23, 1, seed=1)


class MinimalCell(layers.Layer):
    """A minimal gated unit, with a state of its own shape and a leaky second state."""

    def __init__(self, units, **options):
        super().__init__(**options)
        self.units = units
        self.state_size, self.output_size = [units, 2], units

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 2 * self.units), name="kernel")
        self.recurrent = self.add_weight(shape=(self.units, 2 * self.units), initializer="orthogonal", name="recurrent")
        self.leak = self.add_weight(shape=(2,), initializer="ones", name="leak")

    def call(self, inputs, states, training=None):
        h, slow = states
        gate, candidate = ops.split(ops.matmul(inputs, self.kernel) + ops.matmul(h, self.recurrent), 2, axis=-1)
        gate = ops.sigmoid(gate)
        h = gate * h + (1 - gate) * ops.tanh(candidate)
        slow = ops.sigmoid(self.leak) * slow + h[:, :2]
        return h + ops.sum(slow, axis=-1, keepdims=True), [h, slow]


def train(k):
    """The cell in an `RNN` under a mask, stacked on Keras's own; uneven batches."""
    inputs = keras.Input((None, 3))
    x = layers.Masking()(inputs)
    x = layers.RNN(MinimalCell(4), return_sequences=True)(x)
    x = layers.RNN([layers.GRUCell(3), MinimalCell(3)], return_state=False, go_backwards=True)(x)
    model = k.Model(inputs, layers.Dense(1)(x))
    model.compile(keras.optimizers.Adam(1e-2, epsilon=1e-3, global_clipnorm=1.0), "mse", metrics=["mae"])
    x = X.copy()
    x[::2, 4:] = 0
    return fit(model, batches(x, Y))


def train_stateful(k):
    """States go from batch to batch and are reset by a callback; an unrolled layer; time major by hand."""

    class Reset(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            for layer in self.model.layers:
                if hasattr(layer, "reset_states"):
                    layer.reset_states()

    inputs = keras.Input(batch_shape=(5, 6, 3))
    x = layers.LSTM(4, stateful=True, return_sequences=True)(inputs)
    x = layers.SimpleRNN(3, unroll=True)(x)
    model = k.Model(inputs, layers.Dense(1)(x))
    model.compile("rmsprop", keras.losses.Huber())
    return fit(model, X[:20], Y[:20], batch_size=5, callbacks=[Reset()])


def train_graph(k):
    """Traffic: a graph convolution at every node and time, written with einsum and segments, then an LSTM over time."""
    adjacency = (numbers(5, 5, seed=3) > 0).astype("float32")
    senders, receivers = map(np.ascontiguousarray, np.nonzero(adjacency))

    class GraphConvolution(layers.Layer):
        def __init__(self, units):
            super().__init__()
            self.weight = tf.Variable(
                keras.initializers.GlorotUniform(seed=1)(shape=(1, units)), dtype="float32", trainable=True
            )
            self.mix = self.add_weight(shape=(1, units), initializer="ones", name="mix")
            self.activation = layers.ReLU()

        def call(self, x):
            nodes = tf.matmul(x, self.weight * self.mix)
            near = tf.math.unsorted_segment_mean(tf.gather(x, receivers), senders, num_segments=5)
            return self.activation(tf.concat([nodes, tf.matmul(near, self.mix)], axis=-1))

    class LSTMGC(layers.Layer):
        def __init__(self):
            super().__init__()
            self.graph, self.lstm, self.dense = GraphConvolution(3), layers.LSTM(4, activation="relu"), layers.Dense(2)

        def call(self, inputs):
            x = tf.transpose(inputs, [2, 0, 1, 3])
            h = self.graph(x)
            shape = tf.shape(h)
            nodes, n, steps, features = shape[0], shape[1], shape[2], h.shape[3]
            h = self.lstm(tf.reshape(h, (n * nodes, steps, features)))
            out = tf.reshape(self.dense(h), (nodes, n, 2))
            return tf.transpose(out, [1, 2, 0])

    inputs = keras.Input((6, 5, 1))
    model = k.Model(inputs, LSTMGC()(inputs))
    model.compile(keras.optimizers.RMSprop(1e-3, epsilon=1e-3), keras.losses.MeanSquaredError())
    return fit(model, batches(numbers(23, 6, 5, 1), numbers(23, 2, 5)))


def train_convolutions(k):
    """Causal dilated convolutions with gates and skips, weight normalisation by hand, periodic functions of time."""

    class Time2Vec(layers.Layer):
        def build(self, shape):
            self.w0, self.b0 = (self.add_weight(shape=(shape[1],), name=n) for n in ("w0", "b0"))
            self.w, self.b = (self.add_weight(shape=(shape[1],), initializer="uniform", name=n) for n in ("w", "b"))

        def call(self, x):
            x = keras.ops.mean(x, axis=-1)
            return ops.concatenate(
                [ops.expand_dims(self.w0 * x + self.b0, -1), ops.expand_dims(ops.sin(x * self.w + self.b), -1)], -1
            )

    class WeightNormalised(layers.Wrapper):
        def build(self, shape):
            super().build(shape)
            self.g = self.add_weight(shape=(self.layer.filters,), initializer="ones", name="g")

        def call(self, x):
            v = self.layer.kernel
            norm = ops.sqrt(ops.sum(ops.square(v), axis=(0, 1)))
            kernel = v * (self.g / norm)
            return ops.conv(ops.pad(x, ((0, 0), (2, 0), (0, 0))), kernel, 1) + self.layer.bias

    inputs = keras.Input((6, 3))
    x = layers.Concatenate()([inputs, Time2Vec()(inputs)])
    x = WeightNormalised(layers.Conv1D(4, 3))(x)
    skips = []
    for rate in (1, 2):
        gate = layers.Conv1D(4, 2, padding="causal", dilation_rate=rate, activation="sigmoid")(x)
        skip = layers.SpatialDropout1D(0.2, seed=rate)(
            layers.Conv1D(4, 2, padding="causal", dilation_rate=rate, activation="tanh")(x) * gate
        )
        skips.append(skip)
        x = x + layers.Conv1D(4, 1)(skip)
    x = layers.ReLU()(layers.Add()(skips))
    model = k.Model(inputs, layers.Dense(1)(layers.Flatten()(x[:, -2:])))

    def pinball(y, p):
        e = y - p
        return ops.mean(ops.maximum(0.3 * e, -0.7 * e), axis=-1)

    model.compile(keras.optimizers.Adam(1e-2, epsilon=1e-3), pinball)
    return fit(model, X, Y, batch_size=5, validation_split=0.2)


def train_frames(k):
    """The next frame of a film: convolutional LSTMs with batch normalisation, a convolution in three dimensions."""
    inputs = keras.Input((None, 5, 5, 1))
    x = layers.ConvLSTM2D(3, 3, padding="same", return_sequences=True, activation="relu")(inputs)
    x = layers.ConvLSTM2D(2, 1, padding="same", return_sequences=True)(layers.BatchNormalization()(x))
    model = k.Model(inputs, layers.Conv3D(1, 3, activation="sigmoid", padding="same")(x))
    model.compile(loss="binary_crossentropy", optimizer=keras.optimizers.Adam(epsilon=1e-3))
    film = 1 / (1 + numbers(13, 5, 5, 5, 1) ** 2)
    return fit(model, batches(film[:, :-1], film[:, 1:]), epochs=3)


def train_film_classifier(k):
    """A convolutional network at each time, a mask that says which frames are there, two recurrent layers."""
    frames, mask = keras.Input((4, 5, 5, 1)), keras.Input((4,), dtype="bool")
    per_frame = keras.Sequential(
        [keras.Input((5, 5, 1)), layers.Conv2D(3, 3, activation="relu"), layers.BatchNormalization(), layers.Flatten()]
    )
    x = layers.TimeDistributed(per_frame)(frames)
    x = layers.GRU(4, return_sequences=True)(x, mask=mask)
    x = layers.GRU(3)(x)
    model = k.Model([frames, mask], layers.Dense(2, activation="softmax")(layers.Dropout(0.4, seed=1)(x)))
    model.compile(loss="sparse_categorical_crossentropy", optimizer="adam", metrics=["accuracy"])
    present = np.arange(4) < 1 + np.arange(23)[:, None] % 4
    seen = fit(model, [numbers(23, 4, 5, 5, 1), present], np.arange(23) % 2, batch_size=5)
    return {**seen, "again": compare.observe(per_frame)}
