"""SpectralNormalization: a layer whose kernel is divided by its largest singular value before every step."""

import keras
from keras import layers

from keras_backprop._keras import ops
from keras_backprop.registry import composition


@composition(layers.SpectralNormalization)
def spectral_normalization(record, layer, inputs, training=False):
    """W ← W/σ₁(W), then the wrapped layer, which is a link with its own rule: dW is that of the new W.

    The division is an assignment, not a link of the chain: nothing flows through it, as with the tape.
    """
    if training:
        vector, kernel = keras.ops.cond(
            keras.ops.all(keras.ops.equal(layer.kernel.value, 0)),
            lambda: (layer.vector_u.value, layer.kernel.value),
            layer.normalized_weights,
        )
        layer.vector_u.assign(vector)
        layer.kernel.assign(kernel)
    output = record.run(layer.layer, inputs)
    return output if output.dtype == inputs.dtype else record.run(ops.Cast(inputs.dtype.name), output)
