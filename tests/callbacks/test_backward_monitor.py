"""`BackwardMonitor`: what is selected, noted, kept and told."""

import csv
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_backprop import BackpropModel, BackpropSequential, backward
from keras_backprop.callbacks import BackwardMonitor
from tests.watch.reference import told

X = np.random.default_rng(0).normal(size=(24, 4)).astype("float32")
Y = np.random.default_rng(1).normal(size=(24, 1)).astype("float32")


def sequential(*more, optimizer="sgd", **arguments):
    keras.utils.set_random_seed(1)
    stack = more or (layers.Dense(5, "relu", name="first"), layers.Dense(1, name="last"))
    model = BackpropSequential([keras.Input((4,)), *stack], name="net")
    model.compile(optimizer, "mse", **arguments)
    return model


def watched(model, *arguments, x=X, y=Y, epochs=1, batch_size=8, **options):
    monitor = BackwardMonitor(*arguments, **{"every": 1, **options})
    model.fit(x, y, batch_size=batch_size, epochs=epochs, shuffle=False, verbose=0, callbacks=[monitor])
    return monitor


def paths(monitor, of=None):
    return {r["path"] for r in monitor.history if of in (None, r["of"])}


def test_layers_are_chosen_by_pattern():
    model = sequential()
    assert paths(watched(model, "first", "norm"), "delta") == {"net/first", "net/first/relu"}
    assert paths(watched(model, "first", "norm"), "gradient") == {"net/first/kernel", "net/first/bias"}
    assert paths(watched(model, "*/kernel", "norm")) == {"net/first/kernel", "net/last/kernel"}
    assert paths(watched(model, [model.layers[1], "mse"], "delta.norm")) == {"net/last", "mse"}


def test_a_pattern_that_matches_nothing():
    model = sequential()
    before = model.get_weights()
    with pytest.raises(ValueError, match=r"the pattern 'frist' matches no link and no weight.*'net/first'"):
        watched(model, ["last", "frist"])
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"quantities": "nrom"}, "There is no quantity 'nrom'.*'norm', 'mean'.*'update_ratio'"),
        ({"quantities": "weight.norm"}, "There is no quantity 'weight.norm'"),
        ({"quantities": ()}, "at least one"),
        ({"every": 0}, "`every` must be.*every=0"),
        ({"every": "batch"}, "`every` must be.*'batch'"),
        ({"every": True}, "`every` must be.*True"),
        ({"batch_freq": 0}, "`batch_freq` must be.*batch_freq=0"),
        ({"layers": []}, "at least one pattern"),
        ({"logger": 3}, "`logger` must have a method `log"),
    ],
)
def test_nonsense_is_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        BackwardMonitor(**arguments)


def test_wrong_types_are_refused():
    with pytest.raises(TypeError, match="`quantities` must be names.*3"):
        BackwardMonitor(quantities=3)
    with pytest.raises(TypeError, match="`layers` must be patterns.*None"):
        BackwardMonitor(None)


def test_ratio_gain_and_stages():
    optimizer = keras.optimizers.SGD(0.5, clipnorm=0.01)
    model = sequential(optimizer=optimizer, gradients=lambda result: [3 * g for g in result.gradients])
    before = [w.copy() for w in model.get_weights()]
    figures = told(watched(model, batch_size=24, quantities="all").history)
    for w, old in zip(model.weights, before, strict=True):
        norm = figures[w.path, "gradient", "norm"]
        assert figures[w.path, "gradient", "scaled_norm"] == norm
        np.testing.assert_allclose(figures[w.path, "gradient", "given_norm"], 3 * norm, 1e-6)
        np.testing.assert_allclose(figures[w.path, "gradient", "clipped_norm"], 0.01, 1e-5)
        if np.any(old):
            expected = np.linalg.norm(keras.ops.convert_to_numpy(w) - old) / np.linalg.norm(old)
            np.testing.assert_allclose(figures[w.path, "weight", "update_ratio"], expected, 1e-4)
    every = [figures[w.path, "gradient", "norm"] for w in model.weights]
    np.testing.assert_allclose(figures["*", "gradient", "global_norm"], np.linalg.norm(every), 1e-6)
    np.testing.assert_allclose(figures["*", "gradient", "clipped_global_norm"], 0.02, 1e-5)


