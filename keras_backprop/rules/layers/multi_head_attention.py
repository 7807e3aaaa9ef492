"""MultiHeadAttention and GroupQueryAttention: projections, attention, a projection. Each is a link with its own rule.

Nothing is differentiated here. The way is Keras's: through `dot_product_attention` where nobody needs the probabilities,
otherwise through scores, Softmax and Dropout one by one.
"""

import tensorflow as tf
from keras import layers

from keras_backprop import _keras
from keras_backprop._keras import ops
from keras_backprop.registry import composition


@composition(layers.MultiHeadAttention)
def multi_head_attention(
    record, layer, query, value, key=None, query_mask=None, value_mask=None, key_mask=None, attention_mask=None,
    return_attention_scores=False, training=None, use_causal_mask=False,
):  # fmt: skip
    """y = W_o·(gate·attention(W_q·q, W_k·k, W_v·v)), gate = σ(W_g·q) or 1"""
    key = value if key is None else key
    query_mask = _keras.get_keras_mask(query)  # Keras goes by the tensor's mask, and takes the masks off
    for x in (query, value, key):
        _keras.set_keras_mask(x, None)
    masks = {"query_mask": query_mask, "value_mask": value_mask, "key_mask": key_mask, "attention_mask": attention_mask}
    window = getattr(layer, "_sliding_window", None)
    mask, causal = _mask(layer, query, value, masks, use_causal_mask, window)
    gate = record.run(layer._gate_dense, query) if getattr(layer, "_use_gate", False) else None
    q, k, v = _projected(record, layer, query, key, value)
    scale, scores = layer._inverse_sqrt_key_dim, None
    axes = len(layer._attention_axes)
    if layer._dropout > 0 or return_attention_scores or len(q.shape) != 4:
        mask = layer._compute_causal_mask(q, v) if causal else mask
        q = record.run(ops.Multiply(), q, tf.cast(scale, q.dtype))
        scores = record.run(ops.Einsum(layer._dot_product_equation), k, q)
        output, scores = _weighted(record, layer, scores, v, _expanded(mask, len(scores.shape), axes), training)
    else:
        output = _attention(record, layer, q, k, v, _expanded(mask, 4, axes), scale, causal)
    output = _output(record, layer, output, gate)
    if query_mask is not None:
        _keras.set_keras_mask(output, query_mask)
    return (output, scores) if return_attention_scores else output


@composition(layers.GroupQueryAttention)
def grouped_query_attention(
    record, layer, query, value, key=None, query_mask=None, value_mask=None, key_mask=None, attention_mask=None,
    return_attention_scores=False, training=None, use_causal_mask=False,
):  # fmt: skip
    """As multi-head attention; several heads of queries share a head of keys and values."""
    layer._return_attention_scores = return_attention_scores
    key = value if key is None else key
    masks = {"query_mask": query_mask, "value_mask": value_mask, "key_mask": key_mask, "attention_mask": attention_mask}
    mask, causal = _mask(layer, query, value, masks, use_causal_mask, getattr(layer, "sliding_window", None))
    gate = record.run(layer._gate_dense, query) if getattr(layer, "use_gate", False) else None
    q, k, v = _projected(record, layer, query, key, value)
    scale, scores = layer._inverse_sqrt_head_dim, None
    if layer.dropout > 0 or return_attention_scores:
        mask = layer._compute_causal_mask(q, v) if causal else mask
        k, v = (record.run(ops.Repeat(layer.num_repeats, axis=2), x) for x in (k, v))
        q = record.run(ops.Multiply(), q, tf.cast(scale, q.dtype))
        scores = record.run(ops.Einsum(layer._dot_product_equation), q, k)
        output, scores = _weighted(record, layer, scores, v, _expanded(mask, 4), training)
    else:
        output = _attention(record, layer, q, k, v, _expanded(mask, 4), scale, causal)
    output = _output(record, layer, output, gate)
    return (output, scores) if return_attention_scores else output


def _mask(layer, query, value, masks, use_causal_mask, window):
    """The mask of the scores, and whether a causal mask is all there is: the kernel makes it then."""
    if use_causal_mask and window is None and all(mask is None for mask in masks.values()):
        return None, True
    return layer._compute_attention_mask(query, value, **masks, use_causal_mask=use_causal_mask), False


def _expanded(mask, rank, attention_axes=1):
    """A mask (n, t, s) with axes of size 1 for the heads."""
    while mask is not None and len(mask.shape) < rank:
        mask = tf.expand_dims(mask, -2 * attention_axes - 1)
    return mask


def _projected(record, layer, query, key, value):
    return (
        record.run(layer._query_dense, query),
        record.run(layer._key_dense, key),
        record.run(layer._value_dense, value),
    )


def _attention(record, layer, q, k, v, mask, scale, causal):
    mask = None if mask is None else tf.cast(mask, tf.bool)
    attention = ops.DotProductAttention(is_causal=causal, flash_attention=layer._flash_attention)
    return record.run(attention, q, k, v, None, mask, scale)


def _weighted(record, layer, scores, v, mask, training):
    """Probabilities, and the mean of the values that they give after dropout."""
    probabilities = dropped = record.run(layer._softmax, scores, mask=mask)
    if layer.dropout > 0:
        dropped = record.run(layer._dropout_layer, probabilities, training=training)
    return record.run(ops.Einsum(layer._combine_equation), dropped, v), probabilities


def _output(record, layer, output, gate):
    return record.run(layer._output_dense, output if gate is None else record.run(ops.Multiply(), output, gate))
