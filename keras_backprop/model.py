"""The Keras models that train by an explicit chain rule."""

import functools
from typing import Any

import keras

from keras_backprop import _keras
from keras_backprop.required import require_built, require_model
from keras_backprop.trainer import BackpropTrainer


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
    def from_keras(cls, model: Any, name: str | None = None) -> Any:
        """A model that computes what `model` computes and shares its layers and weights. Compile it before `fit`.

        Args:
            model: a Keras model, built. One of a class of its own is of that class afterwards as well: its `train_step`,
                `compute_loss`, metrics, methods and attributes are there.
            name: str, the new model's name; by default the model's own.

        Raises:
            TypeError: `model` is no Keras model, or a subclass of `BackpropModel` is asked for one with a `call` of its own.
            ValueError: `model` is not built.
        """
        require_model(model, "BackpropModel.from_keras")
        require_built(model, "BackpropModel.from_keras")
        graph = _keras.graph_of(model)
        if graph is not None and (type(model) in _PLAIN or cls is not BackpropModel):
            return cls(*_keras.ends_of(graph), name=name or model.name)
        if cls is not BackpropModel:
            raise TypeError(
                f"`{cls.__name__}.from_keras` takes Functional and Sequential models. Write `class Both({cls.__name__}, "
                f"{type(model).__name__})`, or use `BackpropModel.from_keras`. Received: {model!r}"
            )
        return _of_the_same_class(model, name or model.name)


@keras.saving.register_keras_serializable(package="keras_backprop", name="BackpropModel")
class FunctionalBackpropModel(BackpropModel, _keras.Functional):
    """What `BackpropModel(inputs, outputs)` makes, as `keras.Model(inputs, outputs)` makes a `Functional`."""


FunctionalBackpropModel.__name__ = "BackpropModel"  # to people and to saved files; pickle goes by the qualified name


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
class BackpropSequential(BackpropModel, keras.Sequential):
    """A `keras.Sequential` whose `fit` computes every gradient by a written-out chain rule. See `BackpropModel`."""

    def __init__(self, layers: Any = None, trainable: bool = True, name: str | None = None) -> None:
        super(BackpropModel, self).__init__(layers, trainable=trainable, name=name)  # a list of layers is no graph

    @classmethod
    def from_keras(cls, model: Any, name: str | None = None) -> Any:
        """A stack of the layers of a `keras.Sequential`, which it shares, built or not. Compile it before `fit`.

        One of a class of its own is of that class afterwards as well.

        Args:
            model: a `keras.Sequential`. `BackpropModel.from_keras` takes any model.
            name: str, the new model's name; by default the model's own.

        Raises:
            TypeError: `model` is no `keras.Sequential`.
        """
        if not isinstance(model, keras.Sequential):
            raise TypeError(
                f"`{cls.__name__}.from_keras` takes a `keras.Sequential`; `BackpropModel.from_keras` takes any model. "
                f"Received: {model!r} (of type {type(model).__name__})"
            )
        if type(model) not in _PLAIN and cls is BackpropSequential:
            return _of_the_same_class(model, name or model.name)
        return cls(_keras.stack_of(model), trainable=model.trainable, name=name or model.name)


def _of_ours(clone):
    """A model of ours with the layers of one that Keras has just cloned from a model of ours."""
    if isinstance(clone, keras.Sequential):
        return BackpropSequential.from_keras(clone)
    return BackpropModel.from_keras(clone)


_keras.clones_made_by(BackpropTrainer, _of_ours)

# Legacy `.h5` files speak of a model by the name of its class alone.
keras.saving.get_custom_objects().update(BackpropModel=FunctionalBackpropModel, BackpropSequential=BackpropSequential)


_PLAIN = _keras.Functional, keras.Sequential, FunctionalBackpropModel, BackpropSequential
"""Types of models that have nothing but their layers."""


class _OursBelow:
    """A mixin for classes made by `_with_ours_below`. Files hold a model of the original class, of which ours is made again."""

    name: str

    def get_config(self):
        original = type(self).__mro__[2]
        return {"model": keras.saving.serialize_keras_object(_keras.twin(self, original)), "name": self.name}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        model = keras.saving.deserialize_keras_object(config["model"], custom_objects=custom_objects)
        if not isinstance(model, keras.Model):
            raise TypeError(
                f"Only a `keras.Model` can be wrapped. Received: {model!r} (of type {type(model).__name__})"
            )
        return _of_the_same_class(model, config["name"])


_IN_FILES = keras.saving.register_keras_serializable("keras_backprop", "OursBelow")
_IN_FILES(_OursBelow)


def _of_the_same_class(model, name):
    """A model of ours that is of the model's own class as well: what the class overrides, keeps and offers is there."""
    kinds = [(keras.Sequential, BackpropSequential), (_keras.Functional, FunctionalBackpropModel)]
    ours = next((ours for kind, ours in kinds if isinstance(model, kind)), BackpropModel)
    cls: Any = type(model)
    return _keras.twin(model, cls if isinstance(model, ours) else _with_ours_below(cls, ours), name)


@functools.cache
def _with_ours_below(original: Any, ours: Any) -> Any:
    """The class that `original` would be, were it derived from a model of ours and not of Keras."""
    about = {"__module__": original.__module__, "__doc__": original.__doc__}
    return _IN_FILES(type(original.__name__, (_OursBelow, original, ours), about))
