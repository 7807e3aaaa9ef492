"""Numbers of a learner: right ones are right, the usual mistakes are named, nonsense is none that is known.

Every mistaken number here is calculated by hand, with `math`, and not with the package.
"""

import math

import keras
import numpy as np
import pytest

from keras_backprop import explain
from keras_backprop.explanations.comparing.comparison import UNKNOWN
from keras_backprop.explanations.comparing.given import Given
from tests.explanations.networks import by_hand, chain, dense, recurrent, softmax, stack, textbook, worked_example, xor

pytestmark = pytest.mark.usefixtures("float64")


def sigma(z):
    return 1 / (1 + math.exp(-z))


def textbook_by_hand():
    """The 2-2-2 network: i = .05 .10, w = .15 … .55, b = .35 .60, targets .01 .99."""
    h1, h2 = sigma(0.15 * 0.05 + 0.2 * 0.1 + 0.35), sigma(0.25 * 0.05 + 0.3 * 0.1 + 0.35)
    o1, o2 = sigma(0.4 * h1 + 0.45 * h2 + 0.6), sigma(0.5 * h1 + 0.55 * h2 + 0.6)
    d1, d2 = (o1 - 0.01) * o1 * (1 - o1), (o2 - 0.99) * o2 * (1 - o2)
    return h1, h2, o1, o2, d1, d2


def xor_by_hand():
    """w = .1 .2 .3 .4 into the hidden units, .5 .6 out, no biases: outputs, errors and hidden values of the four examples."""
    rows = []
    for x1, x2, T in ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 0)):
        h1, h2 = sigma(0.1 * x1 + 0.2 * x2), sigma(0.3 * x1 + 0.4 * x2)
        o = sigma(0.5 * h1 + 0.6 * h2)
        rows.append((x1, x2, T, h1, h2, o))
    return rows


def softmax_by_hand():
    """x = 1 2, W = .1 .2 / .3 .4 (rows), b = 0, T = 1 0."""
    z1, z2 = 0.1 * 1 + 0.3 * 2, 0.2 * 1 + 0.4 * 2
    p = math.exp(z1) / (math.exp(z1) + math.exp(z2))
    return z1, z2, p, 1 - p


def recurrent_by_hand():
    """h = tanh(.5 x + .8 h₋), x = 1 .5 −1, a = 1.2 h₃, T = .4, ½(T − a)²."""
    h = [0.0]
    for x in (1, 0.5, -1):
        h.append(math.tanh(0.5 * x + 0.8 * h[-1]))
    a = 1.2 * h[3]
    d3 = (a - 0.4) * 1.2 * (1 - h[3] ** 2)
    d2 = d3 * 0.8 * (1 - h[2] ** 2)
    d1 = d2 * 0.8 * (1 - h[1] ** 2)
    return h, a, d1, d2, d3


n, (h1, h2, o1, o2, d1, d2), rows = by_hand(), textbook_by_hand(), xor_by_hand()
z1, z2, p1, p2 = softmax_by_hand()
h, a, r1, r2, r3 = recurrent_by_hand()
xor_dw5 = sum(2 * (o - T) * o * (1 - o) * g1 for _, _, T, g1, _, o in rows) / 4

RIGHT = [
    (worked_example, {"E": n.E, "∂E/∂w₂": n.dw2, "dw1": n.dw1, "w1_new": n.w1_new, "w₂'": n.w2_new, "a₁": n.a1, "z2": n.z2,
                      "∂a₂/∂z₂": n.da2_dz2, "δ₂": n.db2, "db1": n.db1}),
    (textbook, {"E": ((o1 - 0.01) ** 2 + (o2 - 0.99) ** 2) / 2, "dw5": d1 * h1, "w6": 0.45, "w6_new": 0.45 - 0.5 * d1 * h2,
                "out_h2": h2, "δ_o2": d2, "dw1": (d1 * 0.4 + d2 * 0.5) * h1 * (1 - h1) * 0.05}),
    (xor, {"dw5": xor_dw5, "E": sum((o - T) ** 2 for *_, T, _, _, o in [(x, y, T, g, k, o) for x, y, T, g, k, o in rows]) / 4}),
    (softmax, {"E": -math.log(p1), "δ₁": [p1 - 1, p2], "dW1": [[p1 - 1, p2], [2 * (p1 - 1), 2 * p2]]}),
    (recurrent, {"du": r3 * h[2] + r2 * h[1], "dw1": r3 * -1 + r2 * 0.5 + r1, "h_2": h[2], "δ_1": r1}),
]  # fmt: skip

