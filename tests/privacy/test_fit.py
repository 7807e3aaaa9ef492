"""Private training in `fit`: on every way, to the end of the budget, interrupted and resumed, saved and loaded."""

import copy
import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_backprop import BackpropModel, explain, privacy
from tests.after_batches import AfterBatches, raises
from tests.privacy.problem import X, Y, a_model, a_plan, flat

WAYS = {
    "Keras's loop": {"epochs_per_execution": None},
    "eager": {"run_eagerly": True},
    "executions": {"steps_per_execution": 2},
}


def momentum():
    return keras.optimizers.SGD(0.1, momentum=0.9)


def same(model, other, atol=1e-6):
    for one, two in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(one, two, atol=atol)


SLOWLY = pytest.param("shuffled", marks=pytest.mark.slow)


@pytest.mark.parametrize("sampling", ["poisson", SLOWLY])
def test_the_same_on_every_way(sampling):
    trained = {}
    for way, options in {"compiled": {}, **WAYS}.items():
        plan = a_plan(sampling=sampling)
        model = a_model(plan, momentum(), metrics=["accuracy"], **options)
        extra = {"epochs_per_execution": None} if way == "executions" else {}
        if extra:
            model = a_model(plan, momentum(), metrics=["accuracy"], **options, **extra)
        history = model.fit(X, Y, epochs=3, verbose=0).history
        assert plan.steps == 15 and model.fit_path.compiled == (way == "compiled")
        trained[way] = model, history
    for way in WAYS:
        same(trained["compiled"][0], trained[way][0])
        for name, values in trained["compiled"][1].items():
            np.testing.assert_allclose(values, trained[way][1][name], rtol=1e-5)


def test_losses_and_metrics_are_of_the_drawn_examples():
    plan = a_plan(noise_multiplier=0, epochs=1, largest_batch_size=30)
    model = a_model(plan, keras.optimizers.SGD(0.0), metrics=["accuracy"], weighted_metrics=["accuracy"])
    history = model.fit(X, Y, verbose=0).history
    again = a_plan(noise_multiplier=0, epochs=1, largest_batch_size=30)
    drawn = []
    for step in range(5):
        indices, weights = (a.numpy() for a in again.sampler.draw(tf.constant(step, tf.int64)))
        assert indices.shape == weights.shape == (30,)
        drawn += indices[weights > 0].tolist()
    p = model.predict(X[drawn], verbose=0)
    assert history["accuracy"][0] == pytest.approx(np.mean(p.argmax(1) == Y[drawn]))
    assert history["weighted_accuracy"][0] == pytest.approx(np.mean(p.argmax(1) == Y[drawn]))
    assert history["loss"][0] == pytest.approx(-np.mean(np.log(p[range(len(drawn)), Y[drawn]])), rel=1e-5)


@pytest.mark.parametrize("way", ["compiled", "Keras's loop"])
def test_it_ends_before_the_step_that_would_exceed_the_budget(way):
    plan = a_plan(epochs=2)
    model = a_model(plan, **({} if way == "compiled" else WAYS[way]))
    epochs = []
    told = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: epochs.append(epoch))
    with pytest.raises(privacy.BudgetExceededError, match="10 steps.*ε = "):
        model.fit(X, Y, epochs=4, verbose=0, callbacks=[told])
    assert plan.steps == 10 and epochs == [0, 1]
    after = model.get_weights()
    for attempt in (lambda: model.fit(X, Y, verbose=0), lambda: model.train_on_batch(X[:8], Y[:8])):
        with pytest.raises(privacy.BudgetExceededError):
            attempt()
    for one, other in zip(model.get_weights(), after, strict=True):
        np.testing.assert_array_equal(one, other)
    other = a_model(a_plan(epochs=2))
    other.fit(X, Y, epochs=2, verbose=0)
    same(model, other)


