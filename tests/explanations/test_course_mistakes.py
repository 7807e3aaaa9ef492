"""Sixty mistakes on networks of courses, made with NumPy here: each is named. Right numbers and printed names are known as well."""

import keras
import numpy as np
import pytest

from keras_backprop import explain
from keras_backprop.explanations.writing.notation import plain
from tests.explanations.networks import dense, stack

L = keras.layers
SGD = keras.optimizers.SGD


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def loss(name, **options):
    return getattr(keras.losses, name)(dtype="float64", **options)


def explained(layers, weights, x, t, error, optimizer=None):
    x = np.array(x, "float64")
    model = stack(layers, x.shape[1:], weights, error)
    if optimizer is not None:
        model.compile(optimizer, error)
    return explain(model, x, np.array(t))


W2, B = [[0.3], [-0.4]], [0.2]


def linear():
    """a = x·w + b, squared error."""
    e = explained([dense(1)], [W2, B], [[1.5, 2.0]], [[3.0]], loss("MeanSquaredError"))
    a, w = 1.5 * 0.3 - 2 * 0.4 + 0.2, 0.3
    d = a - 3
    return e, [
        ("dw1", d * 1.5, "½"), ("dw2", -2 * d * 2, "sign"), ("dw1", 2 * d * 2, "another index"), ("dw1", 2 * d, "last factor"),
        ("dw1", -2 * 3 * 1.5, "prediction is missing"), ("dw1", 2 * a * 1.5, "target is missing"), ("dw1", 2 * d * w, "w itself"),
        ("dw1", d * d * 1.5, "not differentiated"), ("E", abs(d), "square is missing"), ("z1", a - 0.2, "biases"),
        ("w1_new", w + 0.5 * 2 * d * 1.5, "added"), ("w1_new", w - 2 * d * 1.5, "learning rate is missing"),
    ]  # fmt: skip


def batch():
    """The same, three examples."""
    x = np.array([[1.0, 2], [2, 1], [0.5, 1]])
    e = explained([dense(1)], [W2, B], x, [[3.0], [1], [2]], loss("MeanSquaredError"))
    d = x @ W2 + B - [[3.0], [1], [2]]
    return e, [
        ("dw1", (2 * d * x[:, :1]).sum(), "sum over the 3 examples"), ("dw1", (2 * d * x[:, :1])[1, 0], "only example 2"),
        ("dw1", 2 * d.mean() * x[:, 0].mean(), "mean of x times"), ("E", (d**2).sum() / 2, "sum over the 3 examples"),
        ("E", d.sum() ** 2 / 3, "square of the sum"),
    ]  # fmt: skip


def logistic():
    """A sigmoid and the binary cross-entropy."""
    e = explained([dense(1, "sigmoid")], [W2, B], [[1.5, 2.0]], [[1.0]], loss("BinaryCrossentropy"))
    z = -0.15
    a = sigmoid(z)
    return e, [
        ("dz1", (a - 1) * a * (1 - a), "a(1 − a) was multiplied in addition"), ("dw1", a * 1.5, "target is missing"),
        ("dw2", (1 - a) * 2, "sign"), ("dz1", -1 / a, "−T/a"), ("E", -np.log10(a), "log₁₀"), ("E", -np.log(1 - a), "other class"),
        ("E", np.log(a), "sign"), ("E", (a - 1) ** 2, "squared error, and not"), ("a1", z, "not applied"),
        ("dw1", 2 * (a - 1) * a * (1 - a) * 1.5, "squared error, and not"),
    ]  # fmt: skip


def logits():
    """The same from logits."""
    e = explained([dense(1)], [W2, B], [[1.5, 2.0]], [[1.0]], loss("BinaryCrossentropy", from_logits=True))
    z = -0.15
    return e, [
        ("dz1", z - 1, "activation is missing"), ("dw1", sigmoid(z) * 1.5, "target is missing"),
        ("dz1", (sigmoid(z) - 1) * sigmoid(z) * sigmoid(-z), "in addition"),
    ]  # fmt: skip


def softmax():
    """Three classes."""
    W, b = np.array([[0.2, -0.5, 0.7], [0.4, 0.1, -0.3]]), np.array([0.1, 0.2, 0.5])
    e = explained([dense(3, "softmax")], [W, b], [[1.5, 2.0]], [[0.0, 1, 0]], loss("CategoricalCrossentropy"))
    z = np.array([1.5, 2]) @ W + b
    a = np.exp(z) / np.exp(z).sum()
    return e, [
        ("dz1_2", a[1], "target is missing"), ("dz1_2", -1 / a[1], "−T/a"), ("dz1_1", a[1] - 1, "another unit"),
        ("E", -np.log(a[0]), "another class"), ("E", -np.log(a).sum(), "targets are missing"), ("E", -np.log2(a[1]), "log₂"),
        ("a1_1", np.exp(z[0]), "not divided"), ("a1_1", z[0] / z.sum(), "exponentials are missing"), ("E", a[1], "logarithm"),
    ]  # fmt: skip


