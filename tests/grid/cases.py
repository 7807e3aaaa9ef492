"""The tables of options, layer by layer."""

import itertools

import keras
import numpy as np
from keras import layers

from tests.grid import functions
from tests.grid.generate import Choice, grid

BOOL = [True, False]
ACTIVATIONS = [
    "celu", "elu", "exponential", "gelu", "glu", "hard_shrink", "hard_sigmoid", "hard_silu", "hard_tanh", "leaky_relu",
    "linear", "log_sigmoid", "log_softmax", "mish", "relu", "relu6", "selu", "sigmoid", "silu", "soft_shrink", "softmax",
    "softplus", "softsign", "sparse_plus", "sparse_sigmoid", "sparsemax", "squareplus", "tanh", "tanh_shrink",
]  # fmt: skip
MASK = np.array([[True, True, True, False], [True, True, False, False], [True, True, True, True]])


def tokens(*shape, rows=6, seed=0):
    return np.random.default_rng(seed).integers(0, rows, shape).astype("int32")


def one_of(*names):
    """Not both of two options above 1: Keras refuses strided and dilated convolutions."""

    def valid(**options):
        return sum(np.max(options[name]) > 1 for name in names) < 2

    return valid


def core():
    yield from grid(
        layers.Dense, Choice((4, 5), (2, 3, 5), (2, 2, 3, 4)), units=[1, 3], use_bias=BOOL, activation=[None, *ACTIVATIONS],
        valid=lambda units, activation, **_: not (activation == "glu" or (units == 1 and activation in ("softmax", "sparsemax"))),
    )  # fmt: skip
    yield from grid(layers.Activation, Choice((3, 4), (2, 3, 4), (2, 2, 3, 4)), activation=ACTIVATIONS)
    yield from grid(
        layers.EinsumDense, (2, 3, 5), equation=["abc,cd->abd"], output_shape=[(None, 4)], bias_axes=[None, "d", "bd", "b"],
        activation=[None, "tanh", "softmax"],
        valid=lambda bias_axes, **_: bias_axes not in ("bd", "b"),
    )  # fmt: skip
    yield from grid(
        layers.EinsumDense, (2, 3, 5), equation=["abc,cd->ad", "abc,bcd->ad", "abc,bc->a", "...c,cd->...d"],
        output_shape=[(4,)], valid=lambda equation, **_: equation not in ("abc,bc->a", "...c,cd->...d"),
        bias_axes=[None, "d"], activation=[None, "relu"],
    )  # fmt: skip
    yield from grid(
        layers.EinsumDense, (2, 3, 5), equation=["abc,cde->abde"], output_shape=[(None, 2, 3)],
        bias_axes=[None, "de", "e", "d"], activation=[None, "sigmoid"],
    )  # fmt: skip
    yield from grid(
        layers.Embedding,
        Choice(tokens(4, 3), tokens(4), tokens(2, 3, 2)),
        input_dim=[6],
        output_dim=[1, 3],
        mask_zero=BOOL,
    )
    yield from grid(layers.Identity, Choice((3, 4), (2, 3, 4)))
    yield from grid(layers.Masking, (3, 4, 2), mask_value=[0.0, 0.5])
    yield from grid(layers.Lambda, (3, 4), function=[keras.ops.square, keras.ops.sin, keras.activations.gelu])
    yield from grid(
        layers.ReLU,
        Choice((3, 4), (2, 3, 4)),
        max_value=[None, 1.0, 6.0],
        negative_slope=[0.0, 0.3],
        threshold=[0.0, 0.4],
    )
    yield from grid(layers.LeakyReLU, (3, 4), negative_slope=[0.0, 0.1, 0.5])
    yield from grid(layers.ELU, (3, 4), alpha=[0.5, 1.0, 2.0])
    yield from grid(layers.Softmax, (2, 3, 4), axis=[-1, 1, (1, 2)], call_mask=[None, np.ones((2, 3, 4), bool)])
    yield from grid(
        layers.PReLU, (2, 3, 4), shared_axes=[None, [1], [2], [1, 2]], alpha_initializer=["zeros", "normal"]
    )
    yield from grid(layers.Rescaling, Choice((3, 4), (2, 3, 4)), scale=[0.5, 2.0], offset=[0.0, 1.0])
    yield from grid(
        layers.Flatten, Choice((3, 4), (2, 3, 4), (2, 2, 3, 2)), data_format=["channels_last", "channels_first"]
    )
    yield from grid(layers.Reshape, (2, 3, 4), target_shape=[(12,), (4, 3), (-1, 2), (2, -1, 3)])
    yield from grid(layers.Permute, (2, 3, 4, 2), dims=list(itertools.permutations((1, 2, 3))))
    yield from grid(layers.RepeatVector, (3, 4), n=[1, 3])


