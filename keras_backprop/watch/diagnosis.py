"""`diagnose`: what is wrong with a model, its data or its training, by one backward pass on one batch."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_backprop import _keras
from keras_backprop.backward_pass import backward
from keras_backprop.required import require_compiled, require_model
from keras_backprop.scopes import entered_for
from keras_backprop.training.snapshot import Snapshot
from keras_backprop.watch import about_data, about_flow, about_weights
from keras_backprop.watch.finding import Diagnosis, Finding
from keras_backprop.watch.locating import locate


def diagnose(model: Any, x: Any, y: Any = None, sample_weight: Any = None) -> Diagnosis:
    """What is wrong with a model on one batch, in words, worst first, each finding with evidence and remedy.

    Looked for are: values that are not finite; labels out of range; a loss that expects logits behind a softmax or sigmoid,
    and the reverse; targets that the output cannot reach; inputs that are not scaled; gradients that vanish or explode from
    layer to layer or through time; dead and saturated units; weights that get no gradient; layers frozen as they were
    initialised; weights that are all zero; units that are all the same; updates far from a thousandth of the weight; weights
    that are regularised twice.

    Args:
        model: a compiled Keras model, stock or `BackpropModel`. It stays as it is.
        x, y, sample_weight: a batch as `fit` takes it, of a few dozen examples; or as `x` alone a tuple `(x, y)` or
            `(x, y, sample_weight)`, or a `tf.data.Dataset` or `PyDataset`, of which the first batch is taken.

    Returns:
        A `Diagnosis`, a sequence of `Finding`. It is empty if nothing was found, and says so.

    Raises:
        TypeError: `model` is no Keras model.
        ValueError: it is not compiled, the batch is empty, or the data do not fit.
    """
    require_model(model, "diagnose")
    require_compiled(model, "diagnose")
    batch = _batch(model, x, y, sample_weight)
    before = Snapshot(model)
    try:
        return _diagnosed(model, batch)
    finally:
        before.restore()


def _batch(model, x, y, sample_weight):
    """The batch `(x, y, sample_weight)` as nested tensors, of what a user calls a batch."""
    given = x
    if y is None and isinstance(x, keras.utils.PyDataset):
        given = x[0]
    elif y is None and isinstance(x, tf.data.Dataset):
        given = next(iter(x), None)
        if given is None:
            raise ValueError(f"The data set has no batch. Received: x={x!r}")
    needs_targets = _keras.current(model, "_compile_loss") is not None
    if y is None and isinstance(given, tuple) and len(given) in (1, 2, 3) and needs_targets:
        x, y, sample_weight = _keras.unpack_x_y_sample_weight(given)
    batch = tuple(None if part is None else _tensors(part) for part in (x, y, sample_weight))
    sizes = {a.shape[0] if a.shape.rank else 1 for a in keras.tree.flatten(batch) if a is not None}
    if len(sizes) != 1 or 0 in sizes:
        raise ValueError(
            "A batch has as many examples in each of its arrays, and at least one. Received arrays of "
            f"{' and '.join(map(str, sorted(sizes))) or 'no'} examples."
        )
    return batch


def _tensors(part):
    """An array, nested lists of numbers, or a structure of these, as nested tensors."""
    if isinstance(part, dict):
        return {name: _tensors(one) for name, one in part.items()}
    if isinstance(part, (list, tuple)) and not _is_numbers(part):
        return type(part)(_tensors(one) for one in part)
    if part is None or tf.is_tensor(part):
        return part
    a = np.asarray(part)
    return tf.convert_to_tensor(a.astype(keras.config.floatx()) if a.dtype == np.float64 else a)


def _is_numbers(part):
    """Whether lists are an array that somebody has written down, and not a structure of arrays."""
    if isinstance(part, (list, tuple)):
        return all(map(_is_numbers, part))
    return np.ndim(part) == 0 and isinstance(part, (int, float, str, bool, np.generic))


def _diagnosed(model, batch):
    y_pred = keras.tree.map_structure(tf.stop_gradient, _forward(model, batch[0]))
    looked: dict = {}
    found = about_data.of_labels(model, batch, y_pred, looked)
    if any(finding.severity == "critical" for finding in found):  # the error of such labels cannot even be computed
        return Diagnosis(found, looked, model.name)
    fault = locate(model, *batch)
    looked["values"] = "all finite" if fault is None else "not all finite"
    if fault is not None:
        title = (
            f"{'A forward value' if fault.direction == 'forward value' else 'A gradient'} is not finite: {fault.cause}"
        )
        found.append(Finding(title, str(fault).splitlines()[0], fault.remedy, fault.path, "critical"))
        return Diagnosis(found, looked, model.name)
    look = Look(model, batch)
    for part in (about_data, about_flow, about_weights):
        found += part.findings(look, looked)
    return Diagnosis(found, looked, model.name)


def _forward(model, x):
    return model(x, **_keras.training_argument(model, True))


class Look:
    """One backward pass, and what is asked of it.

    Attributes:
        model, batch: what was given; `batch` as tensors.
        result: the `Backward`.
        links: list of `ObservedLink`, in forward order.
        record: the `Record` of the forward pass.
        n: int, the number of examples.
    """

    def __init__(self, model, batch):
        self.model, self.batch = model, batch
        self.result = self._pass()
        self.links = self.result.links
        self.record = self.result._examples.record
        self.n = next(t.shape[0] for t in keras.tree.flatten(batch[0]) if t is not None)

    def _pass(self, values=()):
        state = Snapshot(self.model)
        try:
            for weight, value in values:
                weight.assign(value)
            with entered_for(self.model):
                return backward(self.model, *self.batch)
        finally:
            state.restore()  # dropout draws the same in every pass

    def gradients_with(self, values):
        """The gradients if some weights had other values: pairs (weight, gradient). `values`: list of (weight, value)."""
        result = self._pass(values)
        return list(zip(result.weights, result.gradients, strict=True))

    def layers(self):
        """The links that are layers with weights, in forward order."""
        return [k for k in self.links if isinstance(k.call.op, keras.layers.Layer) and k.call.op.weights]

    def gradient(self, weight):
        """∂E/∂W of a trainable weight, an array; None where E does not depend on it."""
        for v, g in zip(self.result.weights, self.result.gradients, strict=True):
            if v is weight:
                return None if g is None else array(tf.convert_to_tensor(g))
        return None


def array(x):
    """A tensor or variable as an array of float32 or wider."""
    x = tf.convert_to_tensor(x)
    return keras.ops.convert_to_numpy(tf.cast(x, tf.float32) if x.dtype in (tf.bfloat16, tf.float16) else x)
