"""Keras's own layer tests, through `check_layer` and a few steps of `fit`: right, refused with a reason, or listed here."""

import keras
import pytest

from keras_backprop import registry
from keras_backprop.rule import Gradients
from tests.keras_own import importable, layers

ALL = layers.modules()

EXCEPTIONS = {
    ("LambdaTest.test_lambda_basics", "Lambda"): "our copy of a Lambda of an unregistered function cannot be made",
    ("GroupNormalizationTest.test_mixed_precision_large_input_no_nan", "GroupNormalization"): (
        "rows that are constant but for rounding: the gradient of γ is what rounding leaves, on the tape as well"
    ),
    ("SimpleRNNTest.test_output_shape", "Bidirectional"): "saturated gates: all gradients are below 1e-15",
    **dict.fromkeys(
        [("RandAugmentTest.test_layer", "AugMix"), ("RandAugmentTest.test_random_augment_randomness", "AugMix")],
        "Python's `random` chooses the operations, anew in every call of the check",
    ),
    (
        "LayerTest.test_stateless_call",
        "TestLayer",
    ): "the call gives a trainable weight another value, which the check's tape follows",
}
"""(test, layer): why neither right nor refused."""


@pytest.fixture(autouse=True)
def _as_keras_tests_itself(monkeypatch, pytestconfig):
    importable.add_markers(pytestconfig)
    monkeypatch.setattr("warnings.warn", lambda *arguments, **options: None)  # theirs, about what they do on purpose


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("module", ALL, ids=lambda name: name.removeprefix("keras.src."))
def test_configurations(module):
    try:
        outcomes = layers.collect(module)
    except ModuleNotFoundError as error:
        pytest.skip(f"Keras's module needs {error.name}, which is not installed")
    unexpected = [
        f"{outcome.kind} {outcome.test} {outcome.layer}: {outcome.text[:500]}"
        for outcome in outcomes
        if outcome.kind not in ("ok", "refused") and (outcome.test.split(" ")[0], outcome.layer) not in EXCEPTIONS
    ]
    assert not unexpected, "\n".join(unexpected)


def test_a_part_of_them():
    """In every run: one module, to see that the instrument works."""
    outcomes = layers.collect("keras.src.layers.activations.prelu_test")
    assert len(outcomes) >= 3 and {outcome.kind for outcome in outcomes} == {"ok"}


def test_a_wrong_rule_would_be_noticed(registry_restored):
    registry.backward_rule(keras.layers.LeakyReLU)(lambda call, dy: Gradients(dy))
    outcomes = layers.collect("keras.src.layers.activations.leaky_relu_test")
    assert "wrong" in {outcome.kind for outcome in outcomes}


def test_there_are_many():
    assert len(ALL) > 100