def test_the_steps_are_saved_with_the_model_and_the_secret_is_not(tmp_path):
    plan = a_plan(clipping="adaptive", seed=None)
    model = a_model(plan)
    model.fit(X, Y, epochs=2, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    again = loaded.compiled_gradients
    assert (
        again.steps == 10
        and again.epsilon() == plan.epsilon()
        and again.clipping_norm == pytest.approx(plan.clipping_norm)
    )
    assert (again._randomness.key.value.numpy() != plan._randomness.key.value.numpy()).all()
    loaded.fit(X, Y, verbose=0)
    with pytest.raises(privacy.BudgetExceededError):
        loaded.fit(X, Y, verbose=0)


@pytest.mark.parametrize(
    ("sampling", "save_freq", "done"),
    [
        pytest.param("poisson", "epoch", 7, marks=pytest.mark.slow),
        ("shuffled", 3, 8),
        pytest.param("poisson", 3, 8, marks=pytest.mark.slow),
        pytest.param("shuffled", "epoch", 7, marks=pytest.mark.slow),
    ],
)
def test_backup_and_restore_resumes_with_steps_and_random_state(tmp_path, sampling, save_freq, done):
    straight = a_model(a_plan(sampling=sampling), momentum())
    straight.fit(X, Y, epochs=3, verbose=0)

    def backup():
        return keras.callbacks.BackupAndRestore(tmp_path, save_freq=save_freq)

    with pytest.raises(KeyboardInterrupt):
        a_model(a_plan(sampling=sampling), momentum()).fit(
            X, Y, epochs=3, verbose=0, callbacks=[backup(), AfterBatches(done, raises(KeyboardInterrupt))]
        )
    plan = a_plan(sampling=sampling, seed=None)  # another process knows nothing of the first one's seed
    resumed = a_model(plan, momentum())
    resumed.fit(X, Y, epochs=3, verbose=0, callbacks=[backup()])
    assert plan.steps == 15
    same(resumed, straight)
    said = plan.statement()
    assert "from a seed that was given" in said and "secret seed" not in said and "calling program" not in said


def test_callbacks_validation_averages_and_checkpoints(tmp_path):
    plan = a_plan(epochs=6)
    model = a_model(plan, keras.optimizers.Adam(0.01, use_ema=True), metrics=["accuracy"])
    callbacks = [
        keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras"), keras.callbacks.ReduceLROnPlateau(patience=1),
        keras.callbacks.EarlyStopping("val_loss", patience=100), keras.callbacks.CSVLogger(tmp_path / "log.csv"),
    ]  # fmt: skip
    weights = np.random.default_rng(0).uniform(size=48)
    x, y = np.concatenate([X, X[:8]]), np.concatenate([Y, Y[:8]])
    history = model.fit(
        x, y, sample_weight=weights, validation_split=1 / 6, epochs=4, verbose=0, callbacks=callbacks
    ).history  # fmt: skip
    assert model.fit_path.compiled and plan.steps == 20 and len(history["val_accuracy"]) == 4
    assert keras.models.load_model(tmp_path / "2.keras").compiled_gradients.steps == 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": X[:39], "y": Y[:39]}, "examples=40.*Received 39"),
        ({"x": X, "y": Y, "batch_size": 16}, "expected_batch_size=8.*batch_size=16"),
        ({"x": X, "y": Y, "steps_per_epoch": 2}, "steps_per_epoch"),
        ({"x": tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)}, "draws the batches itself"),
    ],
)
def test_what_fit_may_not_be_given(arguments, message):
    with pytest.raises(ValueError, match=message):
        a_model(a_plan()).fit(**arguments, verbose=0)


def test_batches_that_the_caller_chose_are_told_of():
    plan = a_plan()
    model = a_model(plan)
    model.train_on_batch(X[:8], Y[:8])
    assert plan.steps == 1 and "The batches of the steps were chosen by the calling program" in plan.statement()
    assert "of others it was not tried" in plan.statement()
    by_hand = a_plan()
    model = a_model(by_hand)
    step = lambda: by_hand(model.backward_pass(*map(tf.convert_to_tensor, (X[:8], Y[:8]))))  # noqa: E731
    step()
    assert by_hand.steps == 1 and "The batches of the steps were chosen by" in by_hand.statement()
    model.fit(X, Y, verbose=0)  # which is no trial before the first step
    assert "of some steps were chosen" in by_hand.statement() and "it was not tried" in by_hand.statement()


