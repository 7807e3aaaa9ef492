"""Keras models that train by an explicit chain rule: record -> objective -> sweep -> `optimizer.apply`."""

import warnings
from typing import Any

import keras
import tensorflow as tf

from keras_backprop import _keras
from keras_backprop.chain.record import Record
from keras_backprop.chain.sweep import sweep
from keras_backprop.chain.weights import Reads
from keras_backprop.objective import record_objective
from keras_backprop.training.distribution import DistributedTrainer
from keras_backprop.training.fit import CompiledFit
from keras_backprop.training.update import after, lean_update


class BackpropTrainer(CompiledFit, DistributedTrainer):
    """`train_step` by explicit backpropagation. A mixin: put it before a Keras model class.

    Everything else of `fit` stays Keras's: data, metrics, callbacks, the optimizer.
    """

    # Of the Keras model that this is mixed into.
    optimizer: Any
    trainable_weights: Any
    compute_metrics: Any
    _loss_tracker: Any
    _call_has_training_arg: Any

    def train_step(self, data):
        """One step: forward pass, error, chain rule, update. Opens no `tf.GradientTape`."""
        x, y, sample_weight = _keras.unpack_x_y_sample_weight(data)
        with Record(self.trainable_weights) as record:
            y_pred = record.run(self, x, **({"training": True} if self._call_has_training_arg else {}))
            objective = record_objective(self, record, x, y, y_pred, sample_weight)
            record.weights = weights = self.trainable_weights  # those too that the call has built
        batch_size = tf.shape(next(i for i in keras.tree.flatten(x) if i is not None))[0]
        self._loss_tracker.update_state(_keras.unscale_loss_for_distribution(objective.loss), sample_weight=batch_size)
        if weights:
            calls = record.calls
            upstream, same_values = Reads(record.timeline).before(scaled(objective.upstream, self.optimizer), weights)
            with same_values:
                result = sweep(calls, upstream, weights)
                gradients = [result.gradient(v) for v in weights]
            with lean_update(self.optimizer), after(gradients, self.optimizer):
                self.optimizer.apply_gradients(zip(gradients, weights, strict=True))
        else:
            warnings.warn("The model does not have any trainable weights.", stacklevel=2)
        return self.compute_metrics(x, y, y_pred, sample_weight=sample_weight)


@keras.saving.register_keras_serializable(package="keras_backprop")
class BackpropModel(BackpropTrainer, keras.Model):
    """A `keras.Model` whose `fit` computes every gradient by a written-out chain rule.

    Built like `keras.Model`: `BackpropModel(inputs, outputs)`, or subclassed with a `call` of its own, written with Keras
    layers and `keras.ops`. `compile`, `fit`, `evaluate`, `predict`, `save` and the callbacks work as always.

    Raises (when training starts, before any weight has changed):
        MissingRuleError: something that the error depends on has no gradient, neither here nor in TensorFlow.
    """

    def __new__(cls, *args, **kwargs):
        if cls is BackpropModel and _keras.functional_init_arguments(args, kwargs):
            return super().__new__(FunctionalBackpropModel)
        return super().__new__(cls)

    def __init__(self, *args, **kwargs):
        if _keras.functional_init_arguments(args, kwargs) and not isinstance(self, _keras.Functional):
            _make_functional(type(self))
            _keras.Functional.__init__(self, *args, **kwargs)
        else:
            super().__init__(*args, **kwargs)

    @classmethod
    def from_keras(cls, model, name=None):
        """A model that computes what `model` computes and shares its layers and weights. Compile it before `fit`.

        Args:
            model: a Keras model: Functional, Sequential (built) or subclassed (built).
            name: str, the new model's name; by default the model's own.

        Raises:
            TypeError: `model` is no Keras model.
            ValueError: `model` is not built.
        """
        if not isinstance(model, keras.Model):
            raise TypeError(f"`from_keras` takes a `keras.Model`. Received: {model!r} (of type {type(model).__name__})")
        if not model.built:
            raise ValueError(
                f"The model '{model.name}' is not built: its layers have no weights yet. Call it on a batch of data, or give "
                "it an input shape (`keras.Input`, `model.build(…)`), before `BackpropModel.from_keras`."
            )
        graph = _keras.graph_of(model)
        if graph is not None:
            return cls(graph._inputs_struct, graph._outputs_struct, name=name or model.name)
        return _Wrapped(model, name=name or model.name)


@keras.saving.register_keras_serializable(package="keras_backprop", name="BackpropModel")
class FunctionalBackpropModel(BackpropModel, _keras.Functional):
    """What `BackpropModel(inputs, outputs)` makes, as `keras.Model(inputs, outputs)` makes a `Functional`."""

    def __reduce__(self):
        return BackpropModel._unpickle_model, super().__reduce__()[1]  # by a class that pickle finds under its name


# To people and to saved files it is a BackpropModel.
FunctionalBackpropModel.__name__ = FunctionalBackpropModel.__qualname__ = "BackpropModel"


def _make_functional(cls):
    """Let a user's subclass of `BackpropModel` be built from inputs and outputs.

    Keras would do it by rewriting the bases of `BackpropModel` itself, after which no model could be subclassed with a
    `call` of its own.
    """
    if cls is BackpropModel:
        return FunctionalBackpropModel
    if issubclass(cls, BackpropModel):
        cls.__bases__ = tuple(_make_functional(base) for base in cls.__bases__)
    return cls


@keras.saving.register_keras_serializable(package="keras_backprop")
class BackpropSequential(BackpropTrainer, keras.Sequential):
    """A `keras.Sequential` whose `fit` computes every gradient by a written-out chain rule. See `BackpropModel`."""


@keras.saving.register_keras_serializable(package="keras_backprop")
class _Wrapped(BackpropModel):
    """A subclassed model, run as the one layer of a `BackpropModel`."""

    def __init__(self, model, **kwargs):
        super().__init__(**kwargs)
        self.model = model
        self.built = True

    def call(self, inputs, training=None):
        return self.model(inputs)  # `training` reaches it through Keras's call context

    def get_config(self):
        return {"model": keras.saving.serialize_keras_object(self.model), "name": self.name}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        model = keras.saving.deserialize_keras_object(config["model"], custom_objects=custom_objects)
        return cls(model, name=config["name"])


def scaled(upstream, optimizer):
    """The upstream gradients times the optimizer's loss scale (mixed precision); unchanged where there is none."""
    if optimizer is None:
        return upstream
    one = tf.ones(())
    scale = optimizer.scale_loss(one)
    if scale is one:
        return upstream
    return [(tensor, gradient * tf.cast(scale, gradient.dtype)) for tensor, gradient in upstream]
