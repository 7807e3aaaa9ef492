"""A model that is alike to one that has been traced is not traced: it trains what stock Keras trains, and nothing else is alike."""

import functools
import gc
import threading
import types
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_backprop
from keras_backprop import BackpropModel, BackpropSequential, _keras
from keras_backprop.callbacks import BackwardMonitor
from keras_backprop.trainer import BackpropTrainer
from keras_backprop.training.loops import kept as loops
from keras_backprop.training.sharing import equal_models
from keras_backprop.training.sharing.likeness import Description, NotComparableError

random = np.random.default_rng(0)
X, Y = random.normal(size=(50, 6)).astype("float32"), random.integers(0, 3, 50)
layers = keras.layers


@pytest.fixture
def traced(monkeypatch):
    """A list that has the name of every model whose training step is traced."""
    names, step = [], BackpropTrainer.backward_pass

    def backward_pass(self, *args, **kwargs):
        names.append(self.name)
        return step(self, *args, **kwargs)

    monkeypatch.setattr(BackpropTrainer, "backward_pass", backward_pass)
    return names


def chain(
    cls=BackpropSequential, activation="relu", rate=0.3, regularizer="l2", units=5, seed=3, epsilon=1e-3, last=None
):
    """A model with dropout, statistics and a penalty, not compiled."""
    return cls(
        [
            keras.Input((6,)),
            layers.Dense(units, activation, kernel_regularizer=regularizer),
            layers.BatchNormalization(epsilon=epsilon),
            layers.Dropout(rate, seed=seed),
            last or layers.Dense(3, "softmax"),
        ]
    )


def compiled(model, optimizer=None, loss="sparse_categorical_crossentropy", metrics=("accuracy",), **options):
    model.compile(optimizer or keras.optimizers.Adam(0.01), loss, metrics=list(metrics), **options)
    return model


def fit(model, epochs=2, **options):
    return model.fit(X, Y, batch_size=8, epochs=epochs, verbose=0, shuffle=False, **options)


def state(model):
    variables = [*model.variables, *model.optimizer.variables]
    return [(v.name, v.trainable, keras.ops.convert_to_numpy(v)) for v in variables]


def assert_equal(ours, stock, tolerance=1e-6):
    for (name, trainable, a), (other, other_trainable, b) in zip(state(ours), state(stock), strict=True):
        assert trainable == other_trainable
        largest = max(1, np.abs(b).max(initial=0))
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * largest, err_msg=f"{name} {other}")
    assert ours.history.history.keys() == stock.history.history.keys()
    for key, values in stock.history.history.items():
        np.testing.assert_allclose(ours.history.history[key], values, rtol=0, atol=1e-5)


def trained(make, cls=BackpropSequential, **options):
    keras.utils.set_random_seed(5)
    model = make(cls)
    fit(model, **options)
    return model


@pytest.mark.parametrize(
    "options", [{}, {"validation_data": (X[:20], Y[:20])}, {"callbacks": [keras.callbacks.TerminateOnNaN()]}]
)
def test_equal_models_are_traced_once_and_train_as_stock_keras_does(traced, options):
    def make(cls):
        return compiled(chain(cls))

    first, second, third = (trained(make, **options) for _ in range(3))
    assert traced == [first.name]
    assert third.fit_path.compiled
    stock = trained(make, keras.Sequential, **options)
    for model in (first, second, third):
        assert_equal(model, stock)
    assert [v.path for v in third.metrics_variables] == [v.path for v in stock.metrics_variables]
    for model in (third, first, stock, second):  # each goes on with what is its own
        fit(model, **options)
    for model in (first, second, third):
        assert_equal(model, stock)


