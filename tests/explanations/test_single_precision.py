"""Numbers of double precision, as a program of one's own gives them, compared with a model of Keras's default precision."""

import keras
import numpy as np
import pytest

from keras_backprop import explain

W1, B1, W2, B2 = np.array([[0.2, -0.3], [0.4, 0.1]]), np.array([0.1, -0.2]), np.array([[0.7], [-0.8]]), np.array([0.05])
X, T = np.array([[1.0, 2.0], [0.5, -1.0]]), np.array([[0.5], [1.0]])


@pytest.fixture(scope="module")
def explanation():
    layers = [keras.Input((2,)), keras.layers.Dense(2, "tanh"), keras.layers.Dense(1)]
    model = keras.Sequential(layers, name="net")
    model.set_weights([W1, B1, W2, B2])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    return explain(model, X, T)


a = np.tanh(X @ W1 + B1)
d = a @ W2 + B2 - T
back = d @ W2.T


def test_right_numbers_are_right(explanation):
    dz = back * (1 - a**2)
    result = explanation.compare({"dw1_11": X[:, 0] @ dz[:, 0], "dw2_1": (a.T @ d)[0, 0], "E": np.mean(d**2)})
    assert [one.verdict for one in result] == ["exact"] * 3, str(result)
    assert [one.verdict for one in explanation.compare(dW=[X.T @ dz, a.T @ d])] == ["exact"] * 2


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("dw1_11", X[:, 0] @ (back * a * (1 - a))[:, 0], "that of the sigmoid"),
        ("dw1_21", 2 * X[:, 1] @ (back * (1 - a**2))[:, 0], "sum over the 2 examples"),
        ("dw2_1", 2 * (a.T @ d)[0, 0], "factor 2"),
        ("w2_2_new", -0.8 + 0.1 * (a.T @ d)[1, 0], "added"),
        ("dw2_2", (a * (1 - a**2)).T[1] @ d[:, 0], "one factor too many"),
    ],
)
def test_mistakes_are_named(explanation, name, value, word):
    (one,) = explanation.compare(name, float(value))
    assert one.verdict == "mistake" and any(word in sentence for sentence in one.mistakes), str(one)


def test_nonsense_is_not_named(explanation):
    for name, value in (("dw1_11", 0.1234567891234), ("dw2_1", -0.9876543212345), ("E", 0.3333333333333)):
        assert explanation.compare(name, value)[0].verdict == "unknown"


def test_one_number_says_which_of_the_only_column():
    layers = [keras.Input((1,)), keras.layers.Dense(3, "tanh"), keras.layers.Dense(1)]
    model = keras.Sequential(layers, name="net")
    model.compile("sgd", "mse")
    explanation = explain(model, np.ones((1, 1)), np.ones((1, 1)))
    for short, whole in (
        ("w1_2", "w1_12"),
        ("w2_3", "w2_31"),
        ("W2[2]", "W2[2,0]"),
        ("w⁽²⁾₁", "w⁽²⁾₁₁"),
        ("w1_13", "w1_13"),
    ):
        assert explanation.chain(short).index == explanation.chain(whole).index
    with pytest.raises(IndexError):
        explanation.chain("w2_4")
    for short, index in (("w1_2", (0, 1)), ("W1[2]", (0, 2)), ("w2_3", (2, 0))):
        assert explanation.chain(short, convention="column").index == index


def test_there_is_one_number_in_the_only_row_and_column(explanation):
    single = explained([keras.layers.Dense(1), keras.layers.Dense(1)], [W1[:1, :1], B1[:1], W2[:1], B2], X[:, :1], T)
    for name in ("W2[0]", "w2_1", "w2_11", "w2"):
        assert single.chain(name).index == (0, 0)
    for name in ("W2[3]", "w1_7", "w1_2"):
        with pytest.raises(IndexError):
            single.chain(name)


def explained(layers, weights, x, targets, loss="mse", optimizer="sgd"):
    model = keras.Sequential([keras.Input(x.shape[1:]), *layers], name="net")
    model.set_weights(weights)
    model.compile(optimizer, loss)
    return explain(model, x, targets)


def test_each_entry_of_an_array_is_judged_on_its_own():
    layer = keras.layers.Dense(3, "softmax", use_bias=False)
    kernel, targets = np.array([[0.0, 1.0, -12.0]]), np.array([[1.0, 0.0, 0.0]])
    explanation = explained([layer], [kernel], np.ones((1, 1)), targets, "categorical_crossentropy")
    right = np.exp(kernel) / np.exp(kernel).sum() - targets
    assert explanation.compare(dW=right).verdict == "exact"
    assert explanation.compare(dW=right * [1, 1, -1]).verdict == "unknown"
    assert explanation.compare(dW=right * [1, 1, 0]).verdict == "rounding"


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_new_weights_are_judged_by_their_change(optimizer):
    layers = [keras.layers.Dense(2, "tanh"), keras.layers.Dense(1)]
    weights = [W1, B1, W2, B2]
    explanation = explained(layers, weights, X, T, optimizer=getattr(keras.optimizers, optimizer)(1e-5))
    gradients = [np.asarray(weight.gradient, "float64") for weight in explanation.weights]
    changes = [-1e-5 * (np.sign(g) if optimizer == "Adam" else g) for g in gradients]
    for factor, verdict in ((1, "exact"), (0, "mistake"), (-1, "mistake")):
        new = [w + factor * change for w, change in zip(weights, changes, strict=True)]
        assert [one.verdict for one in explanation.compare("weights", new)] == [verdict] * 4
        assert explanation.compare("w1_11_new", f"{new[0][0, 0]:.9f}").verdict == verdict


def test_what_is_said_of_the_digits_is_true_and_a_small_change_is_known():
    layer, small = keras.layers.Dense(1, use_bias=False), keras.optimizers.SGD(1e-5)
    target = np.array([[0.3 - 0.410153026 / 2]])
    explanation = explained([layer], [np.array([[0.3]])], np.ones((1, 1)), target, optimizer=small)
    for number, remark in (
        (0.41015, "in the 5 digits given"),
        (0.410153326, "as exactly as single precision computes"),
        (0.4101531234567, ""),
    ):
        (one,) = explanation.compare("dw1_11", number)
        assert (one.verdict, one.remark) == ("exact", remark)
    assert explanation.compare("dw1_11", 0.410154).verdict == "rounding"
    subtracted = float(np.float32(explanation.weights[0].updated[0, 0]) - np.float32(0.3))
    for number in (-4.10153e-06, -4.10153026e-06, -4.101530261234e-06, subtracted):
        assert explanation.compare("Δw1_11", number).verdict == "exact"
    assert "sign" in explanation.compare("Δw1_11", 4.10153e-06).mistake
    assert explanation.compare("Δw1_11", -4.3e-06).verdict == "unknown"
