"""`LocateNaN`: every planted fault is found where it is, the model stays as it was before it, and what is sound is left alone."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_backprop
from keras_backprop import BackpropSequential
from keras_backprop.callbacks import LocateNaN, NonFiniteError
from keras_backprop.watch.causes import Circumstances, cause_of
from keras_backprop.watch.faults import Frame, load_batch
from keras_backprop.watch.locating import locate
from tests.watch import sampled
from tests.watch.faulty import BATCH, FAULTY, ROW, net, planted, scale
from tests.watch.healthy import HEALTHY, LARGE

STEPS = 2  # before the planted one


def fit(case, callback, **more):
    return case.model.fit(
        case.x, case.y, batch_size=BATCH, shuffle=False, verbose=0, callbacks=[callback], **{**case.fit, **more}
    )


IN_EVERY_RUN = [
    "log_of_zero", "logarithm_hidden_by_where", "norm_at_zero", "overflow_of_exp", "attention_to_nothing", "infinite_label",
    "sample_weight", "learning_rate", "update_beyond_all_bounds",
]  # fmt: skip


@pytest.mark.parametrize("plant", sampled(FAULTY, IN_EVERY_RUN))
def test_every_planted_fault_is_found(plant):
    case = plant()
    with pytest.raises(NonFiniteError) as raised:
        fit(case, LocateNaN())
    assert case.model.fit_path.compiled
    assert_found(case, raised.value.fault)
    if not case.cause.startswith("weight '"):
        assert all(np.isfinite(w).all() for w in case.model.get_weights())


def assert_found(case, fault):
    assert case.path in fault.path and case.cause in fault.cause, str(fault)
    assert not case.direction or fault.direction == case.direction, str(fault)
    assert case.step is None or fault.step == case.step
    assert case.examples is None or fault.indices == case.examples
    assert fault.remedy and fault.path in str(fault) and fault.cause in str(fault)


WAYS = {
    "compiled loop": {},
    "with XLA": {"jit_compile": True},
    "Keras's loop": {"epochs_per_execution": None},
    "Keras's loop with XLA": {"epochs_per_execution": None, "jit_compile": True},
    "eager": {"run_eagerly": True},
    "steps_per_execution": {"epochs_per_execution": None, "steps_per_execution": 4},
}


def everything(**arguments):
    """Batch statistics, a seed, momenta, a metric: all of what a step changes."""
    keras.utils.set_random_seed(1)
    parts = layers.Dense(6, "tanh", name="hidden"), layers.BatchNormalization(), layers.Dropout(0.2), layers.Dense(1)
    model = BackpropSequential([keras.Input((4,)), *parts], name="net")
    model.compile(keras.optimizers.Adam(0.01), "mse", metrics=["mae"], **arguments)
    return model


def state(model):
    variables = (*model.variables, *model.optimizer.variables)
    return [keras.ops.convert_to_numpy(v) for v in variables]


def without(*steps):
    """The data without the batches of some steps."""
    x, y = planted(np.nan)
    left = [i for i in range(len(x)) if i // BATCH not in steps]
    return x[left], y[left]


def assert_same_state(model, reference):
    for one, other in zip(state(model), state(reference), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("way", sampled(WAYS, ["compiled loop", "Keras's loop"]))
def test_skip_is_as_if_the_batch_did_not_exist(way):
    model, reference = everything(**WAYS[way]), everything(**WAYS[way])
    callback = LocateNaN("skip", verbose=0)
    history = model.fit(*planted(np.nan), batch_size=BATCH, shuffle=False, epochs=2, verbose=0, callbacks=[callback])
    expected = reference.fit(*without(STEPS), batch_size=BATCH, shuffle=False, epochs=2, verbose=0)
    assert_same_state(model, reference)
    assert callback.skipped == 2
    assert [(fault.epoch, fault.step, fault.indices) for fault in callback.faults] == [(0, 2, [ROW]), (1, 2, [ROW])]
    np.testing.assert_allclose(history.history["loss"], expected.history["loss"], rtol=1e-5)
    np.testing.assert_allclose(history.history["mae"], expected.history["mae"], rtol=1e-5)


@pytest.mark.parametrize("action", ["raise", "stop"])
@pytest.mark.parametrize(
    "way", sampled(["compiled loop", "Keras's loop", "eager", "steps_per_execution"], ["compiled loop", "eager"])
)
def test_raise_and_stop_leave_the_model_as_it_was_before_the_step(way, action):
    model, reference = everything(**WAYS[way]), everything(**WAYS[way])
    callback, x_y = LocateNaN(action, verbose=0), planted(np.nan)
    fit = {"batch_size": BATCH, "shuffle": False, "epochs": 3, "verbose": 0}
    if action == "raise":
        with pytest.raises(FloatingPointError, match="Epoch 1, step 3") as raised:
            model.fit(*x_y, callbacks=[callback], **fit)
        assert raised.value.fault is callback.fault
    else:
        history = model.fit(*x_y, callbacks=[callback], **fit)
        assert len(history.history["loss"]) == 1 and np.isfinite(history.history["loss"][0])
    assert len(callback.faults) == 1
    x, y = x_y
    reference.fit(x[: STEPS * BATCH], y[: STEPS * BATCH], **{**fit, "epochs": 1})
    assert_same_state(model, reference)


def test_a_shuffled_batch_is_known_by_its_numbers():
    for arguments in ({}, {"epochs_per_execution": None}):
        callback = LocateNaN("skip", verbose=0)
        model = net(**arguments)
        model.fit(*planted(np.nan), batch_size=BATCH, epochs=3, verbose=0, callbacks=[callback])
        assert [fault.indices for fault in callback.faults] == [[ROW]] * 3
        places = [fault.step * BATCH + fault.examples[0] for fault in callback.faults]
        if model.fit_path.compiled:
            assert len(set(places)) > 1


def test_data_sets_and_partial_batches():
    x, y = planted(np.nan)
    data = tf.data.Dataset.from_tensor_slices((x[:21], y[:21])).batch(BATCH)
    callback, model = LocateNaN("skip", verbose=0), net()
    model.fit(data, epochs=2, shuffle=False, verbose=0, callbacks=[callback])
    assert [(fault.step, fault.examples, fault.indices) for fault in callback.faults] == [(2, [3], None)] * 2
    assert callback.fault.batch[0].shape == (5, 4)  # the last batch is smaller
    callback, model = LocateNaN("skip", verbose=0), net()
    model.fit(x[:21], y[:21], batch_size=BATCH, shuffle=False, verbose=0, callbacks=[callback])
    assert callback.fault.batch[0].shape == (5, 4) and model.fit_path.compiled


def test_one_batch_of_all_examples():
    x, y = planted(np.nan)
    model = net()
    before = state(model)
    callback = LocateNaN("skip", verbose=0)
    model.fit(x, y, batch_size=len(x), epochs=2, verbose=0, callbacks=[callback], validation_data=(x[:8], y[:8]))
    assert callback.skipped == 2
    for one, other in zip(state(model), before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_epochs_that_share_a_call_are_told_until_the_fault():
    class Epochs(keras.callbacks.Callback):
        reads_only_logs = True

        def on_epoch_end(self, epoch, logs=None):
            told.append(logs["loss"])

    told: list = []
    keras.utils.set_random_seed(0)
    model = BackpropSequential([keras.Input((1,)), layers.Dense(1, kernel_initializer="ones", name="out")], name="net")
    model.compile(keras.optimizers.SGD(1.0), keras_backprop.losses.HalfMeanSquaredError())
    x, y = np.array([[4.0], [4.0]], "float32"), np.zeros((2, 1), "float32")
    with pytest.raises(NonFiniteError) as raised:
        model.fit(x, y, batch_size=1, epochs=60, verbose=0, callbacks=[LocateNaN(), Epochs()])
    fault = raised.value.fault
    assert len(told) == fault.epoch > 3 and np.isfinite(told).all()
    assert "learning rate" in fault.cause and np.isfinite(model.get_weights()[0]).all()
    weights = [frame.weights["net/out/kernel"] for frame in fault.frames]
    assert weights == sorted(weights) and len(weights) > 1


@pytest.mark.parametrize(
    ("dtype", "kind", "limit"),
    [
        ("float16", "Exp", "11.09"),
        ("float32", "Exp", "88.72"),
        ("float64", "Exp", "709.8"),
        ("bfloat16", "Expm1", "88.72"),
        ("float32", "Sinh", "89.42"),
        ("float64", "Cosh", "710.5"),
    ],
)
def test_where_an_exponential_overflows(dtype, kind, limit):
    beyond = np.full(3, 800.0, "float16" if dtype == "float16" else "float64")
    cause, _ = cause_of(Circumstances(kind, [beyond], np.ones(3, bool), tf.as_dtype(dtype), []))
    assert f"overflow of {kind.lower()} in {dtype} " in cause and f"it overflows above {limit})" in cause


def test_one_frame_tells_no_growth():
    frame = Frame(-1, 2.0, {}, {"kernel": 3e8})
    cause, _ = cause_of(Circumstances("MatMul", [], None, tf.float32, [frame]))
    assert cause == "a learning rate that blew the weights up: the largest weight is 3e+08"
    later = Frame(-1, 5.0, {}, {"kernel": 6e9})
    cause, _ = cause_of(Circumstances("MatMul", [], None, tf.float32, [frame, later]))
    assert "grew 20 times, to 6e+09; the loss was 2 at first" in cause


@pytest.mark.slow
def test_a_loss_scale_that_is_looked_for_is_no_fault():
    def model(**arguments):
        keras.utils.set_random_seed(0)
        parts = layers.Dense(8, "relu", dtype="mixed_float16", name="hidden"), layers.Dense(1, dtype="mixed_float16")
        model = BackpropSequential([keras.Input((4,)), *parts], name="net")
        scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.01), initial_scale=2.0**30)
        model.compile(scaled, "mse", **arguments)
        return model

    x, y = planted(1.0)
    for arguments in ({}, {"epochs_per_execution": None}):
        callback, watched, plain = LocateNaN(), model(**arguments), model(**arguments)
        for one, callbacks in ((watched, [callback]), (plain, [])):
            one.fit(x, y, batch_size=BATCH, shuffle=False, epochs=4, verbose=0, callbacks=callbacks)
        assert not callback.faults
        assert float(watched.optimizer.dynamic_scale) == float(plain.optimizer.dynamic_scale) < 2.0**30
        assert_same_state(watched, plain)
        with pytest.raises(NonFiniteError, match=r"data \(x\)"):
            watched.fit(*planted(np.inf), batch_size=BATCH, shuffle=False, verbose=0, callbacks=[callback])


@pytest.mark.slow
def test_two_devices():
    """In a process of its own, for the devices must be made before TensorFlow is used."""
    script = """
import numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from tests.callbacks.test_locate_nan import *
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    model, reference = everything(), everything()
callback = LocateNaN("stop", verbose=0)
model.fit(*planted(np.nan), batch_size=BATCH, shuffle=False, verbose=0, callbacks=[callback])
assert [(f.step, f.path, f.examples, f.indices) for f in callback.faults] == [(2, "net/hidden", [3], [ROW])]
assert callback.fault.batch[0].shape == (8, 4)
x, y = planted(1.0)
reference.fit(x[:16], y[:16], batch_size=BATCH, shuffle=False, verbose=0)
for one, other in zip(model.get_weights(), reference.get_weights()):
    np.testing.assert_array_equal(one, other)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]


HEALTHY_IN_EVERY_RUN = [
    "relu_classifier", "missing_values_filled", "missing_targets_masked", "masked_attention", "gradients_that_are_cleaned",
]  # fmt: skip


@pytest.mark.parametrize("make", sampled(HEALTHY, HEALTHY_IN_EVERY_RUN))
def test_no_false_alarm(make):
    model, x, y = make()
    callback = LocateNaN()
    model.fit(x, y, batch_size=16, epochs=2, verbose=0, callbacks=[callback])
    assert not callback.faults and callback.fault is None
    if make in HEALTHY[:2]:
        model.compile("adam", model.loss, epochs_per_execution=None)
        model.fit(x, y, batch_size=16, epochs=2, verbose=0, callbacks=[callback])
        assert not callback.faults