def merging():
    pairs = Choice([(3, 4), (3, 4)], [(3, 1), (3, 4)], [(2, 3, 4), (2, 1, 4)], [(2, 3, 4), (2, 4)])
    for layer in (layers.Add, layers.Multiply, layers.Average, layers.Maximum, layers.Minimum):
        yield from grid(layer, pairs)
        yield from grid(layer, Choice([(3, 4), (3, 4), (3, 4)], [(3, 4)] * 4))
    yield from grid(layers.Subtract, pairs)
    yield from grid(layers.Concatenate, Choice([(2, 3, 4), (2, 3, 4)], [(2, 3, 4)] * 3), axis=[-1, 1, 2])
    yield from grid(layers.Concatenate, [(2, 3, 4), (2, 3, 2)], axis=[-1])
    yield from grid(layers.Dot, [(2, 4), (2, 4)], axes=[1, -1], normalize=BOOL)
    yield from grid(layers.Dot, [(2, 3, 4), (2, 5, 4)], axes=[2, -1, (2, 2)], normalize=BOOL)
    yield from grid(layers.Dot, [(2, 3, 4), (2, 4, 3)], axes=[(1, 2), (2, 1)], normalize=BOOL)


SPATIAL = {1: (7,), 2: (6, 5), 3: (4, 3, 5)}


def convolutions():
    common = {"use_bias": BOOL, "activation": [None, "tanh"]}
    for rank, layer in ((1, layers.Conv1D), (2, layers.Conv2D), (3, layers.Conv3D)):
        padding = ["valid", "same"] + (["causal"] if rank == 1 else [])
        yield from grid(
            layer, (2, *SPATIAL[rank], 4), filters=[2, 4], kernel_size=[1, 2, 3], strides=[1, 2], padding=padding,
            dilation_rate=[1, 2], groups=[1, 2], **common,
            valid=lambda rank=rank, **o: one_of("strides", "dilation_rate")(**o)
            and not (rank == 3 and (o["groups"] > 1 or o["dilation_rate"] > 1 or o["activation"]))
            and not (o["filters"] == 2 and o["kernel_size"] == 3),
        )  # fmt: skip
    for rank, layer in ((1, layers.Conv1DTranspose), (2, layers.Conv2DTranspose), (3, layers.Conv3DTranspose)):
        yield from grid(
            layer, (2, *SPATIAL[rank], 3), filters=[2], kernel_size=[2, 3], strides=[1, 2], padding=["valid", "same"],
            dilation_rate=[1], output_padding=[None, 1], **common,
            valid=lambda **o: one_of("strides", "dilation_rate")(**o)
            and not (o["output_padding"] and (o["strides"] == 1 or o["dilation_rate"] > 1)),
        )  # fmt: skip
    for rank, layer in ((1, layers.DepthwiseConv1D), (2, layers.DepthwiseConv2D)):
        yield from grid(
            layer, (2, *SPATIAL[rank], 3), kernel_size=[2, 3], strides=[1, 2], padding=["valid", "same"],
            depth_multiplier=[1, 2], dilation_rate=[1, 2], **common, valid=one_of("strides", "dilation_rate"),
        )  # fmt: skip
    for rank, layer in ((1, layers.SeparableConv1D), (2, layers.SeparableConv2D)):
        yield from grid(
            layer, (2, *SPATIAL[rank], 3), filters=[2], kernel_size=[2, 3], strides=[1, 2], padding=["valid", "same"],
            depth_multiplier=[1, 2], dilation_rate=[1, 2], **common, valid=one_of("strides", "dilation_rate"),
        )  # fmt: skip


