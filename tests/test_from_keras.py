"""`BackpropModel.from_keras` of a model with a class of its own: what the class does in training, it goes on doing."""

import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_backprop
from keras_backprop import BackpropModel, BackpropSequential
from keras_backprop.trainer import BackpropTrainer
from keras_backprop.watch.locating import locate

PACKAGE = "tests_from_keras"


class Weighted:
    """An error and a metric of one's own."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return 3.0 * super().compute_loss(x, y, y_pred, sample_weight, training)

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        return super().compute_metrics(x, y, y_pred, sample_weight) | {"largest": tf.reduce_max(y_pred)}


class Counted:
    """Keras's steps, with something around them."""

    rate = 2.0

    def train_step(self, data):
        x, y = data
        return super().train_step((x, self.rate * y)) | {"rate": self.rate}


class Taped:
    """A step that owes nothing to Keras's."""

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            error = tf.reduce_mean(tf.abs(y - self(x, training=True)))
        self.optimizer.apply_gradients(
            zip(tape.gradient(error, self.trainable_weights), self.trainable_weights, strict=True)
        )
        return {"error": error}


class Called(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hidden, self.out = layers.Dense(4, "tanh"), layers.Dense(1)
        self.note = "something that the user has put here"

    def call(self, x):
        return self.out(self.hidden(x))


def made(kind, *mixins):
    """A stock model of a class of its own, called, functional or a stack, always from the same weights."""
    keras.utils.set_random_seed(1)
    parent = {"called": Called, "functional": keras.Model, "sequential": keras.Sequential}[kind]
    cls = keras.saving.register_keras_serializable(PACKAGE)(type("Own", (*mixins, parent), {}))
    if kind == "called":
        model = cls()
        model(np.zeros((1, 3)))
        return model
    inputs, stack = keras.Input((3,)), [layers.Dense(4, "tanh"), layers.Dense(1)]
    return cls([inputs, *stack]) if kind == "sequential" else cls(inputs, stack[1](stack[0](inputs)))


def trained(model):
    x = np.random.default_rng(0).normal(size=(40, 3)).astype("float32")
    model.compile(keras.optimizers.SGD(0.1), "mse")
    history = model.fit(x, x[:, :1], 16, epochs=2, shuffle=False, verbose=0).history
    return history | model.evaluate(x, x[:, :1], verbose=0, return_dict=True)


@pytest.mark.parametrize("kind", ["called", "functional", "sequential"])
@pytest.mark.parametrize("mixin", [Weighted, Counted, Taped])
def test_steps_errors_and_metrics_of_the_class_are_kept(mixin, kind):
    stock, model = made(kind, mixin), made(kind, mixin)
    ours = BackpropModel.from_keras(model)
    assert isinstance(ours, BackpropModel) and isinstance(ours, mixin)
    expected, got = trained(stock), trained(ours)
    assert got.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(got[name], values, rtol=1e-6)
    for a, b, shared in zip(stock.get_weights(), ours.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-6)
        np.testing.assert_array_equal(b, shared)


class Pair(keras.Model):
    """Two networks and no `call`, as in adversarial training: nothing can build it."""

    def __init__(self):
        super().__init__()
        self.one, self.other = (keras.Sequential([keras.Input((3,)), layers.Dense(1)]) for _ in range(2))
        self.distance = keras.metrics.Mean(name="distance")

    def train_step(self, data):
        with tf.GradientTape() as tape:
            error = tf.reduce_mean((self.one(data) - self.other(data)) ** 2)
        self.optimizer.apply(tape.gradient(error, self.one.trainable_weights), self.one.trainable_weights)
        self.distance.update_state(error)
        return {"distance": self.distance.result()}


class Grown(keras.Sequential):
    """A stack that the first batch builds."""

    def __init__(self):
        super().__init__([layers.Dense(4, "tanh"), layers.Dense(3)])


@pytest.mark.parametrize("cls", [Pair, Called, Grown])
def test_a_class_of_its_own_need_not_be_built(cls):
    x = np.random.default_rng(0).normal(size=(20, 3)).astype("float32")
    trained = []
    for take in (lambda model: model, BackpropModel.from_keras):
        keras.utils.set_random_seed(1)
        model = take(cls())
        model.compile(keras.optimizers.SGD(0.1), "mse")
        history = model.fit(x, *[x] * (cls is not Pair), batch_size=8, epochs=2, shuffle=False, verbose=0).history
        trained.append((list(history), [*history.values()], model.get_weights()))
    (names, *expected), (also, *got) = trained
    assert names == also and isinstance(model, BackpropModel)
    for a, b in zip(keras.tree.flatten(expected), keras.tree.flatten(got), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


class Tagged(Called):
    """Attributes of one's own that have the names of what `compile` and `fit` set."""

    def __init__(self):
        super().__init__()
        self.loss, self.optimizer, self.history = keras.losses.Huber(0.1), keras.optimizers.SGD(0.3), ["a note"]
        self.unrolled_steps_per_execution = 2

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return self.loss(y, y_pred)


def test_attributes_with_the_names_of_a_trainers_are_kept():
    x = np.random.default_rng(0).normal(size=(20, 3)).astype("float32")
    trained = []
    for take in (lambda model: model, BackpropModel.from_keras):
        keras.utils.set_random_seed(1)
        model = take(Tagged())
        assert model.history == ["a note"] and model.unrolled_steps_per_execution == 2
        model.compile(model.optimizer)
        model.fit(x, x[:, :1], 8, epochs=2, shuffle=False, verbose=0)
        trained.append([model.evaluate(x, x[:, :1], verbose=0), *model.get_weights()])
    for a, b in zip(*trained, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
    assert isinstance(BackpropModel.from_keras(model).loss, keras.losses.Huber)
    model.compile("adam", "mse")
    compiled = Tagged()
    compiled.compile("adam", "mse")
    assert BackpropModel.from_keras(compiled).history == ["a note"]
    again = BackpropModel.from_keras(model)
    assert again.loss is None and not hasattr(again, "optimizer") and not hasattr(again, "history")


def test_methods_that_have_the_names_of_ours_are_the_users():
    class Teacher:
        def update_weights(self):
            return "a moving average"

        def backward_pass(self, tape):
            return tape

        def make_gradients(self):
            return "of theirs"

        def _train_step(self, batch):
            raise AssertionError("nobody has called it")

    stock = trained(made("called", Teacher))
    ours = BackpropModel.from_keras(made("called", Teacher))
    for name, values in trained(ours).items():
        np.testing.assert_allclose(values, stock[name], rtol=1e-6)
    assert ours.update_weights() == "a moving average" and ours.make_gradients() == "of theirs"

    class Derived(type(ours)):
        def make_gradients(self, result):
            seen.append(result)
            return result.gradients

    seen: list = []
    assert trained(Derived()) and seen  # which knows what is ours
    ours.update_weights = BackpropTrainer.update_weights.__get__(ours)
    assert trained(ours)

    class Mine(BackpropModel):
        _train_step = Teacher._train_step

    inputs = keras.Input((3,))
    assert trained(Mine(inputs, layers.Dense(1)(inputs)))


def test_methods_of_the_users_are_no_part_of_the_step_that_is_judged():
    class Clash:
        def make_gradients(self, result):
            raise AssertionError("nobody has called it")

    x, y = np.ones((4, 3), "float32"), np.zeros((4, 1), "float32")
    stock, ours = made("called", Clash), BackpropModel.from_keras(made("called", Clash))
    for model in (stock, ours):
        model.compile(keras.optimizers.SGD(0.1), "mse")
        assert locate(model, x, y) is None
        assert "update to weight" in keras_backprop.diagnose(model, x, y).looked_at


@pytest.mark.parametrize("kind", ["called", "sequential"])
def test_attributes_that_have_the_names_of_ours_are_the_users(kind):
    def with_attributes(model):
        model.update_weights, model.make_gradients = 0.5, lambda result: 1 / 0
        return model

    stock = trained(with_attributes(made(kind)))
    ours = BackpropModel.from_keras(with_attributes(made(kind)))
    again = BackpropModel.from_keras(ours)
    for values in (trained(ours), trained(BackpropModel.from_keras(with_attributes(made(kind))))):
        for name in stock:
            np.testing.assert_allclose(values[name], stock[name], rtol=1e-6)
    assert ours.update_weights == again.update_weights == 0.5
    assert trained(again)


def counting_tapes(monkeypatch):
    opened, enter = [], tf.GradientTape.__enter__
    monkeypatch.setattr(tf.GradientTape, "__enter__", lambda tape: opened.append(tape) or enter(tape))
    return opened


def test_a_step_around_keras_step_goes_by_the_chain_rule(monkeypatch):
    ours, opened = BackpropModel.from_keras(made("called", Counted)), counting_tapes(monkeypatch)
    trained(ours)
    assert not opened


def test_a_step_that_no_super_reaches_is_no_step(monkeypatch):
    class Unrelated:
        def train_step(self, data):
            raise AssertionError("Keras's class comes before this one")

    class Mine(BackpropModel, Unrelated):
        def call(self, x):
            return keras.ops.sum(x, 1, keepdims=True) * self.w

        def build(self, shape):
            self.w = self.add_weight(shape=())

    opened = counting_tapes(monkeypatch)
    trained(Mine())
    assert not opened


def test_attributes_and_layers_are_those_of_the_model_and_it_stays_as_it_was():
    model = made("called")
    model.compile("adam", "mse")
    ours = BackpropModel.from_keras(model, name="another")
    assert (
        ours.note == model.note and ours.hidden is model.hidden and ours.name == "another" and model.name != "another"
    )
    assert not ours.compiled and model.compiled and type(model.optimizer) is keras.optimizers.Adam
    assert [v.path for v in ours.weights] == [v.path for v in model.weights]
    trained(ours)
    assert type(model.optimizer) is keras.optimizers.Adam and model.optimizer.iterations == 0
    ours.additional = layers.Dense(2)
    assert ours.additional in ours.layers and len(model.layers) == 2
    assert model._trackable_children()["optimizer"] is model.optimizer  # what `tf.train.Checkpoint` saves


def test_a_stack_and_what_is_made_of_it_grow_by_themselves():
    model = made("sequential", Weighted)
    ours = BackpropModel.from_keras(model)
    ours.add(layers.Dense(4))
    assert ours.output_shape == (None, 4) and model.output_shape == (None, 1) and len(model.layers) == 2
    ours.pop()
    ours.pop()
    assert len(ours.layers) == 1 and len(model.layers) == 2


def test_what_is_made_predicts_before_it_is_compiled():
    model = made("called")
    model.compile("adam", "mse", steps_per_execution=3)
    x = np.ones((4, 3), "float32")
    expected = model.predict(x, 1, verbose=0)
    np.testing.assert_array_equal(BackpropModel.from_keras(model).predict(x, 1, verbose=0), expected)


def test_a_compile_of_ones_own_may_make_metrics():
    class Compiled:
        def compile(self, *args, **kwargs):
            super().compile(*args, **kwargs)
            self.seen = keras.metrics.Mean(name="seen")

        def train_step(self, data):
            self.seen.update_state(1.0)
            return super().train_step(data)

    assert "seen" in trained(BackpropModel.from_keras(made("functional", Compiled)))


def test_pickled_it_is_of_both_classes():
    ours = BackpropModel.from_keras(made("functional", Weighted))
    again = pickle.loads(pickle.dumps(ours))
    assert isinstance(again, BackpropModel) and isinstance(again, Weighted)
    np.testing.assert_array_equal(again.get_weights()[0], ours.get_weights()[0])


@pytest.mark.parametrize("save", [keras.Model.save, keras.saving.save_model])
def test_what_hdf5_files_cannot_hold_is_refused(save, tmp_path):
    with pytest.raises(ValueError, match="HDF5 files do not hold that a model of class 'Own'"):
        save(BackpropModel.from_keras(made("functional", Weighted)), tmp_path / "model.h5")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["called", "functional", "sequential", "plain"])
def test_a_step_that_was_put_on_the_model_itself_acts_on_ours(kind):
    model = keras.Sequential([keras.Input((3,)), layers.Dense(1)]) if kind == "plain" else made(kind)
    model.train_step = Taped.train_step.__get__(model)
    assert list(trained(BackpropModel.from_keras(model))) == ["error", "loss"]


def test_names_of_the_users_are_the_users():
    class Named:
        original = "the user's"

    ours = BackpropModel.from_keras(made("called", Named))
    before = keras.layers.Dense(1).name
    assert ours.original == "the user's" and ours.get_config()["name"] == ours.name
    assert int(keras.layers.Dense(1).name.split("_")[1]) == int(before.split("_")[1]) + 1


def test_lists_of_layers_grow_by_themselves():
    class Listed:
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.blocks = [layers.Dense(2), {"inner": [layers.Dense(3)]}]

        def build(self, shape):
            pass

    model = made("called", Listed)
    ours = BackpropModel.from_keras(model)
    ours.blocks[1]["inner"].append(layers.Dense(4))
    assert len(ours.layers) == len(model.layers) + 1 == 5 and len(model.blocks[1]["inner"]) == 1


def test_the_strategy_of_the_model_stays_its_strategy():
    with tf.distribute.OneDeviceStrategy("/cpu:0").scope():
        model = made("called")
    assert BackpropModel.from_keras(model).distribute_strategy is model.distribute_strategy


@pytest.mark.parametrize("kind", ["called", "functional", "sequential"])
def test_saved_and_loaded_it_is_of_both_classes(kind, tmp_path):
    ours = BackpropModel.from_keras(made(kind, Weighted))
    trained(ours)
    ours.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(again, BackpropModel) and isinstance(again, Weighted)
    expected, got = trained(ours), trained(again)
    assert got.keys() == expected.keys()
    np.testing.assert_allclose(got["loss"], expected["loss"], rtol=1e-6)


def test_a_stack_of_a_class_of_its_own_stays_one():
    ours = BackpropSequential.from_keras(made("sequential", Weighted))
    assert isinstance(ours, BackpropSequential) and isinstance(ours, Weighted)


@pytest.mark.parametrize("kind, mixins, own", [("called", [], "call"), ("functional", [Weighted], "compute_loss")])
def test_a_subclass_of_ours_takes_layers_only(kind, mixins, own):
    class Mine(BackpropModel):
        pass

    with pytest.raises(
        TypeError, match=rf"`Mine.from_keras` takes layers only.* `{own}`.* of `class Both\(Own, Mine\)`"
    ):
        Mine.from_keras(made(kind, *mixins))
    assert type(Mine.from_keras(made("functional"))).__name__ == "Mine"


def test_a_stack_with_a_call_of_its_own_is_no_list_of_layers():
    class Doubled:
        def call(self, x):
            return 2 * super().call(x)

    model, x = made("sequential", Doubled), np.ones((2, 3), "float32")
    np.testing.assert_array_equal(
        BackpropSequential.from_keras(model).predict(x, verbose=0), model.predict(x, verbose=0)
    )
    with pytest.raises(TypeError, match="`call` of its own"):
        type("Mine", (BackpropSequential,), {}).from_keras(model)


def test_a_subclass_of_ours_takes_models_of_its_own():
    class Mine(Counted, BackpropModel):
        pass

    inputs = keras.Input((3,))
    assert type(Mine.from_keras(Mine(inputs, layers.Dense(1)(inputs)))) is Mine


@pytest.mark.parametrize("mixin", [Counted, Taped])
def test_the_step_of_a_class_that_the_trainer_is_mixed_into_is_the_step(mixin):
    stock = made("called", mixin)
    ours = type("Ours", (BackpropTrainer, type(stock)), {})()
    ours(np.zeros((1, 3)))
    ours.set_weights(stock.get_weights())
    expected, got = trained(stock), trained(ours)
    assert got.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(got[name], values, rtol=1e-6)