def test_dead_and_saturated_units():
    first = layers.Dense(4, "relu", name="first", bias_initializer=lambda *_, **__: [-99.0, -99.0, -99.0, 1.0])
    second = layers.Dense(
        3, "tanh", name="second", kernel_initializer="zeros", bias_initializer=lambda *_, **__: [9.0, 0, 0]
    )
    monitor = watched(
        sequential(first, second, layers.ReLU(negative_slope=0.1, name="leaky"), layers.Dense(1)), quantities="all"
    )
    figures = told(monitor.history, 0)
    assert figures["net/first/relu", "activation", "dead"] == 0.75
    np.testing.assert_allclose(figures["net/second/tanh", "activation", "saturated"], 1 / 3)
    assert figures["net/second/tanh", "activation", "max"] > 0.99
    assert not any(path.startswith("net/leaky") and quantity == "dead" for path, _, quantity in figures)


def test_histograms_count_magnitudes():
    from keras_backprop.watch.moments import EDGES

    monitor = watched(sequential(), "first", ("activation.histogram", "activation.norm"))
    counts = told(monitor.history)["net/first", "activation", "histogram"]
    z = keras.ops.convert_to_numpy(tf.abs(X[16:] @ monitor.model.layers[0].kernel + monitor.model.layers[0].bias))
    assert counts.sum() == z.size and len(counts) == len(EDGES) + 1
    assert monitor.history.series("net/first", "activation", "histogram").shape == (3, len(counts))


@pytest.mark.parametrize("layer", [layers.LSTM, layers.SimpleRNN])
def test_deltas_of_every_time_step(layer):
    keras.utils.set_random_seed(0)
    model = BackpropSequential([keras.Input((6, 3)), layer(4, name="rnn"), layers.Dense(1)], name="net")
    model.compile("sgd", "mse")
    x = np.random.default_rng(0).normal(size=(8, 6, 3)).astype("float32")
    figures = told(watched(model, x=x, y=Y[:8], quantities=("delta_by_step", "norm")).history)
    by_step = figures["net/rnn", "delta", "delta_by_step"]
    assert by_step.shape == (6,) and (np.diff(by_step) > 0).mean() > 0.5  # the error comes in at the last step
    assert by_step[0] < by_step[-1]


def test_accumulated_gradients_and_the_steps_that_update():
    optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=3, global_clipnorm=0.05)
    monitor = watched(
        sequential(optimizer=optimizer),
        quantities=("norm", "update_ratio", "clipped_norm", "clipped_global_norm"),
        epochs=2,
    )
    steps = {r["step"] for r in monitor.history if r["quantity"] == "update_ratio"}
    assert steps == {2, 5} == {r["step"] for r in monitor.history if r["quantity"] == "clipped_norm"}
    together = [r["value"] for r in monitor.history if r["quantity"] == "clipped_global_norm"]
    np.testing.assert_allclose(together, 0.05, 1e-5)
    assert {r["step"] for r in monitor.history if r["quantity"] == "norm"} == set(range(6))


def test_a_loss_scale_is_told_from_the_gradient():
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), initial_scale=1024.0)
    with_scale = told(
        watched(sequential(optimizer=optimizer), quantities=("norm", "scaled_norm", "clipped_norm")).history, 0
    )
    without = told(watched(sequential(optimizer=keras.optimizers.SGD(0.1)), quantities="norm").history, 0)
    for (path, of, quantity), value in without.items():
        np.testing.assert_allclose(with_scale[path, of, quantity], value, 1e-5)
        if of == "gradient":
            np.testing.assert_allclose(with_scale[path, of, "scaled_norm"], 1024 * value, 1e-5)
            np.testing.assert_allclose(with_scale[path, of, "clipped_norm"], value, 1e-5)