def tanh():
    """A neuron with tanh."""
    e = explained([dense(1, "tanh")], [W2, B], [[1.5, 2.0]], [[0.5]], loss("MeanSquaredError"))
    z = -0.15
    a = np.tanh(z)
    d = 2 * (a - 0.5) * 1.5
    return e, [
        ("dw1", d * (1 - a), "1 − a instead"), ("dw1", d * a * (1 - a), "that of the sigmoid"), ("dw1", d * (1 - z * z), "1 − z²"),
        ("dw1", d * (1 - np.tanh(a) ** 2), "at a instead of z"), ("dw1", d, "missing"), ("dw1", d * (1 + a * a), "1 + a²"),
    ]  # fmt: skip


def recurrent():
    """Two steps."""
    rnn = L.SimpleRNN(1, dtype="float64")
    w, u, b, v, c = 0.5, 0.8, 0.1, 1.2, -0.3
    weights = [[[w]], [[u]], [b], [[v]], [c]]
    e = explained([rnn, dense(1)], weights, [[[1.0], [0.6]]], [[0.4]], loss("MeanSquaredError"))
    h1 = np.tanh(w + b)
    h2 = np.tanh(w * 0.6 + u * h1 + b)
    dh2 = 2 * (v * h2 + c - 0.4) * v
    dz2 = dh2 * (1 - h2**2)
    dz1 = dz2 * u * (1 - h1**2)
    return e, [
        ("dw1", dz2 * 0.6, "only the last time step"), ("dw1", dz1, "only time step 1"),
        ("du1", dz2 * h2 + dz1 * h1, "h of the same step"), ("dw1", dz2 + dz1 * 0.6, "wrong order"),
        ("dw1", dz2 * 0.6 + dz2 * u, "φ′ is missing in time step 1"), ("h2", np.tanh(w * 0.6 + b), "state of the step before"),
    ]  # fmt: skip


def convolution():
    """Four windows of a picture of 3 × 3."""
    X = np.array([[1.0, 2, -1], [0.5, -0.5, 3], [2, 1, -2]])
    K, V = np.array([[0.2, -0.4], [0.6, 0.3]]), np.array([0.5, -1, 0.7, 0.4])
    weights = [K[:, :, None, None], [0.1], V[:, None], [0.2]]
    layers = [L.Conv2D(1, 2, dtype="float64"), L.Flatten(dtype="float64"), dense(1)]
    e = explained(layers, weights, X[None, :, :, None], [[0.5]], loss("MeanSquaredError"))
    places = [(i, j) for i in range(2) for j in range(2)]
    z = [(X[i : i + 2, j : j + 2] * K).sum() + 0.1 for i, j in places]
    dz = 2 * (z @ V + 0.2 - 0.5) * V
    parts = [d * X[i, j] for d, (i, j) in zip(dz, places, strict=True)]
    return e, [
        ("z1_1,1,1", (X[:2, :2] * K[::-1, ::-1]).sum() + 0.1, "flipped"), ("dw1_1,1,1,1", parts[2], "only position 2,1"),
        ("dw1_1,1,1,1", sum(parts) / 4, "mean over the 4 positions"),
    ]  # fmt: skip


def penalty():
    """λ·Σw², λ = 0.1."""
    layer = dense(1, kernel_regularizer=keras.regularizers.L2(0.1))
    floatx = keras.config.floatx()
    keras.config.set_floatx("float64")  # in which Keras adds up penalties
    try:
        e = explained([layer], [W2, B], [[1.5, 2.0]], [[3.0]], loss("MeanSquaredError"))
    finally:
        keras.config.set_floatx(floatx)
    d, w, square = 2 * (-0.15 - 3) * 1.5, 0.3, 0.1 * 0.25
    return e, [
        ("dw1", d, "penalty on the weight is missing"), ("dw1", d + 0.1 * w, "half of the penalty"), ("E", 3.15**2, "penalty"),
        ("dw1", d - 0.2 * w, "wrong sign"), ("E", 3.15**2 + square / 2, "half of the penalty"),
    ]  # fmt: skip


