"""The recurrent layers: what surrounds the loop over time. The loop is in `through_time.py`, the mathematics in the cells."""

import keras
import tensorflow as tf
from keras import layers

from keras_backprop import _keras
from keras_backprop._keras import ConvLSTM
from keras_backprop.registry import composition
from keras_backprop.rules.layers.rnn.recurrence import Loop, recurrence_of, through_time


@composition(layers.RNN, layers.SimpleRNN, layers.GRU, layers.LSTM, ConvLSTM)
@composition(layers.ConvLSTM1D, layers.ConvLSTM2D, layers.ConvLSTM3D)
def rnn(record, layer, sequences, initial_state=None, mask=None, training=False):
    """hₜ, sₜ = cell(xₜ, sₜ₋₁)        a stack of cells is a recurrent layer for each, one after the other"""
    stacked = type(layer.cell) is layers.StackedRNNCells
    cells = layer.cell.cells if stacked else [layer.cell]
    if not all(map(recurrence_of, cells)):  # people's cells: Keras's loop, followed as an operation
        return record.stock(layer)(sequences, initial_state=initial_state, mask=mask, training=training)
    states = start(layer, sequences, initial_state)
    each = states if stacked else [states]
    mask = mask_of_steps(mask, layer.go_backwards)
    y, last = sequences, []
    for position, (cell, before) in enumerate(zip(cells, each, strict=True)):
        top = position == len(cells) - 1
        options = {
            "go_backwards": layer.go_backwards and position == 0,
            "return_sequences": layer.return_sequences or not top,
            "zero_output_for_mask": layer.zero_output_for_mask and top,
            "unroll": layer.unroll,
        }
        path = cell.path if stacked else layer.path
        y, *after = run_cell(record, cell if stacked else layer, cell, path, y, before, mask, training, options)
        last.append(keras.tree.pack_sequence_as(before, after))
    _keras.forget_dropout_masks(layer, layer.cell)
    last = last if stacked else last[0]
    y, last = keras.tree.map_structure(lambda x: converted(x, layer.compute_dtype), (y, last))
    if layer.stateful:
        for variable, value in zip(keras.tree.flatten(layer.states), keras.tree.flatten(last), strict=True):
            variable.assign(value)
    return (y, *last) if layer.return_state else y


def run_cell(record, op, cell, path, x, nested, mask, training, options):
    """A cell over the time axis, as one link: (output, *states)."""
    kind = recurrence_of(cell)
    loop = Loop(kind, cell, training, **options)
    return record.run_as(op, through_time, kind, path, x, keras.tree.flatten(nested), mask, loop)


def start(layer, sequences, initial_state):
    """The states before the first step, nested as Keras has them; the dropout masks are drawn here."""
    if layer.unroll and sequences.shape[1] is None:
        raise ValueError(
            f"Layer '{layer.path}' cannot be unrolled: the length of its sequences is unknown. Received: sequences of "
            f"shape {sequences.shape}. Give the time axis a size in `keras.Input`, or use `unroll=False`."
        )
    if initial_state is None:
        n = sequences.shape[0] if sequences.shape[0] is not None else tf.shape(sequences)[0]
        initial_state = layer.states if layer.stateful else layer.get_initial_state(batch_size=n)
    expected = _keras.expected_batch_size(layer)
    if layer.stateful and expected is not None and sequences.shape[0] not in (None, expected):
        raise ValueError(
            f"Layer '{layer.path}' is stateful: the batch size must stay the same. Expected: {expected}. Received: "
            f"sequences of shape {sequences.shape}."
        )
    initial_state = list(initial_state) if keras.tree.is_nested(initial_state) else [initial_state]
    states = keras.tree.map_structure(lambda s: converted(s, layer.cell.compute_dtype), initial_state)
    _keras.draw_dropout_masks(layer, layer.cell, sequences[:, 0], states)
    return states


def mask_of_steps(mask, reverse):
    """(n, T) -> (T, n, 1), in the order of the steps."""
    if mask is None:
        return None
    mask = tf.cast(keras.tree.flatten(mask)[0], tf.bool)
    mask = tf.transpose(mask[..., None] if len(mask.shape) == 2 else mask, [1, 0, 2])
    return tf.reverse(mask, [0]) if reverse else mask


def converted(x, dtype):
    """x in another dtype. Of a state that the layer keeps, the value before this step's update."""
    if isinstance(x, keras.Variable):
        return tf.cast(tf.identity(x.value), dtype)
    return keras.ops.convert_to_tensor(x, dtype=dtype)
