"""Where does the gradient vanish? The same deep network with sigmoids and with tanhs, watched while `fit` runs.

    python examples/watch_gradients.py [directory]

prints ‖∂E/∂z‖ of every layer, from the output down, and writes a report of each network to the directory: open it in a browser.
"""

import pathlib
import sys
import tempfile

import keras
import numpy as np

import keras_backprop
from keras_backprop import BackpropSequential
from keras_backprop.callbacks import BackwardMonitor

DEPTH = 10
directory = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 and __name__ == "__main__" else tempfile.mkdtemp())
directory.mkdir(parents=True, exist_ok=True)

generator = np.random.default_rng(0)
x = generator.normal(size=(512, 8)).astype("float32")
y = np.sin(x.sum(axis=1, keepdims=True))

norms, monitors = {}, {}
for activation in ("sigmoid", "tanh"):
    keras.utils.set_random_seed(1)
    hidden = [keras.layers.Dense(32, activation, name=f"layer_{i}") for i in range(1, DEPTH + 1)]
    model = BackpropSequential([keras.Input((8,)), *hidden, keras.layers.Dense(1, name="out")], name=activation)
    model.compile("adam", "mse")

    monitor = BackwardMonitor(
        quantities=("norm", "gain", "saturated", "update_ratio", "histogram"),
        every=4,
        csv=directory / f"{activation}.csv",
    )
    model.fit(x, y, batch_size=32, epochs=5, verbose=0, callbacks=[monitor])
    monitors[activation] = monitor

    # A link's path is that of its layer; its activation is a link of its own, below it.
    series = [monitor.history.series(f"{activation}/layer_{i}", "delta", "norm") for i in range(DEPTH, 0, -1)]
    norms[activation] = [float(one[-1]) for one in series]
    print(f"{activation}: " + "  ".join(f"{norm:.1e}" for norm in norms[activation]))
    print("  report:", monitor.report(directory / f"{activation}.html", title=f"Ten layers of {activation}"))

lost = {activation: ends[0] / ends[-1] for activation, ends in norms.items()}
said = " and ".join(f"by {factor:.1e} with {activation}" for activation, factor in lost.items())
print(f"From the last hidden layer to the first ‖∂E/∂z‖ falls {said}.")

# One batch of the last network, with the chain written out.
print("  report:", keras_backprop.explain(model, x[:8], y[:8]).report(directory / "batch.html"))
