"""What a formula says is true of its rule: its text, evaluated on random numbers, gives the rule's number."""

import inspect
import itertools
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_backprop import backward, explain
from keras_backprop._keras import ops
from keras_backprop.explanations.observing.options import options_of as options_of_call
from keras_backprop.explanations.writing.notation import plain
from keras_backprop.formula import Cases, Formula, LossFormula, RecurrentFormula, written
from keras_backprop.formula_latex import latex
from keras_backprop.formula_value import evaluate, with_parts
from keras_backprop.registry import registered
from keras_backprop.rule import Call
from keras_backprop.rules.formulas import OF_TENSORFLOW, of_tensorflow
from keras_backprop.rules.layers.rnn.wrappers import Merge
from keras_backprop.rules.matrix_formulas import MATRICES
from keras_backprop.rules.operation_formulas import OPERATIONS
from keras_backprop.rules.window_formulas import WINDOWS

OPTIONS = {"negative_slope": 0.25, "alpha": 1.25, "threshold": 0.5, "b": 4.0, "delta": 0.75, "epsilon": keras.backend.epsilon(),
           "l1": 0.125, "l2": 0.25}  # fmt: skip
SHAPE = (4, 3)
RANGES = {
    **dict.fromkeys(
        ("Sqrt", "Log", "Log2", "Log10", "Reciprocal", "Rsqrt", "Log1p", "Arcsin", "Arccos", "Arctanh"), (0.2, 0.9)
    ),
    "Arccosh": (1.2, 4),
}
EXACT = {"rtol": 1e-9, "atol": 1e-9}

WINDOWS_OF_LAYERS = [key for keys in WINDOWS for key in keys]
WRITTEN = {key: rule for key, rule in registered().items() if rule.formula is not None}


def cases_of(key):
    formula = WRITTEN[key].formula
    return list(formula) if isinstance(formula, Cases) else [formula]


def options_of(formula):
    return {**OPTIONS, **{name: value for name, value in formula.when.items() if not callable(value)}}


def numbers(key, seed=0):
    random = np.random.default_rng(seed)
    low, high = RANGES.get(getattr(key, "__name__", ""), (-4, 4))
    return random.uniform(low, high, SHAPE)


class Options:
    """A stand-in for an operation: its options, its weights."""

    def __init__(self, **options):
        vars(self).update(options)


def call_of(key, formula, inputs, output, **more):
    options = {**options_of(formula), "axis": -1, "approximate": False, "max_value": None, "from_logits": False,
               "label_smoothing": 0.0, "ignore_class": None, **more}  # fmt: skip
    if formula.when.get("negative_slope") == 0:
        options |= {"negative_slope": 0.0, "threshold": 0.0}
    saved = {"mask": options["m"]} if "m" in options else {}
    return Call(Options(**options), inputs, [output], saved=saved, path=str(key))


@pytest.mark.parametrize(
    "key",
    [k for k, rule in WRITTEN.items() if rule.derivative is not None],
    ids=lambda key: getattr(key, "__name__", str(key)),
)
def test_a_derivative(key):
    rule, x = WRITTEN[key], numbers(key)
    formula = cases_of(key)[0]
    values = {**options_of(formula), "x": x}
    if formula.value:
        given = {n: v for n, v in OPTIONS.items() if re.search(rf"\b{n}\b", formula.value)}
        given |= {n: v for n, v in formula.when.items() if n == "approximate"}
        if isinstance(key, type):
            run = key(**given, **({"dtype": "float64"} if issubclass(key, keras.layers.Layer) else {}))
            y = run(tf.constant(x))
        else:
            y = key(tf.constant(x), **given)
        tolerance = (
            2e-6 if "gelu" in str(key).lower() else 1e-7 if "elu" in str(key).lower() else 1e-9
        )  # TensorFlow's constants
        np.testing.assert_allclose(evaluate(formula.value, values), y, rtol=tolerance, atol=tolerance)
    else:
        name = getattr(key, "__name__", "").lower()
        y = x if "threshold" in name or "shrink" in name else np.clip((x + 1) ** 2 / 4, 0, None)
    derivative = rule.derivative(call_of(key, formula, [tf.constant(x)], tf.convert_to_tensor(y)))
    if "gelu" in str(key).lower():
        tolerance = {"rtol": 1e-6, "atol": 1e-7}  # √½ is a number of single precision in TensorFlow's kernel
    else:
        tolerance = EXACT
    written = np.broadcast_to(evaluate(formula.derivative, {**values, "y": np.asarray(y)}), SHAPE)
    np.testing.assert_allclose(written, derivative, **tolerance)


@pytest.mark.parametrize("options", [{}, {"negative_slope": 0.25}, {"max_value": 1.5}, {"max_value": 6.0}])
def test_a_rectifier_with_its_options(options):
    layer, x = keras.layers.ReLU(**options, dtype="float64"), 2 * numbers(keras.layers.ReLU)
    x[0] = 0.0, options.get("max_value", 1.0), -1.0  # the corners
    y = layer(tf.constant(x))
    call = Call(layer, [tf.constant(x)], [y], path="relu")
    given = options_of_call(call, [tf.constant(x)])
    formula = WRITTEN[keras.layers.ReLU].formula.of(given)
    assert formula is not None, given
    values = {**given, "x": x, "y": y.numpy()}
    np.testing.assert_allclose(evaluate(formula.value, values), y, **EXACT)
    derivative = WRITTEN[keras.layers.ReLU].derivative(call)
    np.testing.assert_allclose(evaluate(formula.derivative, values) * np.ones_like(x), derivative, **EXACT)


def upstream_of(y):
    return np.random.default_rng(1).normal(size=np.shape(y))


L = keras.layers
APART = {
    *WINDOWS_OF_LAYERS, *(key for keys in (*OPERATIONS, *MATRICES) for key in keys), L.BatchNormalization, L.LayerNormalization, L.Embedding, L.Attention, L.PReLU, L.EinsumDense,
    L.GroupNormalization, ops.Matmul, ops.Add, L.RMSNormalization, L.Rescaling, ops.Divide, ops.Maximum, ops.Minimum, ops.Subtract,
    ops.Multiply, ops.DotProductAttention, L.Normalization, L.ReversibleEmbedding, L.Maximum, L.Masking, L.GaussianNoise, L.Dot, Merge, ops.Logaddexp, ops.Hypot, ops.Logsumexp,
}  # fmt: skip
"""What has a test of its own, below or in test_matrix_formulas.py."""
SEEN = [WRITTEN[key].backward for key in APART]  # functions that other keys may share
LAYERS = [
    k
    for k, rule in WRITTEN.items()
    if isinstance(cases_of(k)[0], Formula) and rule.derivative is None and rule.backward not in SEEN
]


@pytest.mark.parametrize("key", LAYERS, ids=lambda key: getattr(key, "__name__", str(key)))
def test_the_gradients_of_a_layer(key):
    formula = cases_of(key)[0]
    random = np.random.default_rng(0)
    values = {
        **options_of(formula),
        "inputs": 2,
        "m": np.array([[0.0, 2.0, 2.0]] * 4),
        "W": random.normal(size=(3, 2)),
        "b": random.normal(size=2),
    }
    names = [
        name for name in ("x", "a", "b") if name in formula.gradients and (name != "b" or "a" in formula.gradients)
    ]
    shape = (4, 4) if "parts" in str(formula.parts) else SHAPE
    values |= {name: random.normal(size=shape) for name in names}
    values = with_parts(formula.parts, values)
    scalar = isinstance(key, type) and issubclass(key, keras.regularizers.Regularizer)
    y = evaluate(formula.value, values)
    y = np.sum(y) if scalar else y
    dy = upstream_of(y)
    more = {"m": values["m"], "kernel": tf.constant(values["W"]), "bias": tf.constant(values["b"]), "use_bias": True}
    call = call_of(key, formula, [tf.constant(values[name]) for name in names], tf.constant(y), **more)
    result = WRITTEN[key].backward(call, tf.constant(dy))
    found = dict(zip(names, result.inputs, strict=True)) | {
        {"kernel": "W", "bias": "b"}[n]: g.total() for n, g in result.weights.items() if g is not None
    }
    for name, expression in formula.gradients.items():
        gradient = found[name]() if callable(found[name]) else found[name]
        written = np.broadcast_to(evaluate(expression, {**values, "y": y, "dy": dy}), np.shape(gradient))
        np.testing.assert_allclose(written, gradient, **EXACT, err_msg=name)


