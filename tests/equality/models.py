"""The models of the grid. Each is a function of the classes to build it with; `PROBLEMS` says what it is trained on."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from tests.equality import subclasses

N = 80  # examples: 5 batches of 16, and 10 epochs make 50 steps


@dataclass(frozen=True)
class Problem:
    """A model and what to train it on.

    Attributes:
        build: function of `Classes` that returns a model.
        x, y: nested arrays of N examples; y may be None.
        compile: function without arguments that returns the arguments of `compile` that belong to it.
        steps: whether y has a time axis: sample weights may be given per time step.
        outputs: the names of several outputs, or None.
        fixed_batch: whether every batch must be full.
        single: whether Keras computes a part of it in float32 whatever the policy, as the weights of LoRA.
    """

    build: Callable
    x: Any
    y: Any
    compile: Callable = dict
    steps: bool = False
    outputs: Any = None
    fixed_batch: bool = False
    single: bool = False


random = np.random.default_rng(0)
FEATURES = random.normal(size=(N, 6)).astype("float32")
TOKENS = random.integers(0, 12, (N, 5))
TOKENS[:, 4] = 0
TOKENS[::3, 2:] = 0
IMAGES = random.normal(size=(N, 6, 6, 2)).astype("float32")
SERIES = random.normal(size=(N, 4, 3)).astype("float32")
SERIES[::2, 3] = SERIES[::5, 1:] = 0
CLASSES = random.integers(0, 3, N)
ONE_HOT = np.eye(3, dtype="float32")[CLASSES]
STEP_CLASSES = random.integers(0, 3, (N, 5))
NUMBERS = random.uniform(0.2, 2.0, (N, 1)).astype("float32")
WEIGHTS = random.uniform(0.2, 2.0, N).astype("float32")
WEIGHTS[3] = 0
STEP_WEIGHTS = random.uniform(0, 2.0, (N, 5)).astype("float32")


def dense(k):
    """Dropout, a layer used twice, a residual branch, regularizers of a weight and of an activity."""
    inputs = keras.Input((6,))
    shared = layers.Dense(8, "tanh", activity_regularizer=keras.regularizers.L1(1e-3))
    h = layers.Dense(8, "relu", kernel_regularizer=keras.regularizers.L2(1e-2))(inputs)
    h = layers.Add()([layers.Dropout(0.25, seed=5)(h), shared(shared(h))])
    return k.Model(inputs, layers.Dense(3, "softmax")(h))


def sequential(k):
    """Built by the first batch. Smooth, for half precision."""
    return k.Sequential([layers.Dense(5, "tanh"), layers.Dense(1)])


def convolutional(k):
    return k.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.RandomFlip(seed=3),
            layers.Conv2D(4, 3, use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.SpatialDropout2D(0.2, seed=1),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3),
        ]
    )


def masked(k):
    """A mask from the embedding through the LSTM to the loss."""
    inputs = keras.Input((5,), dtype="int32")
    h = layers.Embedding(12, 4, mask_zero=True)(inputs)
    h = layers.LSTM(4, return_sequences=True)(h)
    return k.Model(inputs, layers.TimeDistributed(layers.Dense(3))(h))


def masking(k):
    inputs = keras.Input((4, 3))
    h = layers.Bidirectional(layers.GRU(3))(layers.Masking()(inputs))
    return k.Model(inputs, layers.Dense(1)(h))


def stateful(k):
    inputs = keras.Input(batch_shape=(16, 4, 3))
    h = layers.LSTM(4, stateful=True, return_sequences=True)(inputs)
    return k.Model(inputs, layers.Dense(1)(layers.SimpleRNN(3, stateful=True)(h)))


def attention(k):
    """Frozen is the bias of the keys: its gradient is 0 by mathematics, and what rounding leaves of it Adam makes a step of."""
    inputs = keras.Input((4, 3))
    attention = layers.MultiHeadAttention(2, 2, dropout=0.1, seed=2)
    h = layers.LayerNormalization()(inputs + attention(inputs, inputs))
    attention.key_dense.bias.trainable = False
    return k.Model(inputs, layers.Dense(1)(layers.GlobalAveragePooling1D()(layers.Dense(3, "gelu")(h))))


def several_outputs(k):
    a, b = keras.Input((6,), name="a"), keras.Input((2,), name="b")
    h = layers.Concatenate()([layers.Dense(5, "silu")(a), b])
    outputs = {"first": layers.Dense(1, name="first")(h), "second": layers.Dense(3, "sigmoid", name="second")(h)}
    return k.Model({"a": a, "b": b}, outputs)


def lists(k):
    a, b = keras.Input((6,)), keras.Input((2,))
    h = layers.Dense(5, "elu")(layers.Concatenate()([a, b]))
    return k.Model([a, b], [layers.Dense(1, name="one")(h), layers.Dense(3, "softmax", name="two")(h)])


def deeply_nested(k):
    a, b, c = (keras.Input((2,), name=name) for name in "abc")
    h = layers.Dense(4, "softplus")(layers.Concatenate()([a, b, c]))
    return k.Model({"a": a, "rest": [b, (c,)]}, layers.Dense(1)(h))


def nested_models(k):
    """Models as layers: one of them used twice, one of ours or stock inside, one that was compiled by itself."""
    inner_inputs = keras.Input((6,))
    inner = k.Model(inner_inputs, layers.Dense(6, "elu")(inner_inputs))
    inner.compile("sgd", "mse", metrics=["mae"])
    stack = k.Sequential([keras.Input((6,)), layers.Dense(4, "softplus"), layers.Dropout(0.2, seed=1)])
    stock = keras.Sequential([keras.Input((4,)), layers.Dense(3, "tanh")])
    inputs = keras.Input((6,))
    return k.Model(inputs, layers.Dense(1)(stock(stack(inner(inner(inputs))))))


def nested_by_name(k):
    """A model inside that is called with a dict in another order than its own."""
    p, q = keras.Input((3,), name="p"), keras.Input((4,), name="q")
    inner = k.Model({"p": p, "q": q}, layers.Concatenate()([layers.Dense(2, "tanh")(p), q]))
    inputs = keras.Input((6,))
    h = {"q": layers.Dense(4)(inputs), "p": layers.Dense(3)(inputs)}
    return k.Model(inputs, layers.Dense(1)(inner(h)))


def constrained(k):
    kernel = {
        "kernel_constraint": keras.constraints.MaxNorm(0.8),
        "bias_constraint": keras.constraints.NonNeg(),
        "kernel_regularizer": keras.regularizers.L1L2(1e-3, 1e-3),
        "bias_regularizer": "l2",
    }
    return k.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(5, "selu", kernel_regularizer=keras.regularizers.OrthogonalRegularizer(0.01)),
            layers.Dense(4, "gelu", **kernel),
            layers.Dense(4, "tanh", kernel_constraint="unit_norm"),
            layers.Dense(1, kernel_constraint=keras.constraints.MinMaxNorm(0.1, 1.0, rate=0.5)),
        ]
    )


def frozen_base(k):
    """Fine-tuning: a base with batch normalization that neither learns nor moves its averages."""
    base = keras.Sequential([keras.Input((6,)), layers.Dense(5, "relu"), layers.BatchNormalization()])
    base.trainable = False
    inputs = keras.Input((6,))
    return k.Model(inputs, layers.Dense(1)(base(inputs, training=False)))


def frozen_in_the_middle(k):
    inputs = keras.Input((6,))
    h = layers.Dense(5, "relu")(inputs)
    h = layers.Dense(5, "relu", trainable=False)(h)
    h = layers.BatchNormalization(trainable=False)(h)
    return k.Model(inputs, layers.Dense(1)(h))


def lora(k):
    model = k.Sequential([keras.Input((6,)), layers.Dense(5, "relu"), layers.Dense(1)])
    model.layers[0].enable_lora(2)
    model.layers[1].enable_lora(1, lora_alpha=3)
    return model


def lora_embedding(k):
    inputs = keras.Input((5,), dtype="int32")
    embedding = layers.Embedding(12, 4)
    attention = layers.EinsumDense("btd,de->bte", (5, 4))
    model = k.Model(inputs, layers.Dense(1)(layers.Flatten()(attention(embedding(inputs)))))
    embedding.enable_lora(2)
    attention.enable_lora(2)
    return model


def sparse_gradients(k):
    """Gradients as `IndexedSlices`, one of them of an embedding that is used twice."""
    inputs = keras.Input((5,), dtype="int32")
    embedding = layers.Embedding(12, 4, embeddings_regularizer=None)
    h = layers.Concatenate()([embedding(inputs), embedding(inputs + 0), layers.Embedding(12, 2)(inputs)])
    return k.Model(inputs, layers.Dense(1)(layers.Flatten()(h)))


def tied(k):
    """Output weights that are the embedding, by `ReversibleEmbedding` where this Keras has it."""
    embedding = layers.ReversibleEmbedding(12, 4)
    inputs = keras.Input((5,), dtype="int32")
    return k.Model(inputs, embedding(layers.Dense(4, "tanh")(embedding(inputs)), reverse=True))


def added_loss(k):
    """`add_loss` is the whole objective: there are no targets and no compiled loss."""
    inputs = keras.Input((6,))
    h = subclasses.Penalty(0.3)(layers.Dense(4, "tanh")(inputs))
    return k.Model(inputs, subclasses.Reconstruction()([inputs, layers.Dense(6)(h)]))


def no_weights(k):
    return k.Sequential([keras.Input((6,)), layers.Rescaling(0.5), layers.Softmax()])


def without_trainable_weights(k):
    model = k.Sequential([keras.Input((6,)), layers.Dense(3, "softmax")])
    model.trainable = False
    return model


def unused_branch(k):
    inputs = keras.Input((6,))
    return k.Model(inputs, [layers.Dense(1)(inputs), layers.Dense(2)(inputs)])


def preprocessing(k):
    normalization = layers.Normalization()
    normalization.adapt(FEATURES)
    return k.Sequential(
        [keras.Input((6,)), normalization, layers.GaussianNoise(0.1, seed=4), layers.Dense(3, "softmax")]
    )


def operations(k):
    inputs = keras.Input((6,))
    h = ops.tanh(layers.Dense(4)(inputs)) * ops.exp(inputs[:, :4] * 0.1)
    return k.Model(inputs, ops.sum(h, axis=-1, keepdims=True) ** 2)


def sparse():
    return {"loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"]}


def logits():
    return {
        "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        "metrics": ["sparse_categorical_accuracy"],
    }


def mse():
    return {"loss": "mse", "metrics": ["mae"]}


def both():
    return {"loss": {"first": "mse", "second": "binary_crossentropy"}, "metrics": {"second": ["accuracy"]}}


AB = {"a": FEATURES, "b": FEATURES[:, :2]}
SECOND = {"first": NUMBERS, "second": ONE_HOT}

PROBLEMS = {
    "dropout, shared layer, regularizers": Problem(dense, FEATURES, CLASSES, sparse),
    "Sequential built by the first batch": Problem(sequential, FEATURES, NUMBERS, mse),
    "batch norm, augmentation, convolution": Problem(convolutional, IMAGES, CLASSES, logits),
    "mask from Embedding to the loss": Problem(masked, TOKENS, STEP_CLASSES, logits, steps=True),
    "Masking, Bidirectional GRU": Problem(masking, SERIES, NUMBERS, mse),
    "stateful RNN": Problem(stateful, SERIES, NUMBERS, mse, fixed_batch=True),
    "attention, layer norm": Problem(attention, SERIES, NUMBERS, mse),
    "dict inputs and outputs": Problem(several_outputs, AB, SECOND, both, outputs=["first", "second"]),
    "list inputs and outputs": Problem(
        lists,
        [FEATURES, FEATURES[:, :2]],
        [NUMBERS, CLASSES],
        lambda: {"loss": ["mse", "sparse_categorical_crossentropy"]},
        outputs=2,
    ),
    "deeply nested inputs": Problem(
        deeply_nested, {"a": FEATURES[:, :2], "rest": [FEATURES[:, 2:4], (FEATURES[:, 4:],)]}, NUMBERS, mse
    ),
    "models as layers": Problem(nested_models, FEATURES, NUMBERS, mse),
    "a model inside, called by name": Problem(nested_by_name, FEATURES, NUMBERS, mse),
    "constraints, regularizers": Problem(constrained, FEATURES, NUMBERS, mse),
    "frozen base with batch norm": Problem(frozen_base, FEATURES, NUMBERS, mse),
    "frozen layers in the middle": Problem(frozen_in_the_middle, FEATURES, NUMBERS, mse),
    "LoRA": Problem(lora, FEATURES, NUMBERS, mse, single=True),
    "LoRA of Embedding and EinsumDense": Problem(lora_embedding, TOKENS, NUMBERS, mse, single=True),
    "sparse gradients": Problem(sparse_gradients, TOKENS, NUMBERS, mse),
    "tied weights": Problem(tied, TOKENS, TOKENS, lambda: {"loss": logits()["loss"]}, steps=True),
    "None targets, add_loss alone": Problem(added_loss, FEATURES, None),
    "no weights at all": Problem(no_weights, FEATURES, FEATURES, lambda: {"loss": "categorical_crossentropy"}),
    "no trainable weights": Problem(without_trainable_weights, FEATURES, CLASSES, sparse),
    "an output without a loss": Problem(
        unused_branch, FEATURES, [NUMBERS, np.zeros((N, 2), "float32")], lambda: {"loss": ["mse", None]}
    ),
    "Normalization, noise": Problem(preprocessing, FEATURES, CLASSES, sparse),
    "keras.ops in a functional graph": Problem(operations, FEATURES, NUMBERS, mse),
    "subclassed, own weights in keras.ops": Problem(subclasses.own_weights, FEATURES, NUMBERS, mse),
    "subclassed, call(training, mask)": Problem(subclasses.training_and_mask, FEATURES, NUMBERS, mse),
    "subclassed, dict in and out": Problem(
        subclasses.dictionaries, AB, {"sum": NUMBERS}, lambda: {"loss": {"sum": "mse"}}
    ),
    "subclassed, functional": Problem(subclasses.functional_subclass, FEATURES, NUMBERS, mse),
    "add_loss in call": Problem(subclasses.adds_loss, FEATURES, NUMBERS, mse),
    "overridden compute_loss": Problem(subclasses.own_compute_loss, FEATURES, NUMBERS),
    "overridden compute_loss without `training`": Problem(subclasses.old_compute_loss, FEATURES, NUMBERS, mse),
    "overridden compute_loss that calls super": Problem(subclasses.extended_compute_loss, FEATURES, NUMBERS, mse),
    "overridden compute_loss, tensors kept in call": Problem(subclasses.kept_for_the_loss, FEATURES, NUMBERS, mse),
    "overridden compute_loss with a metric and weights": Problem(subclasses.tracking_compute_loss, FEATURES, NUMBERS),
    "overridden compute_loss, masked": Problem(subclasses.masked_compute_loss, SERIES, SERIES[:, :, :2]),
    "overridden compute_metrics, metric attribute": Problem(subclasses.own_metrics, FEATURES, NUMBERS, mse),
    "overridden train_step and test_step": Problem(subclasses.own_steps, FEATURES, NUMBERS, mse),
    "an own layer expanded into operations": Problem(subclasses.own_layer, FEATURES, NUMBERS, mse),
    "an own layer with a counter and random numbers": Problem(subclasses.own_state, FEATURES, NUMBERS, mse),
}
