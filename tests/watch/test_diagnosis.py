"""`diagnose`: what is planted is found, worst first; what is sound has no finding; and the model stays as it is."""

import html.parser

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_backprop
from keras_backprop import diagnose
from keras_backprop.watch.finding import SEVERITIES, Diagnosis, Finding
from tests.watch import sampled
from tests.watch.healthy import HEALTHY, LARGE, classes, numbers, stack
from tests.watch.unwell import UNWELL, dead, labels_out_of_range

UNWELL_IN_EVERY_RUN = [
    "dead", "saturated", "unscaled_inputs", "logits_behind_a_softmax", "binary_probabilities_behind_logits", "labels_out_of_range",
    "stopped_gradient", "frozen_as_drawn", "all_zero", "stopped_beside_zeros_that_grow", "symmetric", "learning_rate_too_high", "regularised_twice", "vanishing",
    "exploding", "not_finite", "stock_model", "softmax_of_one_unit_for_two_classes", "one_hot_for_class_numbers",
    "class_numbers_for_one_hot",
]  # fmt: skip
HEALTHY_IN_EVERY_RUN = [
    "relu_classifier",
    "convolutions",
    "words",
    "fine_tuning",
    "two_outputs",
    "mixed_precision",
    "zeros_behind_zeros",
    "quantiles_behind_activation_layers",
]


def state(model):
    variables = (*model.variables, *getattr(model.optimizer, "variables", ()))
    return [keras.ops.convert_to_numpy(v) for v in variables]


@pytest.mark.parametrize("make", sampled(UNWELL, UNWELL_IN_EVERY_RUN))
@pytest.mark.filterwarnings("ignore:.*from_logits:UserWarning", "ignore:.*softmax:UserWarning")
@pytest.mark.filterwarnings("ignore:.*single logit:SyntaxWarning", "ignore:.*loss:UserWarning")
def test_what_is_planted_is_found(make):
    case = make()
    before = state(case.model)
    diagnosis = diagnose(case.model, case.x, case.y)
    found = [finding for finding in diagnosis if case.title in finding.title and case.path in finding.path]
    assert found, str(diagnosis)
    assert case.severity in (None, found[0].severity)
    assert found[0].evidence and found[0].remedy
    for one, other in zip(before, state(case.model), strict=False):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("make", sampled(HEALTHY, HEALTHY_IN_EVERY_RUN))
def test_what_is_sound_has_no_finding(make):
    assert_sound(*make())


@pytest.mark.slow
@pytest.mark.parametrize("make", LARGE, ids=lambda make: make.__name__)
def test_large_models_have_no_finding(make):
    assert_sound(*make())


def assert_sound(model, x, y):
    before = state(model)
    diagnosis = diagnose(model, x, y)
    assert len(diagnosis) == 0 and not diagnosis.findings, str(diagnosis)
    assert "No finding" in str(diagnosis) and len(diagnosis.looked_at) >= 8
    for one, other in zip(before, state(model), strict=False):
        np.testing.assert_array_equal(one, other)


def test_worst_first():
    case = dead()
    severities = [finding.severity for finding in diagnose(case.model, case.x, case.y)]
    assert severities == sorted(severities, key=SEVERITIES.index) and severities[0] == "critical"


def test_text_markdown_and_html():
    case = labels_out_of_range()
    diagnosis = diagnose(case.model, case.x, case.y)
    for text in (str(diagnosis), diagnosis.to_markdown(), diagnosis._repr_html_()):
        assert "Labels out of range" in text and "give the output layer 5 units" in text and "critical" in text
    assert str(diagnosis) == repr(diagnosis) and diagnosis[0] is diagnosis.findings[0]
    none = Diagnosis([], {"values": "all finite"}, "net")
    assert "No finding" in none.to_markdown() and "No finding" in none._repr_html_()


def test_names_are_escaped():
    finding = Finding("<script>alert(1)</script>", "a | b", "c & d", "<b>", "note")
    diagnosis = Diagnosis([finding], {"<i>": "x|y"}, "<img>")

    class Tags(html.parser.HTMLParser):
        def handle_starttag(self, tag, attrs):
            tags.add(tag)

    tags: set = set()
    Tags().feed(diagnosis._repr_html_())
    assert not tags & {"script", "img", "i"} and "c &amp; d" in diagnosis._repr_html_()
    assert "x\\|y" in diagnosis.to_markdown()


def test_several_things_at_once():
    """A network of zeros behind inputs that are not scaled, with a penalty and weight decay."""
    parts = [
        layers.Dense(8, "relu", kernel_initializer="zeros", kernel_regularizer="l2", name="hidden"),
        layers.Dense(1, name="out"),
    ]
    model = stack(*parts, optimizer=keras.optimizers.AdamW(1e-3, weight_decay=0.1))
    titles = {finding.title for finding in diagnose(model, 1000 * numbers(8), numbers(1))}
    assert {"Inputs that are not scaled", "Weights that are all zero", "Weights that are regularised twice"} <= titles


def test_scaled_inside_is_scaled():
    x = 100 + 50 * numbers(8)
    normalization = layers.Normalization()
    normalization.adapt(x)
    model = stack(normalization, layers.Dense(8, "relu"), layers.Dense(1))
    assert not diagnose(model, x, numbers(1)).findings


def test_ignored_classes_are_in_range():
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)
    y = np.random.default_rng(0).integers(-1, 4, 64)
    assert not diagnose(stack(layers.Dense(8, "relu"), layers.Dense(4), loss=loss), numbers(8), y).findings


def test_forms_of_a_batch():
    class Data(keras.utils.PyDataset):
        def __len__(self):
            return 1

        def __getitem__(self, index):
            return x, y

    x, y = numbers(8), numbers(1)
    model = stack(layers.Dense(8, "relu"), layers.Dense(1))
    expected = diagnose(model, x, y).looked_at
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(len(x))
    for batch in ((x.tolist(), y.tolist()), ((x, y),), (data,), (Data(),), ((x, y, np.ones(len(x), "float32")),)):
        assert diagnose(model, *batch).looked_at == expected


def test_dicts_of_inputs_and_outputs():
    inputs = {"a": keras.Input((8,), name="a"), "b": keras.Input((3,), name="b")}
    h = layers.Dense(8, "relu", name="hidden")(layers.Concatenate()([inputs["a"], inputs["b"]]))
    outputs = {"kind": layers.Dense(4, "softmax", name="kind")(h), "size": layers.Dense(1, name="size")(h)}
    model = keras_backprop.BackpropModel(inputs, outputs, name="net")
    model.compile("adam", {"size": "mse", "kind": "sparse_categorical_crossentropy"})
    x = {"b": numbers(3), "a": numbers(8)}
    assert not diagnose(model, x, {"size": numbers(1), "kind": classes(4)}).findings
    (finding,) = diagnose(model, x, {"size": numbers(1), "kind": classes(4) + 1})
    assert finding.title == "Labels out of range"


def test_what_is_refused():
    with pytest.raises(TypeError, match="takes a `keras.Model`"):
        diagnose("model", numbers(8))
    model = keras_backprop.BackpropSequential([keras.Input((8,)), layers.Dense(1)], name="net")
    with pytest.raises(ValueError, match="'net' is not compiled"):
        diagnose(model, numbers(8), numbers(1))
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="at least one.*arrays of 0 examples"):
        diagnose(model, numbers(8)[:0], numbers(1)[:0])
    with pytest.raises(ValueError, match="as many examples"):
        diagnose(model, numbers(8), numbers(1)[:5])
