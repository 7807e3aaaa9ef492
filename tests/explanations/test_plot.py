"""The pictures: which is drawn, what is in it, nothing outside the sheet and no text on another."""

import itertools
import re
import sys

import keras
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.image import imread

from keras_backprop import explain
from keras_backprop.explanations.drawing import blocks, neuron_places, neurons
from keras_backprop.explanations.drawing.canvas import MOST_PIXELS, Canvas
from tests.explanations.networks import chain, residual, textbook, worked_example, xor


def branches():
    """Two inputs, two outputs, and an edge that passes by three rows."""
    left, right = keras.Input((5,), name="left"), keras.Input((3,), name="right")
    wide = keras.layers.Dense(8, "relu", name="wide")(left)
    narrow = keras.layers.Dense(4, "tanh", name="narrow")(right)
    joined = keras.layers.Concatenate(name="joined")([wide, narrow, left])
    outputs = [keras.layers.Dense(1, name="value")(joined), keras.layers.Dense(3, "softmax", name="kind")(joined)]
    model = keras.Model([left, right], outputs, name="branches")
    model.compile("adam", ["mse", "categorical_crossentropy"])
    random = np.random.default_rng(0)
    inputs = [random.normal(size=(6, 5)), random.normal(size=(6, 3))]
    return model, inputs, [random.normal(size=(6, 1)), np.eye(3)[[0, 1, 2, 0, 1, 2]]]


def many_kinds():
    """Layers with weights of many names, and attention, whose one input forks and joins."""
    layers = keras.layers
    inputs = keras.Input((4, 4, 2))
    x = layers.BatchNormalization(name="norm")(
        layers.Conv2D(2, 3, padding="same", activation="relu", name="conv")(inputs)
    )
    x = layers.Reshape((8, 4), name="reshape")(layers.Add(name="sum")([x, inputs]))
    x = layers.MultiHeadAttention(2, 2, name="attention")(x, x)
    x = layers.LSTM(3, name="memory")(x)
    model = keras.Model(inputs, layers.Dense(2, name="last")(x), name="kinds")
    model.compile("adam", "mse")
    random = np.random.default_rng(0)
    return model, random.normal(size=(3, 4, 4, 2)), random.normal(size=(3, 2))


def masked():
    """Class numbers in, and an operation that computes a mask and takes no part in the chain."""
    layers = keras.layers
    stack = [keras.Input((5,)), layers.Embedding(9, 4, mask_zero=True, name="letters"), layers.LSTM(3, name="memory")]
    model = keras.Sequential([*stack, layers.Dense(1)], name="masked")
    model.compile("adam", "mse")
    random = np.random.default_rng(0)
    return model, random.integers(0, 9, (4, 5)), random.normal(size=(4, 1))


NETWORKS = {
    "masked": masked,
    "worked example": worked_example,
    "deep single units": lambda: chain(1, 1, 1, 1, 1),
    "small": lambda: chain(2, 3, 1),
    "small, several examples": lambda: chain(3, 4, 2, examples=5),
    "cross-entropy": lambda: chain(2, 3, 2, last="softmax", loss="categorical_crossentropy"),
    "linear": lambda: chain(1, 1, last=None),
    "wide": lambda: chain(64, 32, 10, examples=8),
    "residual": residual,
    "branches": branches,
    "many kinds": many_kinds,
}


def drawing(network):
    explanation = explain(*network())
    return (neurons if neurons.fits(explanation) else blocks).draw(explanation)


def texts(canvas):
    return [text.get_text() for text in canvas.axes.texts]


def boxes(canvas):
    """Where each text is, in pixels, and the sheet."""
    renderer = FigureCanvasAgg(canvas.figure).get_renderer()
    return [
        (t.get_text(), t.get_rotation(), t.get_window_extent(renderer)) for t in canvas.axes.texts
    ], canvas.figure.bbox