# network, name, the mistaken number, a word of the sentence that names the mistake
MISTAKES = [
    (worked_example, "dw2", 2 * n.dw2, "½"),
    (worked_example, "dw2", n.dE_da2 * sigma(n.a2) * (1 - sigma(n.a2)) * n.a1, "at a instead of z"),
    (worked_example, "dw2", n.dE_da2 * n.a2 * n.a1, "a instead of a(1 − a)"),
    (worked_example, "dw1", n.dE_da2 * n.da2_dz2 * n.w2_new * n.da1_dz1 * 0.1, "updated"),
    (worked_example, "dw1", n.dE_da2 * n.da2_dz2 * n.da1_dz1 * 0.1, "w₂ is missing"),
    (worked_example, "dw1", n.dE_da2 * n.da2_dz2 * 0.45 * n.da1_dz1**2 * 0.1, "twice"),
    (worked_example, "w2_new", 0.45 + 0.4 * n.dw2, "sign"),
    (worked_example, "a₁", sigma(0.1 * 0.15), "biases"),
    (textbook, "dw5", -d1 * h1, "sign"),
    (textbook, "dw5", d1 * h1 / 2, "mean over the 2 outputs"),
    (textbook, "dw1", d1 * 0.4 * h1 * (1 - h1) * 0.05, "path is missing"),
    (textbook, "dw6", d1 * h1, "another index"),
    (textbook, "dw1", (d1 * 0.4 + d2 * 0.45) * h1 * (1 - h1) * 0.05, "transposed"),
    (textbook, "w5_new", 0.4 - d1 * h1, "learning rate"),
    (xor, "dw5", 4 * xor_dw5, "sum over the 4 examples"),
    (xor, "dw5", 2 * (rows[1][5] - 1) * rows[1][5] * (1 - rows[1][5]) * rows[1][3], "example 2"),
    (softmax, "dW1[0,0]", (p1 - 1) * p1 * (1 - p1), "in addition"),
    (softmax, "E", -math.log10(p1), "log₁₀"),
    (recurrent, "du", r3 * h[2], "time step"),
    (recurrent, "dw1", (a - 0.4) * 1.2 * (-1) + (a - 0.4) * 1.2 * 0.8 * 0.5 + (a - 0.4) * 1.2 * 0.64 * 1, "missing"),
]  # fmt: skip

NONSENSE = [
    (worked_example, "dw2", 1.0), (worked_example, "dw1", 0.3333), (worked_example, "w2_new", 7.77), (textbook, "dw5", 0.5),
    (textbook, "dw1", 0.0123), (textbook, "E", 3.14159), (xor, "dw5", -0.717), (softmax, "E", 0.1234), (recurrent, "du", 0.9999),
    (recurrent, "h_2", 0.123),
]  # fmt: skip


@pytest.fixture(scope="module")
def explanations():
    policy = keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield {build: explain(*build()) for build in (worked_example, textbook, xor, softmax, recurrent)}
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy(policy)


@pytest.mark.parametrize(("build", "numbers"), RIGHT, ids=lambda one: getattr(one, "__name__", ""))
def test_right_numbers_are_right(explanations, build, numbers):
    for one in explanations[build].compare(numbers):
        assert one.verdict == "exact" and one.mistake is None, str(one)


@pytest.mark.parametrize("digits", [3, 4, 6])
@pytest.mark.parametrize(("build", "numbers"), RIGHT, ids=lambda one: getattr(one, "__name__", ""))
def test_a_right_number_of_few_digits_is_right(explanations, build, numbers, digits):
    for name, value in numbers.items():
        if np.ndim(value) == 0:
            one = explanations[build].compare(name, float(f"{value:.{digits}g}"))[0]
            assert one.verdict == "exact", str(one)


def test_at_least_eighteen_of_twenty_mistakes_are_named(explanations):
    missed = []
    for build, name, value, word in MISTAKES:
        one = explanations[build].compare(name, value)[0]
        assert not one.correct, str(one)
        if not any(word in sentence for sentence in one.mistakes):
            missed.append(f"{build.__name__}: {word}: {one}")
    assert len(MISTAKES) == 20 and len(missed) <= 2, "\n".join(missed)


def test_mistakes_are_named_with_the_digits_that_people_write(explanations):
    named = 0
    for build, name, value, word in MISTAKES:
        one = explanations[build].compare(name, float(f"{value:.4g}"))[0]
        named += any(word in sentence for sentence in one.mistakes)
    assert named >= 18


def test_nonsense_is_none_that_is_known(explanations):
    for build, name, value in NONSENSE:
        one = explanations[build].compare(name, value)[0]
        assert one.mistake == UNKNOWN == "none I know", str(one)
        assert "none I know" in str(one)


def test_rounding_of_intermediate_results(explanations):
    one = explanations[worked_example].compare("E", 0.1083)[0]  # with a₂ rounded to 0.7153, as the note has it
    assert one.verdict == "rounding" and "4 decimals" in one.remark


def test_arrays_of_a_notebook_cell(explanations):
    explanation = explanations[textbook]
    dW2 = explanation.weight("W₂").gradient
    assert explanation.compare(dW2=dW2)[0].verdict == "exact"
    off = dW2.copy()
    off[1, 0] += 1e-5
    close = explanation.compare(dW2=off)[0]
    assert close.verdict == "rounding" and close.where == (1, 0) and close.difference == pytest.approx(1e-5)
    assert "close" in str(close) and "largest difference" in str(close)
    turned = explanation.compare(dW2=dW2.T)[0]
    assert "other way round" in turned.mistake
    result = explanation.compare(
        weights=[w.updated for w in explanation.weights], gradients=[-w.gradient for w in explanation.weights]
    )
    assert [one.verdict for one in result] == ["exact"] * 4 + ["mistake"] * 4 and "sign" in result.mistake
    assert not result.correct and "✗" in result._repr_markdown_()


