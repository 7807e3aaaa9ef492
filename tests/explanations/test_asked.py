"""What makes no sense is refused in a sentence that quotes what was received; what people write for a number is understood."""

import numpy as np
import pytest

from keras_backprop import exercise, explain, steps
from keras_backprop.explanations.writing.notation import number, precision
from tests.explanations.networks import chain


@pytest.fixture(scope="module")
def explanation():
    return explain(*chain(2, 2, 1, examples=2))


@pytest.fixture(scope="module")
def table():
    return steps(*chain(2, 2, 1), 2)


REFUSED = [
    (lambda e: e.compare("dw5", "abc"), ValueError, "no number: 'abc'"),
    (lambda e: e.compare("dw5", ""), ValueError, "no number: ''"),
    (lambda e: e.compare("dw5", "1/0"), ValueError, "no number: '1/0'"),
    (lambda e: e.compare("dw5", True), ValueError, "neither a number nor an array of numbers. Received: True"),
    (lambda e: e.compare("dw5", 1 + 2j), ValueError, "Received: (1+2j)"),
    (lambda e: e.compare(dW1=[[0.1, 0.2], [0.3]]), ValueError, "'dW1' is compared with is neither"),
    (lambda e: e.compare(5, 1.0), TypeError, "Received: 5"),
    (lambda e: e.compare({1: 2.0}), TypeError, "Received: 1"),
    (lambda e: e.compare(gradients=[np.zeros((2, 2))]), ValueError, "each of the 4 weights: chain/dense"),
    (lambda e: e.compare(gradients=3), ValueError, "Received: 3"),
    (lambda e: e.compare("a1_1", 0.1, example="b"), TypeError, "from 0 to 1. Received: 'b'"),
    (lambda e: e.compare("a1_1", 0.1, example=2), IndexError, "from 0 to 1. Received: 2"),
    (lambda e: e.chain("w5", example=1.0), TypeError, "Received: 1.0"),
    (lambda e: e.chain("W1", "a", 0), IndexError, "Received: ('a', 0)"),
    (lambda e: e.chain("W1", 0.5, 0), IndexError, "Received: (0.5, 0)"),
    (lambda e: e.to_text(units=1), TypeError, "Received: 1"),
    (lambda e: e.to_text(units=[9]), IndexError, "from 0 to 1. Received: 9"),
    (lambda e: e.to_text(example="a"), TypeError, "Received: 'a'"),
    (lambda e: e.to_markdown(blank=5), TypeError, "Received: 5"),
    (lambda e: exercise(2, 1, seed=-1), ValueError, "Received: seed=-1"),
    (lambda e: exercise(2, 1, seed="a"), ValueError, "Received: seed='a'"),
    (lambda e: exercise(2, 1, examples=0), ValueError, "Received: examples=0"),
    (lambda e: exercise(2, True), ValueError, "Received: (2, True)"),
]


@pytest.mark.parametrize(("call", "error", "words"), REFUSED)
def test_a_sentence_says_what_was_received(explanation, call, error, words):
    with pytest.raises(error) as raised:
        call(explanation)
    assert words in str(raised.value)


@pytest.mark.parametrize(("epochs", "error"), [([9], IndexError), ("a", TypeError), (2, TypeError), ([], ValueError)])
def test_steps_that_are_none(table, epochs, error):
    with pytest.raises(error, match="from 1 to 3"):
        table.to_text(epochs=epochs)
    with pytest.raises((TypeError, IndexError), match="from 1 to 3"):
        table.explanation("a" if epochs == "a" else 1.0)


@pytest.mark.parametrize("written", ["{:.6f}", "{:.5e}", "  {:.6f} "])
def test_numbers_as_people_write_them(explanation, written):
    right = explanation.compare("dw5", 0.0)[0].expected
    text = written.format(right)
    for spelled in (text, text.replace("-", "−"), text.replace(".", ",")):
        assert explanation.compare("dw5", spelled).verdict == "exact"


def test_a_fraction_counts_as_divided_out(explanation):
    assert explanation.compare("dw5", "1/3")[0].value == 1 / 3


def test_what_is_no_number_is_said_to_be_none(explanation):
    for value in (float("nan"), float("inf")):
        assert "inf and NaN are no numbers" in str(explanation.compare("dw5", value))


def test_one_decimal(explanation):
    with precision(1):
        assert [number(value) for value in (0.2984, 12.34, 0.1, 0.0671)] == ["0.3", "12.3", "0.1", "6.7e-2"]
    one = exercise(2, 1).explanation
    weight = f"{float(one.weight('W1').value[0, 0]):g}"
    assert "(in the digit given)" in str(one.compare("w1", weight))
