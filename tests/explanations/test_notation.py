"""Numbers, arrays and formulas in writing."""

import numpy as np
import pytest

from keras_backprop.explanations.observing.link import Symbol
from keras_backprop.explanations.writing.notation import (
    bracketed,
    brief,
    derivative,
    gradient_of,
    is_small,
    latex_array,
    latex_factor,
    latex_number,
    number,
    plain,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1, "1"), (0.1, "0.1"), (np.float32(0.1), "0.1"), (0.415, "0.415"), (0.92103, "0.9210"),
     (0.0010215, "0.00102"), (-0.46526, "-0.4653"), (1.234e-7, "1.23e-7"), (1234567.8, "1.23e6"), (128, "128"), (-0.0, "0"), (111.82540312, "111.825"),
     (123.45678, "123.457"), (float("nan"), "nan"), (float("-inf"), "-inf")],
)  # fmt: skip
def test_number(value, text):
    assert number(value) == text


def test_numbers_in_formulas():
    assert latex_number(1.234e-7) == r"1.23\cdot 10^{-7}"
    assert latex_factor(-0.5) == "(-0.5)"
    assert latex_factor(0.5) == "0.5"


def test_arrays():
    assert brief(np.array([[0.5]])) == "0.5"
    assert brief(np.array([[1, 2], [3, 4]])) == "[[1 2] [3 4]]"
    assert brief(np.full((30, 30), 2.0)) == "(30×30) ‖·‖ 60 [2 2 2 …]"
    assert brief(np.full((30, 30), 2.0), with_shape=False) == "‖·‖ 60 [2 2 2 …]"
    assert latex_array(np.array([[1, 2], [3, 4]])) == r"\begin{pmatrix}1 & 2 \\ 3 & 4\end{pmatrix}"
    assert is_small(np.ones((4, 4))) and not is_small(np.ones((5, 1))) and not is_small(np.ones((2, 2, 2)))


def test_symbols():
    assert str(Symbol("z", 12)) == "z₁₂"
    assert Symbol("z", 2).latex == "z_2"
    assert Symbol("z", 12).latex == "z_{12}"
    assert (
        Symbol("cell/my_gamma").latex == "\\text{cell/my\N{NO-BREAK SPACE}gamma}"
    )  # some renderers take no underscore there


def test_plain():
    assert plain(gradient_of(Symbol("w", 12))) == "∂E/∂w₁₂"
    assert plain(derivative("a_2", "z_2")) == "∂a₂/∂z₂"
    assert plain(r"-(T - a_2) \odot a_2(1 - a_2)") == "−(T − a₂) ⊙ a₂(1 − a₂)"
    assert plain(r"\text{my\_rule}(\frac{\partial E}{\partial y_1})") == "my_rule(∂E/∂y₁)"
    assert plain(r"\frac{\partial E}{\partial \text{cell/gamma}}") == "∂E/∂cell/gamma"
    assert plain(Symbol("dense_1/gamma").latex) == "dense_1/gamma"  # its 1 is no subscript


def test_brackets_where_a_sum_is_a_factor():
    assert bracketed("1 - a_1^2") == r"\left(1 - a_1^2\right)"
    assert bracketed("-(T - a_2)") == "-(T - a_2)"
    assert bracketed("a_2(1 - a_2)") == "a_2(1 - a_2)"


def test_the_roles_of_weights():
    assert str(Symbol("W", role="Q")) == "W_Q" and Symbol("W", role="Q").latex == "W_Q"
    assert str(Symbol("W", 2, role="O")) == "W⁽²⁾_O" and Symbol("W", 2, role="O").latex == "W^{(2)}_O"
    assert plain(Symbol("W", 2, role="O").latex) == "W⁽²⁾_O"