def test_steps_that_a_loss_scale_skips_update_nothing():
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), initial_scale=3e38)
    monitor = watched(sequential(optimizer=optimizer), y=1e3 * Y, quantities=("norm", "nonfinite", "update_ratio"))
    assert not [r for r in monitor.history if r["quantity"] == "update_ratio" and r["step"] == 0]
    assert max(r["value"] for r in monitor.history if r["quantity"] == "nonfinite") > 0


def test_nested_and_shared_layers_and_tables():
    keras.utils.set_random_seed(0)
    shared = layers.Dense(4, "tanh", name="shared")
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(4, name="deep")], name="inner")
    ids = keras.Input((3,), dtype="int32")
    h = layers.GlobalAveragePooling1D()(layers.Embedding(7, 4, name="table")(ids))
    model = BackpropModel(ids, layers.Dense(1, name="out")(shared(inner(shared(h)))), name="net")
    model.compile("sgd", "mse")
    x = np.random.default_rng(0).integers(0, 7, (8, 3))
    monitor = watched(model, x=x, y=Y[:8], quantities="all", batch_size=8)
    assert {"shared", "shared·2", "shared/tanh", "shared/tanh·2", "inner/deep"} <= paths(monitor, "delta")
    figures = told(monitor.history)
    assert figures["table/embeddings", "gradient", "zeros"] == 1 - len(np.unique(x)) / 7
    assert paths(watched(model, "shared", "delta.norm", x=x, y=Y[:8])) == {
        "shared",
        "shared·2",
        "shared/tanh",
        "shared/tanh·2",
    }


def test_layers_that_are_frozen_and_later_trained():
    model = sequential()
    model.layers[0].trainable = False
    model.compile("sgd", "mse")
    monitor = watched(model, ["first", "last"], "norm")
    assert "net/first/kernel" not in paths(monitor) and "net/last/kernel" in paths(monitor)
    model.layers[0].trainable = True
    model.compile("sgd", "mse")
    model.fit(X, Y, batch_size=8, verbose=0, callbacks=[monitor])
    assert "net/first/kernel" in paths(monitor)
    series = monitor.history.series("net/first/kernel", "gradient", "norm")
    assert np.isnan(series[:3]).all() and np.isfinite(series[3:]).all()
    assert monitor.history.steps.tolist() == list(range(6))


def test_history_is_a_tidy_list():
    monitor = watched(sequential(), epochs=2, every=2, quantities="norm")
    history = monitor.history
    assert history.steps.tolist() == [0, 2, 4] and history.epochs.tolist() == [0, 0, 1]
    assert len(history) == len(list(history)) == 3 * len(history.names())
    assert history[0] == next(iter(history)) and history[-1] == list(history)[-1] and history[1:3] == list(history)[1:3]
    assert list(history[0]) == ["epoch", "step", "path", "of", "quantity", "value"]
    with pytest.raises(IndexError):
        history[len(history)]
    with pytest.raises(KeyError, match="no figure"):
        history.series("net/first", "delta", "mean")
    frame = pytest.importorskip("pandas") and history.to_pandas()
    assert list(frame.columns) == list(history[0]) and len(frame) == len(history)
    assert frame.equals(monitor.to_pandas())


def test_figures_go_to_files_and_loggers(tmp_path):
    class Run:
        def __init__(self):
            self.logged = []

        def log(self, figures):
            self.logged.append(figures)

    run = Run()
    monitor = watched(
        sequential(), quantities=("norm", "histogram"), epochs=2, every="epoch", tensorboard=tmp_path / "board",
        csv=tmp_path / "figures.csv", logger=run,
    )  # fmt: skip
    assert [entry["step"] for entry in run.logged] == [2, 5] and [entry["epoch"] for entry in run.logged] == [0, 1]
    record = next(r for r in monitor.history if r["quantity"] == "norm")
    assert run.logged[0][f"{record['path']}/{record['of']}/norm"] == record["value"]
    lines = list(csv.DictReader((tmp_path / "figures.csv").read_text(encoding="utf-8").splitlines()))
    assert len(lines) == len(monitor.history) and float(lines[0]["value"]) == monitor.history[0]["value"]
    assert sum(json.loads(next(line for line in lines if line["quantity"] == "histogram")["value"])) > 0
    monitor.history.to_csv(tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_text() == (tmp_path / "figures.csv").read_text()
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(tmp_path / "board"), size_guidance={"tensors": 0}).Reload()
    assert {"net/first/delta/norm", "net/first/delta/histogram"} <= set(events.Tags()["tensors"])
    assert [event.step for event in events.Tensors("net/first/delta/norm")] == [2, 5]


