"""What `fit` and `compile` take, as tables. An option is one line here; the grid and the report are made from these tables."""

import math

import keras
import tensorflow as tf
from keras import optimizers
from keras.optimizers import schedules

from tests.equality.models import STEP_WEIGHTS, WEIGHTS, N

BATCH = 16


def rows(data, part):
    return None if data is None else keras.tree.map_structure(lambda a: a[part], data)


class Batches(keras.utils.PyDataset):
    """The data batch by batch; y and w may be None."""

    def __init__(self, data, batch_size, **kwargs):
        super().__init__(**kwargs)
        self.data, self.batch_size = data, batch_size

    def __len__(self):
        return math.ceil(N / self.batch_size)

    def __getitem__(self, index):
        part = slice(index * self.batch_size, (index + 1) * self.batch_size)
        return tuple(rows(data, part) for data in self.data)


def _given(*data):
    """x, y and weights up to the last that there is."""
    while data[-1] is None:
        data = data[:-1]
    return data


def _dataset(x, y, w, batch_size):
    data = keras.tree.lists_to_tuples(_given(x, y, w))  # tf.data would stack a list
    return tf.data.Dataset.from_tensor_slices(data).batch(batch_size)


def _endless(batches):
    while True:
        yield from (batches[i] for i in range(len(batches)))


def _tensors(data):
    return None if data is None else keras.tree.map_structure(tf.convert_to_tensor, data)


def arrays(x, y, w, b):
    return {"x": x, "y": y, "sample_weight": w, "batch_size": b}


DATA = {
    "NumPy arrays": arrays,
    "tensors": lambda x, y, w, b: arrays(_tensors(x), _tensors(y), _tensors(w), b),
    "tf.data.Dataset": lambda x, y, w, b: {"x": _dataset(x, y, w, b)},
    "tf.data.Dataset, repeated, steps_per_epoch": lambda x, y, w, b: {
        "x": _dataset(x, y, w, b).repeat(),
        "steps_per_epoch": 4,
    },
    "tf.data.Dataset of unknown length": lambda x, y, w, b: {"x": _dataset(x, y, w, b).filter(lambda *_: True)},
    "PyDataset": lambda x, y, w, b: {"x": Batches(_given(x, y, w), b)},
    "PyDataset, 2 workers": lambda x, y, w, b: {"x": Batches(_given(x, y, w), b, workers=2)},
    "generator": lambda x, y, w, b: {"x": _endless(Batches(_given(x, y, w), b)), "steps_per_epoch": 5},
}
"""How the data is given: function (x, y, sample weights, batch size) -> arguments of `fit`."""

WEIGHTED = {
    "none": lambda p: {},
    "sample_weight per example": lambda p: {"sample_weight": WEIGHTS},
    "sample_weight per time step": lambda p: {"sample_weight": STEP_WEIGHTS},
    "sample_weight per output": lambda p: {
        "sample_weight": dict.fromkeys(p.outputs, WEIGHTS)
        if isinstance(p.outputs, list)
        else [WEIGHTS, WEIGHTS[::-1].copy()]
    },
    "class_weight": lambda p: {"class_weight": {0: 0.5, 1: 2.0, 2: 1.5}},
}
"""Who counts how much: function Problem -> arguments of `fit`."""

FIT = {
    "nothing": lambda p: {},
    "a ragged last batch": lambda p: {"batch_size": 24},
    "batch_size larger than the data": lambda p: {"batch_size": 200},
    "shuffle": lambda p: {"shuffle": True},
    "validation_data": lambda p: {"validation_data": (rows(p.x, slice(0, 32)), rows(p.y, slice(0, 32)))},
    "validation_data with weights, validation_batch_size": lambda p: {
        "validation_data": (rows(p.x, slice(0, 32)), rows(p.y, slice(0, 32)), WEIGHTS[:32]),
        "validation_batch_size": 8,
    },
    "validation_data as a dataset, validation_steps": lambda p: {
        "validation_data": _dataset(p.x, p.y, None, BATCH).repeat(),
        "validation_steps": 2,
    },
    "validation_split": lambda p: {"validation_split": 0.2},
    "validation_freq": lambda p: {"validation_split": 0.4, "validation_freq": 3},
    "validation_freq as a list": lambda p: {"validation_split": 0.4, "validation_freq": [2, 5]},
    "initial_epoch": lambda p: {"initial_epoch": 3, "epochs": 13},
    "initial_epoch after the end": lambda p: {"initial_epoch": 3, "epochs": 2},
    "steps_per_epoch": lambda p: {"steps_per_epoch": 3},
    "verbose=1": lambda p: {"verbose": 1, "epochs": 2},
    "verbose=2": lambda p: {"verbose": 2, "epochs": 2},
}
"""The other arguments of `fit`: function Problem -> arguments."""