SEQUENCES = {
    "dropout": lambda: layers.LSTM(3, dropout=0.3, recurrent_dropout=0.2),
    "both directions": lambda: layers.Bidirectional(layers.GRU(2)),
    "stacked cells": lambda: layers.RNN([layers.SimpleRNNCell(2), layers.LSTMCell(2)]),
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_recurrent_models_share_a_trace_too(traced, name):
    def make(cls):
        return compiled(cls([
            keras.Input((6,)), layers.Reshape((3, 2)), layers.Masking(), SEQUENCES[name](), layers.Dense(3, "softmax")
        ]))  # fmt: skip

    first, second = trained(make), trained(make)
    assert traced == [first.name]
    assert_equal(second, trained(make, keras.Sequential))


def test_what_tracing_leaves_in_a_model_is_left_in_one_that_was_not_traced(traced):
    plain = (type(None), bool, int, float, str)
    models = [compiled(chain()) for _ in range(2)]
    for model in models:
        fit(model)
    first, second = ({key: x for key, x in vars(model).items() if isinstance(x, plain)} for model in models)
    differ = {key for key in first.keys() | second.keys() if first.get(key) != second.get(key)}
    assert traced == [models[0].name] and differ <= {"name", "_name", "path", "_path"}


@pytest.mark.parametrize("optimizer", [keras.optimizers.Adam, keras.optimizers.Nadam])
def test_names_of_the_optimizers_variables_are_those_of_a_model_that_was_traced(traced, optimizer):
    def make(cls):
        keras.backend.clear_session()
        return compiled(chain(cls), optimizer(0.01))

    first = trained(make)
    before = len(traced)
    second = trained(make)
    assert len(traced) == before
    assert [v.path for v in first.optimizer.variables] == [v.path for v in second.optimizer.variables]
    assert [v.path for v in first.metrics_variables] == [v.path for v in second.metrics_variables]


def test_another_seed_and_other_weights_are_no_other_model(traced):
    for seed in (1, 2):  # the second is a copy
        keras.utils.set_random_seed(seed)
        stock = compiled(chain(keras.Sequential, seed=seed))
        keras.utils.set_random_seed(seed)
        model = compiled(chain(seed=seed))
        fit(stock), fit(model)
        assert_equal(model, stock)
    assert len(traced) == 1


def test_a_model_is_alike_to_itself_compiled_anew(traced):
    model, stock = (trained(lambda cls: compiled(chain(cls)), cls) for cls in (BackpropSequential, keras.Sequential))
    for one in (model, stock):
        compiled(one)
        fit(one)
    assert len(traced) == 1
    assert_equal(model, stock)


class OwnDense(layers.Dense):
    pass


def own_loss(y, y_pred):
    return keras.losses.sparse_categorical_crossentropy(y, y_pred)


def frozen(cls):
    model = chain(cls)
    model.layers[0].trainable = False
    return compiled(model)


def frozen_afterwards(cls):
    model = compiled(chain(cls))
    model.layers[0].kernel.trainable = False
    return model


def changed(cls):
    model = compiled(chain(cls))
    model.layers[2].rate = 0.6
    return model


def other_epsilon_in_keras(cls):
    keras.config.set_epsilon(1e-2)
    return compiled(chain(cls))


OTHERS = {
    "an activation": lambda cls: compiled(chain(cls, activation="tanh")),
    "a rate of dropout": lambda cls: compiled(chain(cls, rate=0.4)),
    "a rate of dropout, set afterwards": changed,
    "a regulariser": lambda cls: compiled(chain(cls, regularizer="l1")),
    "a regulariser's factor": lambda cls: compiled(chain(cls, regularizer=keras.regularizers.L2(0.02))),
    "an option of a layer": lambda cls: compiled(chain(cls, epsilon=0.1)),
    "a width": lambda cls: compiled(chain(cls, units=6)),
    "a frozen layer": frozen,
    "a frozen weight": frozen_afterwards,
    "an option of the optimizer": lambda cls: compiled(chain(cls), keras.optimizers.Adam(0.01, beta_1=0.8)),
    "clipping": lambda cls: compiled(chain(cls), keras.optimizers.Adam(0.01, clipnorm=0.1)),
    "another optimizer": lambda cls: compiled(chain(cls), keras.optimizers.RMSprop(0.01)),
    "a schedule": lambda cls: compiled(
        chain(cls), keras.optimizers.Adam(keras.optimizers.schedules.ExponentialDecay(0.01, 5, 0.5))
    ),
    "an option of the loss": lambda cls: compiled(
        chain(cls), loss=keras.losses.SparseCategoricalCrossentropy(reduction="sum")
    ),
    "another metric": lambda cls: compiled(chain(cls), metrics=["sparse_categorical_crossentropy"]),
    "a class of one's own": lambda cls: compiled(chain(cls, last=OwnDense(3, "softmax"))),
    "a loss of one's own": lambda cls: compiled(chain(cls), loss=own_loss),
    "a function of one's own": lambda cls: compiled(chain(cls, activation=lambda x: keras.ops.tanh(x))),
    "weight decay by names": lambda cls: compiled(chain(cls), decaying()),
    "a mask of steps": lambda cls: compiled(chain(cls), steps_per_execution=2),
    "Keras's epsilon": other_epsilon_in_keras,
}


def decaying():
    optimizer = keras.optimizers.AdamW(0.01, weight_decay=0.1)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    return optimizer


def words(model):
    """What is said of a model; None if it cannot be compared."""
    try:
        return Description(model, (tf.TensorSpec([None, 6]), tf.TensorSpec([None]))).words
    except NotComparableError:
        return None


@pytest.fixture
def epsilon():
    before = keras.config.epsilon()
    yield
    keras.config.set_epsilon(before)


@pytest.mark.parametrize("other", OTHERS)
def test_what_differs_is_seen(epsilon, other):
    one, same = (words(compiled(chain())) for _ in range(2))
    assert one == same is not None
    assert words(OTHERS[other](BackpropSequential)) != one


@pytest.mark.parametrize(
    "other", [name if name == "a frozen weight" else pytest.param(name, marks=pytest.mark.slow) for name in OTHERS]
)
def test_what_differs_is_traced_and_trains_as_stock_keras_does(traced, epsilon, other):
    trained(lambda cls: compiled(chain(cls)))
    model = trained(OTHERS[other])
    assert len(traced) == 2
    assert_equal(model, trained(OTHERS[other], keras.Sequential))


@pytest.mark.parametrize(
    "options",
    [
        {"gradients": keras_backprop.gradients.ByPath({"*": 0.5})},
        {"rules": {"dense": lambda call, dy: None}},
        {"jit_compile": True},
    ],
    ids=lambda options: next(iter(options)),
)
def test_what_is_compiled_beside_is_no_others(options):
    assert not equal_models._has_more(compiled(chain()))
    assert equal_models._has_more(compiled(chain(), **options))


def test_steps_whose_operations_are_watched_are_no_others():
    model = compiled(chain())
    assert not equal_models._has_more(model)
    tf.debugging.enable_check_numerics()
    try:
        assert equal_models._has_more(model)
    finally:
        tf.debugging.disable_check_numerics()


def test_exchanged_methods_and_functions_are_seen(monkeypatch):
    before = words(compiled(chain()))
    with monkeypatch.context() as changed:
        changed.setattr(layers.Dropout, "call", lambda self, x, training=False: x)
        assert words(compiled(chain())) != before
    assert words(compiled(chain())) == before
    with monkeypatch.context() as changed:
        changed.setattr(_keras.modules_that_compute()[0], "relu", lambda x: x)
        assert words(compiled(chain())) != before
    model = compiled(chain())
    model.layers[0].call = model.layers[0].call  # of this object alone
    assert words(model) is None


@functools.wraps(keras.activations.relu)
def wrapped(x):
    return keras.ops.relu(x)


def test_functions_are_known_by_where_they_were_written():
    """By the names that they may read, which somebody may change, and not by what they say of themselves."""
    nowhere = types.FunctionType((lambda x: x).__code__, {})
    assert nowhere.__module__ is None and wrapped.__module__.startswith("keras.")
    for function in (nowhere, [].append, wrapped):
        model = compiled(chain())
        model.layers[0].activation = function
        assert words(model) is None


def test_functional_models_with_operations_and_several_outputs(traced):
    def make(cls):
        x = keras.Input((6,))
        shared = layers.Dense(6, "tanh")
        h = shared(shared(x)) + keras.ops.sin(x)
        outputs = [layers.Dense(3, "softmax", name="a")(h), layers.Dense(3, "softmax", name="b")(h)]
        model = cls(x, outputs)
        model.compile("adam", ["sparse_categorical_crossentropy"] * 2, metrics=[["accuracy"], []])
        return model

    def train(cls):
        keras.utils.set_random_seed(1)
        model = make(cls)
        model.fit(X, [Y, Y], batch_size=8, epochs=2, shuffle=False, verbose=0)
        return model

    ours = [train(BackpropModel) for _ in range(2)]
    assert len(traced) == 1
    stock = train(keras.Model)
    for model in ours:
        assert_equal(model, stock)
        assert [v.path for v in model.metrics_variables] == [v.path for v in stock.metrics_variables]


def test_what_turns_out_to_be_another_model_logs_what_stock_keras_logs(traced):
    """What is looked at once more when losses and metrics have been built."""
    x = keras.ops.reshape(X, (50, 2, 3))

    def train(cls):
        keras.utils.set_random_seed(1)
        sequence = keras.Input((2, 3))
        h = layers.SimpleRNN(4, dropout=0.2, seed=1)(sequence)
        model = cls(sequence, [layers.Dense(3, "softmax", name=name)(h) for name in "ab"])
        model.compile("adam", ["sparse_categorical_crossentropy"] * 2, metrics=[["accuracy"], []])
        model.fit(x, [Y, Y], batch_size=8, epochs=1, shuffle=False, verbose=0)
        return model

    train(BackpropModel)
    for trace in equal_models._traces.values():
        trace.words = ()
    model, stock = train(BackpropModel), train(keras.Model)
    assert len(traced) == 2
    assert_equal(model, stock)
    assert [v.path for v in model.metrics_variables] == [v.path for v in stock.metrics_variables]


def test_models_without_targets(traced):
    for _ in range(2):
        model = compiled(chain(last=layers.ActivityRegularization(0.1)), loss=None, metrics=[])
        model.fit(X, batch_size=10, verbose=0)
        assert model.fit_path.compiled
    assert len(traced) == 1


def test_steps_that_are_no_more_asked_for_go(traced, monkeypatch):
    monkeypatch.setattr(loops, "KEPT", 1)
    model, steps = compiled(chain(units=1)), []
    for callbacks in ([BackwardMonitor()], [], [BackwardMonitor()], []):
        fit(model, epochs=1, callbacks=callbacks)
        steps.append(weakref.ref(_keras.step_of(model.train_function)))
    gc.collect()
    assert [step() is not None for step in steps] == [False, False, False, True]


def test_what_is_changed_after_the_step_was_taken_over_changes_nothing_until_compile(traced):
    """Stock Keras has traced by then: data of another size, validation and single batches go on with its trace."""

    def run(cls):
        model = trained(lambda cls: compiled(chain(cls)), cls)
        model.layers[0].trainable = False
        model.layers[2].rate = 0.9
        model.fit(X[:40], Y[:40], batch_size=8, epochs=2, shuffle=False, verbose=0, validation_data=(X[40:], Y[40:]))
        model.train_on_batch(X[:8], Y[:8])
        return model

    trained(lambda cls: compiled(chain(cls)))
    before = len(traced)
    model = run(BackpropSequential)
    assert_equal(model, run(keras.Sequential))
    assert len(traced) <= before + 1  # batches of another kind are traced anew, as in stock Keras


def test_models_go_when_nobody_wants_them(traced):
    model = trained(lambda cls: compiled(chain(cls)))
    gone = weakref.ref(model)
    del model
    keras.backend.clear_session()
    gc.collect()
    assert gone() is None
    assert_equal(trained(lambda cls: compiled(chain(cls))), trained(lambda cls: compiled(chain(cls)), keras.Sequential))
    assert len(traced) == 1


def test_few_traces_are_kept(traced, monkeypatch):
    monkeypatch.setattr(equal_models, "KEPT", 1)
    for units in (1, 2, 1):
        trained(lambda cls, units=units: compiled(chain(cls, units=units)), epochs=1)
        assert len(equal_models._traces) == 1
    assert len(traced) == 3


def test_threads(traced):
    models, weights = [], chain().get_weights()
    for _ in range(4):
        model = compiled(chain())
        model.set_weights(weights)
        models.append(model)
    threads = [threading.Thread(target=fit, args=(model,)) for model in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for model in models:
        for a, b in zip(model.get_weights(), models[0].get_weights(), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)
