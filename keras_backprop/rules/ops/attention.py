"""Scaled dot-product attention. Derived in docs/derivations/attention.md.

Letters: q, k, v queries, keys and values; s the scale; S the scores; P the probabilities; o the output; n batch, h head,
t the position of a query, s that of a key. Keras keeps heads behind positions; here they are before them.
"""

import keras
import tensorflow as tf

from keras_backprop._keras import ops
from keras_backprop.registry import backward_rule, forward_rule
from keras_backprop.rule import Gradients


@forward_rule(ops.DotProductAttention)
def dot_product_attention_forward(op, query, key, value, bias=None, mask=None, scale=None):
    """o = P·v        P = softmax(S)        S = s·q·kᵀ + bias, masked. Saved: q·s, k, v, P, o.

    Below single precision Keras scales the scores, after it has cast them up; otherwise the order makes no difference.
    """
    if op.flash_attention or len(query.shape) != 4:
        return op.call(query, key, value, bias, mask, scale), {}  # raises Keras's own error
    dtype = keras.backend.result_type(query.dtype.name, key.dtype.name, value.dtype.name)
    precise = keras.backend.result_type(dtype, "float32")
    scale = 1.0 / tf.sqrt(tf.cast(tf.shape(key)[-1], tf.float32)) if scale is None else scale
    saved = {"scale": tf.cast(scale, precise), "late": dtype != precise, "precise": precise}
    q, k, v = (heads_first(tf.cast(x, dtype)) for x in (query, _repeated(key, query), _repeated(value, query)))
    q = q if saved["late"] else q * saved["scale"]
    scores = tf.cast(tf.matmul(q, k, transpose_b=True), precise)
    scores = scores * saved["scale"] if saved["late"] else scores
    scores = scores if bias is None else scores + tf.cast(bias, precise)
    seen = _seen(scores, mask, op.is_causal)
    if seen is not None:
        scores = tf.where(seen, scores, tf.constant((65500.0 if precise == "float16" else 3.38953e38) * -0.7, precise))
    p = tf.cast(tf.nn.softmax(scores), dtype)
    o = tf.matmul(p, v)
    if mask is not None:  # a query that sees nothing attends to everything equally, whatever its scores
        saved["sees"] = tf.cast(tf.reduce_any(seen, -1, keepdims=True), dtype)
    return heads_first(o), saved | {"q": q, "k": k, "v": v, "p": p, "o": o}


@backward_rule(ops.DotProductAttention, broadcasts=True)
def dot_product_attention(call, dy):
    """o = P·v        dv = Pᵀ·do        dP = do·vᵀ        dS = P·(dP − Σₛ P·dP)        dq = s·dS·k        dk = s·dSᵀ·q

    The sum needs no pass over P and dP: Σₛ P·dP = Σ do·o over the components of o.
    """
    saved, arguments = call.saved, call.arguments
    q, k, v, p, o, precise = (saved[name] for name in ("q", "k", "v", "p", "o", "precise"))
    do = heads_first(tf.cast(dy, p.dtype))
    dv = tf.matmul(p, do, transpose_a=True)
    do = do * saved["sees"] if "sees" in saved else do
    dp = tf.cast(tf.matmul(do, v, transpose_b=True), precise)
    ds = tf.cast(p, precise) * (dp - tf.cast(tf.reduce_sum(do * o, -1, keepdims=True), precise))
    by_name = {"bias": ds, "value": _unrepeated(heads_first(dv), arguments["value"])}
    ds = tf.cast(ds * saved["scale"] if saved["late"] else ds, p.dtype)
    ds_k = tf.matmul(ds, k)
    by_name["query"] = heads_first(ds_k if saved["late"] else ds_k * saved["scale"])
    by_name["key"] = lambda: _unrepeated(heads_first(tf.matmul(ds, q, transpose_a=True)), arguments["key"])
    by_name["scale"] = lambda: tf.cast(tf.reduce_sum(ds_k * q), precise) / saved["scale"]
    return Gradients(*[by_name.get(name) for name, value in arguments.items() if tf.is_tensor(value)])


def heads_first(x):
    """(n, t, h, c) -> (n, h, t, c), and back."""
    return tf.transpose(x, [0, 2, 1, 3])


def _seen(scores, mask, is_causal):
    """Which scores count: None for all."""
    if is_causal:
        causal = tf.linalg.band_part(tf.ones(tf.shape(scores)[2:], tf.bool), -1, 0)
        return causal if mask is None else tf.logical_and(mask, causal)
    return mask


def _repeated(x, query):
    """Keys or values with as many heads as there are for the queries."""
    heads = query.shape[2]
    return tf.repeat(x, heads // x.shape[2], axis=2) if heads > x.shape[2] > 1 else x


def _unrepeated(dx, x):
    """The sum over the heads that shared x."""
    heads = x.shape[2]
    if dx.shape[2] == heads or heads == 1:
        return dx
    n, t, _, c = tf.unstack(tf.shape(dx))
    return tf.reduce_sum(tf.reshape(dx, [n, t, heads, -1, c]), 3)
