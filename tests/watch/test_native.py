"""The operation of our own that measures tensors: its figures are NumPy's, and those of TensorFlow's operations."""

import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_backprop import BackpropModel, native_library
from keras_backprop.callbacks import BackwardMonitor
from keras_backprop.watch.native.figures import FIGURES, MEASURE, ROW, ROW_OF, SOURCE, TOGETHER, Measured, _groups

needs_compiler = pytest.mark.skipif(
    shutil.which("cc") is None, reason="a C compiler is needed: apt install gcc libc6-dev"
)
OF_ONE = FIGURES[: FIGURES.index("change")]


def measured(arrays, wanted, limits, width=None, place=0):
    """What the operations put out of arrays, an array."""
    assert native_library.is_loaded(SOURCE, MEASURE)
    definition = tf.compat.v1.GraphDef()
    row = definition.node.add(name="row", op=ROW)
    row.attr["width"].i = width or sum(one.bit_count() for one in wanted)
    names = [f"x{i}" for i in range(len(arrays))]
    node = definition.node.add(name="measure", op=MEASURE, input=["row", *names])
    node.attr["N"].i, node.attr["place"].i = len(arrays), place
    node.attr["wanted"].list.i.extend(wanted)
    node.attr["lower"].list.f.extend([limits[0]] * len(arrays))
    node.attr["upper"].list.f.extend([limits[1]] * len(arrays))
    definition.node.add(name="figures", op=ROW_OF, input=["row", "^measure"])
    for name in names:
        definition.node.add(name=name, op="Placeholder").attr["dtype"].type = tf.float32.as_datatype_enum

    @tf.function
    def run(*tensors):
        given = {f"{name}:0": x for name, x in zip(names, tensors, strict=True)}
        return tf.graph_util.import_graph_def(definition, given, ["figures:0"])[0]

    return run(*(tf.constant(a) for a in arrays)).numpy()


def expected(x, lower, upper):
    """The figures of an array, computed in double precision, in the order of `OF_ONE`."""
    x = x.astype("float64")
    with np.errstate(all="ignore"):
        mean = x.mean() if x.size else np.nan
        spread = ((x - mean) ** 2).sum() / 2
        extremes = [x.max(), x.min()] if x.size else [-np.inf, np.inf]
        saturated = ((x <= np.float32(lower)) | (x >= np.float32(upper))).sum()
        figures = [(x**2).sum() / 2, mean, spread, *extremes, (x == 0).sum(), np.isfinite(x).sum(), saturated]
        return np.array(figures).astype("float32")


def arrays():
    draw = np.random.default_rng(0).normal
    made = {f"{n} numbers": draw(0.5, 2.0, n) for n in (0, 1, 31, 32, 33, 511, 512, 513, 2048, 100_001)}
    made["a mean far from 0"] = draw(1000.0, 0.1, 3000)
    made["all alike"] = np.full(777, 3.0)
    made["zeros"] = draw(size=600) * (np.arange(600) % 3 > 0)
    made["-0"] = np.full(40, -0.0)
    for name, value in (("NaN", np.nan), ("infinity", np.inf), ("-infinity", -np.inf)):
        for place in (5, 640):
            made[f"{name} at {place}"] = draw(size=650)
            made[f"{name} at {place}"][place] = value
    made["squares that overflow"] = draw(1e20, 1e16, 700)
    made["sums that overflow"] = np.full(64, 3e38)
    return {name: a.astype("float32") for name, a in made.items()}


@needs_compiler
def test_figures_are_those_of_numpy():
    given = arrays()
    figures = measured(list(given.values()), [2 ** len(OF_ONE) - 1] * len(given), (-1.0, 2.0))
    for (name, x), row in zip(given.items(), figures.reshape(-1, len(OF_ONE)), strict=True):
        if name == "sums that overflow":
            assert row[OF_ONE.index("finite")] == x.size
            continue
        for figure, value, exact in zip(OF_ONE, row, expected(x, -1.0, 2.0), strict=True):
            scale = np.abs(x).max(initial=1.0) if figure == "mean" and np.isfinite(x).all() else 0.0
            np.testing.assert_allclose(value, exact, 1e-6, 1e-7 * scale, err_msg=f"{figure} of {name}")


@needs_compiler
def test_what_is_wanted_of_each_and_changes():
    x, y, z = (np.random.default_rng(i).normal(size=700).astype("float32") for i in range(3))
    bit = {name: 1 << i for i, name in enumerate(FIGURES)}
    row = measured([x, y, z], [bit["change"] + bit["squares"], 0, bit["min"]], (0.0, 0.0))
    np.testing.assert_allclose(row, [(x**2).sum() / 2, ((x - y) ** 2).sum() / 2, z.min()], 1e-6)