@pytest.mark.filterwarnings("ignore:Your input ran out of data")  # Keras says so of every data set of unknown length
def test_unknown_lengths_take_the_last_step():
    def batches():
        for _ in range(3):
            yield X[:8], Y[:8]

    data = tf.data.Dataset.from_generator(
        batches, output_signature=(tf.TensorSpec((8, 4), tf.float32), tf.TensorSpec((8, 1), tf.float32))
    )
    monitor = BackwardMonitor(quantities="norm")
    sequential().fit(data, epochs=1, verbose=0, shuffle=False, callbacks=[monitor])
    assert monitor.history.steps.tolist() == [2]


def test_epochs_that_are_undone_are_not_told():
    class Stop(keras.callbacks.Callback):
        reads_only_logs = True

        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch == 4

    monitor, model = BackwardMonitor(quantities="norm", every=2), sequential()
    model.fit(X, Y, batch_size=8, epochs=40, shuffle=False, verbose=0, callbacks=[Stop(), monitor])
    assert model.fit_path.epochs_per_execution > 1
    assert monitor.history.steps.tolist() == list(range(0, 15, 2))
    other = sequential()
    other.fit(X, Y, batch_size=8, epochs=5, shuffle=False, verbose=0)
    np.testing.assert_array_equal(model.get_weights()[0], other.get_weights()[0])
    model.fit(X, Y, batch_size=8, epochs=2, shuffle=False, verbose=0, callbacks=[monitor])
    assert monitor.history.steps.tolist()[-3:] == [15, 17, 19]


