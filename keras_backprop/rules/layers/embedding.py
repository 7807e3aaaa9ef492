"""Tables whose rows are looked up. Quantized or with LoRA they are followed."""

import tensorflow as tf
from keras import layers

from keras_backprop.registry import backward_rule
from keras_backprop.rule import Gradients
from keras_backprop.rules.layers.core import is_plain, times_transposed
from keras_backprop.weight_gradients import Contraction, Lookup


def lookup(call, dy):
    """The rows' gradients, in the table's dtype: many may be added to one row."""
    indices = call.input if call.input.dtype in (tf.int32, tf.int64) else tf.cast(call.input, tf.int32)
    indices = tf.where(indices < 0, indices + call.op.input_dim, indices)  # Keras counts negative ones from the end
    return Lookup(indices, tf.cast(dy, call.op.embeddings.dtype), call.op.input_dim)


@backward_rule(layers.Embedding, applies=is_plain, indices=True, rowwise=True)
def embedding(call, dy):
    """y = E[k]        dE[k] = Σ dy over the places where row k was looked up"""
    return Gradients(None, embeddings=lookup(call, dy))


@backward_rule(layers.ReversibleEmbedding, applies=is_plain, indices=True)
def reversible_embedding(call, dy):
    """Forward as `Embedding`; in reverse y = c·tanh(z/c), z = x·Eᵀ (or x·W)

    dz = dy·(1 − (y/c)²)        dx = dz·E (or dz·Wᵀ)        dE = dzᵀ·x (or dW = xᵀ·dz)
    """
    if not call.arguments["reverse"]:
        return Gradients(None, embeddings=lookup(call, dy))
    layer, cap = call.op, call.op.logit_soft_cap
    dz = dy if cap is None else dy * (1 - tf.square(call.output / cap))
    x = tf.cast(call.input, dz.dtype)
    if layer.tie_weights:
        E = tf.cast(layer.embeddings, dz.dtype)
        return Gradients(lambda: times_transposed(dz, tf.transpose(E)), embeddings=Contraction("o,i->oi", dz, x))
    W = tf.cast(layer.reverse_embeddings, dz.dtype)
    return Gradients(lambda: times_transposed(dz, W), reverse_embeddings=Contraction("i,o->io", x, dz))