def sgd(**options):
    return lambda: {"optimizer": optimizers.SGD(0.05, **options)}


def adam(**options):
    return lambda: {"optimizer": optimizers.Adam(**{"learning_rate": 0.01, **options})}


def scheduled(schedule, *args, **options):
    return lambda: {"optimizer": optimizers.SGD(schedule(*args, **options), momentum=0.5)}


def _multi():  # with a larger ε, for Adam makes a step of what rounding leaves of a gradient that is 0
    mapping = optimizers.OptimizerMap(optimizers.SGD(0.05), {".*kernel": optimizers.Adam(0.01, epsilon=1e-4)})
    return {"optimizer": optimizers.MultiOptimizer(mapping)}


OPTIMIZERS = {
    "SGD": sgd(),
    "SGD, momentum": lambda: {"optimizer": optimizers.SGD(0.02, momentum=0.5)},
    "SGD, Nesterov": sgd(momentum=0.9, nesterov=True),
    "Adam": adam(),
    "Adam, amsgrad": adam(amsgrad=True),
    "AdamW": lambda: {"optimizer": optimizers.AdamW(0.01, weight_decay=0.1)},
    "Adadelta": lambda: {"optimizer": optimizers.Adadelta(0.5)},
    "Adafactor": lambda: {"optimizer": optimizers.Adafactor(0.01)},
    "Adagrad": lambda: {"optimizer": optimizers.Adagrad(0.05)},
    "Adamax": lambda: {"optimizer": optimizers.Adamax(0.01)},
    "Ftrl": lambda: {"optimizer": optimizers.Ftrl(0.05, l2_regularization_strength=0.01)},
    "Lamb": lambda: {"optimizer": optimizers.Lamb(0.01)},
    "Lion": lambda: {"optimizer": optimizers.Lion(0.002)},
    "Muon": lambda: {"optimizer": optimizers.Muon(0.01, ns_steps=2)},  # each makes 3.4 times as much of rounding
    "Nadam": lambda: {"optimizer": optimizers.Nadam(0.01)},
    "RMSprop": lambda: {"optimizer": optimizers.RMSprop(0.01, momentum=0.5, centered=True)},
    "ScheduleFreeAdamW": lambda: {"optimizer": optimizers.ScheduleFreeAdamW(0.01, warmup_steps=5)},
    "MultiOptimizer": _multi,
    "LossScaleOptimizer": lambda: {"optimizer": optimizers.LossScaleOptimizer(optimizers.SGD(0.05), 8.0, 10)},
    "by name": lambda: {"optimizer": "rmsprop"},
    "clipnorm": sgd(clipnorm=0.05),
    "global_clipnorm": adam(global_clipnorm=0.05),
    "clipvalue": sgd(clipvalue=0.01),
    "weight_decay": sgd(weight_decay=0.1),
    "use_ema": sgd(use_ema=True, ema_momentum=0.9),
    "use_ema, overwritten every 4 steps": adam(use_ema=True, ema_momentum=0.8, ema_overwrite_frequency=4),
    "gradient_accumulation_steps": adam(gradient_accumulation_steps=3),
    "gradient_accumulation_steps, clipnorm, weight_decay": sgd(
        gradient_accumulation_steps=2, clipnorm=0.1, weight_decay=0.01, momentum=0.5
    ),
    "loss_scale_factor": sgd(loss_scale_factor=16.0),
    "CosineDecay": scheduled(schedules.CosineDecay, 0.0, 30, warmup_target=0.1, warmup_steps=5),
    "CosineDecayRestarts": scheduled(schedules.CosineDecayRestarts, 0.1, 10),
    "ExponentialDecay": scheduled(schedules.ExponentialDecay, 0.1, 7, 0.8, staircase=True),
    "InverseTimeDecay": scheduled(schedules.InverseTimeDecay, 0.1, 5, 0.5),
    "PiecewiseConstantDecay": scheduled(schedules.PiecewiseConstantDecay, [10, 20], [0.1, 0.05, 0.01]),
    "PolynomialDecay": scheduled(schedules.PolynomialDecay, 0.1, 30, power=2.0),
}
"""The `optimizer` of `compile`."""