def pooling():
    for rank in (1, 2, 3):
        shape = (2, *SPATIAL[rank], 3)
        for name in ("MaxPooling", "AveragePooling"):
            yield from grid(
                getattr(layers, f"{name}{rank}D"), shape, pool_size=[2, 3], strides=[None, 1, 2], padding=["valid", "same"],
                valid=lambda rank=rank, **o: not (rank == 3 and o["pool_size"] == 3 and o["padding"] == "valid" and o["strides"] == 1),
            )  # fmt: skip
        for name in ("GlobalMaxPooling", "GlobalAveragePooling"):
            yield from grid(
                getattr(layers, f"{name}{rank}D"), shape, keepdims=BOOL, data_format=["channels_last", "channels_first"]
            )
        for name in ("AdaptiveMaxPooling", "AdaptiveAveragePooling"):
            if hasattr(layers, f"{name}{rank}D"):
                # Keras's adaptive max pooling to one place ends the process (a division by zero in TensorFlow's kernel).
                sizes = [2, 3] if "Max" in name else [1, 2, 3]
                yield from grid(getattr(layers, f"{name}{rank}D"), shape, output_size=sizes)
    yield from grid(layers.GlobalAveragePooling1D, (3, 4, 2), keepdims=BOOL, call_mask=[MASK])
    yield from grid(layers.ZeroPadding1D, (2, 4, 3), padding=[0, 1, (1, 2)])
    yield from grid(
        layers.ZeroPadding2D,
        (2, 4, 3, 2),
        padding=[1, (1, 2), ((0, 1), (2, 0))],
        data_format=["channels_last", "channels_first"],
    )
    yield from grid(
        layers.ZeroPadding3D, (2, 2, 3, 2, 2), padding=[1, (1, 0, 2)], data_format=["channels_last", "channels_first"]
    )
    yield from grid(layers.Cropping1D, (2, 5, 3), cropping=[0, 1, (1, 2)])
    yield from grid(layers.Cropping2D, (2, 5, 4, 3), cropping=[1, (1, 0), ((0, 1), (2, 0))])
    yield from grid(layers.Cropping3D, (2, 3, 4, 3, 2), cropping=[1, (0, 1, 0)])
    yield from grid(layers.UpSampling1D, (2, 4, 3), size=[1, 2, 3])
    yield from grid(
        layers.UpSampling2D, (2, 3, 4, 2), size=[2, (1, 3)], interpolation=["nearest", "bilinear"],
        data_format=["channels_last", "channels_first"],
    )  # fmt: skip
    yield from grid(layers.UpSampling3D, (2, 2, 3, 2, 2), size=[2, (1, 2, 3)])


def normalization():
    affine = {"center": BOOL, "scale": BOOL}
    yield from grid(
        layers.BatchNormalization, Choice((6, 4), (4, 3, 4), (3, 2, 3, 4), (2, 2, 3, 2, 4)), **affine, axis=[-1, 1],
        momentum=[0.9], epsilon=[1e-3, 1e-1], call_training=BOOL,
    )  # fmt: skip
    yield from grid(layers.BatchNormalization, (3, 4, 2), **affine, call_training=BOOL, call_mask=[MASK])
    yield from grid(
        layers.LayerNormalization, Choice((3, 4), (2, 3, 4), (2, 3, 2, 4)), **affine, axis=[-1, 1, (1, -1)], epsilon=[1e-3, 1e-1],
        valid=lambda axis, inputs, **_: not (axis == (1, -1) and len(inputs[0]) == 2),
    )  # fmt: skip
    yield from grid(
        layers.GroupNormalization, Choice((2, 4), (2, 3, 4), (2, 3, 2, 4)), groups=[1, 2, 4, -1], **affine, axis=[-1],
        epsilon=[1e-3, 1e-1],
        valid=lambda groups, inputs, **_: not (len(inputs[0]) == 2 and groups in (4, -1)),
    )  # fmt: skip
    yield from grid(layers.RMSNormalization, Choice((3, 4), (2, 3, 4), (2, 3, 2, 4)), axis=[-1], epsilon=[1e-6, 1e-1])
    yield from grid(
        layers.UnitNormalization,
        Choice((3, 4), (2, 3, 4)),
        axis=[-1, 1],
    )
    yield from grid(layers.UnitNormalization, (2, 3, 4), axis=[(1, 2)])
    yield from grid(
        lambda inner, power_iterations: layers.SpectralNormalization(inner(), power_iterations=power_iterations),
        (2, 5, 4), kind="SpectralNormalization", inner=[lambda: layers.Dense(3), lambda: layers.Conv1D(3, 2)],
        power_iterations=[1, 2], call_training=BOOL,
    )  # fmt: skip


