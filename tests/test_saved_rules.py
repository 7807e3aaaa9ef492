"""Rules of `compile(rules=…)` in saved models, copies and configurations."""

import copy
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from keras_backprop import BackpropModel, BackpropSequential, Gradients, rule_for

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(8, 4)).astype("float32"), RNG.normal(size=(8, 1)).astype("float32")


@keras.saving.register_keras_serializable("tests")
def tripled(call, dy):
    """dx = 3·dy"""
    return Gradients(3 * dy)


@keras.saving.register_keras_serializable("tests")
class Times:
    """dx = factor·dy"""

    def __init__(self, factor):
        self.factor = factor

    def __call__(self, call, dy):
        return Gradients(self.factor * dy)

    def get_config(self):
        return {"factor": self.factor}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


@keras.saving.register_keras_serializable("tests")
class Sine(layers.Layer):
    """A layer without a rule."""

    def call(self, x):
        return ops.sin(x)


def unknown(call, dy):
    """A rule that nobody has registered."""
    return Gradients(dy)


def network():
    inputs = keras.Input((4,))
    hidden = Sine(name="sine")(ops.relu(layers.Dense(6, "tanh", name="first")(inputs)))
    return BackpropModel(inputs, layers.Dense(1, name="last")(hidden), name="net")


def stack():
    parts = layers.Dense(6, "tanh", name="first"), layers.ReLU(), Sine(name="sine"), layers.Dense(1)
    return BackpropSequential([keras.Input((4,)), *parts], name="net")


def saved(model, path):
    model.save(path / "model.keras")
    return keras.models.load_model(path / "model.keras")


def from_config(model, path):
    other = type(model).from_config(model.get_config())
    other.compile_from_config(model.get_compile_config())
    return other


AGAIN = {
    "saved": saved,
    "deepcopy": lambda model, _: copy.deepcopy(model),
    "pickle": lambda model, _: pickle.loads(pickle.dumps(model)),
    "from_config": from_config,
    "clone_model": lambda model, _: keras.models.clone_model(model),
}
SELECTORS = {
    "pattern": lambda _: "sin*",
    "function of Keras": lambda _: keras.ops.relu,
    "class": lambda _: Sine,
    "class of Keras": lambda _: keras.activations.tanh,
    "operation class": lambda model: type(model.operations[2]),
    "layer": lambda model: model.get_layer("sine"),
}


@pytest.mark.parametrize("again", AGAIN)
def test_a_model_trains_by_the_same_rules(again, tmp_path):
    model = (stack if again == "deepcopy" else network)()
    rules = {"sine": Times(0.5), keras.activations.relu: tripled, keras.activations.tanh: tripled}
    model.compile(keras.optimizers.SGD(0.1), "mse", rules=rules)
    other = AGAIN[again](model, tmp_path)
    other.set_weights(model.get_weights())
    for one in (model, other):
        one.fit(X, Y, verbose=0, shuffle=False)
    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert [type(key) for key in other.compiled_rules] == [type(key) for key in rules]


@pytest.mark.parametrize("selector", SELECTORS)
def test_every_kind_of_selector_is_saved(selector):
    model = network()
    chosen = SELECTORS[selector](model)
    model.compile("sgd", "mse", rules={chosen: tripled})
    other = from_config(model, None)
    expected = other.get_layer("sine") if selector == "layer" else chosen
    assert list(other.compiled_rules) == [expected] and other.compiled_rules[expected] is tripled


def test_what_is_not_known_where_the_model_is_loaded_is_an_error(tmp_path):
    path = tmp_path / "model.keras"
    model = network()
    model.compile("sgd", "mse", rules={"sine": unknown})
    model.save(path)
    with pytest.raises(ValueError, match="rules of which 'unknown' is not known here.*custom_objects"):
        keras.models.load_model(path)
    assert keras.models.load_model(path, custom_objects={"unknown": unknown}).compiled_rules == {"sine": unknown}
    assert not keras.models.load_model(path, compile=False).compiled


@pytest.mark.parametrize("rule", [lambda call, dy: Gradients(dy), rule_for(layers.ReLU)], ids=["lambda", "Rule"])
def test_what_cannot_be_saved_is_told_of_twice(rule, tmp_path):
    model = network()
    model.compile("sgd", "mse", rules={"sine": rule})
    with pytest.warns(UserWarning, match="rules that cannot be saved: .*register_keras_serializable"):
        model.save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match=r"could not be saved\. Load the model with `compile=False`"):
        keras.models.load_model(tmp_path / "model.keras")


@pytest.mark.parametrize(
    "name", ["os._exit", "keras.src.utils.file_utils.os", "keras.src.nothing.relu", "builtins.eval"]
)
def test_a_file_cannot_name_what_is_not_keras(name):
    model = network()
    model.compile("sgd", "mse", rules={"sine": keras.ops.tanh})
    config = model.get_compile_config()
    config["rules"][0]["rule"] = {"keras": name}
    with pytest.raises(ValueError, match=f"rules of which '{name}' is not known here"):
        model.compile_from_config(config)


def test_a_layer_that_may_be_another_one_is_refused():
    model = network()
    model.compile("sgd", "mse", rules={model.get_layer("sine"): tripled})
    config = model.get_compile_config()
    config["rules"][0]["selector"]["layer"][1] += 1
    with pytest.raises(ValueError, match="the layer of the class .* could not be saved"):
        model.compile_from_config(config)


@pytest.mark.parametrize("save", [keras.Model.save, keras.saving.save_model])
def test_an_hdf5_file_holds_no_rules(save, tmp_path):
    model = stack()
    model.compile("sgd", "mse", rules={"sine": tripled}, gradients=lambda result: result.gradients)
    with pytest.warns(UserWarning, match="`gradients=…` and `rules=…`: the model loaded") as warned:
        tf.get_logger().setLevel("ERROR")
        save(model, tmp_path / "model.h5")
    assert warned[0].filename == __file__