@pytest.mark.parametrize("options", [{}, WAYS["eager"]])
def test_steps_by_hand_after_those_that_fit_drew_are_told_of(options):
    plan = a_plan()
    model = a_model(plan, **options)
    model.fit(X, Y, verbose=0)
    assert plan.past.drawn == 5 and "(Poisson sampling)" in plan.statement() and "it was tried on" in plan.statement()
    plan(model.backward_pass(*map(tf.convert_to_tensor, (X[:8], Y[:8]))))
    assert plan.steps == 6 and "The batches of some steps were chosen by the calling program" in plan.statement()
    again = type(plan).from_config(plan.get_config())
    assert again.past.drawn == 5 and "of some steps" in again.statement() and "it was tried on" in again.statement()


BY_HAND = {
    "epochs": ("on_epoch_end", {}, None),
    "a function": ("on_epoch_end", {}, tf.function),
    "batches": ("on_train_batch_end", {}, None),
    "Keras's loop": ("on_epoch_begin", WAYS["eager"], None),
    "parts": (
        "on_train_batch_end",
        {"optimizer": lambda: keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)},
        None,
    ),
    "train_on_batch": ("on_epoch_end", {}, "train_on_batch"),
    "train_on_batch, eager": ("on_epoch_end", WAYS["eager"], "train_on_batch"),
}


@pytest.mark.parametrize("hook, options, function", BY_HAND.values(), ids=BY_HAND)
def test_a_step_by_hand_in_a_callback_is_none_that_fit_drew(hook, options, function):
    plan = a_plan()
    model = a_model(plan, **{name: x() if callable(x) else x for name, x in options.items()})
    batch = [tf.convert_to_tensor(a[:8]) for a in (X, Y)]

    def step():
        plan(model.backward_pass(*batch))

    if function == "train_on_batch":
        step = lambda: model.train_on_batch(*batch)  # noqa: E731
    elif function is not None:
        step = function(step)
    due = []
    said = keras.callbacks.Callback()
    setattr(said, hook, lambda *_, **__: due and due.pop()())
    model.fit(X, Y, verbose=0, callbacks=[said])
    assert not plan.past.given and "(Poisson sampling)" in plan.statement()
    due.append(step)
    model.fit(X, Y, verbose=0, callbacks=[said])
    assert plan.past.given and "of some steps were chosen by the calling program" in plan.statement()


@pytest.mark.parametrize("by_hand", [True, False])
def test_nobody_exceeds_the_budget_in_a_function(by_hand):
    """Not by hand, and not where `fit` knows no plan because something has been put around it."""
    plan = a_plan(epochs=1, noise_multiplier=1.0)
    model = a_model(lambda result: plan(result))
    batch = [tf.convert_to_tensor(a[:8]) for a in (X, Y)]
    step = tf.function(lambda: plan(model.backward_pass(*batch))) if by_hand else lambda: model.train_on_batch(*batch)
    for _ in range(5):
        step()
    weights = flat(model.weights)
    with pytest.raises(tf.errors.InvalidArgumentError, match="The plan allows 5 steps, and they have been taken"):
        step()
    assert plan.steps == 5 and (flat(model.weights) == weights).all()


@pytest.mark.parametrize("function", [lambda step: step, tf.function], ids=["eager", "function"])
@pytest.mark.parametrize("by", ["make_gradients", "train_step"])
def test_nobody_exceeds_the_budget_in_a_loop_of_ones_own(by, function):
    plan = a_plan(epochs=1, noise_multiplier=1.0)
    model = a_model(plan)
    batch = tuple(tf.convert_to_tensor(a[:8]) for a in (X, Y))
    model.optimizer.build(model.trainable_variables)

    @function
    def step():
        if by == "train_step":
            model.train_step(batch)
        else:
            result = model.backward_pass(*batch)
            model.update_weights(model.make_gradients(result), result.weights)

    for _ in range(5):
        step()
    weights = flat(model.weights)
    with pytest.raises((privacy.BudgetExceededError, tf.errors.InvalidArgumentError), match="The plan allows 5 steps"):
        step()
    assert plan.steps == 5 and (flat(model.weights) == weights).all()


