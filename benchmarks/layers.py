"""One layer of each of the 29 classes that own weights: forward and backward in one compiled function, explicit rules
against the tape. Some only: `python -m benchmarks.layers [NAME …]`."""

import sys

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from benchmarks.steps import geometric_mean
from benchmarks.timing import alternate
from keras_backprop.chain.record import Record
from keras_backprop.chain.sweep import sweep

IMAGE, VOLUME, SEQUENCE = (16, 32, 32, 32), (8, 12, 12, 12, 16), (16, 64, 128)

LAYERS = {
    "Dense": (lambda: layers.Dense(512, activation="relu"), (128, 512)),
    "EinsumDense": (lambda: layers.EinsumDense("abc,cde->abde", (None, 8, 32), bias_axes="de"), SEQUENCE),
    "Embedding": (lambda: layers.Embedding(20000, 64), "tokens"),
    "ReversibleEmbedding": (lambda: layers.ReversibleEmbedding(20000, 64), "tokens"),
    "PReLU": (lambda: layers.PReLU(shared_axes=[1, 2]), IMAGE),
    "Conv1D": (lambda: layers.Conv1D(64, 5, padding="same"), SEQUENCE),
    "Conv2D": (lambda: layers.Conv2D(64, 3, padding="same", activation="relu"), IMAGE),
    "Conv3D": (lambda: layers.Conv3D(16, 3, padding="same"), VOLUME),
    "Conv1DTranspose": (lambda: layers.Conv1DTranspose(64, 4, strides=2, padding="same"), SEQUENCE),
    "Conv2DTranspose": (lambda: layers.Conv2DTranspose(32, 4, strides=2, padding="same"), IMAGE),
    "Conv3DTranspose": (lambda: layers.Conv3DTranspose(8, 3, strides=2, padding="same"), VOLUME),
    "DepthwiseConv1D": (lambda: layers.DepthwiseConv1D(5, padding="same"), SEQUENCE),
    "DepthwiseConv2D": (lambda: layers.DepthwiseConv2D(3, padding="same"), IMAGE),
    "SeparableConv1D": (lambda: layers.SeparableConv1D(64, 5, padding="same"), SEQUENCE),
    "SeparableConv2D": (lambda: layers.SeparableConv2D(64, 3, padding="same"), IMAGE),
    "BatchNormalization": (lambda: layers.BatchNormalization(), IMAGE),
    "LayerNormalization": (lambda: layers.LayerNormalization(), SEQUENCE),
    "GroupNormalization": (lambda: layers.GroupNormalization(8), IMAGE),
    "RMSNormalization": (lambda: layers.RMSNormalization(), SEQUENCE),
    "SpectralNormalization": (lambda: layers.SpectralNormalization(layers.Dense(256)), (128, 256)),
    "MultiHeadAttention": (lambda: layers.MultiHeadAttention(8, 16), [SEQUENCE, SEQUENCE]),
    "GroupQueryAttention": (lambda: layers.GroupQueryAttention(16, 8, 2), [SEQUENCE, SEQUENCE]),
    "Attention": (lambda: layers.Attention(use_scale=True), ([SEQUENCE, SEQUENCE],)),
    "AdditiveAttention": (lambda: layers.AdditiveAttention(), ([(8, 32, 64), (8, 32, 64)],)),
    "SimpleRNN": (lambda: layers.SimpleRNN(64), (32, 50, 32)),
    "GRU": (lambda: layers.GRU(64), (32, 50, 32)),
    "LSTM": (lambda: layers.LSTM(64), (32, 50, 32)),
    "ConvLSTM1D": (lambda: layers.ConvLSTM1D(16, 3, padding="same"), (8, 10, 32, 8)),
    "ConvLSTM2D": (lambda: layers.ConvLSTM2D(8, 3, padding="same"), (4, 8, 16, 16, 4)),
    "ConvLSTM3D": (lambda: layers.ConvLSTM3D(4, 3, padding="same"), (2, 4, 8, 8, 8, 2)),
}


def arguments(shapes):
    """Tensors for the call, and which of them are differentiated."""
    random = np.random.default_rng(0)

    def tensor(shape):
        return tf.constant(random.normal(size=shape).astype("float32"))

    if shapes == "tokens":
        return [tf.constant(random.integers(0, 20000, (64, 100)))]
    if isinstance(shapes, list):
        return [tensor(shape) for shape in shapes]
    if isinstance(shapes[0], list):
        return [[tensor(shape) for shape in shapes[0]]]
    return [tensor(shapes)]


def steps(make, shapes):
    """Compiled forward and backward: by the tape, and by the rules."""
    keras.utils.set_random_seed(0)
    layer, inputs = make(), arguments(shapes)
    kwargs = {"training": True} if layer._call_has_training_arg else {}
    dy = tf.ones_like(layer(*inputs, **kwargs))
    weights = layer.trainable_variables
    sources = [x for x in keras.tree.flatten(inputs) if x.dtype.is_floating]

    @tf.function(autograph=False)
    def tape():
        with tf.GradientTape() as recording:
            recording.watch(sources)
            y = layer(*inputs, **kwargs)
        return recording.gradient(y, [v.value for v in weights] + sources, output_gradients=dy)

    @tf.function(autograph=False)
    def explicit():
        record = Record()
        y = record.run(layer, *inputs, **kwargs)
        result = sweep(record.calls, [(y, dy)], weights, sources)
        return [result.gradient(v) for v in weights] + [result.input_gradient(x) for x in sources]

    return tape, explicit


def lines(repeats=15, names=()):
    """The table, line by line."""
    yield "\n| layer | tape | rules | ratio |\n|---|---|---|---|"
    ratios = {}
    for name in names or LAYERS:
        tape, explicit = steps(*LAYERS[name])
        times = alternate({"tape": tape, "rules": explicit}, repeats)
        ratios[name] = times["rules"].over(times["tape"])
        line = f"| {name} | {times['tape']} | {times['rules']} | {ratios[name]:.2f} |"
        print(line, flush=True)
        yield line
    largest = max(ratios, key=ratios.get)
    yield f"\nGeometric mean {geometric_mean(ratios.values()):.2f}, largest {ratios[largest]:.2f} ({largest})."


if __name__ == "__main__":
    for line in lines(names=sys.argv[1:]):
        last = line
    print(last)