def of_a_layer(layer, *inputs):
    """The layer's output, ∂E/∂(output) at random, and by the rules ∂E/∂input and ∂E/∂weight by name, in float64."""
    symbols = [keras.Input(x.shape[1:], dtype=x.dtype) for x in inputs]
    outputs = layer(symbols if len(symbols) > 1 else symbols[0])
    model = keras.Model(symbols, outputs)
    tensors = [tf.constant(x) for x in inputs]
    dy = upstream_of(np.zeros((len(inputs[0]), *outputs.shape[1:])))
    result = backward(model, tensors if len(tensors) > 1 else tensors[0], upstream=tf.constant(dy))
    gradients = {v.name: g for v, g in zip(result.weights, map(tf.convert_to_tensor, result.gradients), strict=True)}
    return (
        result.y_pred.numpy(),
        dy,
        [None if g is None else g.numpy() for g in result.inputs],
        {n: g.numpy() for n, g in gradients.items()},
    )


def written_of(key, values, options=None):
    formula = next(one for one in cases_of(key) if one.of(options or {}) is not None)
    return evaluate(formula.value, values), {name: evaluate(text, values) for name, text in formula.gradients.items()}


def close(one, other):
    np.testing.assert_allclose(one, other, **EXACT)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_convolution_and_pooling_window_by_window(rank):
    layers, size = keras.layers, 2**rank
    x = np.random.default_rng(0).normal(size=(3, *[2] * rank, 2))  # one window: the kernel is as large as the input
    conv = getattr(layers, f"Conv{rank}D")
    layer = conv(3, 2, dtype="float64")
    layer.build(x.shape)
    y, dy, (dx,), gradients = of_a_layer(layer, x)
    W = layer.kernel.numpy().reshape(size * 2, 3)
    values = {"x": x.reshape(3, -1), "W": W, "b": layer.bias.numpy(), "dy": dy.reshape(3, 3)}
    value, said = written_of(conv, values)
    close(value, y.reshape(3, 3))
    close(said["x"], dx.reshape(3, -1))
    close(said["W"], gradients["kernel"].reshape(size * 2, 3))
    close(said["b"], gradients["bias"])
    for kind in (
        ("MaxPooling", "AveragePooling") if rank < 3 else ()
    ):  # TensorFlow pools in three dimensions in single precision
        key = getattr(layers, f"{kind}{rank}D")
        y, dy, (dx,), _ = of_a_layer(key(2, dtype="float64"), x)
        windows = np.moveaxis(x.reshape(3, size, 2), 1, 2)  # of each channel
        y, dy = y.reshape(3, 2, 1), dy.reshape(3, 2, 1)
        value, said = written_of(key, {"x": windows, "y": y, "dy": dy, "k": size})
        close(value, y)
        close(np.moveaxis(said["x"] * np.ones(windows.shape), 2, 1).reshape(x.shape), dx)


def normalised(x, axes, epsilon, centred=True):
    mean = x.mean(axes, keepdims=True) if centred else 0.0
    r = 1 / np.sqrt(((x - mean) ** 2).mean(axes, keepdims=True) + epsilon)
    return (x - mean) * r, r * np.ones_like(x)


NORMALISATIONS = {
    "BatchNormalization": (0, lambda formula: {"training": True}), "BatchNormalization, frozen": (0, None),
    "LayerNormalization": (1, None), "GroupNormalization": (2, None), "RMSNormalization": (1, None),
}  # fmt: skip


@pytest.mark.parametrize("name", NORMALISATIONS)
def test_normalisation(name):
    x, frozen = np.random.default_rng(0).normal(size=(5, 4)), "frozen" in name
    key = getattr(keras.layers, name.split(",")[0])
    layer = key(**({"groups": 2} if "Group" in name else {}), dtype="float64", trainable=not frozen)
    layer.build(x.shape)
    layer.set_weights(
        [np.random.default_rng(i).uniform(0.5, 2, size=w.shape) for i, w in enumerate(layer.get_weights())]
    )
    grouped = x.reshape(5, 2, 2) if "Group" in name else x
    h, r = normalised(grouped, 0 if "Batch" in name else -1, layer.epsilon, "RMS" not in name)
    if frozen:
        r = 1 / np.sqrt(layer.moving_variance.numpy() + layer.epsilon)
        h = (x - layer.moving_mean.numpy()) * r
    y, dy, (dx,), gradients = of_a_layer(layer, x)
    values = {"h": h, "r": r, "dy": dy.reshape(grouped.shape)}
    letters = {"gamma": getattr(layer, "gamma", getattr(layer, "scale", None)), "beta": getattr(layer, "beta", None)}
    values |= {n: v.numpy().reshape(grouped.shape[1:]) for n, v in letters.items() if v is not None}
    value, said = written_of(key, values, {"of_batch": not frozen, "masked": False, "renorm": False})
    pairs = [(value, y), (said["x"], dx)]
    if not frozen:  # a frozen layer's weights have no gradient
        names = {"gamma": "scale" if "RMS" in name else "gamma", "beta": "beta"}
        pairs += [(said[n], gradients[names[n]]) for n in ("gamma", "beta") if n in said]
    for one, other in pairs:  # Keras's ε is a number of single precision
        np.testing.assert_allclose(np.reshape(one, np.shape(other)), other, rtol=1e-7, atol=1e-7)


def of_one_window(layer, size=1):
    """The layer, built for `size` positions along each axis and two channels, and what it makes of three examples."""
    rank = int(type(layer).__name__.removesuffix("Transpose")[-2])
    x = np.random.default_rng(0).normal(size=(3, *[size] * rank, 2))
    layer.build(x.shape)
    for variable in layer.weights:
        variable.assign(np.random.default_rng(len(variable.path)).normal(size=variable.shape))
    return (x.reshape(3, -1, 2), layer, *of_a_layer(layer, x))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_transposed_convolution_that_spreads_one_position(rank):
    key = getattr(L, f"Conv{rank}DTranspose")
    x, layer, y, dy, (dx,), gradients = of_one_window(key(3, 2, dtype="float64"))
    places = {"b": np.tile(layer.bias.numpy(), 2**rank), "W": layer.kernel.numpy().reshape(-1, 2), "x": x[:, 0]}
    value, said = written_of(key, {**places, "dy": dy.reshape(3, -1)})
    close(value, y.reshape(3, -1))
    close(said["x"], dx.reshape(3, 2))
    close(said["W"], gradients["kernel"].reshape(-1, 2))
    close(said["b"].reshape(-1, 3).sum(0), gradients["bias"])  # of every position that it gives to


