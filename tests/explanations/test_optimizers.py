"""What is said of an optimizer is what it does."""

import keras
import numpy as np
import pytest

from keras_backprop import explain
from tests.explanations.networks import chain, worked_example

o = keras.optimizers


def without_decay():
    """Weight decay for matrices alone."""
    optimizer = o.SGD(0.1, weight_decay=0.2)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    return optimizer


OPTIMIZERS = {
    "SGD": lambda: o.SGD(0.4), "momentum": lambda: o.SGD(0.1, momentum=0.9), "nesterov": lambda: o.SGD(0.1, 0.9, nesterov=True),
    "RMSprop": lambda: o.RMSprop(0.1), "centered": lambda: o.RMSprop(0.1, momentum=0.5, centered=True), "Adam": lambda: o.Adam(0.1),
    "amsgrad": lambda: o.Adam(0.1, amsgrad=True), "AdamW": lambda: o.AdamW(0.1, weight_decay=0.1), "Adadelta": lambda: o.Adadelta(0.5),
    "Adagrad": lambda: o.Adagrad(0.1), "Adamax": lambda: o.Adamax(0.1), "Nadam": lambda: o.Nadam(0.1), "Lion": lambda: o.Lion(0.1),
    "Muon": lambda: o.Muon(0.1), "plain Muon": lambda: o.Muon(0.1, nesterov=False, rms_rate=None, adam_lr_ratio=0.5),
    "Adafactor": lambda: o.Adafactor(0.1), "schedule-free": lambda: o.ScheduleFreeAdamW(0.1, warmup_steps=3), "biases": without_decay,
    "Lamb": lambda: o.Lamb(0.1), "Ftrl": lambda: o.Ftrl(0.1, l1_regularization_strength=0.01), "decay": lambda: o.SGD(0.1, weight_decay=0.2),
}  # fmt: skip


SAMPLE = ("SGD", "momentum", "RMSprop", "Adam", "Ftrl", "Muon", "Adafactor", "biases")


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", [n if n in SAMPLE else pytest.param(n, marks=pytest.mark.slow) for n in OPTIMIZERS])
def test_the_formula_gives_the_new_weight(name):
    model, x, y = chain(3, 2, 1, optimizer=OPTIMIZERS[name]())
    for updates in (0, 2):
        for _ in range(updates):
            model.train_on_batch(x, y)
        explanation = explain(model, x, y)
        for weight in explanation.weights:
            values = explanation.update.evaluate(weight.value, weight.gradient, weight.path)
            change, said = weight.updated - weight.value, values["w"] - weight.value
            # Keras takes 1 − β₂ in single precision, whatever the dtype of the weight.
            np.testing.assert_allclose(said, change, rtol=1e-4, err_msg=f"{name} {weight.symbol}")


@pytest.mark.usefixtures("float64")
def test_weights_that_are_treated_differently_have_lines_of_their_own():
    text = explain(*chain(3, 2, 1, optimizer=o.Muon(0.1))).to_text()
    assert "of W₁, W₂:" in text and "of b₁, b₂:" in text
    assert "d ← orthogonal(g + μ · m)" in text and "w ← w − (d · m)/(√v + ε)" in text


def test_of_an_unknown_optimizer_nothing_is_said():
    class Mine(keras.optimizers.SGD):
        def update_step(self, gradient, variable, learning_rate):
            self.assign_sub(variable, gradient)

    assert explain(*worked_example(optimizer=Mine(0.1))).update is None
