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
    parts = _keras.AttentionParts(layer)
    mask, causal = _mask(parts, query, value, masks, use_causal_mask)
    gate, q, k, v = _projected(record, parts, query, key, value)
    scores = None
    if parts.dropout_rate > 0 or return_attention_scores or len(q.shape) != 4:
        mask = parts.causal_mask(q, v) if causal else mask
        q = record.run(ops.Multiply(), q, tf.cast(parts.scale, q.dtype))
        scores = record.run(ops.Einsum(parts.scores), k, q)
        output, scores = _weighted(record, parts, scores, v, _expanded(mask, len(scores.shape), parts.axes), training)
    else:
        output = _attention(record, parts, q, k, v, _expanded(mask, 4, parts.axes), causal)
    output = _output(record, parts, output, gate)
    if query_mask is not None:
        _keras.set_keras_mask(output, query_mask)
    return (output, scores) if return_attention_scores else output


@composition(layers.GroupQueryAttention)
def grouped_query_attention(
    record, layer, query, value, key=None, query_mask=None, value_mask=None, key_mask=None, attention_mask=None,
    return_attention_scores=False, training=None, use_causal_mask=False,
):  # fmt: skip
    """As multi-head attention; several heads of queries share a head of keys and values."""
    parts = _keras.AttentionParts(layer)
    parts.note_scores_wanted(return_attention_scores)
    key = value if key is None else key
    masks = {"query_mask": query_mask, "value_mask": value_mask, "key_mask": key_mask, "attention_mask": attention_mask}
    mask, causal = _mask(parts, query, value, masks, use_causal_mask)
    gate, q, k, v = _projected(record, parts, query, key, value)
    scores = None
    if parts.dropout_rate > 0 or return_attention_scores:
        mask = parts.causal_mask(q, v) if causal else mask
        k, v = (record.run(ops.Repeat(layer.num_repeats, axis=2), x) for x in (k, v))
        q = record.run(ops.Multiply(), q, tf.cast(parts.scale, q.dtype))
        scores = record.run(ops.Einsum(parts.scores), q, k)
        output, scores = _weighted(record, parts, scores, v, _expanded(mask, 4), training)
    else:
        output = _attention(record, parts, q, k, v, _expanded(mask, 4), causal)
    output = _output(record, parts, output, gate)
    return (output, scores) if return_attention_scores else output


def _mask(parts, query, value, masks, use_causal_mask):
    """The mask of the scores, and whether a causal mask is all there is: the kernel makes it then."""
    if use_causal_mask and parts.window is None and all(mask is None for mask in masks.values()):
        return None, True
    return parts.mask(query, value, **masks, use_causal_mask=use_causal_mask), False


def _expanded(mask, rank, attention_axes=1):
    """A mask (n, t, s) with axes of size 1 for the heads."""
    while mask is not None and len(mask.shape) < rank:
        mask = tf.expand_dims(mask, -2 * attention_axes - 1)
    return mask


def _projected(record, parts, query, key, value):
    """The gate, or None, and the projected queries, keys and values."""
    return (
        None if parts.gate is None else record.run(parts.gate, query),
        record.run(parts.query, query),
        record.run(parts.key, key),
        record.run(parts.value, value),
    )


def _attention(record, parts, q, k, v, mask, causal):
    mask = None if mask is None else tf.cast(mask, tf.bool)
    attention = ops.DotProductAttention(is_causal=causal, flash_attention=parts.flash)
    return record.run(attention, q, k, v, None, mask, parts.scale)


def _weighted(record, parts, scores, v, mask, training):
    """Probabilities, and the mean of the values that they give after dropout."""
    probabilities = dropped = record.run(parts.softmax, scores, mask=mask)
    if parts.dropout_rate > 0:
        dropped = record.run(parts.dropout, probabilities, training=training)
    return record.run(ops.Einsum(parts.weighted), dropped, v), probabilities


def _output(record, parts, output, gate):
    return record.run(parts.output, output if gate is None else record.run(ops.Multiply(), output, gate))
