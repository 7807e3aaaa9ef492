"""Models whose user overrides something, built on either pair of classes."""

import keras
from keras import layers, ops


class Penalty(layers.Layer):
    """Adds a loss that is computed from its inputs."""

    def __init__(self, rate):
        super().__init__()
        self.rate = rate

    def call(self, x):
        self.add_loss(self.rate * ops.mean(ops.square(x)))
        return x


class Reconstruction(layers.Layer):
    """Adds the reconstruction error as a loss, one number for each example."""

    def call(self, inputs):
        x, y = inputs
        self.add_loss(ops.mean(ops.square(x - y), axis=-1) / 16)
        return y


class Scale(layers.Layer):
    """A layer without a rule, with a weight inside an expression of its own."""

    def build(self, input_shape):
        self.scale = self.add_weight(name="scale", shape=(input_shape[-1],), initializer="zeros", regularizer="l2")

    def call(self, x):
        return ops.tanh(x) * ops.exp(self.scale)


class Stateful(layers.Layer):
    """A layer without a rule that counts its calls and draws random numbers."""

    def __init__(self):
        super().__init__()
        self.seed_generator = keras.random.SeedGenerator(3)

    def build(self, input_shape):
        self.count = self.add_weight(name="count", shape=(), initializer="zeros", trainable=False)
        self.scale = self.add_weight(name="scale", shape=(input_shape[-1],), initializer="ones")

    def call(self, x):
        self.count.assign_add(1.0)
        noise = keras.random.normal((4,), seed=self.seed_generator)
        return ops.tanh(x * self.scale) / (1 + 0.01 * self.count) + 0.1 * noise * self.scale


def own_weights(k):
    class Model(k.Model):
        def __init__(self):
            super().__init__()
            self.hidden, self.drop, self.out = layers.Dense(5, "tanh"), layers.Dropout(0.3, seed=4), layers.Dense(1)

        def build(self, input_shape):
            self.scale = self.add_weight(name="scale", shape=(5,), initializer="zeros")
            self.hidden.build(input_shape)
            self.out.build((None, 5))

        def call(self, x, training=False):
            h = self.hidden(x) * ops.exp(self.scale)
            return self.out(self.drop(h, training=training)) + ops.mean(x, axis=-1, keepdims=True)

    return Model()


def training_and_mask(k):
    class Model(k.Model):
        def __init__(self):
            super().__init__()
            self.hidden, self.norm, self.out = layers.Dense(5, "relu"), layers.BatchNormalization(), layers.Dense(1)

        def build(self, input_shape):
            self.hidden.build(input_shape)
            self.norm.build((None, 5))
            self.out.build((None, 5))

        def call(self, inputs, training=None, mask=None):
            h = self.norm(self.hidden(inputs), training=training)
            return self.out(h) * (2.0 if training else 1.0)

    return Model()


def dictionaries(k):
    class Model(k.Model):
        def __init__(self):
            super().__init__()
            self.left, self.right = layers.Dense(1), layers.Dense(1, "tanh")

        def build(self, input_shape):
            self.left.build((None, 6))
            self.right.build((None, 2))

        def call(self, inputs):
            return {"sum": self.left(inputs["a"]) + self.right(inputs["b"])}

    return Model()


def functional_subclass(k):
    class Model(k.Model):
        def __init__(self, units):
            inputs = keras.Input((6,))
            super().__init__(inputs, layers.Dense(1)(layers.Dense(units, "relu")(inputs)), name="mine")

    return Model(5)


def adds_loss(k):
    class Model(k.Model):
        def __init__(self):
            super().__init__()
            self.hidden, self.penalty, self.out = layers.Dense(5, "tanh"), Penalty(0.1), layers.Dense(1)

        def build(self, input_shape):
            self.hidden.build(input_shape)
            self.out.build((None, 5))

        def call(self, x):
            h = self.penalty(self.hidden(x))
            self.add_loss(ops.sum(ops.abs(h)) * 1e-3)
            return self.out(h)

    return Model()


