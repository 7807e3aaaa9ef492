"""Tables: gated residual and variable selection networks, layers of one's own in a functional model with a dict of inputs."""

import keras
import numpy as np
from keras import layers, ops

from tests.published import batches, fit, integers, numbers

AGE, INCOME, CITY = numbers(23), numbers(23, seed=1), integers(4, 23).astype("int32")
KIND = np.array(["red", "green", "blue"])[integers(3, 23, seed=3)]
Y = integers(2, 23, seed=2)


class GatedLinearUnit(layers.Layer):
    def __init__(self, units):
        super().__init__()
        self.linear, self.sigmoid = layers.Dense(units), layers.Dense(units, activation="sigmoid")

    def call(self, x):
        return self.linear(x) * self.sigmoid(x)


class GatedResidual(layers.Layer):
    def __init__(self, units, rate, seed=0):
        super().__init__()
        self.units = units
        self.elu, self.linear = layers.Dense(units, activation="elu"), layers.Dense(units)
        self.dropout, self.gate = layers.Dropout(rate, seed=seed), GatedLinearUnit(units)
        self.norm, self.project = layers.LayerNormalization(), layers.Dense(units)

    def call(self, inputs):
        x = self.gate(self.dropout(self.linear(self.elu(inputs))))
        if inputs.shape[-1] != self.units:
            inputs = self.project(inputs)
        return self.norm(inputs + x)


class VariableSelection(layers.Layer):
    def __init__(self, count, units, rate):
        super().__init__()
        self.networks = [GatedResidual(units, rate, seed=i) for i in range(count)]
        self.together, self.softmax = GatedResidual(units, rate, seed=9), layers.Dense(count, activation="softmax")

    def call(self, inputs):
        v = self.softmax(self.together(layers.concatenate(inputs)))
        v = ops.expand_dims(v, axis=-1)
        x = ops.stack([network(x) for network, x in zip(self.networks, inputs, strict=True)], axis=1)
        return ops.squeeze(ops.matmul(ops.transpose(v, axes=[0, 2, 1]), x), axis=1)


def features():
    return {
        "age": keras.Input((), name="age"),
        "income": keras.Input((), name="income"),
        "city": keras.Input((), dtype="int32", name="city"),
        "kind": keras.Input((), dtype="string", name="kind"),
    }


def encoded(inputs, dim):
    lookup = layers.StringLookup(vocabulary=["red", "green", "blue"], num_oov_indices=0)
    return [
        layers.Dense(dim)(layers.Lambda(lambda x: ops.expand_dims(x, -1), output_shape=(1,))(inputs["age"])),
        layers.Dense(dim)(layers.Lambda(lambda x: ops.expand_dims(x, -1), output_shape=(1,))(inputs["income"])),
        layers.Embedding(4, dim)(inputs["city"]),
        layers.Embedding(3, dim)(lookup(inputs["kind"])),
    ]


def train(k):
    inputs = features()
    x = VariableSelection(4, 5, 0.15)(encoded(inputs, 5))
    model = k.Model(inputs, layers.Dense(1, activation="sigmoid")(x))
    model.compile(
        keras.optimizers.Adam(1e-2, epsilon=1e-3),
        keras.losses.BinaryCrossentropy(),
        metrics=[keras.metrics.BinaryAccuracy(name="accuracy")],
    )
    data = batches({"age": AGE, "income": INCOME, "city": CITY, "kind": KIND}, Y, abs(numbers(23, seed=5)))
    return fit(model, data, validation_data=data)


def train_transformer(k):
    """Categories as tokens of a transformer, numbers normalised beside it; the MLP is made by a factory of norms.

    In double precision, in which both agree to 1e-12: batches of two or three amplify the rounding of single precision.
    """
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    inputs = features()
    tokens = ops.stack(encoded(inputs, 4), axis=1)
    tokens = tokens + layers.Embedding(4, 4)(ops.arange(start=0, stop=4, step=1))
    for i in range(2):
        a = layers.MultiHeadAttention(2, 4, dropout=0.1, seed=i, name=f"attention_{i}")(tokens, tokens)
        x = layers.LayerNormalization(epsilon=1e-6)(layers.Add()([a, tokens]))
        tokens = layers.LayerNormalization(epsilon=1e-6)(layers.Add()([layers.Dense(4, "gelu")(x), x]))
    numeric = layers.concatenate([ops.expand_dims(inputs[name], -1) for name in ("age", "income")])
    x = layers.concatenate([layers.Flatten()(tokens), layers.LayerNormalization(epsilon=1e-6)(numeric)])
    for units, norm in ((8, layers.BatchNormalization), (4, layers.LayerNormalization)):
        x = layers.Dropout(0.1, seed=units)(layers.Dense(units, activation=keras.activations.selu)(norm()(x)))
    model = k.Model(inputs, layers.Dense(1, activation="sigmoid")(x))
    model.compile(keras.optimizers.SGD(0.01), keras.losses.BinaryCrossentropy(), metrics=["AUC"])
    data = batches({"age": AGE, "income": INCOME, "city": CITY, "kind": KIND}, Y[:, None])
    return fit(model, data, class_weight={0: 0.5, 1: 2.0})


def train_decision_forest(k):
    """Neural decision trees: routes by sigmoid decisions, a loop over depth, leaves that are weights."""

    class Tree(layers.Layer):
        def __init__(self, depth, features, classes, seed):
            super().__init__()
            self.depth, self.leaves, self.classes = depth, 2**depth, classes
            chosen = np.random.default_rng(seed).choice(np.arange(features), 3, replace=False)
            self.mask = np.eye(features, dtype="float32")[chosen]
            self.pi = self.add_weight(
                shape=(self.leaves, classes), initializer="random_normal", trainable=True, name="pi"
            )
            self.decide = layers.Dense(self.leaves, activation="sigmoid", name="decision")

        def call(self, x):
            n = ops.shape(x)[0]
            decisions = ops.expand_dims(self.decide(ops.matmul(x, ops.transpose(self.mask))), axis=2)
            decisions = layers.concatenate([decisions, 1 - decisions], axis=2)
            mu = ops.ones([n, 1, 1])
            begin, end = 1, 2
            for level in range(self.depth):
                mu = ops.tile(ops.reshape(mu, [n, -1, 1]), (1, 1, 2))
                mu = mu * decisions[:, begin:end, :]
                begin, end = end, end + 2 ** (level + 1)
            return ops.matmul(ops.reshape(mu, [n, self.leaves]), keras.activations.softmax(self.pi))

    class Forest(k.Model):
        def __init__(self):
            super().__init__()
            self.norm, self.trees = layers.BatchNormalization(), [Tree(3, 6, 2, seed) for seed in range(3)]

        def call(self, inputs):
            x = self.norm(inputs)
            outputs = ops.zeros([ops.shape(x)[0], 2])
            for tree in self.trees:
                outputs += tree(x)
            return outputs / len(self.trees)

    model = Forest()
    model.compile(
        keras.optimizers.SGD(0.3),
        keras.losses.SparseCategoricalCrossentropy(),
        metrics=[keras.metrics.SparseCategoricalAccuracy()],
    )
    return fit(model, batches(numbers(23, 6), Y))