@needs_compiler
@pytest.mark.parametrize(
    ("sizes", "wanted", "place", "message"),
    [
        ((3,), ["squares", "min"], 1, "do not fit"),
        ((3,), ["squares"], -1, "do not fit"),
        ((3,), ["change"], 0, "as many numbers"),
        ((3, 2), ["change"], 0, "as many numbers"),
    ],
)
def test_memory_of_others_is_not_touched(sizes, wanted, place, message):
    bits = [sum(1 << FIGURES.index(name) for name in wanted), 0][: len(sizes)]
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        measured([np.ones(size, "float32") for size in sizes], bits, (0.0, 0.0), 2, place)


def test_tensors_of_links_come_alone_and_those_of_weights_together():
    sizes = [TOGETHER // 2, TOGETHER // 2, 1, 3 * TOGETHER, 5, 6]
    both = [Measured(tf.zeros(size), of_weight) for size in sizes for of_weight in (True, False)]
    groups = [[(one.x.shape[0], one.of_weight) for one in group] for group in _groups(both)]
    assert groups[: len(sizes)] == [[(size, False)] for size in sizes]
    assert [[size for size, _ in group] for group in groups[len(sizes) :]] == [
        sizes[:2],
        sizes[2:3],
        sizes[3:4],
        sizes[4:],
    ]


def watched(*every, jit_compile=False):
    """What is noted of a small model in two epochs with a smaller last batch; its weights; how often the loop notes natively.

    `every`: of each monitor. The first one's history is returned.
    """
    keras.utils.set_random_seed(3)
    inputs = keras.Input((6,))
    outputs = layers.Dense(2, "tanh", name="out")(layers.Dense(8, "relu", name="hidden")(inputs))
    model = BackpropModel(inputs, outputs, name="net")
    model.compile(keras.optimizers.SGD(0.02, clipnorm=0.5), "mse", jit_compile=jit_compile)
    x = np.random.default_rng(0).normal(2.0, 3.0, (44, 6)).astype("float32")
    monitors = [BackwardMonitor(quantities="all", every=steps) for steps in every]
    model.fit(x, x[:, :2], batch_size=8, epochs=2, shuffle=False, verbose=0, callbacks=monitors)
    return monitors[0].history, model.get_weights(), sum(node.op == ROW for node in nodes_of(model))


def nodes_of(model):
    """The operations of the compiled loop of a model."""
    (loop,) = model._loops.kept.values()
    definition = loop._function.graph.as_graph_def()
    return [*definition.node, *(node for inner in definition.library.function for node in inner.node_def)]


@needs_compiler
@pytest.mark.parametrize("every", [1, 3])
def test_a_loop_with_it_is_a_loop_without_it(every, monkeypatch):
    natively, weights, count = watched(every)
    monkeypatch.setattr(native_library, "is_loaded", lambda *_: False)
    otherwise, same_weights, none = watched(every)
    assert count > 0 and none == 0
    for one, another in zip(weights, same_weights, strict=True):
        np.testing.assert_array_equal(one, another)
    for one, another in zip(natively, otherwise, strict=True):
        value, other = one.pop("value"), another.pop("value")
        assert one == another
        scale = 1e-7 * (natively.series(one["path"], one["of"], "norm").max() if one["quantity"] == "mean" else 0)
        np.testing.assert_allclose(value, other, 2e-6, scale, err_msg=str(one))


@needs_compiler
def test_each_copy_of_the_step_has_it():
    _, _, count = watched(1, 2)
    assert count == 1 + 2  # in the step that only the first notes, and in the one that both note


@needs_compiler
@pytest.mark.parametrize("every", [1, 2])
def test_who_may_write_over_a_tensor_comes_after_its_measurement(every):
    model = BackpropModel.from_keras(keras.Sequential([keras.Input((6,)), layers.Dense(3, "tanh"), layers.Dense(2)]))
    model.compile("sgd", "mse", jit_compile=False)
    x = np.ones((8, 6), "float32")
    model.fit(x, x[:, :2], batch_size=4, verbose=0, callbacks=[BackwardMonitor(quantities="norm", every=every)])
    nodes = nodes_of(model)
    measures = {node.name for node in nodes if node.op == MEASURE}
    for kind in ("Tanh", "TanhGrad"):  # each writes its result over z, and over ∂E/∂y, where it may
        after = [
            not measures.isdisjoint(name.removeprefix("^") for name in node.input) for node in nodes if node.op == kind
        ]
        assert sorted(after) == [False] * (every > 1) + [True]  # a step that is not noted measures nothing


@pytest.mark.slow
@needs_compiler
def test_xla_is_given_tensorflows_operations():
    history, _, count = watched(1, jit_compile=True)
    assert count == 0 and len(history) > 0