def _two_layers(cls, **options):
    inputs = keras.Input((6,))
    return cls(inputs, layers.Dense(1, **options)(layers.Dense(4, "tanh")(inputs)))


def own_compute_loss(k):
    class Model(k.Model):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return ops.mean(ops.abs(y - y_pred) ** 3) + ops.sum(ops.stack(self.losses))

    return _two_layers(Model, kernel_regularizer="l2", activity_regularizer="l1")


def old_compute_loss(k):
    class Model(k.Model):
        def compute_loss(self, x, y, y_pred, sample_weight):
            return ops.mean(ops.square(y - y_pred)) + 1e-3 * ops.mean(ops.square(y_pred))

    return _two_layers(Model)


def extended_compute_loss(k):
    class Model(k.Model):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            loss = super().compute_loss(x, y, y_pred, sample_weight, training)
            return 0.5 * loss + 0.1 * ops.mean(ops.abs(y_pred))

    return _two_layers(Model, kernel_regularizer="l2")


def tracking_compute_loss(k):
    """The example of Keras's own documentation: a metric in `compute_loss`, `metrics` overridden; and weights in the loss."""

    class Model(k.Model):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.tracker = keras.metrics.Mean(name="tracker")

        def compute_loss(self, x, y, y_pred, sample_weight, training=True):
            loss = ops.mean((y_pred - y) ** 2) + 1e-3 * ops.sum(ops.abs(self.layers[-1].kernel))
            self.tracker.update_state(loss)
            return loss + ops.sum(self.losses)

        def reset_metrics(self):
            self.tracker.reset_state()

        @property
        def metrics(self):
            return [self.tracker]

    return _two_layers(Model, kernel_regularizer="l2", bias_regularizer="l1")


def kept_for_the_loss(k):
    """The loss needs tensors that `call` keeps in an attribute: of an own layer, of the model's hidden layer."""

    class Keeps(layers.Layer):
        def call(self, x):
            self.kept = ops.tanh(x)
            return self.kept * 2

    class Model(k.Model):
        def __init__(self):
            super().__init__()
            self.hidden, self.keeps, self.out = layers.Dense(4), Keeps(), layers.Dense(1)

        def build(self, input_shape):
            self.hidden.build(input_shape)
            self.out.build((None, 4))

        def call(self, x):
            self.h = ops.sin(self.hidden(x))
            return self.out(self.keeps(self.h))

        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            penalty = ops.mean(ops.square(self.h)) + ops.mean(ops.abs(self.keeps.kept))
            return super().compute_loss(x, y, y_pred, sample_weight, training) + penalty

    return Model()


def masked_compute_loss(k):
    """A loss object that must see the mask of the predictions."""

    class Model(k.Model):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return keras.losses.MeanSquaredError()(y, y_pred)

    inputs = keras.Input((4, 3))
    return Model(inputs, layers.SimpleRNN(2, return_sequences=True)(layers.Masking()(inputs)))


def own_metrics(k):
    class Model(k.Model):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.largest = keras.metrics.Mean(name="largest")

        def compute_metrics(self, x, y, y_pred, sample_weight=None):
            results = super().compute_metrics(x, y, y_pred, sample_weight)
            self.largest.update_state(ops.max(y_pred), sample_weight=2.0)
            results["largest"] = self.largest.result()
            results["no_metric"] = ops.mean(x)
            return results

    return _two_layers(Model)


def own_steps(k):
    class Model(k.Model):
        def train_step(self, data):
            logs = super().train_step(data)
            return {**logs, "twice": 2 * logs["loss"]}

        def test_step(self, data):
            logs = super().test_step(data)
            return {**logs, "twice": 2 * logs["loss"]}

    return _two_layers(Model)


def own_layer(k):
    inputs = keras.Input((6,))
    return k.Model(inputs, layers.Dense(1)(Scale()(layers.Dense(4)(inputs))))


def own_state(k):
    inputs = keras.Input((6,))
    return k.Model(inputs, layers.Dense(1)(Stateful()(layers.Dense(4)(inputs))))
