"""Recurrent layers among others: how what goes into a step is called, which numbers a name means, and mistakes between layers."""

import keras
import numpy as np
import pytest

from keras_backprop.explanations.comparing.mistakes import Mistakes
from keras_backprop.explanations.comparing.spelling import Spelling
from keras_backprop.explanations.numbers.nodes import below
from keras_backprop.explanations.writing.notation import plain
from tests.explanations.test_positions import NETWORKS, behind, dense, explained, layer, stacked


def deep(kind, **options):
    """Two layers of equal width, of LSTM or GRU."""
    made = lambda x: dense(1)(layer(kind, 2, **options)(layer(kind, 2, return_sequences=True)(x)))  # noqa: E731
    made.__name__ = f"deep {kind}"
    return made


def over_both_ways(x):
    both = keras.layers.Bidirectional(layer("SimpleRNN", 1, return_sequences=True), dtype="float64")
    return dense(1)(layer("SimpleRNN", 1)(both(x)))


def over_two(x):
    return dense(1)(layer("SimpleRNN", 1)(layer("Concatenate")([dense(1)(x), dense(1)(x)])))


def over_rows(x):
    return dense(1)(layer("SimpleRNN", 1)(layer("Reshape", (2, 4))(x)))


def twice(x):
    memory = layer("SimpleRNN", 2, return_sequences=True)
    return dense(1)(layer("SimpleRNN", 2)(memory(memory(x))))


def alone(x):
    return dense(1)(layer("SimpleRNN", 2)(x))


def in_degrees(x):
    return dense(1)(keras.ops.deg2rad(layer("LSTM", 1, recurrent_activation="hard_sigmoid")(x)))


OTHERS = [
    (deep("LSTM"), (2, 2)), (deep("GRU"), (2, 2)), (deep("GRU", reset_after=False), (2, 2)), (in_degrees, (2, 2)),
    (behind("BatchNormalization", trainable=False), (2, 2)), (behind("Conv1D", 2, 2, activation="softmax"), (3, 2)),
]  # fmt: skip


def has_no_latex(build, shape):
    explanation = explained(build, shape)
    chains = [explanation.chain(w.path, *(0,) * w.value.ndim).to_text() for w in explanation.weights]
    for line in "\n".join([explanation.to_text(), *chains]).splitlines():
        assert not any(left in line for left in ("{", "}", "\\", "frac")), line


@pytest.mark.sample(8)
@pytest.mark.parametrize(("build", "shape"), NETWORKS, ids=lambda value: getattr(value, "__name__", ""))
def test_no_latex_is_left_in_a_text(build, shape):
    has_no_latex(build, shape)


@pytest.mark.parametrize(("build", "shape"), OTHERS, ids=lambda value: getattr(value, "__name__", ""))
def test_no_latex_is_left_in_the_text_of_gates_and_fractions(build, shape):
    has_no_latex(build, shape)


@pytest.mark.parametrize(
    ("build", "shape", "written"),
    [
        (over_both_ways, (2, 2), "z⁽³⁾₁ = y⁽¹⁾₁ · W₃"), (over_two, (2, 2), "z₁ = y⁽¹⁾₁ · W +"), (over_rows, (2, 2, 2), "z₂ = y⁽¹⁾₂ · W +"),
        (stacked, (2, 2), "h⁽¹⁾₂ · Wᵍ₂"), (twice, (2, 2), "z⁽²⁾₁ = h⁽¹⁾₁ · W₁ + h⁽²⁾₀ · U₁ + b₁"), (deep("LSTM"), (2, 2), "zᶠ⁽²⁾₁ = h⁽¹⁾₁ · Wᶠ₂"),
    ],
)  # fmt: skip
def test_a_step_names_all_that_goes_into_it(build, shape, written):
    assert written in " ".join(explained(build, shape).to_text().split())


def test_two_calls_of_one_layer_have_names_of_their_own():
    explanation = explained(twice, (2, 2))
    nodes = [node for node in explanation.graph.nodes if node.letter == "h" and node.time and not node.origins]
    assert len({node.name(0) for node in nodes}) == len(nodes) == 6
    for node in nodes:
        for unit in range(2):
            found = explanation.compare(plain(node.name(unit)), node.value[:, unit])
            assert found.verdict == "exact", str(found)


def test_the_gradient_of_an_input_is_that_of_its_steps():
    explanation = explained(alone, (1, 2))
    (dx,) = [link.downstream[0] for link in explanation.links if link.rule == "simplernn"]
    assert explanation.compare("∂E/∂x₁,₁", dx[:, 0, 0]).verdict == "exact"
    assert explanation.compare("∂E/∂x₁,₁", dx[:, 0, 0] + 0.5)[0].expected == pytest.approx(dx[:, 0, 0])


def after_mistake(explanation, sentence):
    """The graph of numbers after that mistake."""
    mistakes = Mistakes(explanation, Spelling(explanation, explanation.graph))
    (graph,) = [graph for said, graph in mistakes.of_gradients() if said.startswith(sentence)]
    return graph


def test_inputs_in_the_wrong_order_are_those_of_their_own_layer():
    explanation = explained(
        lambda x: dense(1)(layer("SimpleRNN", 2)(layer("SimpleRNN", 2, return_sequences=True)(x))), (2, 2)
    )
    first, second = (link for link in explanation.links if link.rule == "simplernn")
    graph = after_mistake(explanation, "the inputs of the time steps in the wrong order")
    for link in (first, second):
        x, dz = link.inputs[0], link.deltas[0]
        path = next(w.path for w in explanation.weights if w.symbol == link.weight_symbols["cell.kernel"])
        wrong = np.einsum("nti,tno->io", x[:, ::-1], dz)
        np.testing.assert_allclose(graph.gradient_of(path), wrong, rtol=1e-9)


def test_without_its_state_a_layer_that_goes_backwards_still_has_its_inputs():
    explanation = explained(lambda x: dense(1)(layer("SimpleRNN", 1, go_backwards=True)(x)), (2, 2))
    (link,) = [link for link in explanation.links if link.rule == "simplernn"]
    graph = after_mistake(explanation, "the state of the step before is missing")
    (h,) = [node for node in graph.nodes if node.letter == "h" and node.time == 2]
    np.testing.assert_allclose(h.value, np.tanh(link.inputs[0][:, 0] @ link.weights["cell.kernel"]), rtol=1e-9)


def test_a_number_of_two_digits_stays_together():
    assert (below("W^i", 10), below("W", 9), below("W", None)) == ("W^i_{10}", "W_9", "W")
    assert plain(below("W^i", 10)) == "Wⁱ₁₀"
