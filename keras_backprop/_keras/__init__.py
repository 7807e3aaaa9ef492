"""The only door to private Keras.

Everything this package takes from `keras.src`, and every attribute of a Keras object that has an underscore, is named here, so
that a new Keras release can break one folder at most.

* below: what Keras has under a public-looking name in `keras.src`
* `layers.py`, `models.py`, `optimizers.py`, `callbacks.py`, `epochs.py`: names of ours for private attributes
* `operations.py`: the classes of `keras.ops`, and following its functions
* `standing_in.py`: exchanging a method, or a list of losses, in one thread
* `stateless.py`: the scope in which variables have values of its own
* `state.py`: what the trace of a step can depend on
* `fitting.py`: Keras's `fit`
* `cloning.py`, `hdf5.py`: of what class clones of models are, and legacy files of them
"""

from keras.src.backend import compute_output_spec
from keras.src.backend.common.masking import get_keras_mask, set_keras_mask
from keras.src.backend.common.stateless_scope import StatelessScope
from keras.src.backend.common.variables import AutocastScope
from keras.src.callbacks.tensorboard import keras_model_summary
from keras.src.layers.preprocessing.data_layer import DataLayer as PreprocessingLayer
from keras.src.layers.rnn.conv_lstm import ConvLSTM, ConvLSTMCell
from keras.src.losses.loss import (
    apply_mask,
    squeeze_or_expand_to_same_rank,
    unscale_loss_for_distribution,
)
from keras.src.losses.losses import LossFunctionWrapper
from keras.src.models.functional import Functional
from keras.src.models.model import functional_init_arguments
from keras.src.trainers.data_adapters.array_data_adapter import ArrayDataAdapter, can_convert_arrays
from keras.src.trainers.data_adapters.array_slicing import convert_to_sliceable, train_validation_split
from keras.src.trainers.data_adapters.data_adapter_utils import unpack_x_y_sample_weight
from keras.src.trainers.trainer import Trainer

from keras_backprop._keras.callbacks import (
    BackupParts,
    batches_since_saving,
    decides_on_saving,
    is_backup,
    is_better_when_larger,
    is_empty,
    profiles,
    train_writer,
)
from keras_backprop._keras.cloning import clones_made_by
from keras_backprop._keras.epochs import batches_in_all, dataset_of, out_of_data_caught, steps_seen, steps_to_come
from keras_backprop._keras.fitting import (
    TFEpochIterator,
    epoch_goes_on,
    epochs_given,
    fit,
    fit_batch_by_batch,
    fit_replaced,
    logs_that_can_be_interrupted,
    name_scopes_kept,
    pythonify_logs,
    saving_once_prepared,
    step_of,
)
from keras_backprop._keras.hdf5 import told_before_hdf5
from keras_backprop._keras.layers import (
    AttentionParts,
    BatchStatistics,
    axes_of,
    draw_dropout_masks,
    dtype_of,
    expected_batch_size,
    forget_dropout_masks,
    has_parts,
    is_channels_first,
    layers_in,
    leave_logits,
    logits_of,
    mask_of_scores,
    masks_of,
    noise_shape,
    seeds_in,
    states_in,
    stored_in,
    takes_mask,
    takes_training,
    training_argument,
    validate_attention,
    values_as_built,
)
from keras_backprop._keras.models import (
    added_losses,
    added_losses_in,
    begin_at,
    build_all,
    build_metrics_and_loss,
    choices_of_xla,
    compiled_loss,
    compute_loss,
    ends_of,
    first_epoch,
    forget_validation,
    frozen_weights,
    graph_of,
    keep_for_validation,
    logs_of,
    loss_entries,
    loss_tracker_of,
    losses_as_given,
    losses_of,
    losses_with_pairs,
    mark_called,
    metrics_and_loss,
    metrics_as_given,
    options_of,
    predictions_of_losses,
    restore_added_losses,
    stack_of,
    strategy_of,
    twin,
    undo_building,
    validates,
    with_losses,
)
from keras_backprop._keras.operations import (
    activations,
    activations_called,
    functions_followed,
    is_activation,
    is_function_of_ops,
    name_in_keras,
    name_of_operation,
    named_in_keras,
    operation_of,
    ops,
)
from keras_backprop._keras.optimizers import (
    accumulated,
    build_optimizer,
    built_for,
    calls_of,
    clipped,
    decays,
    index_of,
    is_scheduled,
    moments_of,
)
from keras_backprop._keras.standing_in import (
    current,
    is_overwritten,
    own_added_losses,
    replaced,
    scaled_losses_noted,
    standing,
)
from keras_backprop._keras.state import finds_by_name, modules_that_compute, starts_constant, state_of
from keras_backprop._keras.stateless import current_stateless_scope, stateless_scope_set