@pytest.mark.parametrize("multiplier", [1, 3])
@pytest.mark.parametrize("rank", [1, 2])
def test_a_convolution_of_every_channel_by_itself(rank, multiplier):
    key = getattr(L, f"DepthwiseConv{rank}D")
    layer = key(2, depth_multiplier=multiplier, dtype="float64")
    x, layer, y, dy, (dx,), gradients = of_one_window(layer, 2)
    kernel, bias = layer.kernel.numpy().reshape(-1, 2, multiplier), layer.bias.numpy().reshape(2, multiplier)
    y, dy, dx = y.reshape(3, 2, multiplier), dy.reshape(3, 2, multiplier), dx.reshape(x.shape)
    for channel in range(2):
        values = {"x": x[:, :, channel], "W": kernel[:, channel], "b": bias[channel], "dy": dy[:, channel]}
        value, said = written_of(key, values)
        close(value, y[:, channel])
        close(said["x"], dx[:, :, channel])
        close(said["W"], gradients["kernel"].reshape(kernel.shape)[:, channel])
        close(said["b"], gradients["bias"].reshape(bias.shape)[channel])


@pytest.mark.parametrize("rank", [1, 2])
def test_a_separable_convolution(rank):
    key = getattr(L, f"SeparableConv{rank}D")
    x, layer, y, dy, (dx,), gradients = of_one_window(key(3, 2, dtype="float64"), 2)
    D, P = layer.depthwise_kernel.numpy().reshape(-1, 2), layer.pointwise_kernel.numpy().reshape(2, 3)
    each = {"D": np.zeros((2 * len(D), 2))}  # the channels side by side: what one sees of another counts 0
    each["D"][: len(D), 0], each["D"][len(D) :, 1] = D.T
    values = {**each, "P": P, "b": layer.bias.numpy(), "x": np.moveaxis(x, 1, 2).reshape(3, -1), "dy": dy.reshape(3, 3)}
    values = with_parts(WRITTEN[key].formula.parts, values)
    value, said = written_of(key, values)
    close(value, y.reshape(3, 3))
    close(said["x"].reshape(3, 2, -1), np.moveaxis(dx.reshape(x.shape), 1, 2))
    of_D = np.stack([said["D"][: len(D), 0], said["D"][len(D) :, 1]], 1)
    close(of_D, gradients["depthwise_kernel"].reshape(D.shape))
    close(said["P"], gradients["pointwise_kernel"].reshape(P.shape))
    close(said["b"], gradients["bias"])


def around(rows):
    """What a window of three sees at each of four positions, as rows, with zeros beyond the ends."""
    x = np.pad(rows.reshape(-1, 4, rows.shape[-1]), ((0, 0), (1, 1), (0, 0)))
    return np.concatenate([x[:, k : k + 4] for k in range(3)], -1).reshape(len(rows), -1)


def back(rows):
    """Its adjoint."""
    parts = np.split(rows.reshape(-1, 4, rows.shape[-1]), 3, -1)
    y = np.zeros((len(rows) // 4, 6, parts[0].shape[-1]))
    for k, part in enumerate(parts):
        y[:, k : k + 4] += part
    return y[:, 1:-1].reshape(len(rows), -1)


def test_a_recurrent_convolution_step_by_step():
    layer = L.ConvLSTM1D(2, 3, padding="same", return_sequences=True, bias_initializer="random_normal", dtype="float64")
    layer.build((2, 3, 4, 1))
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 1))
    y, dys, (dx,), gradients = of_a_layer(layer, x)
    formula = next(rule.formula for key, rule in WRITTEN.items() if key.__name__ == "ConvLSTM")
    assert formula.of({"dropout": 0.0, "recurrent_dropout": 0.0}) is formula
    W, U, b = (v.numpy() for v in layer.weights)
    sigma, tanh = (WRITTEN[f].formula for f in (keras.activations.sigmoid, keras.activations.tanh))
    assert layer.cell.recurrent_activation is keras.activations.sigmoid
    letters = {"W": W.reshape(-1, 8), "U": U.reshape(-1, 8), "b": b, "window": around, "spread": back}
    for letter, made in (("phi", tanh), ("sigma", sigma)):
        letters[letter] = lambda z, f=made: evaluate(f.value, {"x": z})
        letters[f"{letter}1"] = lambda z, f=made: evaluate(f.derivative, {"x": z, "y": evaluate(f.value, {"x": z})})
    rows, steps = lambda a: a.reshape(8, -1), []
    state = {"h0": np.zeros((8, 2)), "c0": np.zeros((8, 2))}
    for t in range(3):
        values = with_parts(formula.forward, {**letters, **state, "x": rows(x[:, t])})
        close(values["h"], rows(y[:, t]))
        state = {"h0": values["h"], "c0": values["c"]}
        steps.append(values)
    later, totals = {"dh0": 0.0, "dc0": 0.0}, dict.fromkeys("WUb", 0.0)
    for t in (2, 1, 0):
        values = with_parts(formula.backward, {**steps[t], "dh": rows(dys[:, t]) + later["dh0"], "dc": later["dc0"]})
        later = {name: values[name] for name in ("dh0", "dc0")}
        totals = {letter: total + evaluate(formula.gradients[letter], values) for letter, total in totals.items()}
        close(evaluate(formula.gradients["x"], values), rows(dx[:, t]))
    for letter, name in (("W", "kernel"), ("U", "recurrent_kernel"), ("b", "bias")):
        close(totals[letter].reshape(gradients[name].shape), gradients[name])


MOVES = [
    (L.Flatten(), (2, 3), {}),
    (L.Reshape((3, 2)), (2, 3), {}),
    (L.Permute((2, 1)), (2, 3), {"permuted": lambda x: np.swapaxes(x.reshape(4, *((2, 3) if x is MOVED[0] else (3, 2))), 1, 2)}),
    (L.RepeatVector(3), (2,), {"repeated": lambda x: np.stack([x] * 3, 1), "window": lambda dy: np.moveaxis(dy, 1, -1)}),
    (L.UpSampling1D(2), (2, 1), {"repeated": lambda x: np.repeat(x, 2, 1), "window": lambda dy: dy.reshape(4, 2, 2)}),
    (L.UpSampling2D((1, 2)), (1, 2, 1), {"repeated": lambda x: np.repeat(x, 2, 2), "window": lambda dy: dy.reshape(4, 2, 2)}),
    (L.UpSampling3D((1, 1, 2)), (1, 1, 2, 1), {"repeated": lambda x: np.repeat(x, 2, 3), "window": lambda dy: dy.reshape(4, 2, 2)}),
    *[
        (getattr(L, f"ZeroPadding{rank}D")(1), [2] * rank + [1],
         {"padded": lambda x: np.pad(x, [(0, 0), *[(1, 1)] * (x.ndim - 2), (0, 0)]),
          "cropped": lambda dy: dy[(slice(None), *[slice(1, -1)] * (dy.ndim - 2))]})
        for rank in (1, 2, 3)
    ],
    *[
        (getattr(L, f"Cropping{rank}D")(1), [4] * rank + [1],
         {"cropped": lambda x: x[(slice(None), *[slice(1, -1)] * (x.ndim - 2))],
          "padded": lambda dy: np.pad(dy, [(0, 0), *[(1, 1)] * (dy.ndim - 2), (0, 0)])})
        for rank in (1, 2, 3)
    ],
]  # fmt: skip
MOVED: list = [None]


@pytest.mark.parametrize(("layer", "shape", "functions"), MOVES, ids=lambda value: getattr(value, "name", ""))
def test_a_layer_that_moves_numbers(layer, shape, functions):
    x = MOVED[0] = np.random.default_rng(0).normal(size=(4, *shape))
    y, dy, (dx,), _ = of_a_layer(layer, x)
    options = {"class": type(layer).__name__, **({"interpolation": "nearest"} if "2D" in type(layer).__name__ else {})}
    value, said = written_of(type(layer), {**functions, "x": x, "dy": dy}, options)
    np.testing.assert_allclose(np.reshape(value, y.shape), y, rtol=1e-6)  # these layers stand in single precision
    np.testing.assert_allclose(np.reshape(said["x"], dx.shape), dx, rtol=1e-6)


