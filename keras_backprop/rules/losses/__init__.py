"""Losses: the error of each example, before it is weighted and averaged (`objective.py` does that).

The upstream gradient `dy` is ∂E/∂(error of an example). Inputs are the targets t, which get no gradient, and the predictions a or
p. A cross-entropy of a softmax or sigmoid output is computed from the logits z, as Keras does: then z is a third input.
"""

from keras_backprop.rules.losses import circle, crossentropy, ctc, focal, hinge, overlap, regression

__all__ = ["circle", "crossentropy", "ctc", "focal", "hinge", "overlap", "regression"]