@pytest.mark.parametrize("clipping", ["flat", "adaptive"])
def test_where_xla_drops_the_error_a_step_too_many_has_noise_alone(clipping):
    plan = a_plan(epochs=1, noise_multiplier=1e-6, clipping=clipping)  # one cannot see this noise
    model = a_model(plan)
    batch = [tf.convert_to_tensor(a[:8]) for a in (X, Y)]
    step = tf.function(lambda: plan(model.backward_pass(*batch)), jit_compile=True)
    for _ in range(5):
        assert np.abs(flat(step())).max() > 1e-3
    assert 0 < np.abs(flat(step())).max() < 1e-5


def test_a_plan_that_is_used_up_can_be_explained():
    plan = a_plan(epochs=1)
    model = a_model(plan)
    model.fit(X, Y, verbose=0)
    explain(model, X[:2], Y[:2]).to_text()
    assert plan.steps == 5


def test_only_a_plan_is_asked_otherwise_than_by_its_call():
    class Halved:
        of_step = of_no_step = None

        def __call__(self, result):
            return [g / 2 for g in result.gradients]

    model = a_model(Halved())
    result = model.backward_pass(tf.constant(X), tf.constant(Y))
    np.testing.assert_allclose(flat(model.make_gradients(result)), flat(result.gradients) / 2)


@pytest.mark.parametrize("clipping", ["flat", "adaptive"])
@pytest.mark.parametrize("parts", [4, 2, None])
def test_parts_of_two_batches_do_not_meet_in_an_optimizer(parts, clipping):
    """One that is new begins with a new batch: in a group of parts of two, or in their count, an example could count twice."""
    plan = a_plan(clipping=clipping)
    model = a_model(plan, keras.optimizers.SGD(0.1, gradient_accumulation_steps=4))
    for _ in range(6):
        model.train_on_batch(X[:2], Y[:2])
    assert plan.parts_used() == 6 and plan.steps == 1
    model.compile(keras.optimizers.SGD(0.1, gradient_accumulation_steps=parts), model.loss, gradients=plan)
    plan.prepare(model)
    assert plan.steps == 2 and plan.parts_used() == 2 * (parts or 1)
    assert [float(count) for count in plan.clipping.variables[1:]] == ([0] if clipping == "adaptive" else [])
    model.train_on_batch(X[:2], Y[:2])
    assert plan.parts_used() == 2 * (parts or 1) + 1


def test_a_batch_that_fit_drew_and_gave_up_is_still_none_of_the_callers():
    plan = a_plan()
    model = a_model(plan, keras.optimizers.SGD(0.1, gradient_accumulation_steps=2))
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y, verbose=0, callbacks=[AfterBatches(3, raises(KeyboardInterrupt))])
    assert plan.parts_used() == 3
    model.compile(keras.optimizers.SGD(0.1, gradient_accumulation_steps=2), model.loss, gradients=plan)
    model.fit(X, Y, verbose=0)
    assert plan.past.drawn == plan.steps == 7
    for one in (plan, copy.copy(plan), type(plan).from_config(plan.get_config())):
        assert not one.past.given and "(Poisson sampling)" in one.statement()


@pytest.mark.parametrize("given", [{"sample_weight": np.array([1, 1, -2])}, {"class_weight": {0: 1, 1: -1.0, 2: 1}}])
def test_no_example_makes_the_sum_of_weights_of_a_given_batch_nothing(given):
    plan = a_plan()
    model = a_model(plan, loss=keras.losses.SparseCategoricalCrossentropy(reduction="mean_with_sample_weight"))
    with pytest.raises(ValueError, match="must be finite and not negative"):
        model.train_on_batch(X[:3], Y[:3], **given)
    assert plan.steps == 0


@pytest.mark.parametrize("hook", ["on_epoch_end", "on_train_batch_end"])
def test_steps_that_are_undone_were_none(hook):
    """Several epochs or steps share a call, and the callback ends the training after the first."""
    plan = a_plan()
    model = a_model(plan, epochs_per_execution=3)
    end = keras.callbacks.Callback()
    setattr(end, hook, lambda *_, **__: setattr(model, "stop_training", True))
    model.fit(X, Y, verbose=0, epochs=3, callbacks=[end])
    assert plan.steps in (1, 5) and not plan.past.given and plan.past.drawn == plan.steps