@pytest.mark.parametrize("kind", ["Average", "Max"])
def test_pooling_to_a_number_of_windows(kind):
    for rank in (1, 2, 3):
        key = getattr(L, f"Adaptive{kind}Pooling{rank}D")
        x = np.random.default_rng(0).normal(size=(4, *[2] * rank, 1))
        y, dy, (dx,), _ = of_a_layer(key(1, dtype="float64"), x)
        values = {"x": x.reshape(4, -1), "y": y.reshape(4, 1), "dy": dy.reshape(4, 1), "k": 2**rank}
        value, said = written_of(key, values)
        close(value, y.reshape(4, 1))
        close(said["x"] * np.ones((4, 2**rank)), dx.reshape(4, -1))


@pytest.mark.parametrize("count", [2, 3])
def test_tensors_side_by_side(count):
    xs = [np.random.default_rng(n).normal(size=(4, n + 1)) for n in range(count)]
    y, dy, dxs, _ = of_a_layer(L.Concatenate(dtype="float64"), *xs)
    value, said = written_of(
        L.Concatenate, {**dict(zip("abc", xs, strict=False)), "dy": dy}, {"inputs": count, "axis": -1}
    )
    close(value, y)
    for letter, dx in zip("abc", dxs, strict=False):
        close(said[letter], dx)


@pytest.mark.parametrize("layer", [L.Maximum, L.Minimum, L.Dot], ids=lambda layer: layer.__name__)
def test_a_layer_of_two_tensors(layer):
    a, b = (np.random.default_rng(seed).normal(size=SHAPE) for seed in (0, 1))
    y, dy, dxs, _ = of_a_layer(layer(**({"axes": 1} if layer is L.Dot else {}), dtype="float64"), a, b)
    given = {"inputs": 2, "broadcasts": False, "masked": False, "rank": 2, "normalize": False, "class": layer.__name__}
    value, said = written_of(layer, {"a": a, "b": b, "dy": dy}, given)
    close(value, y)
    for letter, dx in zip("ab", dxs, strict=True):
        close(said[letter], dx)


@pytest.mark.parametrize("invert", [False, True])
def test_known_mean_and_deviation(invert):
    x = np.random.default_rng(0).normal(size=SHAPE)
    layer = L.Normalization(mean=[1.0, 2, 3], variance=[4.0, 9, 16], invert=invert, dtype="float64")
    y, dy, (dx,), _ = of_a_layer(layer, x)
    value, said = written_of(
        L.Normalization, {"x": x, "dy": dy, "mu": [1.0, 2, 3], "s": [2.0, 3, 4]}, {"invert": invert}
    )
    close(value, y)
    close(said["x"], dx)


def test_a_table_in_reverse():
    layer, x = L.ReversibleEmbedding(5, 3, dtype="float64"), np.random.default_rng(0).normal(size=SHAPE)
    layer.build()
    formula = next(
        f for f in cases_of(type(layer)) if f.of({"reverse": True, "tie_weights": True, "logit_soft_cap": None})
    )
    E, tensor = layer.embeddings.numpy(), tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(tensor)
        y = layer(tensor, reverse=True)
    dy = upstream_of(y)
    close(evaluate(formula.value, {"x": x, "C": E}), y)
    dx, dE = tape.gradient(y, [tensor, layer.embeddings.value], tf.constant(dy))
    close(evaluate(formula.gradients["x"], {"dy": dy, "C": E}), dx)
    close(evaluate(formula.gradients["C"], {"dy": dy, "x": x}), dE)


def test_what_hides_positions_and_what_adds_noise():
    x = np.random.default_rng(0).normal(size=(2, 3, 2))
    x[0, 1] = 0
    y, dy, (dx,), _ = of_a_layer(L.Masking(dtype="float64"), x)
    value, said = written_of(L.Masking, {"x": x, "dy": dy, "m": np.any(x != 0, -1, keepdims=True)})
    close(value, y)
    close(said["x"], dx)
    noise = L.GaussianNoise(0.5, seed=3, dtype="float64")(np.zeros_like(x), training=True)
    y, dy, (dx,), _ = of_a_layer(L.GaussianNoise(0.5, seed=3, dtype="float64"), x)
    value, said = written_of(L.GaussianNoise, {"x": x, "dy": dy, "r": noise.numpy()})
    close(value, y)
    close(said["x"], dx)


def test_embedding():
    layer = keras.layers.Embedding(5, 3, dtype="float64")
    k = np.array([[1], [4], [1]])
    y, dy, _, gradients = of_a_layer(layer, k)
    values = {"C": layer.embeddings.numpy(), "k": k[:, 0], "dy": dy[:, 0], "onehot": lambda k: np.eye(5)[k]}
    value, said = written_of(keras.layers.Embedding, values)
    close(value, y[:, 0])
    close(said["C"], gradients["embeddings"])


@pytest.mark.parametrize(
    "case", range(3), ids=lambda case: cases_of(keras.layers.Attention)[case].inputs + "m" * (case == 1)
)
def test_attention(case):
    formula, random = cases_of(keras.layers.Attention)[case], np.random.default_rng(0)
    arrays = {
        "q": random.normal(size=(1, 3, 2)),
        "v": random.normal(size=(1, 4, 2)),
        "k": random.normal(size=(1, 4, 2)),
    }
    given = [arrays[letter] for letter in formula.inputs]
    seen = np.array([[True, True, False, True]])
    layer, masked = keras.layers.Attention(dtype="float64"), case == 1
    inputs = [tf.constant(x) for x in given]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        y = layer(inputs, mask=[None, tf.constant(seen)] if masked else None)
    dy = upstream_of(y)
    values = {name: x[0] for name, x in arrays.items()} | {"dy": dy[0], "m": np.where(seen, 0.0, -np.inf)}
    values = with_parts(formula.parts, values)
    close(evaluate(formula.value, values), y[0])
    for letter, dx in zip(formula.inputs, tape.gradient(y, inputs, tf.constant(dy)), strict=True):
        close(evaluate(formula.gradients[letter], values), dx[0])