def regularization():
    rates = {"rate": [0.2, 0.5], "call_training": BOOL, "seed": [1]}
    yield from grid(layers.Dropout, Choice((3, 4), (2, 3, 4)), **rates, noise_shape=[None])
    yield from grid(layers.Dropout, (2, 3, 4), **rates, noise_shape=[(None, 1, None), (2, 3, 1)])
    yield from grid(layers.SpatialDropout1D, (2, 3, 4), **rates)
    yield from grid(layers.SpatialDropout2D, (2, 3, 4, 2), **rates, data_format=["channels_last", "channels_first"])
    yield from grid(layers.SpatialDropout3D, (2, 3, 2, 2, 3), **rates, data_format=["channels_last", "channels_first"])
    yield from grid(layers.AlphaDropout, Choice((3, 4), (2, 3, 4)), **rates)
    yield from grid(layers.GaussianDropout, Choice((3, 4), (2, 3, 4)), **rates)
    yield from grid(layers.GaussianNoise, Choice((3, 4), (2, 3, 4)), stddev=[0.1, 1.0], seed=[1], call_training=BOOL)
    yield from grid(layers.ActivityRegularization, (3, 4), l1=[0.0, 0.1], l2=[0.0, 0.2])
    yield from grid(
        layers.Dense, (4, 5), units=[3], activity_regularizer=["l1", "l2", "L1L2"], activation=[None, "tanh"],
    )  # fmt: skip


def attention():
    q, v = (2, 3, 4), (2, 5, 4)
    masks = [None, [np.array([[1, 1, 0], [1, 1, 1]], bool), np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], bool)]]
    yield from grid(
        layers.Attention, Choice([q, v], [q, v, v]), use_scale=BOOL, score_mode=["dot", "concat"], dropout=[0.0, 0.3], seed=[1],
        call_mask=masks, call_training=BOOL, call_use_causal_mask=BOOL,
        valid=lambda dropout, call_training, **_: not (dropout == 0.0 and call_training),
    )  # fmt: skip
    yield from grid(
        layers.AdditiveAttention, Choice([q, v], [q, v, v]), use_scale=BOOL, dropout=[0.0, 0.3], seed=[1], call_mask=masks,
        call_training=BOOL, valid=lambda dropout, call_training, **_: not (dropout == 0.0 and call_training),
    )  # fmt: skip
    attention_mask = np.random.default_rng(5).random((2, 3, 5)) > 0.3
    attention_mask[..., 0] = True
    for layer, heads in (
        (layers.MultiHeadAttention, {"num_heads": [1, 2], "key_dim": [3], "value_dim": [None, 2]}),
        (layers.GroupQueryAttention, {"head_dim": [3], "num_query_heads": [4], "num_key_value_heads": [2, 4]}),
    ):
        yield from grid(
            layer, q, v, **heads, use_bias=BOOL, dropout=[0.0, 0.4], seed=[1], call_attention_mask=[None, attention_mask],
            call_use_causal_mask=BOOL, call_training=BOOL, call_return_attention_scores=BOOL,
            valid=lambda dropout, call_training, **_: not (dropout == 0.0 and call_training),
        )  # fmt: skip