def test_what_a_name_without_a_layer_means(explanations):
    assert explanations[softmax].compare(dW=explanations[softmax].weight("W₁").gradient).verdict == "exact"
    with pytest.raises(ValueError, match="is not clear"):
        explanations[textbook].compare(dW=np.zeros((2, 2)))


def test_what_is_refused(explanations):
    with pytest.raises(KeyError, match="There is no number 'w99_new'"):
        explanations[textbook].compare("w99_new", 1.0)
    with pytest.raises(ValueError, match="Nothing to compare"):
        explanations[textbook].compare()
    with pytest.raises(ValueError, match="say which one, example=0"):
        explanations[xor].compare("a2", 0.5)
    with pytest.raises(IndexError, match="from 0 to 3"):
        explanations[xor].compare("a2", 0.5, example=4)
    with pytest.raises(ValueError, match=r"has the shape \(2, 2\)"):
        explanations[textbook].compare(dW2=np.zeros(3))


def test_an_activation_of_one_example(explanations):
    values = explanations[xor]
    assert values.compare("a2", rows[2][5], example=2).verdict == "exact"
    assert "example 2" in values.compare("a2", rows[1][5], example=3).mistake


def test_zeros_before_the_point_are_digits():
    assert not Given(1200.0).rounds(1249.0) and Given(1200.0).rounds(1200.3) and Given("1.2e3").rounds(1249.0)
    assert not Given(110).is_of(112.4, exact=True) and Given(110).significant == 3 and Given(0.5).significant == 1
    model = keras.Sequential([keras.Input((1,), dtype="float64"), keras.layers.Dense(1, dtype="float64")])
    model.compile("sgd", "mse")
    model.set_weights([np.array([[0.0]]), np.array([0.0])])
    explanation = explain(model, np.array([[1.0]]), np.array([[math.sqrt(1327.7)]]))
    assert explanation.compare("E", 1300.0)[0].verdict != "exact" and explanation.compare("E", "1327.7")[0].correct


@pytest.mark.parametrize("name", ["textbook", "chain"])
def test_a_list_has_an_array_for_each_weight_of_a_letter(name):
    explanation = explain(*(textbook() if name == "textbook" else chain(2, 3, 1)))
    weights = explanation.weights
    for letter, of in (("W", weights[::2]), ("b", weights[1::2])):
        gradients, new, old = ([getattr(w, what) for w in of] for what in ("gradient", "updated", "value"))
        given = {f"d{letter}": gradients, f"{letter}_new": new, letter: old}
        assert [one.verdict for one in explanation.compare(given)] == ["exact"] * 6
    assert len(explanation.compare(dW=[w.gradient for w in weights])) == 4
    with pytest.raises(ValueError, match="is of is not clear|Received: shape"):
        explanation.compare(db=[weights[3].gradient, weights[1].gradient] if name == "chain" else np.zeros((2, 2)))


def test_the_error_in_place_of_its_derivative_has_the_options_of_the_loss():
    layers = [dense(1)]
    model = stack(layers, (1,), [[[2.0]], [0.0]], keras.losses.Huber(delta=0.5, dtype="float64"))
    explanation = explain(model, np.array([[1.0]]), np.array([[3.1]]))  # |T - a| = 1.1
    compared = explanation.compare("db", 0.5 * (1.1 - 0.25))[0]
    assert compared.verdict == "mistake" and any("the error itself" in sentence for sentence in compared.mistakes)


def test_both_slopes_of_a_softmax_differentiated_together_are_right():
    model, x, y = softmax()
    explanation = explain(model, x, y)
    a = explanation.graph.nodes[-1].value[0]
    for number, said in ((-1 / a[0], ""), (1 - 1 / a[0], "Keras's own"), (f"{1 - 1 / a[0]:.6f}", "Keras's own")):
        (one,) = explanation.compare("∂E/∂a1_1", number if isinstance(number, str) else float(number))
        assert one.verdict == "exact" and one.remark.startswith(said), str(one)
    (one,) = explanation.compare("∂E/∂a1", [1 - y[0] / a])
    assert one.verdict == "exact" and one.remark.startswith("Keras's own")
    assert explanation.compare("∂E/∂a1_1", float(2 - 1 / a[0])).verdict != "exact"


def test_new_weights_that_were_rounded_are_close_and_old_ones_are_not(explanations):
    for weight in explanations[textbook].weights:
        for decimals in (4, 6):
            new = np.round(np.asarray(weight.updated), decimals)
            assert explanations[textbook].compare(f"{weight.symbol}_new", new).correct
    assert explanations[textbook].compare("Δw5", "-0.0410835").verdict == "exact"
    assert explanations[textbook].compare("Δw5", "-0.0410836").verdict == "rounding"
    for weight in explanations[textbook].weights:
        assert "before the update" in explanations[textbook].compare(f"{weight.symbol}_new", weight.value).mistake
