"""`steps`: n updates are what training does, and the model is as before."""

import keras
import numpy as np
import pytest

from keras_backprop import BackpropSequential, steps
from keras_backprop.gradients import ByPath
from tests.explanations.networks import by_hand, chain, dense, same, state, textbook, worked_example

pytestmark = pytest.mark.usefixtures("float64")


def test_the_second_iteration_by_hand():
    model, x, y = worked_example()
    before = state(model)
    taken = steps(model, x, y, 3)
    assert same(before, state(model))
    hand = by_hand()
    again = by_hand(w1=hand.w1_new, b1=hand.b1_new, w2=hand.w2_new, b2=hand.b2_new)
    np.testing.assert_allclose(taken.errors[:2], [hand.E, again.E], rtol=1e-12)
    np.testing.assert_allclose(taken.weight("w₂")[:3], [0.45, hand.w2_new, again.w2_new], rtol=1e-12)
    np.testing.assert_allclose(taken.gradient("w1")[:2], [hand.dw1, again.dw1], rtol=1e-12)
    np.testing.assert_allclose(taken.explanation(2).weight("w1").updated.item(), again.w1_new, rtol=1e-12)
    row = taken.rows([2])[0]
    assert row["epoch"] == 2 and row["w₁"] == pytest.approx(hand.w1_new) and row["∂E/∂w₂"] == pytest.approx(again.dw2)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_it_is_what_fit_does(optimizer):
    model, x, y = chain(2, 3, 2, examples=4, optimizer=keras.optimizers.get(optimizer))
    taken = steps(model, x, y, 5)
    history = model.fit(x, y, epochs=5, batch_size=4, shuffle=False, verbose=0).history["loss"]
    np.testing.assert_allclose(taken.errors[:5], history, rtol=1e-6)
    for variable in model.trainable_weights:
        np.testing.assert_allclose(
            taken.weights[variable.path][-1], keras.ops.convert_to_numpy(variable), rtol=1e-6, atol=1e-9
        )


def test_gradients_and_rules_of_compile_are_in_it():
    model, x, y = textbook()
    held = BackpropSequential([keras.Input((2,), dtype="float64"), *model.layers], name="held")
    held.compile(keras.optimizers.SGD(0.5), model.loss, gradients=ByPath({"*/bias": 0.0}))
    taken = steps(held, x, y, 3)
    assert np.ptp(taken.weight("b1"), axis=0).max() == 0 and np.ptp(taken.weight("w5")) > 0.01


def test_random_numbers_and_statistics_are_those_of_the_step():
    layers = [dense(4, "tanh"), keras.layers.Dropout(0.5, dtype="float64"), dense(1)]
    model = keras.Sequential([keras.Input((3,), dtype="float64"), *layers])
    model.compile("sgd", "mse")
    random = np.random.default_rng(0)
    x, y = random.normal(size=(4, 3)), random.normal(size=(4, 1))
    before = state(model)
    taken = steps(model, x, y, 3)
    np.testing.assert_allclose([taken.explanation(n).loss for n in (1, 2, 3, 4)], taken.errors, rtol=1e-12)
    gradient = taken.explanation(3).weight("w1").gradient
    np.testing.assert_allclose(gradient, taken.gradients[model.layers[0].kernel.path][2], rtol=1e-9)
    assert same(before, state(model)) and np.ptp(taken.errors) > 0


@pytest.mark.slow
def test_ten_thousand_steps_of_the_textbook():
    model, x, y = textbook()
    for layer in model.layers:
        layer.bias.trainable = False
    model.compile(keras.optimizers.SGD(0.5), model.loss)
    assert f"{steps(model, x, y, 10_000).errors[-1]:.1e}" == "3.5e-05"


def test_table_and_film_strip(tmp_path):
    taken = steps(*textbook(), 30)
    text = taken.to_text(epochs=[1, 2, 31], digits=8)
    assert "0.35891648" in text and "∂E/∂w⁽²⁾₁₁" in text and len(taken.shown()) <= 12
    assert "| $w^{(2)}_{11}$ |" in taken.to_markdown() and taken.to_markdown().count("\n") == len(taken.shown()) + 2
    written = taken.plot(tmp_path / "strip.png", epochs=[1])
    assert written.read_bytes().startswith(b"\x89PNG")
    assert "30 updates" in repr(taken) and len(taken) == 30


def test_what_is_refused():
    model, x, y = worked_example()
    for n in (0, -1, 1.5, True):
        with pytest.raises(ValueError, match="`n` must be a whole number of updates"):
            steps(model, x, y, n)
    taken = steps(model, x, y, 1)
    with pytest.raises(IndexError, match="`step` must be from 1 to 2"):
        taken.explanation(3)
    with pytest.raises(KeyError, match="There is no weight 'w7'"):
        taken.weight("w7")