@pytest.mark.slow
@pytest.mark.parametrize("make", LARGE, ids=lambda make: make.__name__)
def test_no_false_alarm_of_large_models(make):
    model, x, y = make()
    model.fit(x, y, batch_size=8, epochs=1, verbose=0, callbacks=[LocateNaN()])


@pytest.mark.parametrize("way", sampled(["compiled loop", "Keras's loop"], ["compiled loop"]))
def test_training_is_what_it_is_without(way):
    x, y = planted(1.0)
    watched, plain = everything(**WAYS[way]), everything(**WAYS[way])
    watched.fit(x, y, batch_size=BATCH, epochs=3, shuffle=False, verbose=0, callbacks=[LocateNaN()])
    plain.fit(x, y, batch_size=BATCH, epochs=3, shuffle=False, verbose=0)
    assert_same_state(watched, plain)


def test_a_batch_is_saved_and_reproduces_the_fault(tmp_path):
    x, y = planted(0.0)
    model = net(keras.ops.log, before=scale())
    callback = LocateNaN("stop", keep=2, verbose=0)
    model.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0, callbacks=[callback])
    fault = callback.fault
    fault.save(tmp_path / "batch.npz")
    batch = load_batch(tmp_path / "batch.npz")
    np.testing.assert_array_equal(batch[0], x[16:24])
    assert batch[2] is None
    again = locate(model, *batch)
    assert (again.path, again.cause, again.examples) == (fault.path, fault.cause, fault.examples)
    assert not np.isfinite(keras_backprop.backward(model, *batch).gradient("weighted/w")).all()


