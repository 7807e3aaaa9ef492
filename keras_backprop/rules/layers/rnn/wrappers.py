"""Bidirectional, TimeDistributed, and a stack of cells called alone."""

import keras
import tensorflow as tf
from keras import layers

from keras_backprop import _keras
from keras_backprop.registry import backward_rule, composition, rule_for
from keras_backprop.rule import Gradients
from keras_backprop.rules.layers.rnn.through_time import batch_first, time_first
from keras_backprop.shapes import sizes_of


@composition(layers.Bidirectional, joins=True)
def bidirectional(record, layer, sequences, initial_state=None, mask=None, training=None):
    """y = merge(forward(x), reversed backward(x))        the two directions and the merging are links of their own"""
    kwargs = {}
    if _keras.takes_training(layer.forward_layer):
        kwargs["training"] = training
    if _keras.takes_mask(layer.forward_layer):
        kwargs["mask"] = mask
    half = None if initial_state is None else len(initial_state) // 2
    first, second = (None, None) if half is None else (initial_state[:half], initial_state[half:])
    y = record.run(layer.forward_layer, sequences, initial_state=first, **kwargs)
    y_reversed = record.run(layer.backward_layer, sequences, initial_state=second, **kwargs)
    states = ()
    if layer.return_state:
        (y, *states), (y_reversed, *more) = y, y_reversed
        states = (*states, *more)
    merge = Merge(layer)
    y = record.run_function(merge, f"{layer.path}/merge", y, y_reversed)
    if not layer.return_state:
        return y
    return (*y, *states) if layer.merge_mode is None else (y, *states)


class Merge:
    """The last step of `Bidirectional`: turn the second direction round and put the two together."""

    def __init__(self, layer):
        self.mode, self.turns, self.dtype = layer.merge_mode, layer.return_sequences, layer.compute_dtype

    def __call__(self, a, b):
        a, b = tf.cast(a, self.dtype), self.turned(tf.cast(b, self.dtype))
        if self.mode is None:
            return a, b
        if self.mode == "concat":
            return tf.concat([a, b], -1)
        return {"sum": lambda: a + b, "ave": lambda: (a + b) / 2, "mul": lambda: a * b}[self.mode]()

    def turned(self, b):
        return tf.reverse(b, [1]) if self.turns else b


@backward_rule(Merge)
def merge(call, dy):
    """y = [a b]  or  a + b  or  (a + b)/2  or  a·b        b turned round in time, and so is db"""
    a, b = call.inputs
    op = call.op
    if op.mode is None:
        da, db = dy
    elif op.mode == "concat":
        da, db = tf.split(dy, [a.shape[-1], b.shape[-1]], -1)
    elif op.mode == "mul":
        da, db = dy * op.turned(tf.cast(b, op.dtype)), dy * tf.cast(a, op.dtype)
    else:
        da = db = dy / 2 if op.mode == "ave" else dy
    return Gradients(da, op.turned(db))


@composition(layers.StackedRNNCells)
def stacked_rnn_cells(record, cells, inputs, states, training=False, **kwargs):
    """y₁, s₁ = cell₁(x, s₁₋)        y₂, s₂ = cell₂(y₁, s₂₋) …        every cell is a link of its own"""
    y, after = inputs, []
    for cell, state in zip(cells.cells, states, strict=False):
        nested = keras.tree.is_nested(state)
        takes_training = isinstance(cell, keras.layers.Layer) and _keras.takes_training(cell)
        options = {**kwargs, "training": training} if takes_training else kwargs
        y, state = record.run(cell, y, list(state) if nested else [state], **options)
        after.append(state[0] if len(state) == 1 and not nested else state)
    return y, after[0] if len(after) == 1 else after


@composition(layers.TimeDistributed, joins=True)
def time_distributed(record, layer, inputs, training=None, mask=None):
    """y[t] = layer(x[t])        all time steps as one batch, or one after the other if the layer would notice"""
    inner = layer.layer
    masked = mask is not None and _keras.takes_mask(inner)
    if masked or not all(_each_row_by_itself(one) for one in _keras.layers_in(inner)):
        return record.stock(layer)(inputs, training=training, mask=mask)
    kwargs = _keras.training_argument(inner, training)
    n, steps = sizes_of(inputs)[:2]
    with record.repeated(steps):
        y = record.run_body(inner, tf.reshape(time_first(inputs), [-1, *sizes_of(inputs, 2)]), **kwargs)
    return batch_first(tf.reshape(y, [steps, n, *sizes_of(y, 1)]))


def _each_row_by_itself(layer):
    """Whether a layer, or a graph of such layers, would notice nothing."""
    if layer.activity_regularizer is not None:
        return False
    if isinstance(layer, keras.Model):
        graph = _keras.graph_of(layer)
        return graph is not None and all(isinstance(node, keras.layers.Layer) for node in graph.operations)
    activation, rule = getattr(layer, "activation", None), rule_for(layer)
    known = activation is None or _keras.is_activation(activation)
    along_rows = any(axis is not None and (axis == 0 or axis < -1) for axis in _keras.axes_of(layer))
    return rule is not None and rule.rowwise and known and not along_rows
