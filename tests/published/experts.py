"""Mixtures and uncertainty: experts with routers, weights that are distributions, networks made by networks, fixed points."""

import keras
import tensorflow as tf
from keras import layers, ops

from tests.published import batches, fit, integers, numbers

X, Y = numbers(23, 6, 4), integers(3, 23)


def train(k):
    """A switch transformer: tokens go to one of several experts with limited room; a loss balances their loads."""

    def balance(probabilities, mask, experts):
        density = ops.mean(mask, axis=0)
        proxy = ops.mean(probabilities, axis=0)
        return ops.mean(proxy * density) * ops.cast(experts**2, "float32")

    class Router(layers.Layer):
        def __init__(self, experts, room):
            super().__init__()
            self.route, self.experts, self.room = layers.Dense(units=experts), experts, room

        def call(self, inputs, training=False):
            logits = self.route(inputs)
            if training:
                logits += keras.random.uniform(shape=ops.shape(logits), minval=0.9, maxval=1.1, seed=1)
            probabilities = keras.activations.softmax(logits, axis=-1)
            gate, index = ops.top_k(probabilities, k=1)
            mask = ops.one_hot(index, self.experts)
            mask = ops.cast(ops.squeeze(mask, 1), "float32")
            self.add_loss(balance(probabilities, mask, self.experts))
            position = ops.cumsum(mask, axis=0) * mask
            mask = mask * ops.cast(ops.less(position, self.room), mask.dtype)
            flat = ops.sum(mask, axis=-1)
            gate = gate * flat[:, None]
            combine = ops.expand_dims(gate * flat[:, None] * ops.squeeze(ops.one_hot(index, self.experts), 1), -1)
            place = ops.one_hot(ops.cast(ops.sum(position, axis=-1), "int32"), self.room)
            combine = combine * place[:, None, :]
            return ops.cast(combine, "float32"), ops.cast(combine > 0, "float32")

    class Switch(layers.Layer):
        def __init__(self, experts, dim, tokens):
            super().__init__()
            self.count, self.dim, self.room = experts, dim, tokens // experts
            self.experts = [keras.Sequential([layers.Dense(8, "relu"), layers.Dense(dim)]) for _ in range(experts)]
            self.router = Router(experts, self.room)

        def call(self, inputs):
            shape = ops.shape(inputs)
            flat = ops.reshape(inputs, [-1, self.dim])
            combine, dispatch = self.router(flat)
            given = ops.einsum("ab,acd->cdb", flat, dispatch)
            outputs = [expert(given[i]) for i, expert in enumerate(self.experts)]
            outputs = ops.einsum("abc,xab->xc", ops.stack(outputs), combine)
            return ops.reshape(outputs, [shape[0], shape[1], self.dim])

    inputs = keras.Input((6, 4))
    switch = Switch(3, 4, 30)
    x = layers.LayerNormalization()(inputs + switch(inputs))
    model = k.Model(inputs, layers.Dense(3, "softmax")(layers.GlobalAveragePooling1D()(x)))
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return fit(model, batches(X, Y))


def train_bayesian(k):
    """Weights drawn anew in every call from distributions that are learned; the output is a distribution as well."""

    class Variational(layers.Layer):
        def __init__(self, units, activation=None):
            super().__init__()
            self.units, self.activation = units, keras.activations.get(activation)
            self.seed = keras.random.SeedGenerator(units)

        def build(self, shape):
            self.mean = self.add_weight(shape=(shape[-1], self.units), name="mean")
            self.rho = self.add_weight(
                shape=(shape[-1], self.units), initializer=keras.initializers.Constant(-3.0), name="rho"
            )
            self.bias = self.add_weight(shape=(self.units,), initializer="zeros", name="bias")

        def call(self, x):
            deviation = tf.math.softplus(self.rho)
            w = self.mean + deviation * keras.random.normal(self.mean.shape, seed=self.seed)
            self.add_loss(tf.reduce_sum(0.5 * (deviation**2 + self.mean**2) - tf.math.log(deviation) - 0.5) / 230.0)
            return self.activation(ops.matmul(x, w) + self.bias)

    def likelihood(y, p):
        mean, scale = p[:, :1], 1e-3 + ops.softplus(0.5 * p[:, 1:])
        return ops.log(scale) + 0.5 * ops.square((y - mean) / scale)

    inputs = keras.Input((24,))
    model = k.Model(inputs, Variational(2)(Variational(5, "sigmoid")(layers.BatchNormalization()(inputs))))
    model.compile(
        keras.optimizers.RMSprop(1e-3, epsilon=1e-3), likelihood, metrics=[keras.metrics.RootMeanSquaredError()]
    )
    return fit(model, batches(X.reshape(23, 24), numbers(23, 1)))