def test_only_the_batches_of_the_last_faults_are_kept():
    x, y = planted(np.nan)
    callback = LocateNaN("skip", keep=2, verbose=0)
    net().fit(x, y, batch_size=BATCH, epochs=4, verbose=0, callbacks=[callback])
    assert [fault.batch is not None for fault in callback.faults] == [False, False, True, True]
    with pytest.raises(ValueError, match="was not kept"):
        callback.faults[0].save("nowhere.npz")


def test_messages(capsys):
    callback = LocateNaN("skip")
    net(keras.ops.log).fit(*planted(0.0), batch_size=BATCH, shuffle=False, verbose=0, callbacks=[callback])
    text = capsys.readouterr().out
    for part in (
        "Epoch 1, step 3",
        "'own/log' (forward value)",
        "operation Log",
        "of the values 0",
        "examples 3",
        "19 in the data",
        "log of 0",
        "maximum(x, ε)",
        "goes on with the next batch",
    ):
        assert part in text, text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"action": "warn"}, "action='warn'"),
        ({"keep": -1}, "keep=-1"),
        ({"keep": True}, "keep=True"),
        ({"keep": 1.5}, "keep=1.5"),
    ],
)
def test_nonsensical_arguments(arguments, said):
    with pytest.raises(ValueError, match=said):
        LocateNaN(**arguments)


def test_models_that_cannot_be_looked_into():
    class Own(BackpropSequential):
        def train_step(self, data):
            return {"loss": keras.ops.zeros(())}

    model = Own([keras.Input((4,)), layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="has seen no step"):
        model.fit(*planted(1.0), verbose=0, callbacks=[LocateNaN()])


def test_configuration():
    callback = LocateNaN("skip", keep=3, verbose=0)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(callback))
    assert again.get_config() == {"action": "skip", "keep": 3, "verbose": 0}


def test_several_inputs_and_targets_in_dicts(tmp_path):
    keras.utils.set_random_seed(0)
    inputs = {"a": keras.Input((2,), name="a"), "b": keras.Input((3,), name="b")}
    hidden = layers.Concatenate()(
        [layers.Dense(3, name="left")(inputs["a"]), layers.Dense(3, name="right")(inputs["b"])]
    )
    outputs = {"p": layers.Dense(1, name="p")(hidden), "q": layers.Dense(2, name="q")(hidden)}
    model = keras_backprop.BackpropModel(inputs, outputs, name="net")
    model.compile("sgd", {"p": "mse", "q": "mae"})
    random = np.random.default_rng(0)
    x = {name: random.normal(size=(24, size)).astype("float32") for name, size in (("a", 2), ("b", 3))}
    y = {name: random.normal(size=(24, size)).astype("float32") for name, size in (("p", 1), ("q", 2))}
    x["b"][13, 0] = np.nan
    callback = LocateNaN("skip", verbose=0)
    model.fit(x, y, batch_size=8, shuffle=False, verbose=0, callbacks=[callback])
    fault = callback.fault
    assert (fault.path, fault.step, fault.indices) == ("right", 1, [13])
    fault.save(tmp_path / "batch.npz")
    batch = load_batch(tmp_path / "batch.npz")
    np.testing.assert_array_equal(batch[0]["b"], x["b"][8:16])
    np.testing.assert_array_equal(batch[1]["q"], y["q"][8:16])
