"""The Keras models that train by an explicit chain rule."""

import functools
from typing import Any

import keras

from keras_backprop import _keras
from keras_backprop.required import require_built, require_model
from keras_backprop.trainer import PARTS_OF_STEP, BackpropTrainer
from keras_backprop.training.stock import has_own


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
            model: a Keras model. One of a class of its own is of that class afterwards as well: its `train_step`,
                `compute_loss`, metrics, methods and attributes are there. It need not be built: a GAN has no `call` that could.
                What its `build` makes is then not shared. A `keras.Sequential` without an input shape gives a
                `BackpropSequential`.
            name: str, the new model's name; by default the model's own.

        Raises:
            TypeError: `model` is no Keras model, or this is a subclass of `BackpropModel`, and the model has a `call` or a way to
                train of its own.
            ValueError: this is a subclass of `BackpropModel`, and the model is not built.
        """
        require_model(model, "BackpropModel.from_keras")
        if cls is not BackpropModel:
            require_built(model, f"{cls.__name__}.from_keras")
        elif isinstance(model, keras.Sequential) and not model.built:
            return BackpropSequential.from_keras(model, name)
        graph = _keras.graph_of(model)
        if cls is BackpropModel and not (graph is not None and _is_plain(model)):
            return _of_the_same_class(model, name or model.name)
        _require_no_own(cls, model)
        return cls(*_keras.ends_of(graph), name=name or model.name)


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
            TypeError: `model` is no `keras.Sequential`, or as for `BackpropModel.from_keras`.
        """
        if not isinstance(model, keras.Sequential):
            raise TypeError(
                f"`{cls.__name__}.from_keras` takes a `keras.Sequential`; `BackpropModel.from_keras` takes any model. "
                f"Received: {model!r} (of type {type(model).__name__})"
            )
        if cls is BackpropSequential and not _is_plain(model):
            return _of_the_same_class(model, name or model.name)
        _require_no_own(cls, model)
        return cls(_keras.stack_of(model), trainable=model.trainable, name=name or model.name)


def _of_ours(clone):
    """A model of ours with the layers of one that Keras has just cloned from a model of ours."""
    if isinstance(clone, keras.Sequential):
        return BackpropSequential.from_keras(clone)
    return BackpropModel.from_keras(clone)


_keras.clones_made_by(BackpropTrainer, _of_ours)
_keras.told_before_hdf5(BackpropTrainer, lambda model, filepath: model._before_hdf5(filepath))

# Legacy `.h5` files speak of a model by the name of its class alone.
keras.saving.get_custom_objects().update(BackpropModel=FunctionalBackpropModel, BackpropSequential=BackpropSequential)


_OF_TRAINING = ("call", "train_step", "test_step", "predict_step", "compute_loss", "compute_metrics", "metrics")
"""What decides on the numbers of a training."""


def _is_plain(model):
    """Whether a model has nothing but its layers."""
    kinds = _keras.Functional, keras.Sequential, FunctionalBackpropModel, BackpropSequential
    return type(model) in kinds and not any(name in vars(model) for name in _OF_TRAINING)


def _require_no_own(cls, model):
    """Raise where a model of `cls`, a user's subclass of ours, would not do what a model does by itself or by its class."""
    own = [name for name in _OF_TRAINING if has_own(model, name) and not _has_the_same(cls, model, name)]
    if own:
        kind = type(model).__name__
        raise TypeError(
            f"`{cls.__name__}.from_keras` takes layers only, and the model '{model.name}' of class '{kind}' has "
            f"{', '.join(f'`{x}`' for x in own)} of its own. Use `{_base(model).__name__}.from_keras`, or make models of "
            f"`class Both({kind}, {cls.__name__})`. Received: {model!r}"
        )


def _has_the_same(cls, model, name):
    return name not in vars(model) and getattr(cls, name) is getattr(type(model), name)


def _base(model):
    return BackpropSequential if isinstance(model, keras.Sequential) else BackpropModel


class _OursBelow:
    """A mixin for classes made by `_with_ours_below`. Files hold a model of the original class, of which ours is made again."""

    name: str
    _theirs_first = True

    def get_config(self):
        return {"model": keras.saving.serialize_keras_object(_keras.twin(self, _original(self))), "name": self.name}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        model = keras.saving.deserialize_keras_object(config["model"], custom_objects=custom_objects)
        if not isinstance(model, keras.Model):
            raise TypeError(
                f"Only a `keras.Model` can be wrapped. Received: {model!r} (of type {type(model).__name__})"
            )
        return _of_the_same_class(model, config["name"])

    def _before_hdf5(self, filepath):
        raise ValueError(
            f"HDF5 files do not hold that a model of class '{_original(self).__name__}' has been made by `from_keras`. Save "
            f"a '.keras' file, or the weights alone. Received: filepath={str(filepath)!r}"
        )

    def __reduce__(self: Any) -> Any:
        # The class is not to be found by its name, and need not be: what is unpickled is a file.
        unpickle, arguments = keras.Model.__reduce__(self)
        return getattr(BackpropModel, unpickle.__name__), arguments


def _original(model):
    order = type(model).__mro__
    return order[order.index(_OursBelow) + 1]


_IN_FILES = keras.saving.register_keras_serializable("keras_backprop", "OursBelow")
_IN_FILES(_OursBelow)


def _of_the_same_class(model, name):
    """A model of ours that is of the model's own class as well: what the class overrides, keeps and offers is there."""
    ours = FunctionalBackpropModel if isinstance(model, _keras.Functional) else _base(model)
    cls: Any = type(model)
    if not isinstance(model, ours):
        cls = ours if issubclass(ours, cls) else _with_ours_below(cls, ours)
    made = _keras.twin(model, cls, name)
    if not isinstance(model, ours):
        vars(made)["_attributes_of_theirs"] = PARTS_OF_STEP.intersection(vars(model))
    return made


@functools.cache
def _with_ours_below(original: Any, ours: Any) -> Any:
    """The class that `original` would be, were it derived from a model of ours and not of Keras."""
    about = {name: getattr(original, name) for name in ("__module__", "__qualname__", "__doc__")}
    return _IN_FILES(type(original.__name__, (_OursBelow, original, ours), about))
