"""A training that turns NaN, and a model that does not learn: where, and why."""

import keras
import numpy as np

import keras_backprop
from keras_backprop.callbacks import LocateNaN

random = np.random.default_rng(0)
x = random.uniform(0.5, 2.0, (96, 4)).astype("float32")
y = x.sum(1, keepdims=True)
x[37, 2] = 0.0  # the one example for which a logarithm is −∞


class LogFeatures(keras.layers.Layer):
    """w·x and its logarithm; `where` hides the value of log 0, but not its gradient."""

    def build(self, shape):
        self.w = self.add_weight(shape=(shape[-1],), initializer="ones", name="w")

    def call(self, x):
        x = self.w * x
        return keras.ops.concatenate([x, keras.ops.where(x > 0, keras.ops.log(x), 0.0)], -1)


keras.utils.set_random_seed(0)
parts = [keras.Input((4,)), LogFeatures(name="features"), keras.layers.Dense(8, "tanh"), keras.layers.Dense(1)]
model = keras_backprop.BackpropSequential(parts, name="prices")
model.compile(keras.optimizers.Adam(0.01), "mse")

locate = LocateNaN("skip")  # or "raise", "stop"
model.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0, callbacks=[locate])
fault = locate.faults[0]
assert (fault.path, fault.direction, fault.indices) == ("prices/features/log", "rule's own output", [37])
assert locate.skipped == 2 and all(np.isfinite(w).all() for w in model.get_weights())

# Why does this one not learn?
parts = [keras.Input((4,)), keras.layers.Dense(8, "relu", kernel_initializer="zeros"), keras.layers.Dense(1, "sigmoid")]
stuck = keras_backprop.BackpropSequential(parts, name="stuck")
stuck.compile("adam", "mse")
diagnosis = keras_backprop.diagnose(stuck, 1000 * x, y)
print(diagnosis)
assert {"Weights that are all zero", "Inputs that are not scaled", "Targets that the output cannot reach"} <= {
    finding.title for finding in diagnosis
}
