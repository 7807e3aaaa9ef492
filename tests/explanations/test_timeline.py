"""The picture of a recurrent layer unrolled in time: what stands in which column, and which networks it is for."""

import keras
import numpy as np
import pytest

from keras_backprop import explain
from keras_backprop.explanations.drawing import timeline
from tests.explanations.networks import dense, stack
from tests.explanations.test_plot import boxes, texts

pytestmark = pytest.mark.usefixtures("float64")


def unrolled(*layers, steps=3):
    model = keras.Sequential([keras.Input((steps, 1), dtype="float64"), *layers], name="unrolled")
    model.compile("sgd", "mse")
    return explain(model, np.arange(1.0, steps + 1).reshape(1, steps, 1), np.ones((1, *model.output_shape[1:])))


@pytest.mark.parametrize("kind", ["SimpleRNN", "LSTM", "GRU"])
def test_the_x_of_a_column_is_the_one_that_its_h_is_computed_of(kind):
    layer = getattr(keras.layers, kind)(1, go_backwards=True, dtype="float64")
    canvas = timeline.draw(unrolled(layer, dense(1)))
    places = {text.get_text(): text.get_position()[0] for text in canvas.axes.texts}
    h = [next(x for text, x in places.items() if text.startswith(f"$h_{t}")) for t in (1, 2, 3)]
    assert [places[f"$x_{t} = {t}$"] for t in (3, 2, 1)] == h


def test_behind_the_steps_stands_what_is_computed_of_them_and_each_number_once():
    explanation = unrolled(keras.layers.SimpleRNN(1, return_sequences=True, dtype="float64"), dense(1), steps=2)
    assert timeline.fits(explanation)
    found = texts(timeline.draw(explanation))
    names = [text.partition(" = ")[0].strip("$") for text in found if " = " in text]
    gradients = [rf"\partial E/\partial {name}" for name in ("h_1", "h_2", "z^{(2)}_{1,1}", "z^{(2)}_{2,1}")]
    once = ["h_1", "h_2", "x_1", "x_2", "z^{(2)}_{1,1}", "z^{(2)}_{2,1}", "E", *gradients]
    assert sorted(names) == sorted([*once, "z", "z"])


def test_what_is_computed_before_the_steps_has_no_place_in_this_picture():
    recurrent = keras.layers.SimpleRNN(1, dtype="float64")
    assert not timeline.fits(unrolled(dense(1), recurrent))


def test_the_error_is_on_the_sheet_where_it_comes_right_behind_the_steps():
    explanation = unrolled(keras.layers.SimpleRNN(1, dtype="float64"))
    placed, sheet = boxes(timeline.draw(explanation))
    assert timeline.fits(explanation) and any(text.startswith("$E = ") for text, _, _ in placed)
    assert all(box.x0 >= 0 and box.x1 <= sheet.x1 for _, _, box in placed)


def test_an_initial_state_from_a_dense_layer_has_none_either():
    sequence, start = keras.Input((2, 1)), keras.Input((1,))
    h = keras.layers.SimpleRNN(1)(sequence, initial_state=keras.layers.Dense(1)(start))
    model = keras.Model([sequence, start], h)
    model.compile("sgd", "mse")
    assert not timeline.fits(explain(model, [np.ones((1, 2, 1)), np.ones((1, 1))], np.ones((1, 1))))


def test_values_of_one_example():
    layers = [keras.layers.SimpleRNN(1, use_bias=False, dtype="float64")]
    model = stack(layers, (2, 1), [[[0.5]], [[0.8]]], "mse")
    explanation = explain(model, np.array([[[1.0], [2.0]], [[3.0], [4.0]]]), np.ones((2, 1)))
    assert "$x_1 = 3$" in texts(timeline.draw(explanation, 1)) and "$x_1 = 1$" in texts(timeline.draw(explanation))