def test_an_epoch_that_is_cut_short():
    class Fail(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 1:
                raise RuntimeError("no more")

    monitor = BackwardMonitor(quantities="norm", every=1)
    with pytest.raises(RuntimeError, match="no more"):
        sequential().fit(X, Y, batch_size=8, verbose=0, callbacks=[monitor, Fail()])
    assert len(monitor.history) == 0
    monitor.flush()
    assert monitor.history.steps.tolist() == [0, 1] and monitor.history.epochs.tolist() == [0, 0]


def test_nothing_attached_is_the_same_graph():
    def operations(model):
        (loop,) = model._loops.kept.values()
        return sorted(operation.type for operation in loop._function.graph.get_operations()), [
            len(step.operations) for _, step in loop._parts
        ]

    plain, once = sequential(), sequential()
    plain.fit(X, Y, batch_size=8, verbose=0)
    before = operations(plain)
    watched(once)
    once.make_train_function(force=True)
    once._loops.kept.clear()
    once.fit(X, Y, batch_size=8, verbose=0)
    assert operations(once) == before


def test_an_epoch_too_long_to_keep(monkeypatch):
    from keras_backprop.watch import table

    monkeypatch.setattr(table, "LARGEST", 100)
    with pytest.raises(ValueError, match="figures of one epoch would take.*`every`"):
        watched(sequential(), quantities="norm")


@pytest.mark.parametrize("way", ["memory", "tf.data", "Keras's loop"])
def test_figures_are_told_within_an_epoch(way):
    class Run:
        def __init__(self, model):
            self.model, self.logged = model, []

        def log(self, figures):
            self.logged.append((figures["epoch"], figures["step"], int(self.model.optimizer.iterations.numpy())))

    model = sequential()
    run = Run(model)
    monitor = BackwardMonitor(quantities="norm", every=3, logger=run, batch_freq=5)
    data, arguments = (X, Y), {"batch_size": 2}
    if way == "tf.data":
        data, arguments = (tf.data.Dataset.from_tensor_slices((X, Y)).batch(2),), {}
    model.run_eagerly = way == "Keras's loop"
    steps = len(X) // 2
    model.fit(*data, epochs=2, shuffle=False, verbose=0, callbacks=[monitor], **arguments)
    assert model.fit_path.compiled == (way != "Keras's loop")
    # Step 3 is told after 5 steps, the 10th after 10, the last of an epoch at its end.
    ends = sorted({*range(5, 2 * steps + 1, 5), steps, 2 * steps})
    expected = [(s // steps, s, next(end for end in ends if end > s)) for s in range(0, 2 * steps, 3)]
    assert run.logged == expected
    assert monitor.history.steps.tolist() == list(range(0, 2 * steps, 3))
    assert monitor.backward_observer.lost == 0


@pytest.mark.parametrize("batch_freq", [None, 2])
def test_methods_of_a_subclass_are_called_when_it_is_time(batch_freq):
    class Epochs(BackwardMonitor):
        def on_epoch_end(self, epoch, logs=None):
            super().on_epoch_end(epoch, logs)
            seen.append(int(self.model.optimizer.iterations.numpy()))

    class Batches(BackwardMonitor):
        def on_train_batch_end(self, batch, logs=None):
            super().on_train_batch_end(batch, logs)
            seen.append(int(self.model.optimizer.iterations.numpy()))

    for kind, expected in ((Epochs, [3, 6, 9]), (Batches, list(range(1, 10)))):
        seen: list = []
        monitor = kind(quantities="norm", every=2, batch_freq=batch_freq)
        sequential().fit(X, Y, batch_size=8, epochs=3, verbose=0, callbacks=[monitor])
        assert seen == expected and monitor.history.steps.tolist() == [0, 2, 4, 6, 8]


@pytest.mark.parametrize("every", [1, 2])
def test_noise_of_the_gradient_over_examples(every):
    model = sequential()
    first, bias = model.trainable_weights[:2]
    monitor = BackwardMonitor(quantities=("example_variance", "noise_scale", "example_cosine"), every=every)
    model.optimizer.learning_rate = 0.0
    model.fit(X, Y, batch_size=8, shuffle=False, verbose=0, callbacks=[monitor])
    assert model.fit_path.compiled
    step = int(monitor.history.steps[-1])
    result = backward(model, X[8 * step : 8 * step + 8], Y[8 * step : 8 * step + 8])
    own = [np.concatenate([keras.ops.convert_to_numpy(result.per_example(w)).reshape(8, -1) for w in ws], 1) * 8
           for ws in ([first], [bias], model.trainable_weights)]  # fmt: skip
    figures = {(r["path"], r["quantity"]): r["value"] for r in monitor.history if r["step"] == step}
    for path, g in zip((first.path, bias.path, "*"), own, strict=True):
        trace = g.var(0, ddof=1).sum()
        norm = np.square(g.mean(0)).sum() - trace / 8
        np.testing.assert_allclose(figures[path, "example_variance"], trace, 1e-4)
        np.testing.assert_allclose(figures[path, "noise_scale"], trace / norm if norm > 0 else np.inf, 1e-3)
    g = own[2]
    cosines = g @ g.mean(0) / np.linalg.norm(g, axis=1) / np.linalg.norm(g.mean(0))
    np.testing.assert_allclose(figures["*", "example_cosine"], cosines.mean(), 1e-5)
    assert len(figures) == 2 * (len(model.trainable_weights) + 1) + 1


def test_noise_of_layers_that_mix_examples_is_refused():
    model = BackpropSequential(
        [keras.Input((4,)), layers.Dense(3), layers.BatchNormalization(), layers.Dense(1, name="out")]
    )
    model.compile("sgd", "mse", jit_compile=False)
    with pytest.raises(ValueError, match="kernel.: There is no gradient per example.*by `layers`"):
        model.fit(X, Y, batch_size=8, verbose=0, callbacks=[BackwardMonitor(quantities="noise_scale")])
    monitor = BackwardMonitor("out", quantities="noise_scale")
    model.fit(X, Y, batch_size=8, verbose=0, callbacks=[monitor])
    assert {r["path"] for r in monitor.history} == {*(w.path for w in model.layers[-1].weights), "*"}
