"""Names of ours for what a compiled model of Keras keeps under private ones."""

import contextlib
import types
from collections.abc import Iterator
from typing import Any

import keras
from keras.src.backend.tensorflow.trainer import TensorFlowTrainer
from keras.src.models.functional import Functional
from keras.src.trainers.data_adapters.data_adapter_utils import unpack_x_y_sample_weight
from keras.src.utils.tracking import TrackedDict, TrackedList, TrackedOrderedDict, TrackedSet

from keras_backprop._keras.standing_in import current, replaced


def compiled_loss(model: Any) -> Any:
    """The `CompileLoss` of a model, None without; whether or not another stands in for it."""
    return current(model, "_compile_loss")


def losses_of(compiled: Any) -> list:
    """The loss objects of a `CompileLoss`, one for each output that has one; none before it is built."""
    return [entry.loss for entry in getattr(compiled, "_flat_losses", None) or ()]


def with_losses(compiled: Any, replaced: Any) -> Any:
    """A `CompileLoss` like another, with `replaced(loss)` in the place of each of its losses."""
    shadow = object.__new__(type(compiled))  # Keras objects refuse `copy.copy`
    vars(shadow).update(vars(compiled))
    shadow._flat_losses = [entry._replace(loss=replaced(entry.loss)) for entry in compiled._flat_losses]
    return shadow


def twin(model: Any, cls: Any, name: str | None = None) -> Any:
    """A model of another class with the attributes of a model, not compiled: they share layers, weights and what users have set.

    Each has its own lists of what it consists of. That of the twin is open: layers and metrics may be added.

    Args:
        cls: the model's own class, one that is derived from it, or one that it is derived from.
        name: str, the name of what is returned; by default the model's own.
    """
    other = cls.__new__(cls)
    stores = {key: tracked for key, (_, tracked) in model._tracker.config.items()}
    for store, tracked in stores.items():
        other._tracker.config[store][1].extend(tracked)
        other._tracker.stored_ids[store].update(model._tracker.stored_ids[store])
    kept = {*_OF_THE_INSTANCE, *(_SINCE_COMPILED if model.compiled else ())}
    kept.update(key for key, value in vars(model).items() if any(value is x for x in stores.values()))
    if not isinstance(vars(model).get("history"), keras.callbacks.History):
        kept.discard("history")  # which `fit` sets, not `compile`: it is the user's
    for key, value in vars(model).items():
        if key in kept:
            continue
        if isinstance(value, types.MethodType) and value.__self__ is model:
            value = types.MethodType(value.__func__, other)
        elif isinstance(value, (TrackedList, TrackedDict, TrackedOrderedDict, TrackedSet)):
            value = other._tracker.track(value.copy())
        vars(other)[key] = value
    names = _NOT_BY_COMPILE if compiled_loss(model) else (*_NOT_BY_COMPILE, "loss")
    own = {key: value for key, value in vars(other).items() if key in names}
    TensorFlowTrainer.__init__(other)
    vars(other).update(own, name=name or model.name)
    return other


_OF_THE_INSTANCE = ("_tracker", "build", "quantize")
"""What Keras makes for every instance."""

_SINCE_COMPILED = ("optimizer", "history", "_compile_config", "_compiled_trainable_state")
"""What `compile` and `fit` set. Before, a class may have attributes of these names of its own."""

_NOT_BY_COMPILE = ("_distribute_strategy", "unrolled_steps_per_execution")
"""What a trainer has from its beginning, and `compile` does not set."""


def compute_loss(model: Any, **arguments: Any) -> Any:
    """`model.compute_loss(…)`, with or without the argument `training`, which an older override has not."""
    return model._compute_loss(**arguments)


def strategy_of(model: Any) -> Any:
    """The strategy in whose scope a model was made, or None, for which `distribute_strategy` gives TensorFlow's default."""
    return model._distribute_strategy


def loss_tracker_of(model: Any) -> Any:
    """The metric that `fit` shows as "loss"."""
    return model._loss_tracker


def build_all(model: Any, batch: Any) -> None:
    """Build what `fit` builds before its first step: the model, its metrics, its loss, its optimizer."""
    model._symbolic_build(data_batch=batch)


def graph_of(layer):
    """The Functional graph that `layer.call` runs through, or None where a layer has a `call` of its own."""
    if isinstance(layer, Functional) and type(layer).call is Functional.call:
        return layer
    if isinstance(layer, keras.Sequential) and type(layer).call is keras.Sequential.call:
        return layer._functional  # None while unbuilt, or for a stack whose inputs are nested
    return None


def stack_of(model: Any) -> list:
    """The layers of a `Sequential`, its input layer included if it has one."""
    return list(model._layers)


def frozen_weights(model: Any) -> list:
    """The weights of a model that would be trained, were they or their layers not frozen: no moving statistics, no seeds."""
    trained = {id(v) for v in model.trainable_weights}
    every = {id(v): v for layer in model._flatten_layers() for v in layer._trainable_variables}
    return [v for key, v in every.items() if key not in trained]


def added_losses(model: Any) -> list:
    """What layers have added to the error in the last call, a list of (path of the layer, loss)."""
    return [
        (layer.path or layer.name, loss) for layer in model._flatten_layers() for loss in getattr(layer, "_losses", ())
    ]


def first_epoch(model: Any) -> Any:
    """The epoch from which a `BackupAndRestore` wants `fit` to go on; None without."""
    return model._initial_epoch


def begin_at(model: Any, epoch: Any) -> None:
    """Let `fit` go on from an epoch, as `BackupAndRestore` does."""
    model._initial_epoch = epoch


def validates(model: Any, epoch: int, validation_freq: Any) -> bool:
    """Whether an epoch of `fit` ends with a validation."""
    return model._should_eval(epoch, validation_freq)


