"""keras_backprop: the backward pass of Keras 3, written out.

Every layer's gradient is a chain rule that one can read, watch, check, change and measure, while `model.fit` works as always.
"""

from keras_backprop import _quiet  # noqa: F401  isort: skip  (before anything imports TensorFlow)
from keras_backprop import _backend  # noqa: F401  isort: skip  (before anything imports Keras)

from keras_backprop import callbacks, gradients, layers, losses, privacy, rules
from keras_backprop.backward_pass import backward
from keras_backprop.backward_result import Backward
from keras_backprop.check import Report, check_gradients, check_layer
from keras_backprop.convolution_gradient import Convolution, Window
from keras_backprop.explanations import Explanation, Link, exercise, explain, steps
from keras_backprop.formula import Cases, Formula, LossFormula, RecurrentFormula, written
from keras_backprop.model import BackpropModel, BackpropSequential
from keras_backprop.observers import BackwardObserver, ObservedLink, ObservedUpdate
from keras_backprop.own_rules import backward_rule, elementwise, not_differentiable, pullback
from keras_backprop.registry import forward_rule, rule_for
from keras_backprop.rule import Call, Gradients, MissingRuleError
from keras_backprop.rule_table import Rule
from keras_backprop.scopes import use_rules
from keras_backprop.training.path import FitPath
from keras_backprop.watch.diagnosis import diagnose
from keras_backprop.weight_gradients import Contraction, Lookup, Total, WeightGradient

__version__ = "0.1.0"

__all__ = [
    "BackpropModel",
    "BackpropSequential",
    "Backward",
    "BackwardObserver",
    "Call",
    "Cases",
    "Contraction",
    "Convolution",
    "Explanation",
    "FitPath",
    "Formula",
    "Gradients",
    "Link",
    "Lookup",
    "LossFormula",
    "MissingRuleError",
    "ObservedLink",
    "ObservedUpdate",
    "RecurrentFormula",
    "Report",
    "Rule",
    "Total",
    "WeightGradient",
    "Window",
    "backward",
    "backward_rule",
    "callbacks",
    "check_gradients",
    "check_layer",
    "diagnose",
    "elementwise",
    "exercise",
    "explain",
    "forward_rule",
    "gradients",
    "layers",
    "losses",
    "not_differentiable",
    "privacy",
    "pullback",
    "rule_for",
    "rules",
    "steps",
    "use_rules",
    "written",
]
