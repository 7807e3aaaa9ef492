"""The chain in a terminal."""

import re

import keras
import numpy as np

from keras_backprop import explain
from tests.explain.networks import chain, residual, worked_example

WORKED_EXAMPLE = """\
The chain of 'note' for 1 example: E = 0.1082

Forward
  note/hidden               z₁ = x · w₁ + b₁      0.415
  note/hidden/sigmoid       a₁ = σ(z₁)            0.6023
  note/output               z₂ = a₁ · w₂ + b₂     0.9210
  note/output/sigmoid       a₂ = σ(z₂)            0.7153
  half_mean_squared_error   E = 1/2 · (T − a₂)²   0.1082

The chain, factor by factor
  ∂E/∂a₂    = −(T − a₂)    0.4653
  ∂a₂/∂z₂   = a₂(1 − a₂)   0.2037
  ∂z₂/∂w₂   = a₁           0.6023
  ∂z₂/∂b₂   = 1            1
  ∂z₂/∂a₁   = w₂           0.45
  ∂a₁/∂z₁   = a₁(1 − a₁)   0.2395
  ∂z₁/∂w₁   = x            0.1
  ∂z₁/∂b₁   = 1            1

The gradients, as products of these factors
  ∂E/∂w₂ = 0.4653 · 0.2037 · 0.6023 = 0.0571
  ∂E/∂b₂ = 0.4653 · 0.2037 · 1 = 0.0948
  ∂E/∂w₁ = 0.4653 · 0.2037 · 0.45 · 0.2395 · 0.1 = 0.00102
  ∂E/∂b₁ = 0.4653 · 0.2037 · 0.45 · 0.2395 · 1 = 0.0102

Update (SGD, learning rate 0.4): w ← w − η · g
  weight   path                 before   ∂E/∂weight   after
  w₁       note/hidden/kernel   0.15     0.00102      0.1496
  b₁       note/hidden/bias     0.4      0.0102       0.3959
  w₂       note/output/kernel   0.45     0.0571       0.4272
  b₂       note/output/bias     0.65     0.0948       0.6121"""


def test_the_worked_example():
    assert explain(*worked_example()).to_text() == WORKED_EXAMPLE


def test_a_network_with_branches():
    text = explain(*residual()).to_text()
    assert "classes   " in text and "1/16 · (a₄ − one hot T)" in text.replace("₅", "₄")
    assert text.count("∂E/∂W₂ +=") == 4  # three uses and the penalty
    assert "E = all errors and penalties, weighted and added" in text


def test_large_tensors_do_not_drown_the_reader():
    text = explain(*chain(300, 200, 100, examples=50)).to_text()
    assert "(300×200) ‖·‖" in text
    assert max(map(len, text.splitlines())) < 180
    assert max(len(re.findall(r"\d\.\d", line)) for line in text.splitlines()) <= 12


def test_columns_are_aligned():
    lines = explain(*worked_example()).to_text().splitlines()[3:8]
    assert len({line.index(" = ") - len(line.split(" = ")[0].split()[-1]) for line in lines}) == 1


def test_the_coefficient_of_a_mean_is_a_fraction():
    assert "∂E/∂z₂ = 1/32 · (a₂ − T)" in explain(*chain(5, 4, 1, loss="binary_crossentropy", examples=32)).to_text()


def test_outputs_that_nothing_depends_on_are_not_listed():
    layers = [keras.Input((4, 3)), keras.layers.LSTM(5, name="lstm"), keras.layers.Dense(1)]
    model = keras.Sequential(layers)
    model.compile("sgd", "mse")
    text = explain(model, np.ones((2, 4, 3)), np.ones((2, 1))).to_text()
    assert text.count("= LSTM(x)") == 1 and "∂E/∂W₁, by the rule lstm" in text
