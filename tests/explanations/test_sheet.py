"""Exercise sheets: what is blank is not in the sheet, and the solution is right."""

import re

import keras
import numpy as np
import pytest

from keras_backprop import exercise, explain
from keras_backprop.explanations.sheet import _by_units
from keras_backprop.explanations.writing.notation import latex_number, precision
from tests.explanations.networks import chain, dense, recurrent, softmax, textbook, worked_example, xor

pytestmark = pytest.mark.usefixtures("float64")


def test_what_is_blank_is_in_the_solution_only():
    sheet = explain(*textbook()).to_markdown(blank=["∂E/∂w5", "w5_new", "out_h1", "E"], digits=9)
    for number in ("0.082167041", "0.35891648", "0.593269992", "0.298371109"):
        assert number not in sheet and number in sheet.solution
    assert "0.408666186" in sheet and sheet.count("………………") == 4 and len(sheet.answers) == 4


def test_groups_and_all():
    explanation = explain(*worked_example())
    every = explanation.to_markdown(blank="all")
    assert every.count("………………") == len(every.answers) == 4 + 1 + 4 + 4 + 4
    assert "0.25" in every and r"\sigma(z_1)" in every
    gradients = explanation.to_markdown(blank=["gradients"])
    assert set(gradients.answers) == {rf"\frac{{\partial E}}{{\partial {w}}}" for w in ("w_1", "b_1", "w_2", "b_2")}


def test_the_same_seed_gives_the_same_sheet():
    sheets = [exercise(2, 3, 2, seed=seed).to_markdown() for seed in (3, 3, 4)]
    assert sheets[0] == sheets[1] != sheets[2]
    assert all(len(number) <= 5 for number in re.findall(r"\$(-?0\.\d+)\$", sheets[0].split("## Forward")[0]))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"loss": "categorical_crossentropy"},
        {"loss": "binary_crossentropy"},
        {"activation": "tanh", "examples": 3, "loss": "mse"},
    ],
)
def test_the_solution_is_right(options):
    made = exercise(2, 2, 2, seed=1, **options)
    sheet = made.to_markdown(blank="updates")
    assert len(sheet.answers) == 12
    before = [w.value for w in made.explanation.weights]
    made.model.train_on_batch(made.x, made.y)
    after = np.sort(np.concatenate([w.ravel() for w in made.model.get_weights()]))
    np.testing.assert_allclose(np.sort(list(sheet.answers.values())), after, rtol=1e-9)
    assert not np.allclose(before[0], made.model.get_weights()[0])
    assert made.compare("w1_new", made.model.get_weights()[0][0, 0]).correct is False  # that of the second update


def test_several_examples_are_told_apart():
    sheet = explain(*xor()).to_markdown(blank=["values"])
    assert r"a^{(2)}_1\;[4]" in sheet and sheet.count("………………") == 4 * 6


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"exercise\(2, 2, 1\). Received: \(2,\)"):
        exercise(2)
    with pytest.raises(KeyError, match="There is no number 'nothing'"):
        explain(*worked_example()).to_markdown(blank=["nothing"])
    with pytest.raises(KeyError, match="'w1' is given in the exercise"):
        explain(*worked_example()).to_markdown(blank=["w1"])
    with pytest.raises(ValueError, match="An exercise sheet is made of networks"):
        explain(*chain(20, 20, 20)).to_markdown(blank="all")


def test_what_is_computed_of_nothing_is_given():
    layers = [dense(2), keras.layers.BatchNormalization(dtype="float64"), dense(1)]
    model = keras.Sequential([keras.Input((2,), dtype="float64"), *layers])
    model.compile("sgd", "mse")
    explanation = explain(model, np.array([[1.0, 2.0], [3.0, 1.0]]), np.ones((2, 1)))
    given, _, forward = explanation.to_markdown(blank="gradients").partition("## Forward")
    z = explanation.link(layers[0].path).z
    normalised = (z - z.mean(0)) / np.sqrt(z.var(0) + 1e-3)
    for example, row in enumerate(normalised):
        with precision(6):
            values = r",\; ".join(latex_number(value) for value in row)
        assert rf"$\hat{{x}}^{{(1)}}, \text{{ example }} {example + 1}$ | ${values}$" in given
    assert r"\hat{x}^{(1)}_2" in forward
    assert "| $h_0$ | $0$ |" in explain(*recurrent()).to_markdown(blank="gradients")


def test_no_error_is_asked_of_a_softmax_that_is_differentiated_with_the_error():
    answers = explain(*softmax()).to_markdown(blank="deltas").answers
    assert list(answers) == [rf"\frac{{\partial E}}{{\partial z^{{(1)}}_{unit}}}" for unit in (1, 2)]


def test_the_error_speaks_of_the_units_of_the_sheet():
    def errors(*units, **options):
        lines = exercise(*units, **options).to_markdown(blank="E").splitlines()
        return [line for line in lines if line.startswith(("E =", "| $E$"))]

    for line in errors(2, 2, 1):
        assert r"(T - a^{(2)}_1)^2" in line and "a_2" not in line
    for line in errors(2, 3, 3, loss="categorical_crossentropy"):
        assert r"\log(a^{(2)})" in line
    assert all("(T - a_2)^2" in line for line in errors(1, 1, 1))  # a chain of single units, where a₂ is its name


def test_a_letter_is_renamed_and_no_end_of_a_word():
    assert _by_units(explain(*textbook()), r"\alpha_2 \cdot a_2") == r"\alpha_2 \cdot a^{(2)}"