def recurrent():
    x, cells = (3, 4, 2), {"use_bias": BOOL, "go_backwards": BOOL, "unroll": BOOL, "call_mask": [None, MASK]}
    for layer, extra in (
        (layers.SimpleRNN, {"activation": ["tanh", "relu"]}),
        (
            layers.GRU,
            {"reset_after": BOOL, "activation": ["tanh"], "recurrent_activation": ["sigmoid", "hard_sigmoid"]},
        ),
        (layers.LSTM, {"activation": ["tanh", "softsign"], "recurrent_activation": ["sigmoid"]}),
    ):
        yield from grid(
            layer, x, units=[3], return_sequences=BOOL, return_state=BOOL, **cells, **extra,
            valid=lambda return_state, use_bias, **_: not (return_state and not use_bias),
        )  # fmt: skip
        yield from grid(
            layer, x, units=[3], dropout=[0.0, 0.3], recurrent_dropout=[0.0, 0.3], seed=[1], return_sequences=BOOL,
            unroll=BOOL, call_training=[True], call_mask=[None, MASK],
        )  # fmt: skip
        yield from grid(
            layer, x, units=[3], stateful=BOOL, zero_output_for_mask=BOOL, return_sequences=[True], call_mask=[MASK],
        )  # fmt: skip
    for layer, shape in (
        (layers.ConvLSTM1D, (2, 3, 5, 2)), (layers.ConvLSTM2D, (2, 3, 4, 3, 2)), (layers.ConvLSTM3D, (2, 2, 3, 2, 3, 2)),
    ):  # fmt: skip
        yield from grid(
            layer, shape, filters=[2], kernel_size=[2], padding=["valid", "same"], return_sequences=BOOL, use_bias=BOOL,
            go_backwards=BOOL,
        )  # fmt: skip
    for cell_class in (layers.SimpleRNNCell, layers.GRUCell, layers.LSTMCell):
        yield from grid(
            lambda cell, return_sequences, unroll: layers.RNN(cell(3), return_sequences=return_sequences, unroll=unroll),
            x, kind="RNN", cell=[lambda n, cell=cell_class: cell(n), lambda n, cell=cell_class: [cell(n), cell(2)]],
            return_sequences=BOOL, unroll=BOOL, call_mask=[None, MASK],
        )  # fmt: skip
    yield from grid(
        lambda inner, merge_mode: layers.Bidirectional(inner(), merge_mode=merge_mode), x, kind="Bidirectional",
        inner=[
            lambda: layers.SimpleRNN(3), lambda: layers.GRU(3, return_sequences=True),
            lambda: layers.LSTM(3, return_sequences=True), lambda: layers.LSTM(3),
        ],
        merge_mode=["concat", "sum", "mul", "ave", None], call_mask=[None, MASK],
    )  # fmt: skip
    yield from grid(
        lambda inner: layers.TimeDistributed(inner()), (2, 3, 4), kind="TimeDistributed",
        inner=[lambda: layers.Dense(2), lambda: layers.Dense(3, "tanh"), lambda: layers.Dense(2, use_bias=False)],
    )  # fmt: skip
    yield from grid(
        lambda inner: layers.TimeDistributed(inner()), (2, 2, 4, 3, 2), kind="TimeDistributed",
        inner=[lambda: layers.Conv2D(2, 2), lambda: layers.MaxPooling2D(2), lambda: layers.Flatten()],
    )  # fmt: skip


def cells():
    x, h = (3, 2), (3, 4)
    for cell, states in ((layers.SimpleRNNCell, [h]), (layers.GRUCell, [h]), (layers.LSTMCell, [h, h])):
        extra = {"reset_after": BOOL} if cell is layers.GRUCell else {}
        yield from grid(cell, x, states, units=[4], use_bias=BOOL, activation=["tanh", "relu"], **extra)
    two = [lambda: [layers.LSTMCell(4), layers.GRUCell(3)], lambda: [layers.SimpleRNNCell(4), layers.SimpleRNNCell(4)]]
    for make, states in zip(two, ([[h, h], [(3, 3)]], [[h], [h]]), strict=True):
        yield from grid(lambda cells: layers.StackedRNNCells(cells()), x, states, kind="StackedRNNCells", cells=[make])


