"""Connectionist temporal classification. TensorFlow's forward pass computes the gradient on the way: it is what is saved."""

import tensorflow as tf
from keras import losses

from keras_backprop import kernels
from keras_backprop._keras import ops
from keras_backprop.registry import backward_rule, forward_rule
from keras_backprop.rule import Gradients


@forward_rule(losses.ctc)
def ctc_forward(function, y_true, y_pred):
    """y = −log Σ p(alignment) over the alignments of the labels, blanks being 0. Saved: ∂y/∂z."""
    lengths = tf.fill([tf.shape(y_pred)[0]], tf.shape(y_pred)[1])
    return _loss(y_true, y_pred, tf.math.count_nonzero(y_true, -1, dtype=tf.int32), lengths, 0)


@forward_rule(ops.CTCLoss)
def ctc_loss_forward(op, target, output, target_length, output_length):
    """y = −log Σ p(alignment) over the alignments of the labels. Saved: ∂y/∂z."""
    return _loss(target, output, target_length, output_length, op.mask_index)


@backward_rule(losses.ctc, ops.CTCLoss)
def ctc(call, dy):
    """dz = dy·∂y/∂z"""
    z = call.arguments["y_pred" if "y_pred" in call.arguments else "output"]
    slope = call.saved["slope"]
    dz = tf.cast(tf.cast(dy, slope.dtype)[:, None, None] * slope, z.dtype)
    return Gradients(*[dz if x is z else None for x in call.inputs])


def _loss(labels, logits, label_length, logit_length, blank):
    """As Keras: in float32, whatever the dtype of the logits."""
    dtype = tf.float64 if logits.dtype == tf.float64 else tf.float32
    logits = tf.cast(logits, tf.float32)
    loss, slope = kernels.ctc_loss_and_gradient(tf.cast(labels, tf.int32), logits, label_length, logit_length, blank)
    return tf.cast(loss, dtype), {"slope": slope}
