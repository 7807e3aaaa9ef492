"""The picture of a recurrent layer unrolled in time: what stands in which row, and which networks it is for."""

import itertools

import keras
import numpy as np
import pytest

from keras_backprop import explain
from keras_backprop.explanations.drawing import timeline
from tests.explanations.networks import dense, recurrent, stack
from tests.explanations.test_plot import boxes, texts

pytestmark = pytest.mark.usefixtures("float64")


def unrolled(*layers, steps=3):
    model = keras.Sequential([keras.Input((steps, 1), dtype="float64"), *layers], name="unrolled")
    model.compile("sgd", "mse")
    return explain(model, np.arange(1.0, steps + 1).reshape(1, steps, 1), np.ones((1, *model.output_shape[1:])))


@pytest.mark.parametrize("kind", ["SimpleRNN", "LSTM", "GRU"])
def test_the_x_of_a_row_is_the_one_that_its_h_is_computed_of(kind):
    layer = getattr(keras.layers, kind)(1, go_backwards=True, dtype="float64")
    canvas = timeline.draw(unrolled(layer, dense(1)))
    places = {text.get_text(): text.get_position()[1] for text in canvas.axes.texts}
    h = [next(y for text, y in places.items() if text.startswith(f"$h_{t}")) for t in (1, 2, 3)]
    assert [places[f"$x_{t} = {t}$"] for t in (3, 2, 1)] == pytest.approx(h, abs=1.2) and h == sorted(h, reverse=True)


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


def wide():
    model = keras.Sequential([keras.Input((2, 4)), keras.layers.GRU(4), keras.layers.Dense(4)])
    model.compile("sgd", "mse")
    return explain(model, np.full((2, 2, 4), -0.001234), np.full((2, 4), -0.001234))


@pytest.mark.parametrize("build", [lambda: unrolled(keras.layers.SimpleRNN(1, dtype="float64"), steps=8), wide])
def test_nothing_is_clipped_and_no_text_lies_on_another(build):
    explanation = build()
    canvas = timeline.draw(explanation)
    placed, sheet = boxes(canvas)
    assert timeline.fits(explanation) and any(text.startswith("$E = ") for text, _, _ in placed)
    for text, _, box in placed:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= sheet.x1 and box.y1 <= sheet.y1, f"{text} leaves the sheet"
    for (one, _, first), (other, _, second) in itertools.combinations(placed, 2):
        assert not (first.x0 < second.x1 - 1 and second.x0 < first.x1 - 1
                    and first.y0 < second.y1 - 3 and second.y0 < first.y1 - 3), f"{one} lies on {other}"  # fmt: skip
    if build is not wide:
        assert canvas.figure.get_size_inches()[0] < 8  # legible on a telephone


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


def test_time_is_unrolled_and_a_vanishing_gradient_is_marked():
    explanation = explain(*recurrent())
    found = texts(timeline.draw(explanation))
    for text in ("$x_1 = 1$", "$h_2 = 0.5509$", r"$\partial E/\partial h_1 = -0.2511$", "$T = 0.4$"):
        assert text in found
    layers = [keras.layers.SimpleRNN(1, dtype="float64"), dense(1)]
    model = stack(layers, (6, 1), [[[0.5]], [[0.3]], [0.1], [[1.2]], [0.0]], "mse")
    canvas = timeline.draw(explain(model, np.ones((1, 6, 1)), np.ones((1, 1))))
    assert any("vanishing" in text for text in texts(canvas))


def test_no_gradient_is_told_of_a_softmax_that_is_differentiated_with_the_error():
    layers = [keras.layers.SimpleRNN(1, dtype="float64"), dense(2, "softmax")]
    weights = [[[0.5]], [[0.8]], [0.1], [[0.3, -0.2]], [0.0, 0.0]]
    model = stack(layers, (2, 1), weights, keras.losses.CategoricalCrossentropy(dtype="float64"))
    found = texts(timeline.draw(explain(model, np.ones((1, 2, 1)), np.array([[1.0, 0.0]]))))
    assert any(text.startswith("$a^{(2)}_1") for text in found)
    assert [text.split(" =")[0] for text in found if r"\partial E/\partial" in text and "h" not in text] == [
        rf"$\partial E/\partial z^{{(2)}}_{unit}" for unit in (1, 2)
    ]


def test_what_an_lstm_keeps_in_its_cell_has_not_vanished():
    model = keras.Sequential([keras.Input((4, 1)), keras.layers.LSTM(1), keras.layers.Dense(1)])
    W, U, b = (
        [[0.1, 0.0, 1.0, 0.0]],
        [[0.0] * 4],
        [0.0, 4.0, 0.0, 0.0],
    )  # a forget gate that lets all pass, and no way by h
    model.set_weights([np.array(w) for w in (W, U, b, [[1.0]], [0.0])])
    model.compile("sgd", "mse")
    explanation = explain(model, np.ones((1, 4, 1)), np.zeros((1, 1)))
    shown = [text.get_text() for text in timeline.draw(explanation).axes.texts]
    assert sum(r"\partial E/\partial c_" in text for text in shown) == 4 and not any(
        "vanishing" in text for text in shown
    )