def adam():
    """The first step."""
    e = explained([dense(1)], [W2, B], [[1.5, 2.0]], [[3.0]], loss("MeanSquaredError"), keras.optimizers.Adam(0.1))
    g = 2 * (-0.15 - 3) * 1.5
    m, v = 0.1 * g, 0.001 * g * g
    return e, [
        ("w1_new", 0.3 - 0.1 * m / (np.sqrt(v) + 1e-7), "bias correction"), ("w1_new", 0.3 - 0.1 * g, "plain gradient descent"),
        ("w1_new", 0.3 - 0.1 / g, "roots are missing"),
    ]  # fmt: skip


def other_errors():
    """Huber's."""
    e = explained([dense(1)], [W2, B], [[1.5, 2.0]], [[3.0]], loss("Huber"))
    return e, [
        ("dw1", -3.15 * 1.5, "squared error, and not"),
        ("E", 3.15, "|T − a|"),
        ("E", 3.15**2 / 2, "½ of the squared"),
    ]


def divergence():
    """Kullback and Leibler's."""
    T, W, b = np.array([0.2, 0.5, 0.3]), np.array([[0.2, -0.5, 0.7], [0.4, 0.1, -0.3]]), np.array([0.1, 0.2, 0.5])
    e = explained([dense(3, "softmax")], [W, b], [[1.5, 2.0]], T[None], loss("KLDivergence"))
    z = np.array([1.5, 2]) @ W + b
    a = np.exp(z) / np.exp(z).sum()
    return e, [
        ("E", -(T * np.log(a)).sum(), "entropy of the targets"),
        ("E", (a * np.log(a / T)).sum(), "T and a exchanged"),
    ]


def branches():
    """A residual connection, and two outputs."""
    keras.utils.set_random_seed(2)
    inputs = keras.Input((2,), dtype="float64")
    joined = L.Add(dtype="float64")([inputs, dense(2, "tanh")(inputs)])
    model = keras.Model(inputs, [dense(1, name="p")(joined), dense(1, name="q")(joined)], name="net")
    model.compile(SGD(0.1), [loss("MeanSquaredError"), loss("MeanSquaredError")])
    x = np.array([[1.0, 0.5]])
    e = explain(model, x, [np.array([[0.3]]), np.array([[1.0]])])
    W, b, P, p, Q, q = (np.array(w.value) for w in e.weights)
    h = np.tanh(x @ W + b)
    dP, dQ = 2 * ((x + h) @ P + p - 0.3), 2 * ((x + h) @ Q + q - 1)
    return e, [
        ("dw1_11", (dP @ P.T * (1 - h**2))[0, 0] * x[0, 0], "only the error"),
        ("∂E/∂x1", (dP @ P.T + dQ @ Q.T)[0, 0], "path is missing"), ("z3", (h @ P + p)[0, 0], "was left out"),
    ]  # fmt: skip


NETWORKS = [
    linear,
    batch,
    logistic,
    logits,
    softmax,
    tanh,
    recurrent,
    convolution,
    penalty,
    adam,
    other_errors,
    divergence,
    branches,
]


@pytest.fixture(scope="module", params=NETWORKS, ids=lambda build: build.__name__)
def network(request):
    return request.param()


def test_every_mistake_is_named(network):
    explanation, mistakes = network
    for name, value, word in mistakes:
        (found,) = explanation.compare(name, float(value))
        assert found.verdict == "mistake", (name, value, word, str(found))
        assert any(word in sentence for sentence in found.mistakes), (name, word, found.mistakes)


def test_right_numbers_are_right_in_few_digits_and_under_the_names_that_are_printed(network):
    explanation, _ = network
    for weight in explanation.weights:
        for index in list(np.ndindex(weight.value.shape))[:2]:
            name = plain(explanation.chain(weight.path, *index).name)
            for asked, right in ((f"∂E/∂{name}", weight.gradient[index]), (f"{name}_new", weight.updated[index])):
                for given in (float(right), f"{right:.2g}", f"{right:.3f}", f"{right:.5f}"):
                    (found,) = explanation.compare(asked, given)
                    assert found.correct or float(given) == 0, (asked, given, right, str(found))
    first = {plain(node.name(0)): node for node in reversed(explanation.graph.nodes) if not node.origins}
    for name, node in first.items():
        for asked, array in ((name, node.value), (f"∂E/∂{name}", node.gradient)):
            assert explanation.compare(asked, float(array[0, 0]), example=0)[0].correct, asked


def test_there_are_sixty_mistakes():
    assert sum(len(build()[1]) for build in NETWORKS) >= 60
