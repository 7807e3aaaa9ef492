"""What a tape says of a small network, for the monitor to agree with."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from keras_backprop import BackpropModel
from tests.gradients.ways import WAYS, X, Y, two_devices

LINKS = ["hidden", "hidden/tanh", "second", "second/relu", "out"]


def network(way="compiled loop", dtype=None, optimizer=None, **arguments):
    """A compiled network of three layers on a way on which a step can run (`tests/gradients/ways.py`)."""
    options = dict(WAYS[way])
    strategy = options.pop("strategy", False)
    dtype = "mixed_float16" if options.pop("mixed", False) else dtype
    with (two_devices() if strategy else tf.distribute.get_strategy()).scope():
        keras.utils.set_random_seed(4)
        inputs = keras.Input((5,), dtype="float64" if dtype == "float64" else None)
        h = layers.Dense(6, "tanh", name="hidden", dtype=dtype)(inputs)
        h = layers.Dense(4, "relu", name="second", dtype=dtype)(h)
        out = layers.Dense(3, name="out", dtype="float64" if dtype == "float64" else "float32")(h)
        model = BackpropModel(inputs, out, name="net")
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer or keras.optimizers.SGD(0.0), loss, **{**options, **arguments})
    return model


def tape(model, x=X[16:], y=Y[16:]):
    """Activations and deltas by link, and gradients by weight, of a batch: three dicts of arrays."""
    hidden, second, out = model.layers[1:]
    a, activations = tf.convert_to_tensor(x, hidden.compute_dtype), {}
    with tf.GradientTape(persistent=True) as tape:
        for layer, function in ((hidden, tf.tanh), (second, tf.nn.relu), (out, None)):
            kernel, bias = (tf.cast(v.value, layer.compute_dtype) for v in (layer.kernel, layer.bias))
            a = activations[layer.path] = tf.cast(a, layer.compute_dtype) @ kernel + bias
            tape.watch(a)
            if function is not None:
                a = activations[f"{layer.path}/{function.__name__}"] = function(a)
                tape.watch(a)
        error = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(y, a, from_logits=True))
    deltas = {path: tape.gradient(error, a) for path, a in activations.items()}
    gradients = {v.path: tape.gradient(error, v.value) for v in model.trainable_weights}
    return [{path: np.asarray(x.numpy(), "float64") for path, x in d.items()} for d in (activations, deltas, gradients)]


STATISTICS = {
    "norm": np.linalg.norm,
    "mean": np.mean,
    "std": np.std,
    "min": np.min,
    "max": np.max,
    "zeros": lambda x: np.mean(x == 0),
    "nonfinite": lambda x: np.mean(~np.isfinite(x)),
}


def statistics(x):
    """The plain statistics of an array, a dict."""
    x = x.reshape(-1)
    return {name: float(function(x)) for name, function in STATISTICS.items()}


def told(history, step=None):
    """The records of a step (by default the last) as a dict, (path, of, quantity) -> value."""
    step = history[-1]["step"] if step is None else step
    return {(r["path"], r["of"], r["quantity"]): r["value"] for r in history if r["step"] == step}