def ends_of(graph: Any) -> tuple:
    """The inputs and the outputs of a Functional graph, nested as they were given."""
    return graph._inputs_struct, graph._outputs_struct


def metrics_and_loss(model: Any) -> list:
    """The compiled metrics and the compiled loss, each a Keras object that builds itself from y and y_pred, or None."""
    return [model._compile_metrics, model._compile_loss]


def build_metrics_and_loss(model: Any, batch: Any) -> list:
    """Build those of the compiled metrics and loss that are not, from the Functional graph's outputs, as a first step does.

    Returns:
        list of those that have been built.
    """
    x, y, _ = unpack_x_y_sample_weight(batch)
    n = keras.tree.flatten(x)[0].shape[0]
    outputs = keras.tree.map_structure(
        lambda y: keras.KerasTensor((n, *y.shape[1:]), y.dtype), ends_of(graph_of(model))[1]
    )
    targets = keras.tree.map_structure(lambda y: y and keras.KerasTensor(y.shape, y.dtype.name), y)
    metrics, loss = metrics_and_loss(model)
    built = [part for part in (metrics, loss) if part is not None and not part.built]
    if metrics in built:
        metrics.build(targets, outputs)
    if loss in built:
        with keras.name_scope(loss.name):
            loss.build(_packed_as(outputs, targets), outputs)
    return built


def mark_called(model: Any) -> None:
    """Let a model count as one that has been called: exporters refuse one that has not."""
    model._called = True


def undo_building(built: list) -> None:
    """Take back what `build_metrics_and_loss` has done, so that Keras may do it."""
    for part in built:
        if isinstance(part, keras.losses.Loss):
            for metric in list(part.metrics):  # of each output's loss; another building would add as many
                part._tracker.untrack(metric)
        part.built = False


def _packed_as(outputs, targets):
    """Targets as a `CompileLoss` pairs them with outputs."""
    try:
        keras.tree.assert_same_structure(outputs, targets)
    except ValueError:
        return keras.tree.pack_sequence_as(outputs, keras.tree.flatten(targets))
    return targets


def added_losses_in(layer: Any) -> tuple:
    """What `add_loss` has left in a layer so far, as (losses, ids)."""
    return layer._losses[:], set(layer._loss_ids)


def restore_added_losses(layer: Any, losses: Any) -> None:
    """Put back what a layer had."""
    own, ids = losses
    layer._losses[:] = own
    layer._loss_ids.clear()
    layer._loss_ids.update(ids)


def loss_entries(compiled: Any) -> list:
    """The losses of a `CompileLoss` with what belongs to each: (`loss`, `loss_weight`, `name`); none before it is built."""
    return list(getattr(compiled, "_flat_losses", None) or ())


def losses_as_given(compiled: Any) -> list:
    """What `compile` was given as `loss`, flat, for a `CompileLoss` that is not built yet."""
    return keras.tree.flatten(getattr(compiled, "_user_loss", None))


def metrics_as_given(model: Any) -> list:
    """What `compile` was given as `metrics` and `weighted_metrics`, flat; none for a model that is not compiled."""
    compiled = current(model, "_compile_metrics")
    given = [getattr(compiled, name, None) for name in ("_user_metrics", "_user_weighted_metrics")]
    return keras.tree.flatten(given)


def options_of(loss: Any) -> dict:
    """What a loss object passes to the function that it wraps."""
    return getattr(loss, "_fn_kwargs", {})


def logs_of(model: Any, logs: Any) -> Any:
    """What `fit` tells of an epoch: the metrics' results, or the step's own logs where the model has no metrics in them."""
    return model._get_metrics_result_or_logs(logs)


def keep_for_validation(model: Any, epochs: Any) -> None:
    """Let `evaluate` take this iterator of validation data, as `fit` does from the second validation on."""
    model._eval_epoch_iterator = epochs


def forget_validation(model: Any) -> None:
    """Let go of that iterator, and with it of the data, as `fit` does when its epochs are over."""
    vars(model).pop("_eval_epoch_iterator", None)


def losses_with_pairs(compiled: Any, y: Any, y_pred: Any) -> list:
    """The entries of a `CompileLoss`, each with its targets and predictions, paired as its `call` pairs them.

    Returns:
        list of (entry, target, prediction).

    Raises:
        ValueError: targets and predictions cannot be paired.
    """
    if isinstance(y, dict) and isinstance(y_pred, (list, tuple)) and set(y) == set(compiled.output_names):
        y = [y[name] for name in compiled.output_names]
    try:
        keras.tree.assert_same_structure(y_pred, y)
    except ValueError:
        y = keras.tree.pack_sequence_as(y_pred, keras.tree.flatten(y))
    return [(entry, _at(entry.path, y), _at(entry.path, y_pred)) for entry in loss_entries(compiled)]


def predictions_of_losses(compiled: Any, y_pred: Any) -> list:
    """The predictions that each loss of a `CompileLoss` is given; none before it is built."""
    return [_at(entry.path, y_pred) for entry in loss_entries(compiled)]


def _at(path, structure):
    for key in path:
        structure = structure[key]
    return structure


@contextlib.contextmanager
def choices_of_xla(model: Any) -> Iterator[list]:
    """The list of what Keras chooses while `model` is compiled: one bool where `jit_compile` is "auto", none where it was given.

    A class between ours and Keras's may have a `compile` of other arguments, so that they do not tell.
    """
    choices: list = []
    if model._jit_compile is None:
        model._jit_compile = False  # else Keras would choose once more, to compare what it sets with what it had
    choose = model._resolve_auto_jit_compile

    def noted():
        choices.append(choose())
        return choices[-1]

    with replaced(model, _resolve_auto_jit_compile=noted):
        yield choices