def test_several_inputs_and_outputs():
    a, b = keras.Input((5,), name="a"), keras.Input((5,), name="b")
    h = layers.Dense(4, "tanh")(layers.concatenate([a, b]))
    model = BackpropModel(
        {"a": a, "b": b},
        {"class": layers.Dense(3, "softmax", name="class")(h), "value": layers.Dense(1, name="value")(h)},
    )
    model.compile(
        "sgd",
        {"class": "sparse_categorical_crossentropy", "value": "mse"},
        gradients=a_plan(),
        metrics={"class": "accuracy"},
    )
    history = model.fit({"a": X, "b": X}, {"class": Y, "value": X[:, :1]}, epochs=2, verbose=0).history
    assert model.fit_path.compiled and history["class_accuracy"][0] <= 1
    np.testing.assert_allclose(np.add(history["class_loss"], history["value_loss"]), history["loss"], rtol=1e-5)


TWO_DEVICES = """
import json, warnings
import keras, numpy as np, tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from tests.privacy.problem import X, Y, a_model, a_plan
from tests.privacy.workers import Mixes, refused

results = {}
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
for name, options in {"flat": {}, "adaptive": {"clipping": "adaptive"}, "shuffled": {"sampling": "shuffled"}}.items():
    for way in (tf.distribute.get_strategy(), strategy):
        plan = a_plan(**options)
        with way.scope():
            model = a_model(plan, keras.optimizers.SGD(0.1, momentum=0.9), **({} if way is strategy else {"epochs_per_execution": None}))
        model.fit(X, Y, epochs=2, verbose=0)
        weights = [keras.ops.convert_to_numpy(v).tolist() for v in model.trainable_weights]
        results[name + (", two" if way is strategy else ", one")] = [weights, plan.steps, plan.clipping_norm]
results["mixes"] = refused(strategy, a_plan(), Mixes())
print("RESULT" + json.dumps(results))
"""


def test_noise_once_on_two_devices():
    root = str(pathlib.Path(__file__).parents[2])
    run = subprocess.run(
        [sys.executable, "-c", TWO_DEVICES],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": root},
        check=False,
    )
    lines = [line for line in run.stdout.splitlines() if line.startswith("RESULT")]
    assert lines, run.stderr[-3000:]
    results = json.loads(lines[0].removeprefix("RESULT"))
    for name in ("flat", "adaptive", "shuffled"):
        (one, steps, norm), (two, steps_of_two, norm_of_two) = results[name + ", one"], results[name + ", two"]
        assert steps == steps_of_two == 10 and norm == pytest.approx(norm_of_two, rel=1e-4)
        for a, b in zip(one, two, strict=True):
            np.testing.assert_allclose(a, b, atol=2e-5)
    assert "depends on who else is in the batch" in results["mixes"]  # `fit` in the strategy's scope


@pytest.mark.parametrize("of_b", [np.ones(40, "float32"), None])
def test_an_example_without_weight_for_one_output_counts_by_the_others(of_b):
    def model(plan):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((5,))
        hidden = layers.Dense(4, "tanh")(inputs)
        model = BackpropModel(inputs, {name: layers.Dense(1, name=name)(hidden) for name in "ab"})
        model.compile(keras.optimizers.SGD(0.1), {"a": "mse", "b": "mse"}, gradients=plan)
        return model

    labelled = (np.arange(40) < 20).astype("float32")
    y = {"a": X[:, :1], "b": X[:, 1:2]}
    quiet = {"noise_multiplier": 0.0, "clipping_norm": 100.0}
    trained, by_hand, draws = model(a_plan(**quiet)), model(None), a_plan(**quiet)
    trained.fit(X, y, sample_weight={"a": labelled, "b": of_b}, verbose=0)
    for step in range(5):
        indices, weights = (a.numpy() for a in draws.sampler.draw(tf.constant(step, tf.int64)))
        x, targets, rows = X[indices], {name: y[name][indices] for name in "ab"}, len(indices)
        of_each = {"a": tf.constant(labelled[indices] * weights), "b": tf.constant(weights)}
        result = by_hand.backward_pass(tf.constant(x), keras.tree.map_structure(tf.constant, targets), of_each)
        by_hand.optimizer.apply([g * rows / 8 for g in result.gradients], result.weights)
    same(trained, by_hand)
