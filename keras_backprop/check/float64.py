"""Run a model in double precision without touching it.

For the duration of a block the layers compute in float64, their variables read as float64 tensors of our choice, and whatever
they assign (batch statistics, seeds) is forgotten at the end: a `StatelessScope`. Nothing is cloned, so that it works for
any layer that people write, and every evaluation draws the same dropout masks.
"""

import collections
import contextlib

import keras
import tensorflow as tf

from keras_backprop import _keras
from keras_backprop.check.pooling import pooling_of_everything


def is_float(variable):
    return tf.as_dtype(_keras.dtype_of(variable)).is_floating


def values_of(variables, double=True):
    """The values of float variables as tensors, in float64 if `double`: a dict `id(variable)` -> tensor."""
    values = {id(v): tf.convert_to_tensor(v.value) for v in variables if is_float(v)}
    return {key: tf.cast(value, tf.float64) for key, value in values.items()} if double else values


class StateForgotten(_keras.StatelessScope):
    """Forgets what is assigned. A trainable weight that the call itself assigns is differentiated from there on.

    `SpectralNormalization` divides its kernel and then uses it: the optimizer will move the quotient, so the gradient is that
    of the quotient. Under a functional scope it would be that of the kernel before. Hence what was assigned first is kept, and
    every change of the weight is applied to that.
    """

    def __init__(self, values, assigned):
        super().__init__(collect_losses=True)
        self.state_mapping.update(values)
        self.assigned, self.counts = assigned, collections.Counter()

    def add_update(self, update):
        variable, value = update
        if variable.trainable and id(variable) in self.state_mapping:
            before = self.state_mapping[id(variable)]
            self.counts[id(variable)] += 1
            key = id(variable), self.counts[id(variable)]
            start, new = self.assigned.setdefault(key, (tf.stop_gradient(before), tf.stop_gradient(value)))
            value = new + (before - start)
        super().add_update((variable, value))


@contextlib.contextmanager
def in_float64(layer, values, losses=(), assigned=None):
    """Let `layer` and everything in it compute in float64.

    Args:
        layer: a Keras layer or model.
        values: dict `id(variable)` -> float64 tensor, what the variables read as.
        losses: `keras.losses.Loss` objects that compute in float64 too.
        assigned: dict, what the layer assigned to trainable weights the first time; the same dict for one problem.

    Yields:
        The `keras.StatelessScope`.
    """
    double = keras.DTypePolicy("float64")
    changes, floatx = [], keras.config.floatx()

    def set_attribute(owner, name, value):
        changes.append((owner, name, vars(owner)[name]))
        vars(owner)[name] = value

    try:
        keras.config.set_floatx("float64")
        layers = _keras.layers_in(layer)
        for one in layers:
            if tf.as_dtype(one.compute_dtype or "float32").is_floating:
                set_attribute(one, "_dtype_policy", double)
            if isinstance(one, keras.layers.InputLayer) and tf.as_dtype(one.dtype).is_floating:
                set_attribute(one, "_dtype", "float64")  # a Sequential casts what it is given to this
            if vars(one).get("_remat_mode") is not None:  # recomputing would not see the values of our scope
                set_attribute(one, "_remat_mode", None)
            graph = _keras.graph_of(one)
            for tensor in graph.inputs if graph is not None else ():
                if tf.as_dtype(tensor.dtype).is_floating:
                    set_attribute(tensor, "_dtype", "float64")
        for variable in _unique(v for one in layers for v in one.variables):
            if is_float(variable):
                set_attribute(variable, "_dtype", "float64")
                if id(variable) in values:  # for scopes that Keras opens inside ours, to find out a shape
                    set_attribute(variable, "_value", values[id(variable)])
        for loss in losses:
            set_attribute(loss, "_dtype", "float64")
        with pooling_of_everything(), StateForgotten(values, {} if assigned is None else assigned) as scope:
            yield scope
    finally:
        keras.config.set_floatx(floatx)
        for owner, name, value in reversed(changes):
            vars(owner)[name] = value


def _unique(variables):
    return {id(v): v for v in variables}.values()
