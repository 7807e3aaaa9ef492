"""What a formula says is true of its rule: its text, evaluated on random numbers, gives the rule's number."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_backprop import backward
from keras_backprop.explanations.notation import plain
from keras_backprop.formula import Formula, LossFormula, evaluate, latex
from keras_backprop.registry import registered
from keras_backprop.rule import Call

OPTIONS = {"negative_slope": 0.25, "alpha": 1.25, "threshold": 0.5, "b": 4.0, "delta": 0.75, "epsilon": keras.backend.epsilon(),
           "l1": 0.125, "l2": 0.25}  # fmt: skip
SHAPE = (4, 3)
EXACT = {"rtol": 1e-9, "atol": 1e-9}

WRITTEN = {key: rule for key, rule in registered().items() if rule.formula is not None}


def options_of(formula):
    return {**OPTIONS, **formula.when}


def numbers(key, seed=0):
    random = np.random.default_rng(seed)
    positive = getattr(key, "__name__", "") in ("Sqrt", "Log", "Reciprocal")
    return random.uniform(0.2, 0.9, SHAPE) if positive else random.uniform(-4, 4, SHAPE)


class Options:
    """A stand-in for an operation: its options, its weights."""

    def __init__(self, **options):
        vars(self).update(options)


def call_of(key, inputs, output, **more):
    options = {**options_of(WRITTEN[key].formula), "axis": -1, "approximate": False, "max_value": None, "from_logits": False,
               "label_smoothing": 0.0, "ignore_class": None, **more}  # fmt: skip
    if WRITTEN[key].formula.when.get("negative_slope") == 0:
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
    formula = rule.formula
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
    derivative = rule.derivative(call_of(key, [tf.constant(x)], tf.convert_to_tensor(y)))
    if "gelu" in str(key).lower():
        tolerance = {"rtol": 1e-6, "atol": 1e-7}  # √½ is a number of single precision in TensorFlow's kernel
    else:
        tolerance = EXACT
    written = np.broadcast_to(evaluate(formula.derivative, {**values, "y": np.asarray(y)}), SHAPE)
    np.testing.assert_allclose(written, derivative, **tolerance)


def upstream_of(y):
    return np.random.default_rng(1).normal(size=np.shape(y))


APART = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D, keras.layers.MaxPooling1D, keras.layers.MaxPooling2D,
         keras.layers.MaxPooling3D, keras.layers.AveragePooling1D, keras.layers.AveragePooling2D, keras.layers.AveragePooling3D,
         keras.layers.BatchNormalization, keras.layers.LayerNormalization, keras.layers.Embedding, keras.layers.Attention,
         keras.layers.Flatten)  # fmt: skip
SEEN = [WRITTEN[key].backward for key in APART]  # functions that other keys may share
LAYERS = [
    k
    for k, rule in WRITTEN.items()
    if isinstance(rule.formula, Formula) and rule.derivative is None and rule.backward not in SEEN
]


@pytest.mark.parametrize("key", LAYERS, ids=lambda key: getattr(key, "__name__", str(key)))
def test_the_gradients_of_a_layer(key):
    formula = WRITTEN[key].formula
    random = np.random.default_rng(0)
    values = {
        **options_of(formula),
        "m": np.array([[0.0, 2.0, 2.0]] * 4),
        "W": random.normal(size=(3, 2)),
        "b": random.normal(size=2),
    }
    names = [
        name for name in ("x", "a", "b") if name in formula.gradients and (name != "b" or "a" in formula.gradients)
    ]
    values |= {name: random.normal(size=SHAPE) for name in names}
    scalar = isinstance(key, type) and issubclass(key, keras.regularizers.Regularizer)
    y = evaluate(formula.value, values)
    y = np.sum(y) if scalar else y
    dy = upstream_of(y)
    more = {"m": values["m"], "kernel": tf.constant(values["W"]), "bias": tf.constant(values["b"]), "use_bias": True}
    call = call_of(key, [tf.constant(values[name]) for name in names], tf.constant(y), **more)
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


def written_of(key, values):
    formula = WRITTEN[key].formula
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


@pytest.mark.parametrize("axis", [0, 1])
def test_normalisation(axis):
    x = np.random.default_rng(0).normal(size=(5, 4))
    key = keras.layers.LayerNormalization if axis else keras.layers.BatchNormalization
    layer = key(dtype="float64")
    layer.build(x.shape)
    layer.set_weights(
        [np.random.default_rng(i).uniform(0.5, 2, size=w.shape) for i, w in enumerate(layer.get_weights())]
    )
    y, dy, (dx,), gradients = of_a_layer(layer, x)
    r = 1 / np.sqrt(x.var(axis, keepdims=True) + layer.epsilon)
    values = {
        "h": (x - x.mean(axis, keepdims=True)) * r,
        "r": r,
        "gamma": layer.gamma.numpy(),
        "beta": layer.beta.numpy(),
        "dy": dy,
    }
    value, said = written_of(key, values)
    for one, other in (
        (value, y),
        (said["x"], dx),
        (said["gamma"], gradients["gamma"]),
        (said["beta"], gradients["beta"]),
    ):
        np.testing.assert_allclose(one, other, rtol=1e-7, atol=1e-7)  # Keras's ε is a number of single precision


def test_embedding_and_attention():
    layer = keras.layers.Embedding(5, 3, dtype="float64")
    k = np.array([[1], [4], [1]])
    y, dy, _, gradients = of_a_layer(layer, k)
    values = {"E": layer.embeddings.numpy(), "k": k[:, 0], "dy": dy[:, 0], "onehot": lambda k: np.eye(5)[k]}
    value, said = written_of(keras.layers.Embedding, values)
    close(value, y[:, 0])
    close(said["E"], gradients["embeddings"])
    random = np.random.default_rng(0)
    q, v, k = (random.normal(size=(1, n, 2)) for n in (3, 4, 4))
    y, dy, (_, dv, _), _ = of_a_layer(keras.layers.Attention(dtype="float64"), q, v, k)
    value, said = written_of(keras.layers.Attention, {"q": q[0], "v": v[0], "k": k[0], "dy": dy[0]})
    close(value, y[0])
    close(said["v"], dv[0])


LOSSES = [k for k, rule in WRITTEN.items() if isinstance(rule.formula, LossFormula)]


@pytest.mark.parametrize("logits", [False, True])
@pytest.mark.parametrize("key", LOSSES, ids=lambda key: key.__name__)
def test_a_loss(key, logits):
    formula = WRITTEN[key].formula
    if logits and formula.logits is None:
        pytest.skip("It is never computed from logits")
    random = np.random.default_rng(0)
    a = random.uniform(0.1, 0.6, SHAPE)
    T = random.uniform(0.1, 0.9, SHAPE)
    if "hinge" in key.__name__:
        T = np.where(T > 0.5, 1.0, -1.0)
    z = np.log(a / (1 - a)) if "binary" in key.__name__ else np.log(a)
    a = a if "binary" in key.__name__ else a / a.sum(-1, keepdims=True)
    if formula.classes:
        T = np.eye(3)[[0, 2, 1, 0]]
    targets = tf.constant([0, 2, 1, 0]) if formula.classes else tf.constant(T)
    values = {**OPTIONS, "T": T, "a": a}
    options = {name: OPTIONS[name] for name in ("delta",) if name in formula.term}
    term = evaluate(formula.term, values)
    y = formula.factor * (term.mean(-1) if formula.mean else term.sum(-1))
    np.testing.assert_allclose(y, key(targets, tf.constant(a), **options), rtol=1e-6)  # where Keras clips
    dy = upstream_of(y)
    inputs = [targets, tf.constant(a), *([tf.constant(z)] if logits else [])]
    found = [
        g for g in WRITTEN[key].backward(call_of(key, inputs, tf.constant(y)), tf.constant(dy)).inputs if g is not None
    ]
    slope = evaluate(formula.logits, values) if logits else formula.times * evaluate(formula.slope, values)
    k = a.shape[-1] if formula.mean else 1
    np.testing.assert_allclose(dy[:, None] * formula.factor * slope / k, found[-1], **EXACT)


def test_there_is_a_formula_for_what_a_course_meets():
    wanted = ["sigmoid", "tanh", "relu", "softmax", "elu", "silu", "gelu", "Dense", "mean_squared_error", "categorical_crossentropy",
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


def test_another_rule_has_no_formula():
    scoped = __import__("keras_backprop.scopes", fromlist=["Scope"])
    scope = scoped.Scope({keras.activations.sigmoid: lambda call, dy: None})
    base = registered()[keras.activations.sigmoid]
    assert base.formula is not None
    assert scope.rule(keras.activations.sigmoid, keras.activations.sigmoid, "", base).formula is None
