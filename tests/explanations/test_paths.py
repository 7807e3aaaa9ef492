"""`explanation.chain`: the paths to a weight add up to its gradient, and are named as in books."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_backprop import Gradients, explain, use_rules
from tests.explanations.networks import chain, dense, recurrent, residual, softmax, stack, textbook, worked_example, xor

PUBLISHED = {
    "w5": (0.082167041, 0.35891648), "w6": (None, 0.408666186), "w7": (None, 0.511301270), "w8": (None, 0.561370121),
    "w1": (0.000438568, 0.149780716), "w2": (None, 0.19956143), "w3": (None, 0.24975114), "w4": (None, 0.29950229),
}  # fmt: skip


@pytest.mark.usefixtures("float64")
def test_the_published_figures_to_the_last_digit():
    explanation = explain(*textbook())
    assert f"{explanation.loss:.9f}" == "0.298371109"
    for name, (gradient, after) in PUBLISHED.items():
        link = explanation.chain(name)
        assert abs(link.after - after) <= 0.51e-9 or f"{link.after:.8f}" == f"{after:.8f}", name
        assert gradient is None or f"{link.gradient:.9f}" == f"{gradient:.9f}"
    text = explanation.chain("w5", digits=9).to_text()
    assert "0.74136507 · 0.186815602 · 0.593269992 = 0.082167041" in text
    assert "0.35891648" in text and "w₅" in text and "w⁽²⁾₁₁" in text


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    "spelling",
    [
        "w5",
        "w₅",
        "w_5",
        "w⁽²⁾₁₁",
        "w^(2)_11",
        "w^{(2)}_{11}",
        "w2_11",
        "w_{11}^{(2)}",
        "W_{11}^{(2)}",
        "w11^(2)",
        "W₂[0,0]",
        "W2[0][0]",
        "output/kernel[0,0]",
    ],
)
def test_a_weight_in_any_spelling(spelling):
    explanation = explain(*textbook())
    found = explanation.chain(spelling)
    assert (found.path, found.index) == ("textbook/output/kernel", (0, 0))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("letter", "LJC")
def test_other_letters_for_the_error(letter):
    explanation = explain(*textbook())
    for name in (f"d{letter}/dw5", f"∂{letter}/∂w₅", f"d{letter}_dw5"):
        assert explanation.compare(name, 0.08217).verdict == "exact"


@pytest.mark.usefixtures("float64")
def test_rows_and_columns():
    explanation = explain(*textbook())
    assert explanation.chain("w⁽²⁾₁₂").index == (0, 1)
    column = explanation.chain("w⁽²⁾₁₂", convention="column")
    assert column.index == (1, 0) and column.name == "w^{(2)}_{12}" and column.also == 6
    with pytest.raises(ValueError, match='`convention` must be "row" or "column". Received'):
        explanation.chain("w5", convention="diagonal")


@pytest.mark.usefixtures("float64")
def test_what_is_refused():
    explanation = explain(*textbook())
    with pytest.raises(KeyError, match="There is no weight 'w99'. Weights: W₁ of shape"):
        explanation.chain("w99")
    with pytest.raises(KeyError, match=r"In which layer\? w⁽¹⁾₁₁ or w⁽²⁾₁₁\. Weights"):
        explanation.chain("w₁₁")
    with pytest.raises(ValueError, match=r"has the shape \(2,\)\. .*give its number as well: z1_1 to z1_2"):
        explanation.compare("z1", 0.1)
    with pytest.raises(IndexError, match=r"say which of its numbers is meant"):
        explanation.chain("W₂")
    with pytest.raises(IndexError, match=r"has the shape \(2, 2\)"):
        explanation.chain("W₂", 2, 0)
    with pytest.raises(IndexError, match="`example` must be from 0 to 0"):
        explanation.chain("w5", example=1)
    with pytest.raises(ValueError, match="`digits` must be a whole number"):
        explanation.chain("w5").to_text(digits=0)


def merged():
    """A residual addition, a product, a difference, a penalty and dropout without effect. Returns (model, x, y)."""
    inputs = keras.Input((2,), dtype="float64")
    a = dense(2, "tanh", name="a", kernel_regularizer="l2")(inputs)
    b = dense(2, "relu", name="b")(a)
    s = layers.Add(dtype="float64")([a, b])
    p = layers.Multiply(dtype="float64")([s, a])
    model = keras.Model(
        inputs, dense(1, "sigmoid", name="last")(layers.Subtract(dtype="float64")([p, b])), name="merged"
    )
    model.compile("sgd", "mse")
    random = np.random.default_rng(1)
    return model, random.normal(size=(3, 2)), random.uniform(size=(3, 1))


def sequence(layer, units=2, steps=4, **options):
    def build():
        kind = getattr(layers, layer)
        model = stack_random([kind(units, dtype="float64", **options), dense(1, name="last")], (steps, 2))
        random = np.random.default_rng(1)
        return model, random.normal(size=(2, steps, 2)), random.uniform(size=(2, 1))

    return build


def stack_random(every, shape):
    model = keras.Sequential([keras.Input(shape, dtype="float64"), *every], name="net")
    random = np.random.default_rng(0)
    return stack_again(model, [random.normal(scale=0.5, size=w.shape) for w in model.get_weights()])


def stack_again(model, weights):
    model.set_weights(weights)
    model.compile("adam", "mse")
    return model


NETWORKS = {
    "note": worked_example, "textbook": textbook, "xor": xor, "softmax": softmax, "recurrent": recurrent, "merged": merged,
    "deep": lambda: chain(2, 3, 3, 2, examples=3), "cross-entropy": lambda: chain(2, 3, 3, last="softmax", loss="categorical_crossentropy"),
    "softmax, mse": lambda: chain(2, 3, 3, last="softmax", loss="mse"), "wide": lambda: chain(3, 9, 9, 9, 2),
    "SimpleRNN": sequence("SimpleRNN"), "LSTM": sequence("LSTM", units=1, steps=3), "GRU": sequence("GRU", units=1, steps=3),
    "GRU before": sequence("GRU", units=1, steps=3, reset_after=False), "backwards": sequence("SimpleRNN", go_backwards=True),
}  # fmt: skip


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", NETWORKS)
def test_the_paths_add_up_to_the_gradient(name):
    explanation = explain(*NETWORKS[name]())
    for weight in explanation.weights:
        for index in list(np.ndindex(weight.value.shape))[:: max(1, weight.value.size // 3)]:
            found = explanation.chain(weight.path, *index)
            total = sum(path.value for path in found.paths)
            assert total == pytest.approx(weight.gradient[index], rel=2e-3, abs=1e-8), f"{weight.path}{index}"
            for path in found.paths:
                assert path.value == pytest.approx(np.prod([f.value for f in path.factors]), abs=1e-12)


def test_what_is_not_looked_into_ends_the_paths():
    explanation = explain(*residual())
    for weight in explanation.weights:
        found = explanation.chain(weight.path, *[0] * weight.value.ndim)
        assert sum(path.value for path in found.paths) == pytest.approx(found.gradient, rel=2e-3, abs=1e-7)


@pytest.mark.usefixtures("float64")
def test_two_paths_and_their_sum():
    text = explain(*textbook()).chain("w1").to_text()
    assert "path 1: ∂E/∂a⁽²⁾₁ · ∂a⁽²⁾₁/∂z⁽²⁾₁ · ∂z⁽²⁾₁/∂a⁽¹⁾₁ · ∂a⁽¹⁾₁/∂z⁽¹⁾₁ · ∂z⁽¹⁾₁/∂w⁽¹⁾₁₁" in text
    assert "∂z⁽²⁾₂/∂a⁽¹⁾₁    = w⁽²⁾₁₂             0.5" in text and "path 3" not in text


@pytest.mark.usefixtures("float64")
def test_a_table_of_examples_and_factors():
    found = explain(*xor()).chain("w5")
    table = found.table()
    assert [row["example"] for row in table] == [0, 1, 2, 3]
    for row in table:
        assert row["product"] == pytest.approx(row["∂E/∂a⁽²⁾₁"] * row["∂a⁽²⁾₁/∂z⁽²⁾₁"] * row["∂z⁽²⁾₁/∂w⁽²⁾₁₁"])
    markdown = found.to_markdown()
    assert markdown.count("\n| ") == 7 and "| sum |" in markdown
    assert explain(*xor()).chain("w5", example=2).paths[0].value == pytest.approx(table[2]["product"])


@pytest.mark.usefixtures("float64")
def test_the_path_through_time():
    text = explain(*recurrent()).chain("u").to_text()
    assert ("∂h₃/∂z₃" in text and "∂z₃/∂h₂" in text and "= u⁽¹⁾₁₁" in text) or "= u₁" in text
    assert "path 3" in text


@pytest.mark.usefixtures("float64")
def test_a_formula_is_not_shown_beside_the_number_of_another_rule():
    def other(call, dy):
        return Gradients(dy * call.output)

    with use_rules({keras.activations.sigmoid: other}):
        explanation = explain(*worked_example())
    text = explanation.to_text() + explanation.to_markdown() + explanation.chain("w1").to_text()
    assert "a₂(1 − a₂)" not in text and "a_2(1 - a_2)" not in text
    found = explanation.chain("w1")
    assert found.factors[1].value == pytest.approx(explanation.link("output/sigmoid").a.item())

    def feedback(call, dy):
        return Gradients(dy, kernel=call.input * dy, bias=dy[0])

    with use_rules({"note/output": feedback}):
        explanation = explain(*worked_example())
    assert "∂E/∂a₁, by the rule feedback" in explanation.to_text() and "∂E/∂a₁ = " not in explanation.to_text()
    assert sum(p.value for p in explanation.chain("w1").paths) == pytest.approx(
        explanation.weight("w1").gradient.item()
    )


@pytest.mark.usefixtures("float64")
def test_a_frozen_layer_is_not_shown_as_trained():
    model, x, y = worked_example()
    model.layers[0].trainable = False
    model.compile("sgd", "mse")
    explanation = explain(model, x, y)
    text = explanation.to_text()
    assert "∂E/∂w₁" not in text and text.count("frozen") == 2
    assert [w.path for w in explanation.frozen] == ["note/hidden/kernel", "note/hidden/bias"]
    assert "frozen: not trained" in explanation.chain("w1").to_text()


@pytest.mark.usefixtures("float64")
def test_stack_and_names_in_a_layer():
    model = stack([dense(2, "tanh", name="only")], (2,), [[[0.1, 0.2], [0.3, 0.4]], [0.0, 0.0]], "mse")
    explanation = explain(model, np.ones((1, 2)), np.ones((1, 2)))
    assert explanation.chain("w₂₁").index == (1, 0) and explanation.chain("w21", convention="column").index == (0, 1)