@pytest.mark.parametrize("name", NETWORKS)
def test_nothing_is_clipped_and_no_text_lies_on_another(name):
    placed, sheet = boxes(drawing(NETWORKS[name]))
    for text, _, box in placed:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= sheet.x1 and box.y1 <= sheet.y1, f"{text} leaves the sheet"
    if NETWORKS[name] in (residual, branches, many_kinds):
        assert max(box.width for _, _, box in placed[2:]) < blocks.WIDTH * 100, "wider than its block"
    level = [(text, box) for text, rotation, box in placed if rotation % 90 == 0 and text]
    for (one, first), (other, second) in itertools.combinations(level, 2):
        width = min(first.x1, second.x1) - max(first.x0, second.x0)
        height = min(first.y1, second.y1) - max(first.y0, second.y0)
        assert width <= 1 or height <= 3, f"{one} lies on {other}"


def test_the_worked_example_shows_all_its_figures():
    found = texts(drawing(worked_example))
    for text in (
        "$x = 0.1$", "$z_1 = 0.415$", "$a_1 = 0.6023$", "$z_2 = 0.9210$", "$a_2 = 0.7153$", "$E = 0.1082$", "$T = 0.25$",
        "$w_1 = 0.15$", "$b_1 = 0.4$", "$w_2 = 0.45$", "$b_2 = 0.65$", r"$\partial E/\partial w_1 = 0.00102$",
        r"$\partial E/\partial b_1 = 0.0102$", r"$\partial E/\partial w_2 = 0.0571$", r"$\partial E/\partial b_2 = 0.0948$",
        "$-(T - a_2) = 0.4653$", "$a_2(1 - a_2) = 0.2037$",
    ):  # fmt: skip
        assert text in found


def test_a_small_network_shows_every_weight_and_gradient():
    model, x, y = chain(2, 3, 1)
    explanation = explain(model, x, y)
    found = texts(neurons.draw(explanation))
    for link in explanation.links:
        for values in [*link.weights.values(), *link.weight_gradients.values()]:
            for value in values.ravel():
                assert any(neuron_places.short(value) in text for text in found)


def test_other_networks_show_layers_shapes_and_norms():
    found = texts(drawing(residual))
    for text in ("first", "shared  (1 of 3 uses)", "shared  (3 of 3 uses)", "dropout", "Dropout  16 × 8",
                 "sparse_categorical_crossentropy + penalties", "Dense, softmax  16 × 3"):  # fmt: skip
        assert text in found
    assert sum(r"\partial W_" in text for text in found) == 5


def test_what_takes_no_part_in_the_chain_is_not_drawn():
    found = texts(drawing(masked))
    assert "input  4 × 5" in found and "letters" in found and "not_equal" not in found


def test_inputs_stand_in_the_order_of_the_model():
    canvas = drawing(branches)
    places = {text.get_text(): text.get_position()[0] for text in canvas.axes.texts}
    assert places["input  6 × 5"] < places["input  6 × 3"]


