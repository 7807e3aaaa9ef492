"""The values that the weights have in a step, read once, before the forward pass."""

import keras
import tensorflow as tf

from keras_backprop import _keras


def read_before(model, x):
    """Read the model's weights before the forward pass, for the backward pass to use.

    A rule that read a weight anew would race the optimizer in a compiled function: TensorFlow orders the read before the
    update by a control edge, and its graph optimizer drops that edge when the gradients pass through one `IdentityN`, as
    Keras's optimizers make them. Here every gradient depends on `x`, and `x` on the reads.

        x, same_values = read_before(model, x)
        …                                        # the forward pass
        with same_values:
            sweep(…)

    Args:
        model: a Keras model. If the first batch has to build it, it is built.
        x: nested tensors, its input.

    Returns:
        `x`, and a context in which the weights have the values read here.
    """
    if not model.built:
        _keras.compute_output_spec(model, keras.tree.map_structure(_keras.symbolic, x), training=False)
    weights = model.trainable_weights
    values = [tf.identity(v.value) for v in weights]
    with tf.control_dependencies(values):
        x = keras.tree.map_structure(lambda leaf: tf.identity(leaf) if tf.is_tensor(leaf) else leaf, x)
    return x, _keras.StatelessScope(state_mapping=zip(weights, values, strict=True), initialize_variables=False)
