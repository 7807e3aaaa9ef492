"""What is no layer: operations, activation functions, losses, regularisers."""

import importlib
import inspect
import pathlib

import keras
import numpy as np
from keras import layers, losses

from keras_backprop.check.problem import ModelProblem
from tests.checking import Function
from tests.grid.generate import GridCase
from tests.rules.losses.checking import model_of, numbers, one_hot, probabilities

OPERATIONS = pathlib.Path(__file__).parents[1] / "rules" / "ops"


def operations():
    """The tables of cases of `tests/rules/ops`."""
    for file in sorted(OPERATIONS.glob("test_*.py")):
        table = getattr(importlib.import_module(f"tests.rules.ops.{file.stem}"), "CASES", [])
        for case in table:
            name = f"{file.stem.removeprefix('test_')}:{case.name}"
            smooth = case.differences
            yield GridCase("", name, lambda case=case: Function(case.make()), case.inputs, case.kwargs, smooth=smooth)


def activations():
    for name, function in sorted(vars(keras.activations).items()):
        if inspect.isfunction(function) and name not in ("get", "serialize", "deserialize", "threshold"):
            for shape in ((3, 4), (2, 3, 4), (2, 2, 3, 4)):
                yield GridCase("", f"{name}{shape}", lambda f=function: layers.Activation(f), (shape,))


SHAPES = [(5, 3), (4, 3, 2)]


def _positive(*shape):
    return numbers(*shape, low=0.1, seed=1), numbers(*shape, low=0.1, seed=2)


def _any(*shape):
    return numbers(*shape, seed=1), numbers(*shape, seed=2)


def _labels(*shape):
    return np.sign(numbers(*shape, seed=1)), numbers(*shape, seed=2)


def _classes(*shape):
    return one_hot(*shape), probabilities(*shape)


def _overlap(*shape):
    return (numbers(*shape) > 0).astype("float64"), numbers(*shape, low=0.1, high=0.9)


def _sparse(*shape):
    return np.random.default_rng(1).integers(0, shape[-1], shape[:-1]), probabilities(*shape)


LOSSES = [
    (losses.MeanSquaredError, _any, {}), (losses.MeanAbsoluteError, _any, {}), (losses.MeanAbsolutePercentageError, _any, {}),
    (losses.MeanSquaredLogarithmicError, _positive, {}), (losses.CosineSimilarity, _any, {"axis": [-1, 1]}),
    (losses.Huber, _any, {"delta": [0.3, 1.0]}), (losses.LogCosh, _any, {}), (losses.Poisson, _positive, {}),
    (losses.KLDivergence, _classes, {}), (losses.Hinge, _labels, {}), (losses.SquaredHinge, _labels, {}),
    (losses.CategoricalHinge, _classes, {}), (losses.Dice, _overlap, {"axis": [None, -1]}),
    (losses.Tversky, _overlap, {"axis": [None, -1], "alpha": [0.3]}),
    (losses.BinaryCrossentropy, _overlap, {"from_logits": [True, False], "label_smoothing": [0.0, 0.1]}),
    (losses.BinaryFocalCrossentropy, _overlap, {"from_logits": [True, False], "apply_class_balancing": [True, False]}),
    (losses.CategoricalCrossentropy, _classes, {"from_logits": [True, False], "label_smoothing": [0.0, 0.1]}),
    (losses.CategoricalFocalCrossentropy, _classes, {"from_logits": [True, False]}),
    (losses.SparseCategoricalCrossentropy, _sparse, {"from_logits": [True, False], "ignore_class": [None, 0]}),
    (losses.CategoricalGeneralizedCrossEntropy, _sparse, {"q": [0.3, 0.7]}),
]  # fmt: skip
REDUCTIONS = ["sum", "mean_with_sample_weight", None]


def all_losses():
    for cls, data, options in LOSSES:
        for config in _choices(options):
            for shape in SHAPES:
                t, x = data(*shape)
                yield _loss(cls, config, t, x)
        for reduction in REDUCTIONS:
            t, x = data(4, 3, 2)
            weight = numbers(4, 3, low=0.1) if reduction == "mean_with_sample_weight" else None
            yield _loss(cls, {"reduction": reduction}, t, x, weight)
    rows, embeddings = np.array([0, 1, 0, 2, 1]), numbers(5, 4)
    for gamma in (8.0, 80.0):
        x = embeddings / np.linalg.norm(embeddings, axis=-1, keepdims=True)
        yield _loss(losses.Circle, {"gamma": gamma}, rows, x)
    for reduction in ("sum_over_batch_size", "sum"):
        yield _loss(losses.CTC, {"reduction": reduction}, np.array([[1, 2, 1], [2, 2, 1]]), numbers(2, 8, 4))


def _choices(options):
    chosen = [{}]
    for name, values in options.items():
        chosen = [{**one, name: value} for one in chosen for value in values]
    return chosen


def _loss(cls, config, t, x, weight=None):
    text = ",".join(f"{k}={v}" for k, v in config.items())

    def problem():
        model = model_of(x, cls(**config))
        model._symbolic_build(data_batch=keras.tree.map_structure(keras.ops.convert_to_tensor, (x, t)))
        return ModelProblem(model, x, t, weight)

    return GridCase("", f"{cls.__name__}[{text},{np.shape(x)}]", None, (x,), problem=problem)


def regularizers():
    for name in ("L1", "L2", "L1L2"):
        regularizer = getattr(keras.regularizers, name)(0.02)
        for where in ("kernel_regularizer", "bias_regularizer", "activity_regularizer"):
            for activation in (None, "tanh"):
                yield GridCase(
                    "", f"{name}-{where}-{activation}",
                    lambda where=where, activation=activation, r=regularizer: layers.Dense(3, activation, **{where: r}), ((4, 5),),
                )  # fmt: skip
    for mode in ("rows", "columns"):
        regularizer = keras.regularizers.OrthogonalRegularizer(0.1, mode=mode)
        yield GridCase("", f"orthogonal-{mode}", lambda r=regularizer: layers.Dense(3, kernel_regularizer=r), ((4, 3),))


FAMILIES = [operations, activations, all_losses, regularizers]
