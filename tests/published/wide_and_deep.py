"""Wide & deep, deep & cross: crossed categories, two optimizers' worth of branches, layers of crosses."""

import keras
import numpy as np
from keras import layers, ops

from tests.published import fit, integers, numbers

NUMERIC, A, B = numbers(23, 3), integers(5, 23).astype("int32"), integers(4, 23, seed=1).astype("int32")
Y = integers(3, 23, seed=2)


class Table(keras.utils.PyDataset):
    """Batches of 5, the last of 3."""

    def __init__(self, weighted=False, **options):
        super().__init__(**options)
        self.weighted = weighted

    def __len__(self):
        return 5

    def __getitem__(self, index):
        part = slice(5 * index, 5 * index + 5)
        x = {"numeric": NUMERIC[part], "a": A[part], "b": B[part]}
        return (x, Y[part], abs(NUMERIC[part, 0])) if self.weighted else (x, Y[part])


def inputs():
    return {
        "numeric": keras.Input((3,), name="numeric"),
        "a": keras.Input((), dtype="int32", name="a"),
        "b": keras.Input((), dtype="int32", name="b"),
    }


def train(k):
    x = inputs()
    crossed = layers.HashedCrossing(8, output_mode="one_hot")((x["a"], x["b"]))
    wide = layers.concatenate(
        [layers.CategoryEncoding(5, "one_hot")(x["a"]), layers.CategoryEncoding(4, "one_hot")(x["b"]), crossed]
    )
    wide = layers.BatchNormalization()(wide)
    deep = layers.concatenate([layers.Embedding(5, 2)(x["a"]), layers.Embedding(4, 2)(x["b"]), x["numeric"]])
    for units in (6, 4):
        deep = layers.Dropout(0.1, seed=units)(layers.ReLU()(layers.BatchNormalization()(layers.Dense(units)(deep))))
    model = k.Model(x, layers.Dense(3, activation="softmax")(layers.concatenate([wide, deep])))
    model.compile(
        keras.optimizers.Adam(1e-2, epsilon=1e-3),
        keras.losses.SparseCategoricalCrossentropy(),
        metrics=[keras.metrics.SparseCategoricalAccuracy()],
    )
    return fit(model, Table(), validation_data=Table())


def train_cross(k):
    x = inputs()
    x0 = layers.concatenate([layers.Embedding(5, 3)(x["a"]), layers.Embedding(4, 2)(x["b"]), x["numeric"]])
    cross = x0
    for _ in range(2):
        units = cross.shape[-1]
        cross = x0 * layers.Dense(units)(cross) + cross
    deep = layers.Dense(4, "relu")(x0)
    model = k.Model(
        x, layers.Dense(3, activation="softmax")(layers.concatenate([layers.BatchNormalization()(cross), deep]))
    )
    model.compile("nadam", "sparse_categorical_crossentropy", weighted_metrics=["accuracy"])
    return fit(model, Table(weighted=True))


def train_factorisation(k):
    """A factorisation machine as a subclass: squares of sums less sums of squares, a bias that is the model's own weight."""

    class Machine(k.Model):
        def __init__(self):
            super().__init__()
            self.embeddings = {"a": layers.Embedding(5, 3), "b": layers.Embedding(4, 3)}
            self.linear = layers.Dense(1, use_bias=False)
            self.projection = self.add_weight(shape=(3, 3), initializer="glorot_normal", name="projection")
            self.bias = self.add_weight(shape=(1,), initializer="zeros", name="bias")

        def call(self, x, training=None, mask=None):
            v = ops.stack([self.embeddings[name](x[name]) for name in ("a", "b")], axis=1)
            v = ops.concatenate([v, x["numeric"][:, :, None] * self.projection], axis=1)
            pairs = 0.5 * ops.sum(ops.sum(v, 1) ** 2 - ops.sum(v**2, 1), axis=-1, keepdims=True)
            return self.bias + self.linear(x["numeric"]) + pairs

    model = Machine()
    model.compile("adamax", keras.losses.BinaryCrossentropy(from_logits=True))
    return fit(
        model,
        {"numeric": NUMERIC, "a": A, "b": B},
        (Y > 0).astype("float32")[:, None],
        batch_size=5,
        class_weight={0: 1, 1: 3},
    )


def train_experts(k):
    """Several tasks share experts that gates mix; two outputs with losses and weights of their own."""
    x = keras.Input((3,))
    experts = ops.stack([layers.Dense(4, "relu", name=f"expert_{i}")(x) for i in range(3)], axis=1)
    outputs = {}
    for task, head in (("click", layers.Dense(1, "sigmoid", name="click")), ("price", layers.Dense(1, name="price"))):
        gate = layers.Dense(3, "softmax", name=f"gate_{task}")(x)
        outputs[task] = head(ops.einsum("ne,neu->nu", gate, experts))
    model = k.Model(x, outputs)
    model.compile(
        "sgd",
        {"click": "binary_crossentropy", "price": "huber"},
        loss_weights={"click": 1.0, "price": 0.2},
        metrics={"price": ["mae"]},
    )
    y = {"click": (Y > 0).astype("float32")[:, None], "price": NUMERIC[:, :1]}
    weight = {"click": np.ones(23, "float32"), "price": abs(NUMERIC[:, 1])}
    return fit(model, NUMERIC, y, sample_weight=weight, batch_size=5)