def cubic(y_true, y_pred):
    return 0.1 * keras.ops.mean(keras.ops.abs(keras.ops.cast(y_true, y_pred.dtype) - y_pred) ** 3, axis=-1)


class Quartic(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return 0.1 * keras.ops.mean((keras.ops.cast(y_true, y_pred.dtype) - y_pred) ** 4, axis=-1)


def reduced(reduction):
    return lambda: {"loss": keras.losses.Huber(delta=0.5, reduction=reduction)}


COMPILE = {
    "nothing": lambda: {},
    "run_eagerly": lambda: {"run_eagerly": True},
    "jit_compile=False": lambda: {"jit_compile": False},
    'jit_compile="auto"': lambda: {"jit_compile": "auto"},
    "jit_compile=True": lambda: {"jit_compile": True},
    "run_eagerly and jit_compile": lambda: {"run_eagerly": True, "jit_compile": True},
    "steps_per_execution": lambda: {"steps_per_execution": 2},
    "steps_per_execution, more than an epoch": lambda: {"steps_per_execution": 7},
    "auto_scale_loss=False": lambda: {"auto_scale_loss": False},
    "no metrics": lambda: {"metrics": None},
}
"""The arguments of `compile` that fit every model."""

LOSSES = {
    "a loss by name": lambda: {"loss": "mean_absolute_error"},
    "a loss function": lambda: {"loss": cubic},
    "a subclass of Loss": lambda: {"loss": Quartic()},
    'reduction="sum"': reduced("sum"),
    'reduction="mean"': reduced("mean"),
    'reduction="mean_with_sample_weight"': reduced("mean_with_sample_weight"),
    "several metrics of all kinds": lambda: {"metrics": ["mse", cubic, keras.metrics.RootMeanSquaredError(name="r")]},
    "weighted_metrics": lambda: {"weighted_metrics": ["mae", keras.metrics.MeanSquaredError(name="w")]},
    "metrics and weighted_metrics": lambda: {"metrics": ["mae"], "weighted_metrics": ["mae"]},
    "loss_weights as a list": lambda: {"loss_weights": [0.3]},
    "loss_weights as a number": lambda: {"loss_weights": 0.3},
}
"""Losses and metrics for a model with one output of shape (n, 1)."""

NAMED_LOSSES = {
    "losses as a dict": lambda: {
        "loss": {"first": "mse", "second": keras.losses.BinaryCrossentropy(label_smoothing=0.1)},
        "metrics": None,
    },
    "loss_weights as a dict": lambda: {"loss_weights": {"first": 0.3, "second": 2.0}},
    "a loss for one output alone": lambda: {"loss": {"second": "mse"}, "metrics": None},
    "metrics as a dict": lambda: {"metrics": {"first": "mae", "second": ["accuracy", "mse"]}},
    "weighted_metrics as a dict": lambda: {"weighted_metrics": {"second": ["mse"]}},
}
"""Losses and metrics by the name of an output."""

LISTED_LOSSES = {
    "losses as a list": lambda: {"loss": ["huber", keras.losses.SparseCategoricalCrossentropy(from_logits=True)]},
    "loss_weights for a list": lambda: {"loss_weights": [0.3, 2.0]},
    "metrics as a list of lists": lambda: {"metrics": [["mae"], ["accuracy"]]},
    "weighted_metrics as a list": lambda: {"weighted_metrics": [["mae"], []]},
    "a loss for the first output alone": lambda: {"loss": ["mae", None]},
}
"""Losses and metrics by the position of an output."""


def with_epsilon_above_rounding(compiled):
    """Arguments of `compile` whose optimizer, of Adam's kind, does not make a step of what rounding leaves of a small gradient.

    Such is the gradient of the β of a batch norm before another one, which is 0. With ε = 1e-7 one unit in the last place of a
    tanh in float32 is 7e-6 of a weight.
    """
    if hasattr(compiled["optimizer"], "epsilon"):
        compiled["optimizer"].epsilon = 1e-3
    return compiled


PRECISION = {
    "float32": 1e-6,
    "float64": 1e-12,
    "mixed_bfloat16": 4e-2,
    "mixed_float16": 4e-3,
    "float16": 4e-3,
    "bfloat16": 4e-2,
}
"""Dtype policy -> tolerance. Half precision rounds to 2⁻⁸ (bfloat16) or 2⁻¹¹ (float16), once an operation, for 50 steps."""