class Twice(layers.Wrapper):
    """A wrapper as people write it."""

    def call(self, x):
        return 2.0 * self.layer(x)


def containers():
    inner = [lambda: layers.Dense(3), lambda: layers.Dense(3, "tanh"), lambda: layers.LayerNormalization()]
    yield from grid(lambda inner: Twice(inner()), Choice((2, 4), (2, 3, 4)), kind="Wrapper", inner=inner)
    yield from grid(
        lambda inner: keras.Sequential([layers.InputLayer((4,)), inner()]), (2, 4), kind="InputLayer", inner=inner
    )
    yield from grid(
        layers.ReversibleEmbedding, Choice(tokens(4, 3), tokens(2, 3)), input_dim=[6], output_dim=[1, 3], mask_zero=BOOL
    )
    yield from grid(
        layers.ReversibleEmbedding, (2, 3, 4), input_dim=[6], output_dim=[4], tie_weights=BOOL, call_reverse=[True],
        logit_soft_cap=[None, 3.0],
    )  # fmt: skip


POLICIES = ["float16", "bfloat16", "mixed_float16", "mixed_bfloat16"]


def policies():
    """Below single precision: against the tape in the same precision."""
    recurrent = {"recurrent_initializer": ["glorot_uniform"]}  # TensorFlow orthogonalises no bfloat16
    for layer, inputs, options in (
        (layers.Dense, ((4, 5),), {"units": [3], "activation": ACTIVATIONS[:3]}),
        (
            layers.EinsumDense,
            ((2, 3, 5),),
            {"equation": ["abc,cd->abd"], "output_shape": [(None, 4)], "bias_axes": ["d"]},
        ),
        (layers.Embedding, (tokens(4, 3),), {"input_dim": [6], "output_dim": [3]}),
        (layers.Conv1D, ((2, 7, 4),), {"filters": [3], "kernel_size": [3], "padding": ["valid", "same"]}),
        (layers.Conv2D, ((2, 6, 5, 3),), {"filters": [3], "kernel_size": [3], "strides": [1, 2]}),
        (layers.DepthwiseConv2D, ((2, 6, 5, 3),), {"kernel_size": [3], "strides": [1, 2]}),
        (layers.MaxPooling2D, ((2, 6, 5, 3),), {"pool_size": [2]}),
        (layers.AveragePooling2D, ((2, 6, 5, 3),), {"pool_size": [2]}),
        (layers.BatchNormalization, ((6, 3, 4),), {"call_training": BOOL}),
        (layers.LayerNormalization, ((3, 4),), {"center": BOOL}),
        (layers.GroupNormalization, ((2, 3, 4),), {"groups": [2]}),
        (layers.RMSNormalization, ((3, 4),), {}),
        (layers.Softmax, ((3, 4),), {}),
        (layers.PReLU, ((3, 4),), {}),
        (layers.Dropout, ((3, 4),), {"rate": [0.3], "seed": [1], "call_training": [True]}),
        (layers.MultiHeadAttention, ((2, 3, 4), (2, 5, 4)), {"num_heads": [2], "key_dim": [3]}),
        (layers.SimpleRNN, ((3, 4, 2),), {"units": [3], **recurrent}),
        (layers.GRU, ((3, 4, 2),), {"units": [3], "return_sequences": BOOL, **recurrent}),
        (layers.LSTM, ((3, 4, 2),), {"units": [3], "return_sequences": BOOL, **recurrent}),
    ):
        yield from grid(layer, *inputs, **options, dtype=POLICIES)


FAMILIES = [core, merging, convolutions, pooling, normalization, regularization, attention, recurrent]
FAMILIES += [cells, containers, policies, *functions.FAMILIES]


def cases():
    """All of the grid, in a fixed order."""
    everything = [case for family in FAMILIES for case in family()]
    seen: dict = {}
    for case in everything:  # two tables may vary different options of one layer
        seen[case.name] = seen.get(case.name, 0) + 1
        case.name += f"#{seen[case.name]}" if seen[case.name] > 1 else ""
    return everything
