"""The only door to private TensorFlow: each thing that is taken from `tensorflow.python` has a name of ours here."""

from tensorflow.python.framework.config import is_op_determinism_enabled
from tensorflow.python.framework.ops import EagerTensor
from tensorflow.python.ops.ctc_ops import ctc_loss_and_grad

from keras_backprop._tensorflow.cluster import end_collectives, is_coordinated, note_for_all, noted
from keras_backprop._tensorflow.context import (
    device,
    differentiated_under_tapes,
    functions_run_eagerly,
    has_tangents,
    is_taped,
    is_within_reach,
    operations_are_watched,
    random_numbers_repeated,
)
from keras_backprop._tensorflow.eager import Eager
from keras_backprop._tensorflow.executor import one_thread
from keras_backprop._tensorflow.graphs import (
    changed_by,
    copy_operations,
    draws_by_itself,
    operation_count,
    operations_within,
    with_captures,
    with_effects,
)
from keras_backprop._tensorflow.once import is_once_if, once_if
from keras_backprop._tensorflow.operations import (
    gradients_by_type,
    have_same_sizes,
    is_trainable,
    registered_gradient,
    remember_sparse,
    sparse_of,
    tell_what_it_holds,
    wanted_gradients,
    without_gradients_of,
    zeros_like,
)
from keras_backprop._tensorflow.pipelines import Uses
from keras_backprop._tensorflow.resources import Resources, numbers_of
from keras_backprop._tensorflow.substitutes import is_substitute, substitutable
from keras_backprop._tensorflow.variables import (
    constants_made_at_once,
    only_variables,
    traced_once,
    value_of,
)
