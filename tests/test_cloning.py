"""`keras.models.clone_model`: a clone of a model of the package is one, and is compiled as the model is."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_backprop
from keras_backprop import BackpropModel, BackpropSequential


@keras.saving.register_keras_serializable("test_cloning")
def doubled(result):
    return [None if g is None else 2 * g for g in result.gradients]


@keras.saving.register_keras_serializable("test_cloning")
def reversed_gradient(call, dy):
    return keras_backprop.Gradients(-dy)


@keras.saving.register_keras_serializable("test_cloning")
class Stack(BackpropSequential):
    def __init__(self, units=4, **options):
        super().__init__([keras.Input((3,)), layers.Dense(units, "relu"), layers.Dense(1)], **options)


@keras.saving.register_keras_serializable("test_cloning")
class Graph(BackpropModel):
    def __init__(self, units=4, **options):
        x = keras.Input((3,))
        super().__init__(x, layers.Dense(1)(layers.Dense(units, "relu")(x)), **options)


@keras.saving.register_keras_serializable("test_cloning")
class Called(BackpropModel):
    def __init__(self, units=4, **options):
        super().__init__(**options)
        self.units, self.hidden, self.out = units, layers.Dense(units, "relu"), layers.Dense(1)
        self(np.zeros((1, 3)))

    def call(self, x):
        return self.out(self.hidden(x))

    def get_config(self):
        return {"units": self.units, "name": self.name}


def _functional():
    x = keras.Input((3,))
    return BackpropModel(x, layers.Dense(1)(layers.Dense(4, "relu")(x)))


def _nested():
    inner = BackpropSequential([keras.Input((3,)), layers.Dense(4, "relu")])
    return BackpropSequential([keras.Input((3,)), inner, layers.Dense(1)])


def _anew(layer):
    return type(layer).from_config(layer.get_config())


def _called(layer, *args, **kwargs):
    return layer(*args, **kwargs)


X = np.random.default_rng(0).normal(size=(16, 3)).astype("float32")
ALL = ({}, {"recursive": True}, {"clone_function": _anew}, {"input_tensors": [(None, 3)]})
CASES = {
    "a stack": (lambda: BackpropSequential([keras.Input((3,)), layers.Dense(4, "relu"), layers.Dense(1)]), ALL),
    "nested stacks": (_nested, ALL),
    "a class of stacks": (Stack, ALL[:1]),
    "a graph": (_functional, (*ALL, {"call_function": _called})),
    "a class of graphs": (Graph, ALL[:1]),
    "a class with a call": (Called, ALL[:1]),
}


@pytest.mark.parametrize(
    ("make", "options"),
    [pytest.param(make, o, id=f"{name} {list(o)}") for name, (make, several) in CASES.items() for o in several],
)
def test_a_clone_trains_as_the_model_does(make, options):
    model = make()
    given = {"gradients": doubled, "rules": {keras.activations.relu: reversed_gradient}, "epochs_per_execution": 3}
    model.compile(keras.optimizers.SGD(0.05), "mse", **given)
    if "input_tensors" in options:
        options = {"input_tensors": keras.Input(batch_shape=options["input_tensors"][0])}
    clone = keras.models.clone_model(model, **options)
    assert isinstance(clone, BackpropModel | BackpropSequential)
    assert isinstance(clone, keras.Sequential) == isinstance(model, keras.Sequential)
    assert clone.compiled_gradients is doubled
    assert clone.compiled_rules == {keras.activations.relu: reversed_gradient}
    assert clone.epochs_per_execution == 3
    assert not {id(v) for v in clone.weights} & {id(v) for v in model.weights}
    clone.set_weights(model.get_weights())
    for one in (model, clone):
        one.train_on_batch(X, X[:, :1])
    for w, v in zip(model.get_weights(), clone.get_weights(), strict=True):
        np.testing.assert_array_equal(w, v)


def test_a_clone_of_a_model_that_is_not_compiled_or_not_built():
    model = BackpropSequential([layers.Dense(4, "relu"), layers.Dense(1)], name="stack", trainable=False)
    clone = keras.models.clone_model(model)
    assert type(clone) is BackpropSequential
    assert (clone.name, clone.trainable, clone.compiled, clone.built) == ("stack", False, False, False)


@pytest.mark.parametrize("cls", [BackpropSequential, keras.Sequential])
def test_a_clone_makes_one_optimizer(cls):
    model = cls([keras.Input((3,)), layers.Dense(1)])
    model.compile(keras.optimizers.RMSprop(name="root"), "mse")
    before = keras.optimizers.RMSprop().name
    keras.models.clone_model(model)
    numbers = [int(name.rpartition("_")[2]) if name[-1].isdigit() else 0 for name in (before, _name_of_the_next())]
    assert numbers[1] == numbers[0] + 1


def _name_of_the_next():
    return keras.optimizers.RMSprop().name


def test_a_class_with_a_compile_of_its_own_is_warned_of_once():
    class Own(BackpropModel):
        def compile(self, *args, **kwargs):
            super().compile(*args, **kwargs)

    x = keras.Input((3,))
    model = Own(x, layers.Dense(1)(x))
    model.compile("sgd", "mse")
    with pytest.warns(UserWarning, match="`compile.*` method is custom") as warned:
        clone = keras.models.clone_model(model)
    assert len(warned) == 1 and model.compiled and not clone.compiled


def test_clones_of_stock_models_are_stock_models():
    stock = keras.Sequential([keras.Input((3,)), layers.Dense(1)])
    stock.compile("sgd", "mse")
    clone = keras.models.clone_model(stock)
    assert type(clone) is keras.Sequential
    assert clone.compiled


def test_a_clone_has_a_plan_of_its_own():
    model = BackpropSequential([keras.Input((3,)), layers.Dense(1)])
    plan = keras_backprop.privacy.Plan(16, 4, epochs=1, clipping_norm=1.0, noise_multiplier=1.0, delta=1e-3)
    model.compile("sgd", "mse", gradients=plan)
    clone = keras.models.clone_model(model)
    assert type(clone.compiled_gradients) is keras_backprop.privacy.Plan
    assert clone.compiled_gradients is not plan
