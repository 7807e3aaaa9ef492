"""Names of ours for what layers, variables and tensors of Keras keep under private ones. Each says why it is needed."""

import contextlib
from typing import Any

import keras
from keras.src.backend.common.masking import get_keras_mask


def layers_in(layer: Any) -> list:
    """A layer and all layers in it, each once: `model.layers` stops at the first level."""
    return list(layer._flatten_layers())


def stored_in(variable: Any) -> Any:
    """The `tf.Variable` that holds the value of a variable of Keras; under a strategy it has a copy for every replica."""
    return getattr(variable, "_value", variable)


def axes_of(layer: Any) -> list:
    """The axes that a layer works along, as it was told."""
    return keras.tree.flatten([getattr(layer, name, None) for name in ("axis", "axes", "_attention_axes")])


def seeds_in(model: Any) -> list:
    """The states of the random numbers that the layers of a model draw."""
    return [generator.state for layer in layers_in(model) for generator in layer._seed_generators]


@contextlib.contextmanager
def values_as_built(noted: dict) -> Any:
    """For the duration of the block, `noted` gets variable ids -> (variable, its value when its layer was built)."""
    lock = keras.layers.Layer._lock_state

    def note(layer):
        noted.update((id(v), (v, keras.ops.copy(v.value))) for v in layer.variables)
        return lock(layer)

    keras.layers.Layer._lock_state = note
    try:
        yield
    finally:
        keras.layers.Layer._lock_state = lock


def states_in(model: Any) -> list:
    """The variables of a model that are not trained, and the states of recurrent layers, which Keras does not track."""
    of_rnns = keras.tree.flatten([getattr(layer, "states", None) for layer in layers_in(model)])
    return [*model.non_trainable_variables, *(v for v in of_rnns if isinstance(v, keras.Variable))]


def takes_training(layer: Any) -> bool:
    """Whether `call` has an argument `training`: Keras passes it to those alone, and so must who calls `call` himself."""
    return layer._call_has_training_arg


def takes_mask(layer: Any) -> bool:
    """Whether `call` has an argument `mask`."""
    return layer._call_has_mask_arg


def training_argument(layer: Any, training: Any) -> dict:
    """`training=…` for a layer that takes it; nothing for others."""
    return {"training": training} if takes_training(layer) else {}


def dtype_of(variable: Any) -> str:
    """The dtype in which a variable is kept; `variable.dtype` is that in which it reads under autocasting."""
    return variable._dtype


def logits_of(x: Any) -> Any:
    """What a softmax or sigmoid was computed from, which Keras leaves on its output for a cross-entropy; None without."""
    return getattr(x, "_keras_logits", None)


def leave_logits(x: Any, logits: Any) -> None:
    """Leave logits on a tensor, as Keras's activations do."""
    x._keras_logits = logits


def masks_of(structure: Any) -> Any:
    """The masks that tensors carry, in their structure; None for those without."""
    return keras.tree.map_structure(get_keras_mask, structure)


def is_channels_first(flatten: Any) -> bool:
    """Of a `Flatten` layer, whether it moves the channels to the end: it keeps no public attribute of it."""
    return flatten._channels_first


def noise_shape(dropout: Any, inputs: Any) -> Any:
    """The shape in which a dropout layer draws: a spatial one that of its class, others what they were given."""
    if hasattr(dropout, "_get_noise_shape"):
        return dropout._get_noise_shape(inputs)
    return dropout._get_concrete_noise_shape(inputs, dropout.noise_shape)


class BatchStatistics:
    """The parts of `BatchNormalization.call`, which a forward rule repeats to keep what the way back needs.

    Attributes:
        moments: `(x, mask) -> (mean, variance)`, over all replicas if synchronized.
        renormalized: `(mean, variance) -> (r, d, mean, variance)` of batch renormalisation.
        composed: `(r, d, γ, β, dtype) -> (γ, β)` with the correction in them.
        update_renormalization: `(mean, variance)`, moves the statistics that renormalisation keeps.
    """

    def __init__(self, layer: Any) -> None:
        self.moments: Any = layer._moments
        self.renormalized: Any = getattr(layer, "_renorm_correction_and_moments", None)
        self.composed: Any = getattr(layer, "_compose_transforms", None)
        self.update_renormalization: Any = getattr(layer, "_update_renorm_statistics", None)


def validate_attention(layer: Any, inputs: Any, mask: Any) -> None:
    """Raise Keras's own errors for what `Attention` cannot be called on: a forward rule runs in the place of its `call`."""
    layer._validate_inputs(inputs=inputs, mask=mask)


def mask_of_scores(layer: Any, scores: Any, value_mask: Any, use_causal_mask: bool) -> Any:
    """Which scores of an `Attention` layer count: its mask of the values and the causal one, joined."""
    return layer._calculate_score_mask(scores, value_mask, use_causal_mask)


class AttentionParts:
    """What `MultiHeadAttention` and `GroupQueryAttention` are made of, under the same names for both.

    Attributes:
        query, key, value, output, gate: the layers of the projections; `gate` may be None.
        softmax, dropout: the layers that the scores go through.
        dropout_rate: float.
        scale: float, what queries are multiplied with.
        scores, weighted: the equations of k·q (or q·k) and of what is weighted with the probabilities.
        axes: int, how many axes are attended over.
        flash: None or bool, whether the fused kernel is wanted.
        window: None or int, how far a query looks.
    """

    def __init__(self, layer: Any) -> None:
        grouped = isinstance(layer, keras.layers.GroupQueryAttention)
        uses_gate = getattr(layer, "use_gate" if grouped else "_use_gate", False)
        self._layer = layer
        self.query, self.key, self.value = layer._query_dense, layer._key_dense, layer._value_dense
        self.output, self.gate = layer._output_dense, layer._gate_dense if uses_gate else None
        self.softmax, self.dropout, self.dropout_rate = layer._softmax, layer._dropout_layer, layer.dropout
        self.scale = layer._inverse_sqrt_head_dim if grouped else layer._inverse_sqrt_key_dim
        self.scores, self.weighted = layer._dot_product_equation, layer._combine_equation
        self.axes = 1 if grouped else len(layer._attention_axes)
        self.flash = layer._flash_attention
        self.window = getattr(layer, "sliding_window" if grouped else "_sliding_window", None)

    def causal_mask(self, q: Any, v: Any) -> Any:
        """Which values a query may see: those before it."""
        return self._layer._compute_causal_mask(q, v)

    def mask(self, query: Any, value: Any, **masks: Any) -> Any:
        """All masks of a call joined, `(n, t, s)` or None."""
        return self._layer._compute_attention_mask(query, value, **masks)

    def note_scores_wanted(self, wanted: bool) -> None:
        """`GroupQueryAttention.call` keeps this for the methods that it calls."""
        self._layer._return_attention_scores = wanted


def expected_batch_size(rnn: Any) -> Any:
    """The batch size that a stateful recurrent layer was built for; None where it is not known."""
    return rnn._expected_batch_size


def draw_dropout_masks(rnn: Any, cell: Any, x: Any, states: Any) -> None:
    """Draw the masks that a cell uses at all time steps, as `RNN.call` does before its loop."""
    rnn._maybe_config_dropout_masks(cell, x, states)


def forget_dropout_masks(rnn: Any, cell: Any) -> None:
    """So that the next call draws others, as `RNN.call` does after its loop."""
    rnn._maybe_reset_dropout_masks(cell)


def has_parts(layer: Any) -> bool:
    """Whether a layer is made of other layers."""
    return bool(list(layer._layers))