@pytest.mark.parametrize("causal", [False, True])
def test_the_attention_of_every_head(causal):
    formula, random = cases_of(ops.DotProductAttention)[causal], np.random.default_rng(0)
    q, k, v = (random.normal(size=(1, 3, 1, 2)) for _ in "qkv")
    inputs = [tf.constant(x) for x in (q, k, v)]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        y = keras.ops.dot_product_attention(*inputs, scale=0.7, is_causal=causal)
    dy = upstream_of(y)
    m = np.where(np.tri(3) > 0, 0.0, -np.inf)
    values = with_parts(
        formula.parts, {"q": q[0, :, 0], "k": k[0, :, 0], "v": v[0, :, 0], "dy": dy[0, :, 0], "scale": 0.7, "m": m}
    )
    np.testing.assert_allclose(evaluate(formula.value, values), y[0, :, 0], rtol=1e-6)  # Keras's own kernel
    for letter, dx in zip("qkv", tape.gradient(y, inputs, tf.constant(dy)), strict=True):
        np.testing.assert_allclose(evaluate(formula.gradients[letter], values), dx[0, :, 0], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("equation", ["ab,bcd->acd", "abc,cd->abd", "abc,bcd->ad"])
def test_the_projections_of_attention(equation):
    layer = keras.layers.EinsumDense(equation, tuple([None] * (equation.count("b", 6) - 1) + [2, 3])[-(len(equation.split(">")[1]) - 1) :],
                                     bias_axes=equation[-1], dtype="float64")  # fmt: skip
    x = np.random.default_rng(0).normal(size=(5, 2, 3)[: len(equation.split(",")[0])])
    y, dy, (dx,), gradients = of_a_layer(layer, x)
    bound = sum(axis in equation.split(",")[0] for axis in equation.split(",")[1].split("-")[0])
    W = layer.kernel.numpy()
    W = W.reshape(int(np.prod(W.shape[:bound])), -1)
    rows = x.reshape(-1, len(W))
    b = np.broadcast_to(layer.bias.numpy(), y.shape[1:]).ravel()[-W.shape[1] :]
    values = {"x": rows, "W": W, "b": b, "dy": dy.reshape(-1, W.shape[1])}
    value, said = written_of(keras.layers.EinsumDense, values, {"equation": equation})
    close(value.reshape(y.shape), y)
    close(said["x"].reshape(dx.shape), dx)
    close(said["W"].ravel(), gradients["kernel"].ravel())


def test_an_equation_that_is_no_product_of_matrices_has_no_formula():
    formula = WRITTEN[keras.layers.EinsumDense].formula
    assert formula.of({"equation": "ab,bc->ac"}) is formula
    assert [formula.of({"equation": one}) for one in ("ab,cb->ac", "abc,bd->acd", "ab,a->b")] == [None] * 3


def test_a_slope_of_its_own_for_every_unit():
    layer = keras.layers.PReLU(alpha_initializer="random_normal", dtype="float64")
    x = np.random.default_rng(0).normal(size=SHAPE)
    y, dy, (dx,), gradients = of_a_layer(layer, x)
    value, said = written_of(keras.layers.PReLU, {"x": x, "alpha": layer.alpha.numpy(), "dy": dy})
    close(value, y)
    close(said["x"], dx)
    close(said["alpha"], gradients["alpha"])


def test_pooling_over_all_positions():
    x = np.random.default_rng(0).normal(size=(2, 4, 3))
    for key in (keras.layers.GlobalAveragePooling1D, keras.layers.GlobalMaxPooling1D):
        y, dy, (dx,), _ = of_a_layer(key(dtype="float64"), x)
        values = {"x": np.moveaxis(x, 1, 2), "y": y[..., None], "dy": dy[..., None], "k": 4}
        value, said = written_of(key, values, {"masked": False})
        close(value[..., 0], y)
        close(np.moveaxis(said["x"] * np.ones((2, 3, 4)), 2, 1), dx)


@pytest.mark.parametrize("name", ["Sum", "Mean", "Max", "Min", "Logsumexp"])
def test_what_is_made_of_an_axis(name):
    key, x = getattr(ops, name), tf.constant(np.random.default_rng(0).normal(size=SHAPE))
    op = key(axis=-1, keepdims=True)
    y = op(x)
    dy = upstream_of(y)
    values = {"x": x.numpy(), "y": y.numpy(), "dy": dy, "k": 3}
    value, said = written_of(key, values, {"class": name})
    close(value, y)
    (dx,) = WRITTEN[key].backward(Call(op, [x], [y], arguments={"x": x}, path=name), tf.constant(dy)).inputs
    close(said["x"] * np.ones(SHAPE), dx() if callable(dx) else dx)


ARRANGED = [
    ops.Reshape((2, 6)), ops.Ravel(), ops.ExpandDims(0), ops.Squeeze(), ops.Transpose(), ops.Swapaxes(0, 1), ops.Moveaxis(0, 1),
    ops.Flip(1), ops.Roll(1, 1),
]  # fmt: skip


@pytest.mark.parametrize("op", ARRANGED, ids=lambda op: type(op).__name__)
def test_what_is_arranged_anew(op):
    x = tf.constant(np.random.default_rng(0).normal(size=SHAPE))
    y = op(x)
    dy = upstream_of(y)
    (dx,) = WRITTEN[type(op)].backward(Call(op, [x], [y], arguments={"x": x}, path="op"), tf.constant(dy)).inputs
    dx = dx() if callable(dx) else dx
    if WRITTEN[type(op)].formula.value == "x":  # the same numbers in the same order
        close(np.ravel(y), np.ravel(x))
        close(np.ravel(dx), np.ravel(dy))
    else:  # the same numbers, and each gradient where its number came from
        assert sorted(np.ravel(y)) == sorted(np.ravel(x))
        pairs = sorted(zip(np.ravel(y), np.ravel(dy), strict=True))
        assert sorted(zip(np.ravel(x), np.ravel(dx), strict=True)) == pairs


def test_rescaling():
    x = np.random.default_rng(0).normal(size=SHAPE)
    y, dy, (dx,), _ = of_a_layer(keras.layers.Rescaling(0.5, 0.25, dtype="float64"), x)
    options = {"scale": 0.5, "offset": 0.25}
    value, said = written_of(keras.layers.Rescaling, {"x": x, "dy": dy, **options}, options)
    close(value, y)
    close(said["x"], dx)


PAIRS = [
    ops.Logaddexp,
    ops.Hypot,
    ops.Add,
    ops.Subtract,
    ops.Multiply,
    ops.Divide,
    ops.Maximum,
    ops.Minimum,
    ops.Matmul,
]


@pytest.mark.parametrize("key", PAIRS, ids=lambda key: key.__name__)
def test_two_tensors(key):
    random = np.random.default_rng(0)
    a, b = random.normal(size=SHAPE), random.normal(size=(3, 4) if key is ops.Matmul else SHAPE)
    formula = cases_of(key)[0]
    y = evaluate(formula.value, {"a": a, "b": b})
    x1, x2 = tf.constant(a), tf.constant(b)
    close(y, key()(x1, x2))
    dy = upstream_of(y)
    call = Call(key(), [x1, x2], [tf.constant(y)], arguments={"x1": x1, "x2": x2}, path="pair")
    for letter, dx in zip("ab", WRITTEN[key].backward(call, tf.constant(dy)).inputs, strict=True):
        close(
            evaluate(formula.gradients[letter], {"a": a, "b": b, "y": y, "dy": dy}),
            dx() if callable(dx) else dx,
        )


def by_its_rule(op, arguments):
    """y, ∂E/∂y, the gradients of the tensors among the arguments by the rule, and the formula for these options."""
    tensors = {name: tf.constant(x) for name, x in arguments.items() if isinstance(x, np.ndarray)}
    given = {"operands": tuple(tensors.values())} if isinstance(op, ops.Einsum) else {**arguments, **tensors}
    y = op(*given.get("operands", given.values()))
    call = Call(op, list(tensors.values()), [y], arguments=given, path="op")
    dy = upstream_of(y)
    dxs = [dx() if callable(dx) else dx for dx in WRITTEN[type(op)].backward(call, tf.constant(dy)).inputs]
    options = options_of_call(call, dxs)
    formula = WRITTEN[type(op)].formula.of(options)
    assert formula is not None
    return y.numpy(), dy, dxs, formula, options


A, B = np.random.default_rng(3).uniform(0.3, 2.5, (2, *SHAPE))
S, C = np.random.default_rng(4).normal(size=(2, 3, 3))
CONDITION = A > B
WITH_A_NUMBER = [
    (op(), arguments)
    for op in (ops.Add, ops.Subtract, ops.Multiply, ops.TrueDivide, ops.Maximum, ops.Minimum, ops.Power)
    for arguments in ({"x1": A, "x2": 1.5}, {"x1": 1.5, "x2": A})
]


@pytest.mark.parametrize(("op", "arguments"), [*WITH_A_NUMBER, (ops.Clip(0.5, 1.5), {"x": A})])
def test_a_tensor_and_a_number(op, arguments):
    y, dy, (*_, dx), formula, options = by_its_rule(op, arguments)
    values = {**options, "x": A, "y": y}
    close(evaluate(formula.value, values), y)
    close(dy * evaluate(formula.derivative, values), dx)


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("key", [ops.Add, ops.Subtract, ops.Multiply, ops.Divide], ids=lambda key: key.__name__)
def test_a_row_that_all_examples_have(key, first):
    arguments = {"x1": A[0], "x2": B} if first else {"x1": A, "x2": B[0]}
    y, dy, dxs, formula, options = by_its_rule(key(), arguments)
    values = {**options, "a": arguments["x1"], "b": arguments["x2"], "y": y, "dy": dy}
    close(evaluate(formula.value, values), y)
    for letter, dx, x in zip("ab", dxs, arguments.values(), strict=True):
        close(evaluate(formula.gradients[letter], values), tf.reduce_sum(dx, range(dx.shape.rank - x.ndim)))


@pytest.mark.parametrize("mode", ["concat", "sum", "ave", "mul"])
def test_two_directions_put_together(mode):
    random = np.random.default_rng(0)
    model = keras.Sequential([keras.Input((2, 2)), L.Bidirectional(L.SimpleRNN(2), merge_mode=mode), L.Dense(1)])
    model.compile("sgd", "mse")
    link = next(
        link for link in explain(model, random.normal(size=(3, 2, 2)), np.ones((3, 1))).links if "merge" in link.path
    )
    values = {**dict(zip("ab", link.inputs, strict=True)), "dy": link.upstream[0], "y": link.outputs[0]}
    np.testing.assert_allclose(evaluate(link.formula.value, values), link.outputs[0], rtol=1e-6)
    for letter, dx in zip("ab", link.downstream, strict=True):
        np.testing.assert_allclose(evaluate(link.formula.gradients[letter], values), dx, rtol=1e-6)


OF_TENSORS = [
    (ops.Power(), {"x1": A, "x2": B}, ""), (ops.Arctan2(), {"x1": A, "x2": B}, ""), (ops.Mod(), {"x1": A, "x2": B}, ""),
    (ops.Cross(), {"x1": A, "x2": B}, ""), (ops.Where(), {"condition": CONDITION, "x1": A, "x2": B}, ""),
    (ops.Einsum("ni,nj->nij"), {"a": A, "b": B}, "ni,nj->nij"), (ops.Einsum("ni,ij->nj"), {"a": A, "b": S}, "ni,ij->nj"),
    (ops.Tensordot(1), {"x1": A, "x2": S}, "ni,ij->nj"), (ops.Dot(), {"x1": A, "x2": S}, "ni,ij->nj"),
    (ops.Inner(), {"x1": A, "x2": S}, "ni,ji->nj"), (ops.Vdot(), {"x1": A[0], "x2": B[0]}, "i,i->"),
    (ops.Outer(), {"x1": A[0], "x2": B[0]}, "i,j->ij"), (ops.Solve(), {"a": S, "b": C}, ""),
    (ops.Prod(-1, keepdims=True), {"x": A}, ""), (ops.Var(-1, keepdims=True), {"x": A}, ""), (ops.Std(-1, keepdims=True), {"x": A}, ""),
    (ops.Cumsum(-1), {"x": A}, ""), (ops.Cumprod(-1), {"x": A}, ""), (ops.Inv(), {"x": S}, ""), (ops.Det(), {"x": S}, ""),
    (ops.Logdet(), {"x": S @ S.T}, ""),
]  # fmt: skip


@pytest.mark.parametrize(("op", "arguments", "equation"), OF_TENSORS, ids=lambda value: getattr(value, "name", ""))
def test_an_operation_of_tensors(op, arguments, equation):
    """`summed` is an einsum: of the inputs by its equation, of dy with one of them by the same letters in another order."""
    y, dy, dxs, formula, options = by_its_rule(op, arguments)
    letters = formula.inputs or ("ab" if len(arguments) > 1 else "x")
    values = {
        **options,
        **dict(zip(letters, arguments.values(), strict=True)),
        "y": y,
        "dy": dy,
        "k": 3,
        "outer": np.outer,
    }
    a, b, out = re.split(",|->", equation) if equation else ("", "", "")

    def evaluated(text, left="", right=""):
        return evaluate(text, {**values, "summed": lambda one, other: np.einsum(f"{left}->{right}", one, other)})

    close(evaluated(formula.value, f"{a},{b}", out), y)
    turned = {"a": (f"{out},{b}", a), "b": (f"{out},{a}", b)}
    for letter, dx in zip(letters, dxs, strict=True):
        if letter in formula.gradients:
            close(np.broadcast_to(evaluated(formula.gradients[letter], *turned.get(letter, ())), dx.shape), dx)


TAKES = [
    ops.GetItem(), ops.Slice((2, 2)), ops.Take(1), ops.TakeAlongAxis(1), ops.Diagonal(), ops.Tril(), ops.Triu(), ops.Repeat(2, 1),
    ops.Tile((1, 2)), ops.BroadcastTo((2, *SHAPE)), ops.Pad(((0, 0), (1, 2)), "constant"), ops.Fliplr(), ops.Flipud(), ops.Rot90(),
    ops.Cast("float64"), ops.Copy(), ops.ConvertToTensor(), ops.Array(), ops.DepthToSpace(2), ops.SpaceToDepth(2),
]  # fmt: skip
TAKEN = {
    "GetItem": {"key": (slice(1, 3), 0)}, "Slice": {"start_indices": (1, 0)}, "Take": {"indices": np.array([2, 0, 2])},
    "TakeAlongAxis": {"indices": np.array([[1], [0], [1], [2]])},
}  # fmt: skip


@pytest.mark.parametrize("op", TAKES, ids=lambda op: type(op).__name__)
def test_what_takes_repeats_or_moves_numbers(op):
    """y has numbers of x and zeros only; a number of dx is the sum of dy at the places that its number of x went to."""
    name = type(op).__name__
    x = np.random.default_rng(0).normal(size=(1, 2, 2, 4) if "To" in name and "Space" in name else SHAPE)
    y, dy, (dx, *_), formula, _ = by_its_rule(op, {"x": x, **TAKEN.get(name, {})})
    dx = tf.reduce_sum(dx, range(dx.shape.rank - x.ndim))  # as the sweep does where x was broadcast
    came = [np.flatnonzero(np.ravel(x) == value) for value in np.ravel(y)]
    assert all(len(places) == (1 if value else 0) for places, value in zip(came, np.ravel(y), strict=True))
    expected = np.zeros(x.size)
    for places, gradient in zip(came, np.ravel(dy), strict=True):
        expected[places] += gradient
    close(np.ravel(dx), expected)
    went = [[place for place, of in enumerate(came) if one in of] for one in range(x.size)]

    def there(z):
        return np.reshape([np.ravel(z)[places[0]] if len(places) else 0 for places in came], y.shape)

    def back(z):
        return np.reshape([np.ravel(z)[places].sum() for places in went], x.shape)

    def moved(z):
        return there(z) if z is x else back(z)

    words = {
        "taken": there, "repeated": there, "padded": there, "placed": back, "cropped": back, "permuted": moved, "triangle": moved,
        "window": lambda z: np.array([np.ravel(z)[places] for places in went]), "x": x, "dy": dy,
    }  # fmt: skip
    close(evaluate(formula.value, words), y)
    close(np.ravel(evaluate(formula.gradients["x"], words)), expected)
    repeats = max(map(len, went)) > 1
    assert ("repeated" in formula.value) == (repeats and name != "Take")


@pytest.mark.parametrize("count", [2, 3])
def test_tensors_that_an_operation_puts_side_by_side(count):
    xs = [np.random.default_rng(n).normal(size=(4, n + 1)) for n in range(count)]
    op, tensors = ops.Concatenate(1), [tf.constant(x) for x in xs]
    y = op(tensors)
    call, dy = Call(op, tensors, [y], arguments={"xs": tensors, "axis": 1}, path="op"), upstream_of(y)
    dxs = WRITTEN[ops.Concatenate].backward(call, tf.constant(dy)).inputs
    formula = WRITTEN[ops.Concatenate].formula.of(options_of_call(call, dxs))
    values = {**dict(zip("abc", xs, strict=False)), "dy": dy}
    close(evaluate(formula.value, values), y)
    for letter, dx in zip("abc", dxs, strict=False):
        close(evaluate(formula.gradients[letter], values), dx() if callable(dx) else dx)


@pytest.mark.parametrize("kind", OF_TENSORFLOW)
def test_an_operation_of_tensorflow(kind):
    formula = of_tensorflow(kind).of(
        {"inputs": 2, "broadcasts": False, "masked": False, "negative_slope": 0, "max_value": None, "threshold": 0}
    )
    names = inspect.signature(getattr(tf.raw_ops, kind)).parameters
    a, b = (tf.constant(one) for one in np.random.default_rng(0).uniform(0.2, 0.9, (2, *SHAPE)))
    given = {"x": a, "y": b} if "y" in names else {"features" if "features" in names else "x": a}
    given = {"a": a, "b": tf.transpose(b)} if kind == "MatMul" else given
    with tf.GradientTape() as tape:
        tape.watch(list(given.values()))
        y = getattr(tf.raw_ops, kind)(**given, **({"perm": [1, 0]} if kind == "Transpose" else {}))
    dy = upstream_of(y)
    tensors = [one.numpy() for one in given.values()]
    values = {**dict(zip("ab" if len(given) == 2 else "x", tensors, strict=True)), "y": y.numpy(), "dy": dy}
    values["permuted"] = np.transpose
    rtol = 1e-7 if kind == "Selu" else 1e-9
    np.testing.assert_allclose(evaluate(formula.value, values), y, rtol=rtol)
    written = [f"dy*({formula.derivative})"] if formula.derivative else list(formula.gradients.values())
    for text, dx in zip(written, tape.gradient(y, list(given.values()), tf.constant(dy)), strict=True):
        np.testing.assert_allclose(evaluate(text, values), dx, rtol=rtol, atol=1e-12)


RECURRENT = [
    (keras.layers.SimpleRNN, {}), (keras.layers.LSTM, {}), (keras.layers.LSTM, {"activation": "sigmoid", "recurrent_activation": "tanh"}),
    (keras.layers.GRU, {}), (keras.layers.GRU, {"reset_after": False}), (keras.layers.SimpleRNN, {"use_bias": False}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("key", "options"), RECURRENT, ids=lambda value: getattr(value, "__name__", None) or "-".join(map(str, value))
)
def test_a_recurrent_layer_step_by_step(key, options):
    """The formulas forward through three steps, and backward from the last, against the rule."""
    layer = key(2, return_sequences=True, bias_initializer="random_normal", dtype="float64", **options)
    layer.build((4, 3, 2))
    x = np.random.default_rng(0).normal(size=(4, 3, 2))
    y, dys, (dx,), gradients = of_a_layer(layer, x)
    rule = next(
        rule
        for kind, rule in WRITTEN.items()
        if kind.__name__ == key.__name__ and isinstance(cases_of(kind)[0], RecurrentFormula)
    )
    formula = next(
        f
        for f in (rule.formula if isinstance(rule.formula, Cases) else [rule.formula])
        if f.of({"dropout": 0.0, "recurrent_dropout": 0.0, "reset_after": True, **options}) is not None
    )
    weights = {v.name: v.numpy() for v in layer.weights}
    b = weights.get("bias", np.zeros(weights["kernel"].shape[1]))
    b, b2 = b if b.ndim == 2 else (b, None)
    U = weights["recurrent_kernel"]
    letters = {"W": weights["kernel"], "U": U, "b": b, "b2": b2, "V": U[:, :4], "Y": U[:, 4:]}
    for letter, name in (("phi", "activation"), ("sigma", "recurrent_activation")):
        function = getattr(layer.cell, name, None)
        if function is not None:
            made = WRITTEN[function].formula
            letters[letter] = lambda z, f=made: evaluate(f.value, {"x": z})
            letters[f"{letter}1"] = lambda z, f=made: evaluate(f.derivative, {"x": z, "y": evaluate(f.value, {"x": z})})
    state, steps = {"h0": np.zeros((4, 2)), "c0": np.zeros((4, 2))}, []
    for t in range(3):
        values = with_parts(formula.forward, {**letters, **state, "x": x[:, t]})
        close(values["h"], y[:, t])
        state = {"h0": values["h"], "c0": values.get("c")}
        steps.append(values)
    later, totals = {"dh0": 0.0, "dc0": 0.0}, {}
    for t in (2, 1, 0):
        values = with_parts(formula.backward, {**steps[t], "dh": dys[:, t] + later["dh0"], "dc": later["dc0"]})
        later = {name: values.get(name) for name in ("dh0", "dc0")}
        for letter, expression in formula.gradients.items():
            totals.setdefault(letter, []).append(evaluate(expression, values))
    close(np.stack(totals["x"][::-1], 1), dx)
    for letter, name in (("W", "kernel"), ("U", "recurrent_kernel"), ("b", "bias")):
        if name in gradients:
            close(sum(totals[letter]), gradients[name])
    if formula.factor[1].endswith("U.T"):  # the whole way from step to step, of one example
        first = {name: value[:1] if np.shape(value)[:1] == (4,) else value for name, value in steps[2].items()}
        close(
            dys[:1, 2] @ evaluate(formula.factor[1], first),
            with_parts(formula.backward, {**first, "dh": dys[:1, 2]})["dh0"],
        )


OTHER_LOSSES = (keras.losses.dice, keras.losses.tversky, keras.losses.circle, keras.losses.ctc, ops.CTCLoss)
LOSSES = [
    (k, n)
    for k in WRITTEN if k not in OTHER_LOSSES
    for n, formula in enumerate(cases_of(k)) if isinstance(formula, LossFormula)
]  # fmt: skip
LOSS_OPTIONS = {"delta": 0.75, "gamma": 2.0, "alpha": 0.25, "q": 0.5, "label_smoothing": 0.25}


@pytest.mark.parametrize("logits", [False, True])
@pytest.mark.parametrize(("key", "case"), LOSSES, ids=lambda value: getattr(value, "__name__", value))
def test_a_loss(key, case, logits):
    formula = cases_of(key)[case]
    if logits and formula.logits is None:
        pytest.skip("It is never computed from logits")
    random = np.random.default_rng(0)
    a = random.uniform(0.1, 0.6, SHAPE)
    T = random.uniform(0.1, 0.9, SHAPE)
    if "hinge" in key.__name__:
        T = np.eye(3)[[0, 2, 1, 0]] if "categorical" in key.__name__ else np.where(T > 0.5, 1.0, -1.0)
    z = np.log(a / (1 - a)) if "binary" in key.__name__ else np.log(a)
    a = a if "binary" in key.__name__ else a / a.sum(-1, keepdims=True)
    raw = formula.when.get("from_logits", False)
    a = random.normal(size=SHAPE) if raw else a
    if formula.classes or (raw and "categorical" in key.__name__):
        T = np.eye(3)[[0, 2, 1, 0]]
    targets = tf.constant([0, 2, 1, 0]) if formula.classes else tf.constant(T)
    values = {**OPTIONS, **LOSS_OPTIONS, "T": T, "a": a}
    asked = {n: v for n, v in LOSS_OPTIONS.items() if re.search(rf"\b{n}\b", formula.term)} | (
        {"from_logits": True} if raw else {}
    )
    plain = {
        "label_smoothing": 0.0,
        "from_logits": False,
        "axis": -1,
        "ignore_class": None,
        "apply_class_balancing": False,
    }
    assert formula.of({**plain, **asked}) is formula
    term = evaluate(formula.term, values)
    y = formula.factor * (term.mean(-1) if formula.mean else term.sum(-1))
    np.testing.assert_allclose(y, key(targets, tf.constant(a), **asked), rtol=1e-6)  # where Keras clips
    dy = upstream_of(y)
    inputs = [targets, tf.constant(a), *([tf.constant(z)] if logits else [])]
    call = call_of(key, formula, inputs, tf.constant(y), apply_class_balancing=False, **asked)
    found = [g for g in WRITTEN[key].backward(call, tf.constant(dy)).inputs if g is not None]
    slope = evaluate(formula.logits, values) if logits else formula.times * evaluate(formula.slope, values)
    k = a.shape[-1] if formula.mean else 1
    np.testing.assert_allclose(dy[:, None] * formula.factor * slope / k, found[-1], **EXACT)


@pytest.mark.parametrize("axis", [None, -1])
@pytest.mark.parametrize("key", [keras.losses.dice, keras.losses.tversky], ids=lambda key: key.__name__)
def test_a_loss_of_overlap(key, axis):
    random = np.random.default_rng(0)
    T, a = random.integers(0, 2, SHAPE).astype(float), random.uniform(0.1, 0.9, SHAPE)
    options = {"axis": axis, **({"alpha": 0.25, "beta": 0.75} if key is keras.losses.tversky else {})}
    formula = next(one for one in cases_of(key) if one.of({"over": "batch" if axis is None else "example"}))
    tensors = [tf.constant(T), tf.constant(a)]
    y = key(*tensors, **options)
    values = with_parts(formula.parts, {**OPTIONS, **options, "T": T, "a": a})
    close(np.ravel(evaluate(formula.term, values)), np.ravel(y))
    dy = upstream_of(y)
    found = WRITTEN[key].backward(call_of(key, formula, tensors, y, **options), tf.constant(dy)).inputs[1]
    close(np.reshape(dy, (-1, 1)) * evaluate(formula.slope, values), found)


def test_the_circle_loss():
    random, key = np.random.default_rng(0), keras.losses.circle
    labels, a = np.array([0, 1, 0, 2, 1, 0]), random.normal(size=(6, 3))
    a /= np.linalg.norm(a, axis=-1, keepdims=True)
    options = {"gamma": 3.0, "margin": 0.4}
    formula = WRITTEN[key].formula.of({"ref_embeddings": None, "ref_labels": None, "remove_diagonal": True})
    c = random.uniform(size=(6, 1))
    values = with_parts(formula.parts, {**options, "T": labels, "a": a, "c": c})
    tensors = [tf.constant(labels), tf.constant(a)]
    with tf.GradientTape() as tape:
        tape.watch(tensors[1])
        y = key(*tensors, **options)
    close(evaluate(formula.term, values)[:, 0], y)
    close(evaluate(formula.slope, values), tape.gradient(y, tensors[1], tf.constant(c[:, 0])))


@pytest.mark.parametrize("labels", [[1, 2, 2], [1, 1, 0], [3, 0, 0]])
def test_connectionist_temporal_classification(labels):
    z = np.random.default_rng(0).normal(size=(1, 6, 4))
    formula, T = WRITTEN[keras.losses.ctc].formula, np.array([labels])
    prediction = tf.constant(z, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(prediction)
        y = keras.losses.ctc(tf.constant(T), prediction)
    values = {"T": T, "a": z}
    np.testing.assert_allclose(evaluate(formula.term, values)[:, 0], y, rtol=1e-5)  # TensorFlow computes it in float32
    np.testing.assert_allclose(evaluate(formula.slope, values), tape.gradient(y, prediction), atol=1e-5)
    brute = sum(
        np.prod(evaluate("softmax(a)", values)[0][range(6), states])
        for states in itertools.product(range(4), repeat=6)
        if [k for k, _ in itertools.groupby(states) if k] == [k for k in labels if k]
    )
    close(evaluate("likelihood(T, softmax(a))", values), brute)


def test_there_is_a_formula_for_what_a_course_meets():
    wanted = ["sigmoid", "tanh", "relu", "softmax", "elu", "silu", "gelu", "Dense", "SimpleRNN", "LSTM", "GRU", "DotProductAttention", "GroupNormalization", "Conv2D", "Embedding", "mean_squared_error", "categorical_crossentropy",
              "binary_crossentropy", "L1", "L2", "Dropout", "Add"]  # fmt: skip
    names = {key.__name__ for key in WRITTEN}
    assert [name for name in wanted if name not in names] == []


def test_the_writing():
    assert latex("y*(1 - y)", {"y": "a_2"}) == "a_2(1 - a_2)"
    assert latex("1 - y**2", {"y": "a_1"}) == "1 - a_1^2"
    assert plain(latex("sigmoid(x) + y*(1 - sigmoid(x))", {"x": "z_1", "y": "a_1"})) == "σ(z₁) + a₁(1 − σ(z₁))"
    assert plain(latex("(x > 0) + alpha*(x <= 0)", {"alpha": "0.3"})) == "[x > 0] + 0.3 · [x ≤ 0]"
    assert plain(latex("(1 - T)/(1 - a) - T/a")) == "(1 − T)/(1 − a) − T/a"
    assert plain(latex("y/(2*y - x)")) == "y/(2 · y − x)"
    assert plain(latex("gamma*(1 - a)**(gamma - 1)", {"gamma": "3"})) == "3 · (1 − a)²"
    negative = {"x2": "-2", "x": "z_1"}
    written = [plain(latex(text, negative)) for text in ("x*x2", "x2*x", "x + x2", "x - x2", "x2 - x", "x2**x")]
    assert written == ["z₁ · (−2)", "−2 · z₁", "z₁ + (−2)", "z₁ − (−2)", "−2 − z₁", "(−2)^(z₁)"]


def test_a_name_with_an_exponent_gets_no_second_one():
    names = {"x": "h^{(1)}", "a": "f(u, v)"}
    assert latex("inverse(x)", names) == "{h^{(1)}}^{-1}" and latex("x**2", names) == "{h^{(1)}}^2"
    assert latex("x.T", names) == r"{h^{(1)}}^\top" and latex("inverse(x).T", names) == r"({h^{(1)}}^{-1})^\top"
    assert latex("cross(a, x)", names) == r"(f(u, v) \times h^{(1)})"


def test_a_condition_on_an_option_that_is_missing_is_not_met():
    assert Formula("x", when={"axis": -1}).of({}) is None
    assert Formula("x", when={"renorm": lambda renorm: not renorm}).of({}) is None
    bilinear = {"class": "UpSampling2D", "interpolation": "bilinear"}
    assert WRITTEN[L.UpSampling2D].formula.of(bilinear) is None  # which once was written as repeating


def test_one_function_cannot_have_two_formulas():
    def backward(call, dy):
        return dy

    written(Formula("x"))(written(Formula("x"))(backward))  # the same again
    with pytest.raises(ValueError, match="put both in one `Cases`"):
        written(Formula("2*x"))(backward)


def test_another_rule_has_no_formula():
    scoped = __import__("keras_backprop.scopes", fromlist=["Scope"])
    scope = scoped.Scope({keras.activations.sigmoid: lambda call, dy: None})
    base = registered()[keras.activations.sigmoid]
    assert base.formula is not None
    assert scope.rule(keras.activations.sigmoid, keras.activations.sigmoid, "", base).formula is None