def train_hypernetwork(k):
    """The weights of one network are the outputs of another: every example has its own."""

    class Hyper(k.Model):
        def __init__(self):
            super().__init__()
            self.maker = keras.Sequential([layers.Dense(8, "relu"), layers.Dense(4 * 3 + 3)])

        def call(self, x, training=None):
            weights = self.maker(ops.mean(x, axis=1))
            kernel, bias = ops.reshape(weights[:, :12], (-1, 4, 3)), weights[:, 12:]
            return ops.mean(ops.relu(ops.einsum("nsi,nio->nso", x, kernel) + bias[:, None]), axis=1)

    model = Hyper()
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    return fit(model, X, Y, batch_size=5)


def train_fixed_point(k):
    """A layer that repeats until it rests: `tf.while_loop` with a condition on the values, then one more step."""

    class Equilibrium(layers.Layer):
        def build(self, shape):
            self.u = self.add_weight(
                shape=(shape[-1], shape[-1]), initializer=keras.initializers.RandomNormal(0, 0.1, seed=2), name="u"
            )
            self.steps = self.add_weight(shape=(), dtype="int32", initializer="zeros", trainable=False, name="steps")

        def step(self, z, x):
            return tf.tanh(z @ self.u + x)

        def call(self, x):
            def condition(i, z, previous):
                return tf.logical_and(i < 30, tf.reduce_max(tf.abs(z - previous)) > 1e-3)

            i, z, _ = tf.while_loop(condition, lambda i, z, _: (i + 1, self.step(z, x), z), (0, self.step(x, x), x))
            self.steps.assign_add(i)
            return self.step(z, x)

    inputs = keras.Input((24,))
    h = layers.Dense(5)(inputs)
    model = k.Model(inputs, layers.Dense(3, "softmax")(Equilibrium()(h)))
    model.compile("sgd", "sparse_categorical_crossentropy")
    return fit(model, batches(X.reshape(23, 24), Y))


def train_sets(k):
    """Bags of instances with gated attention, kernels of random features, sets seen through learned queries."""

    class Gated(layers.Layer):
        def build(self, shape):
            self.v, self.u = (self.add_weight(shape=(shape[0][1], 5), name=n, regularizer="l2") for n in "vu")
            self.w = self.add_weight(shape=(5, 1), name="w")

        def call(self, instances):
            scores = [
                ops.tensordot(
                    ops.tanh(ops.tensordot(x, self.v, 1)) * ops.sigmoid(ops.tensordot(x, self.u, 1)), self.w, 1
                )
                for x in instances
            ]
            alpha = ops.softmax(ops.convert_to_tensor(ops.stack(scores)), axis=0)
            return [alpha[i] for i in range(alpha.shape[0])]

    class Queries(layers.Layer):
        def __init__(self, count, dim):
            super().__init__()
            self.count, self.dim, self.attention = count, dim, layers.MultiHeadAttention(2, dim)
            self.norm = layers.LayerNormalization()

        def build(self, shape):
            self.latent = self.add_weight(shape=(self.count, self.dim), initializer="random_normal", name="latent")

        def call(self, x):
            latent = ops.broadcast_to(self.latent, (ops.shape(x)[0], self.count, self.dim))
            for _ in range(2):
                latent = self.norm(latent + self.attention(query=latent, key=x, value=x))
            return ops.mean(latent, axis=1)

    inputs = [keras.Input((4,)) for _ in range(3)]
    dense = layers.Dense(6, "relu")
    embedded = [dense(x) for x in inputs]
    alphas = Gated(name="alpha")(embedded)
    bag = layers.concatenate([layers.multiply([a, e]) for a, e in zip(alphas, embedded, strict=True)])
    latent = Queries(3, 4)(layers.Lambda(lambda xs: ops.stack(xs, axis=1))(inputs))
    x = layers.concatenate([bag, layers.GaussianNoise(0.1, seed=3)(latent)])
    model = k.Model(inputs, layers.Dense(3, activation="softmax")(x))
    model.compile(keras.optimizers.Adam(1e-3, epsilon=1e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return fit(model, [X[:, 0], X[:, 1], X[:, 2]], Y, batch_size=5, class_weight={0: 1.0, 1: 2.0, 2: 0.5})
