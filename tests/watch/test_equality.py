"""The monitor's figures are those of a tape, on every way on which a step can run."""

import keras
import numpy as np
import pytest

from keras_backprop.callbacks import BackwardMonitor
from tests.gradients.ways import WAYS, X, Y
from tests.watch.reference import STATISTICS, network, statistics, tape, told

SAMPLED = [
    pytest.param(way, marks=() if way in ("compiled loop", "XLA", "mixed precision") else pytest.mark.slow)
    for way in WAYS
    if way != "two devices"  # test_two_devices.py has them
]


def watched(model, epochs=2, **arguments):
    monitor = BackwardMonitor(**{"quantities": "all", "every": 1, **arguments})
    model.fit(X, Y, batch_size=8, epochs=epochs, shuffle=False, verbose=0, callbacks=[monitor])
    return monitor


def require_equal(model, monitor, rtol, atol):
    """Every statistic of every step of the last epoch."""
    last = monitor.history[-1]["step"]
    for step in range(last - 2, last + 1):
        batch = slice(8 * (step % 3), 8 * (step % 3) + 8)
        figures, expected = told(monitor.history, step), tape(model, X[batch], Y[batch])
        for of, arrays in zip(("activation", "delta", "gradient"), expected, strict=True):
            for path, array in arrays.items():
                for quantity, value in statistics(array).items():
                    scale = np.abs(array).max()
                    np.testing.assert_allclose(
                        figures[path, of, quantity], value, rtol, atol * scale, err_msg=f"{path} {of} {quantity} {step}"
                    )
        norms = {path: np.linalg.norm(x) for path, x in expected[1].items()}
        for above, below in (("hidden/tanh", "hidden"), ("second", "hidden/tanh"), ("out", "second/relu")):
            np.testing.assert_allclose(
                figures[above, "delta", "gain"], norms[below] / norms[above], max(rtol, 2 * atol)
            )


@pytest.mark.parametrize("way", SAMPLED)
def test_figures_are_the_tapes(way):
    model = network(way)
    monitor = watched(model)
    if way == "compiled loop":
        assert model.fit_path.compiled
    half = way == "mixed precision"
    require_equal(model, monitor, rtol=2e-2 if half else 1e-6, atol=2e-3 if half else 1e-6)


def test_double_precision(double_precision):
    model = network(dtype="float64")
    require_equal(model, watched(model), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("way", ["compiled loop", "mixed precision", "eager"])
def test_every_second_step_says_what_every_step_does(way):
    each, second = watched(network(way), 3), watched(network(way), 3, every=2)
    assert second.history.steps.tolist() == [0, 2, 4, 6, 8]
    for step in second.history.steps:
        expected, figures = told(each.history, step), told(second.history, step)
        assert expected.keys() == figures.keys()
        for name in expected:
            np.testing.assert_allclose(figures[name], expected[name], 1e-6, 1e-9, err_msg=str(name))


@pytest.mark.parametrize("way", ["compiled loop", "Keras's loop"])
def test_every_epoch_is_its_last_step(way):
    model = network(way)
    monitor = watched(model, 3, every="epoch", quantities="norm")
    assert monitor.history.steps.tolist() == [2, 5, 8] and monitor.history.epochs.tolist() == [0, 1, 2]
    _, deltas, gradients = tape(model)
    figures = told(monitor.history)
    for path, delta in deltas.items():
        np.testing.assert_allclose(figures[path, "delta", "norm"], np.linalg.norm(delta), 1e-6)
    for path, gradient in gradients.items():
        np.testing.assert_allclose(figures[path, "gradient", "norm"], np.linalg.norm(gradient), 1e-6)


def test_a_smaller_last_batch():
    model = network()
    monitor = BackwardMonitor(quantities=tuple(STATISTICS), every=1)
    model.fit(X[:20], Y[:20], batch_size=8, epochs=2, shuffle=False, verbose=0, callbacks=[monitor])
    figures, (activations, deltas, _) = told(monitor.history), tape(model, X[16:20], Y[16:20])
    for of, arrays in (("activation", activations), ("delta", deltas)):
        for path, array in arrays.items():
            for quantity, value in statistics(array).items():
                np.testing.assert_allclose(figures[path, of, quantity], value, 1e-6, 1e-7)


def test_training_is_what_it_is_without():
    plain, other = network(optimizer=keras.optimizers.Adam()), network(optimizer=keras.optimizers.Adam())
    plain.fit(X, Y, batch_size=8, epochs=3, shuffle=False, verbose=0)
    watched(other, 3)
    for one, another in zip(plain.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(one, another)