def test_which_networks_are_drawn_by_their_neurons():
    fits = {name: neurons.fits(explain(*network())) for name, network in NETWORKS.items()}
    others = ["masked", "wide", "residual", "branches", "many kinds"]
    assert [name for name, small in fits.items() if not small] == others


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_the_file(tmp_path, suffix):
    explanation = explain(*worked_example())
    path = explanation.plot(tmp_path / f"network{suffix}")
    written = path.read_bytes()
    assert written.startswith({".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}[suffix])
    explanation.plot(str(path))
    assert path.read_bytes() == written  # the same drawing, the same file
    if suffix == ".png":
        picture = imread(path)
        assert picture.shape[1] > 2000 and 0.05 < picture.std() < 0.5


def test_an_unknown_suffix(tmp_path):
    with pytest.raises(ValueError, match=r"must be one of .png, .svg, .pdf. Received: path='.*network.gif'"):
        explain(*worked_example()).plot(tmp_path / "network.gif")


def test_without_matplotlib(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r'pip install "keras-backprop\[plot\]"'):
        explain(*worked_example()).plot(tmp_path / "network.png")


def test_the_textbook_network_has_all_names_and_both_targets():
    found = texts(drawing(textbook))
    for text in (
        "$x_1 = 0.05$",
        "$z^{(1)}_1 = 0.378$",
        "$z^{(1)}_2 = 0.392$",
        "$a^{(2)}_2 = 0.773$",
        "$T_1 = 0.01$",
        "$T_2 = 0.99$",
    ):
        assert text in found
    assert any(r"\partial E/\partial a^{(2)}_2 = -0.217" in text for text in found)


def test_one_example_and_the_sum():
    explanation = explain(*xor())
    for example in range(4):
        canvas = neurons.draw(explanation, example)
        assert any(f"Example {example + 1} of 4" in text for text in texts(canvas))
    third = texts(neurons.draw(explanation, 2))
    part = explanation.chain("w5", example=2).gradient
    assert any(neuron_places.short(part) in text for text in third) and "$T = 1$" in third


def test_numbers_on_demand_and_colours_with_a_legend():
    explanation = explain(*chain(3, 4, 3))
    plain = neurons.draw(explanation)
    assert r"$\partial E/\partial w > 0$" in texts(plain) and "the wider, the larger" in texts(plain)
    numbered = neurons.draw(explanation, numbers=True)
    assert len(texts(numbered)) > len(texts(plain)) + 30
    for canvas in (plain, numbered):
        placed, sheet = boxes(canvas)
        assert all(box.x0 >= 0 and box.x1 <= sheet.x1 and box.y0 >= 0 and box.y1 <= sheet.y1 for _, _, box in placed)


def test_a_path_is_lit(tmp_path):
    explanation = explain(*textbook())
    lit = neuron_places.lit(explanation, explanation.chain("w1"))
    assert lit["edges"] == {(0, 0, 0), (1, 0, 0), (1, 0, 1)} and lit["outputs"] == {0, 1}
    explanation.chain("w1").plot(tmp_path / "lit.png")
    explanation.plot(tmp_path / "other.png")
    assert (tmp_path / "lit.png").read_bytes() != (tmp_path / "other.png").read_bytes()


@pytest.mark.parametrize("network", [worked_example, textbook])
def test_arrows_into_the_error_end_at_its_edge(network, monkeypatch):
    arrows, edges = [], []
    monkeypatch.setattr(Canvas, "arrow", lambda canvas, start, end, *_, **__: arrows.append((start, end)))
    monkeypatch.setattr(Canvas, "box", lambda canvas, x, y, width, *_, **__: edges.append(x - width / 2))
    explanation = explain(*network())
    neurons.draw(explanation)
    (edge,), last = edges, explanation.links[-1].inputs[1].shape[-1]
    ends = [end for start, end in arrows if start[0] < edge < end[0] + 0.2]
    assert ends == [pytest.approx((edge, 0.0))] * last


def test_what_a_notebook_shows():
    explanation = explain(*textbook())
    assert explanation._repr_svg_().startswith("<?xml") and "<svg" in explanation._repr_html_()
    assert explanation._repr_markdown_().startswith("# The chain of")
    assert explanation.chain("w5")._repr_markdown_().startswith("### The chain of")


def test_a_wide_picture_scrolls_in_its_frame_and_stays_legible():
    html = explain(*chain(1, 1, 1, 1, 1))._repr_html_()
    frame = re.search(r'overflow-x:auto"><svg style="width:(\d+)pt;max-width:100%;min-width:(\d+)pt', html)
    assert int(frame[2]) >= 0.55 * int(frame[1]) > 700


def test_the_blocks_of_a_chain_are_lit():
    inputs = keras.Input((2,))
    features = keras.layers.Concatenate(name="both")(
        [keras.layers.Dense(2, name=name)(inputs) for name in ("left", "right")]
    )
    model = keras.Model(inputs, keras.layers.Dense(1, name="last")(features))
    model.compile("sgd", "mse")
    explanation = explain(model, np.ones((1, 2)), np.ones((1, 1)))
    drawn = blocks._blocks(explanation)
    lit = neuron_places.lit_blocks(drawn, explanation.chain("left/kernel", 0, 0))
    assert [block.title.partition(" ")[0] for block in drawn if id(block) in lit] == ["left", "both", "last", "E"]
    assert neuron_places.lit_blocks(drawn, None) == set()


def test_the_block_of_an_operation_is_lit_by_its_weight():
    class Own(keras.layers.Layer):
        def build(self, shape):
            self.w = self.add_weight(shape=(2, 3), name="w")

        def call(self, x):
            return keras.ops.matmul(x, self.w)

    model = keras.Sequential([keras.Input((2,)), Own(name="own"), keras.layers.Dense(1, name="last")])
    model.compile("sgd", "mse")
    explanation = explain(model, np.ones((1, 2)), np.ones((1, 1)))
    drawn = blocks._blocks(explanation)
    assert len(neuron_places.lit_blocks(drawn, explanation.chain("own/w", 0, 0))) == 3


def test_both_directions_have_a_block():
    inputs = keras.Input((3, 1))
    both = keras.layers.Bidirectional(keras.layers.SimpleRNN(1, name="memory"), name="both")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(1, name="last")(both))
    model.compile("sgd", "mse")
    drawn = blocks._blocks(explain(model, np.ones((1, 3, 1)), np.ones((1, 1))))
    merged = next(block for block in drawn if block.title == "both/merge")
    assert [source.title for source, _ in merged.sources] == ["forward_memory", "backward_memory"]


def test_one_of_two_inputs_has_a_number_above():
    unused, used = keras.Input((1,)), keras.Input((2,))
    model = keras.Model([unused, used], keras.layers.Dense(1)(used))
    model.compile("sgd", "mse")
    explanation = explain(model, [np.ones((1, 1)), np.ones((1, 2))], np.ones((1, 1)))
    assert "$x^{(2)}_1 = 1$" in texts(neurons.draw(explanation)) and explanation._repr_svg_().startswith("<?xml")


def test_a_large_drawing_has_no_more_pixels_than_fit():
    canvas = Canvas(0, 0, 2 * MOST_PIXELS / 200, 1)
    assert canvas.pixels().shape == (100, MOST_PIXELS, 4)


def test_which_example_is_drawn(tmp_path, monkeypatch):
    explanation = explain(*xor())
    drawn = []
    monkeypatch.setattr(neurons, "draw", lambda explanation, row, *_: drawn.append(row) or Canvas(0, 0, 1, 1))
    explanation.chain("w5").plot(tmp_path / "all.png")
    explanation.chain("w5", example=2).plot(tmp_path / "third.png")
    explanation.plot(tmp_path / "third.png", chain=explanation.chain("w5", example=2))
    explanation.chain("w5", example=2).plot(tmp_path / "fourth.png", example=3)
    assert drawn == [None, 2, 2, 3]
    wide = explain(*chain(20, 2, examples=2))
    with pytest.raises(ValueError, match="'chain' is drawn layer by layer, with norms over all 2 examples.*example=1"):
        wide.plot(tmp_path / "wide.png", example=1)
    assert wide.chain("W1", 0, 0, example=1).plot(tmp_path / "wide.png").exists()


@pytest.mark.parametrize("numbers", [True, False])
def test_numbers_on_edges_that_are_not_drawn(tmp_path, numbers):
    with pytest.raises(ValueError, match=r"`numbers`.*'residual' is drawn layer by layer.*Leave it out"):
        explain(*residual()).plot(tmp_path / "residual.png", numbers=numbers)
    assert not list(tmp_path.iterdir())


def test_gradients_on_edges_are_those_of_the_weights_with_penalties():
    weights = [keras.layers.Dense(1, kernel_regularizer=keras.regularizers.L2(0.5), name="d")]
    model = keras.Sequential([keras.Input((2,)), *weights])
    model.set_weights([np.array([[2.0], [3.0]]), np.array([0.0])])
    model.compile("sgd", "mse")
    explanation = explain(model, np.array([[1.0, 1.0]]), np.array([[5.5]]))
    for example in (None, 0):
        shown = texts(neurons.draw(explanation, example=example))
        assert "$1$" in shown and shown.count("$2$") == 2, shown  # 2·(5 − 5.5) + 2·0.5·w, and w₁ itself
