"""Attention and AdditiveAttention. The derivation is in docs/derivations/attention.md.

Letters: q, k, v queries, keys and values; S the scores; P the probabilities, P′ what dropout leaves of them; t the position
of a query, s that of a key, i a feature.
"""

import tensorflow as tf
from keras import layers

from keras_backprop import _keras, kernels
from keras_backprop.registry import backward_rule, forward_rule
from keras_backprop.rule import Gradients
from keras_backprop.rules.layers.regularization import dropout_mask
from keras_backprop.rules.layers.softmax import softmax_back
from keras_backprop.weight_gradients import Contraction


@forward_rule(layers.Attention, layers.AdditiveAttention)
def attention_forward(layer, inputs, mask=None, training=False, return_attention_scores=False, use_causal_mask=False):
    """o = P′·v        P = softmax(S), masked. Saved: q, k, v, what S was made of, P, P′."""
    _keras.validate_attention(layer, inputs, mask)
    q, v, k = inputs[0], inputs[1], inputs[2] if len(inputs) > 2 else inputs[1]
    scores, saved = _scores(layer, q, k)
    value_mask = mask[1] if mask else None
    unseen = _keras.mask_of_scores(layer, scores, value_mask, use_causal_mask)
    if unseen is not None:
        unseen = tf.logical_not(unseen)
        unseen = tf.expand_dims(unseen, -2) if len(unseen.shape) == 2 else unseen
        scores = tf.where(unseen, scores - (65504.0 if scores.dtype == tf.float16 else 1.0e9), scores)
    probabilities = dropped = tf.nn.softmax(scores)
    if training and layer.dropout > 0:
        saved["mask"] = dropout_mask(probabilities, layer.dropout, None, layer.seed_generator)
        dropped = probabilities * saved["mask"]
    saved |= {"q": q, "k": k, "v": v, "p": probabilities, "dropped": dropped}
    output = tf.matmul(dropped, v)
    if mask and mask[0] is not None:
        saved["query_mask"] = tf.expand_dims(mask[0], -1)
        output = tf.where(saved["query_mask"], output, tf.zeros([], output.dtype))
    return ((output, dropped) if return_attention_scores else output), saved


@backward_rule(layers.Attention, layers.AdditiveAttention, broadcasts=True)
def attention(call, dy):
    """o = P′·v        dv = P′ᵀ·do        dP′ = do·vᵀ        dS = P·(dP − Σₛ P·dP)        dq, dk from dS: see below"""
    saved = call.saved
    do, ddropped = dy if isinstance(dy, tuple) else (dy, None)
    if "query_mask" in saved:
        do = tf.where(saved["query_mask"], do, tf.zeros([], do.dtype))
    dv = tf.matmul(saved["dropped"], do, transpose_a=True)
    dp = tf.matmul(do, saved["v"], transpose_b=True)
    dp = dp if ddropped is None else dp + ddropped
    ds = softmax_back(saved["p"], dp * saved["mask"] if "mask" in saved else dp, -1)
    dq, dk, weights = _scores_back(call.op, saved, ds)
    inputs = [dq, dv, dk] if len(call.arguments["inputs"]) > 2 else [dq, dv + dk]
    return Gradients(*inputs, *[None] * (len(call.inputs) - len(inputs)), **weights)


def _scores(layer, q, k):
    """S and what `_scores_back` needs of it."""
    scale = None if layer.scale is None else tf.convert_to_tensor(layer.scale)
    if not isinstance(layer, layers.AdditiveAttention) and layer.score_mode == "dot":
        scores = tf.matmul(q, k, transpose_b=True)
        return (scores if scale is None else scores * scale), {"scale": scale}
    u = tf.expand_dims(q, -2) + tf.expand_dims(k, -3)
    if isinstance(layer, layers.AdditiveAttention):
        u = tf.tanh(u)
        return tf.reduce_sum(u if scale is None else scale * u, -1), {"scale": scale, "u": u}
    u = tf.tanh(u if scale is None else scale * u)
    total = tf.reduce_sum(u, -1)
    return layer.concat_score_weight * total, {"scale": scale, "u": u, "total": total}


def _scores_back(layer, saved, ds):
    """dq, dk and the gradients of the weights.

    dot:       S = c·q·kᵀ             dq = c·dS·k        dk = c·dSᵀ·q        dc = Σ q·(dS·k)
    concat:    S = w·Σᵢ u, u = tanh(c·(q + k))        dz = w·dS·(1 − u²)        dq = c·Σₛ dz        dk = c·Σₜ dz
               dw = Σ dS·Σᵢ u        dc = Σ dz·(q + k)
    additive:  S = Σᵢ cᵢ·u, u = tanh(q + k)           dq = Σₛ dz, dz = c·dS·(1 − u²)        dcᵢ = Σ dS·uᵢ

    Queries that all examples share (a batch of 1) count once for each example in the products.
    """
    q, k, scale = saved["q"], saved["k"], saved["scale"]
    batch = "n" + "abcdef"[: len(q.shape) - 3]
    if "u" not in saved:
        dq, dk = tf.matmul(ds, k), tf.matmul(ds, q, transpose_a=True)
        if scale is None:
            return dq, dk, {}
        return dq * scale, dk * scale, {"scale": Contraction(f"{batch}ti,{batch}ti->", _as_large(q, dq), dq)}
    concat = "total" in saved
    du = tf.expand_dims(ds, -1) * (layer.concat_score_weight if concat else 1.0 if scale is None else scale)
    dz = kernels.tanh_grad(saved["u"], tf.broadcast_to(du, tf.shape(saved["u"])))
    dq, dk = tf.reduce_sum(dz, -2), tf.reduce_sum(dz, -3)
    if not concat:
        product = None if scale is None else Contraction(f"{batch}tsi,{batch}ts->i", saved["u"], ds)
        return dq, dk, {"scale": product}
    weights = {"concat_score_weight": Contraction(f"{batch}ts,{batch}ts->", saved["total"], ds)}
    if scale is not None:
        both = (tf.concat(pair, -2) for pair in ((_as_large(q, dq), _as_large(k, dk)), (dq, dk)))
        weights["scale"] = Contraction(f"{batch}ti,{batch}ti->", *both)
        dq, dk = dq * scale, dk * scale
    return dq, dk, weights


def _as_large(x, dx):
    return tf.broadcast_to(x, tf.shape(dx))
