"""How the rules are written, for those who read an explanation. Each formula is hung on its rule's backward function.

The letters are those of `rules/README.md`; `Formula` says what the text may contain. tests/rules/test_formulas.py evaluates
every one on random numbers and compares it with its rule.
"""

from keras import activations, layers, losses, regularizers

from keras_backprop._keras import activations as symbolic
from keras_backprop._keras import ops
from keras_backprop.formula import Formula, LossFormula, written
from keras_backprop.registry import registered

_RELU = {"negative_slope": 0, "max_value": None, "threshold": 0}
_relu = Formula("max(0, x)", "(x > 0)", when=_RELU)

ELEMENTWISE = {
    (activations.linear,): Formula("x", "1"),
    (activations.sigmoid, ops.Sigmoid): Formula("sigmoid(x)", "y*(1 - y)"),
    (activations.tanh, ops.Tanh): Formula("tanh(x)", "1 - y**2"),
    (activations.relu, symbolic.ReLU): _relu,
    (ops.Relu,): Formula("max(0, x)", "(x > 0)"),
    (layers.ReLU,): _relu,
    (activations.relu6, ops.Relu6): Formula("min(max(0, x), 6)", "(x > 0)*(x < 6)"),
    (activations.leaky_relu, ops.LeakyRelu, layers.LeakyReLU): Formula(
        "max(0, x) + negative_slope*min(0, x)", "(x > 0) + negative_slope*(x <= 0)"
    ),
    (activations.threshold, ops.Threshold): Formula("", "(x > threshold)"),
    (activations.elu, ops.Elu, layers.ELU): Formula(
        "max(0, x) + alpha*(exp(min(0, x)) - 1)", "(x > 0) + (y + alpha)*(x <= 0)"
    ),
    (activations.celu, ops.Celu): Formula(
        "max(0, x) + alpha*(exp(min(0, x)/alpha) - 1)", "(x > 0) + (y/alpha + 1)*(x <= 0)"
    ),
    (activations.selu, ops.Selu): Formula(
        "1.0507009873554805*max(0, x) + 1.7580993408473768*(exp(min(0, x)) - 1)",
        "1.0507009873554805*(x >= 0) + (y + 1.7580993408473768)*(x < 0)",
    ),
    (activations.exponential,): Formula("exp(x)", "y"),
    (activations.softsign, ops.Softsign): Formula("x/(1 + abs(x))", "(1 - abs(y))**2"),
    (activations.softplus, ops.Softplus): Formula("log(1 + exp(x))", "sigmoid(x)"),
    (activations.log_sigmoid, ops.LogSigmoid): Formula("log(sigmoid(x))", "sigmoid(-x)"),
    (activations.hard_sigmoid, ops.HardSigmoid): Formula("max(0, min(1, x/6 + 0.5))", "(x > -3)*(x < 3)/6"),
    (activations.sparse_sigmoid, ops.SparseSigmoid): Formula("max(0, min(1, (x + 1)/2))", "(abs(x) < 1)/2"),
    (activations.hard_tanh, ops.HardTanh): Formula("max(-1, min(1, x))", "(abs(x) <= 1)"),
    (activations.sparse_plus, ops.SparsePlus): Formula("", "max(0, min(1, (x + 1)/2))"),
    (activations.squareplus, ops.Squareplus): Formula("(x + sqrt(x**2 + b))/2", "y/(2*y - x)"),
    (activations.tanh_shrink, ops.TanhShrink): Formula("x - tanh(x)", "(x - y)**2"),
    (activations.soft_shrink, activations.hard_shrink): Formula("", "(abs(x) > threshold)"),
    (activations.silu, ops.Silu): Formula("x*sigmoid(x)", "sigmoid(x) + y*(1 - sigmoid(x))"),
    (activations.hard_silu, ops.HardSilu): Formula(
        "x*max(0, min(1, x/6 + 0.5))", "(x/3 + 0.5)*(abs(x) < 3) + (x >= 3)"
    ),
    (activations.mish, symbolic.Mish): Formula(
        "x*tanh(softplus(x))", "tanh(softplus(x)) + x*(1 - tanh(softplus(x))**2)*sigmoid(x)"
    ),
    (activations.gelu, ops.Gelu): Formula(
        "x*Phi(x)", "Phi(x) + x*exp(-x**2/2)/sqrt(2*pi)", when={"approximate": False}
    ),
    (ops.Negative,): Formula("-x", "-1"),
    (ops.Absolute, ops.Abs): Formula("abs(x)", "sign(x)"),
    (ops.Square,): Formula("x**2", "2*x"),
    (ops.Sqrt,): Formula("sqrt(x)", "0.5/y"),
    (ops.Exp,): Formula("exp(x)", "y"),
    (ops.Log,): Formula("log(x)", "1/x"),
    (ops.Reciprocal,): Formula("1/x", "-y*y"),
}
"""Functions of one number: y, and dy/dx."""

_SOFTMAX = Formula("softmax(x)", gradients={"x": "y*(dy - total(y*dy))"})
DENSE = Formula("x @ W + b", gradients={"x": "dy @ W.T", "W": "x.T @ dy", "b": "examples(dy)"})

LAYERS = {
    (layers.Dense,): DENSE,
    (activations.softmax, ops.Softmax, layers.Softmax): _SOFTMAX,
    (activations.log_softmax, ops.LogSoftmax): Formula(
        "x - log(total(exp(x)))", gradients={"x": "dy - exp(y)*total(dy)"}
    ),
    (layers.Identity,): Formula("x", gradients={"x": "dy"}),
    (layers.Dropout,): Formula("x*m", gradients={"x": "dy*m"}, when={"class": "Dropout"}),
    (layers.Add,): Formula("a + b", gradients={"a": "dy", "b": "dy"}),
    (layers.Subtract,): Formula("a - b", gradients={"a": "dy", "b": "-dy"}),
    (layers.Multiply,): Formula("a*b", gradients={"a": "dy*b", "b": "dy*a"}),
    (layers.Average,): Formula("(a + b)/2", gradients={"a": "dy/2", "b": "dy/2"}),
    (layers.Flatten,): Formula("x", gradients={"x": "dy"}),
    (layers.Conv1D, layers.Conv2D, layers.Conv3D): Formula(
        "window(x) @ W + b", gradients={"x": "spread(dy @ W.T)", "W": "window(x).T @ dy", "b": "examples(dy)"}
    ),
    (layers.MaxPooling1D, layers.MaxPooling2D, layers.MaxPooling3D): Formula(
        "largest(window(x))", gradients={"x": "spread(dy*(window(x) == y))"}
    ),
    (layers.AveragePooling1D, layers.AveragePooling2D, layers.AveragePooling3D): Formula(
        "mean(window(x))", gradients={"x": "spread(dy/k)"}
    ),
    (layers.BatchNormalization,): Formula(
        "gamma*h + beta",
        gradients={
            "x": "gamma*r*(dy - average(dy) - h*average(dy*h))",
            "gamma": "examples(dy*h)",
            "beta": "examples(dy)",
        },
    ),
    (layers.LayerNormalization,): Formula(
        "gamma*h + beta",
        gradients={
            "x": "r*(gamma*dy - mean(gamma*dy) - h*mean(gamma*dy*h))",
            "gamma": "examples(dy*h)",
            "beta": "examples(dy)",
        },
    ),
    (layers.Embedding,): Formula("E[k]", gradients={"E": "onehot(k).T @ dy"}),
    (layers.Attention,): Formula(
        "softmax(q @ k.T) @ v",
        gradients={"v": "softmax(q @ k.T).T @ dy"},
        when={"class": "Attention", "score_mode": "dot", "use_scale": False},
    ),
    (regularizers.L1,): Formula("l1*total(abs(x))", gradients={"x": "dy*l1*sign(x)"}),
    (regularizers.L2,): Formula("l2*total(x**2)", gradients={"x": "dy*2*l2*x"}),
    (regularizers.L1L2,): Formula("l1*total(abs(x)) + l2*total(x**2)", gradients={"x": "dy*(l1*sign(x) + 2*l2*x)"}),
}
"""What takes in more than one number: y, and the gradients of what goes in."""

_EXACT = {"label_smoothing": 0.0}

LOSSES = {
    losses.mean_squared_error: LossFormula("(T - a)**2", "-(T - a)", times=2),
    losses.mean_absolute_error: LossFormula("abs(T - a)", "-sign(T - a)"),
    losses.mean_absolute_percentage_error: LossFormula("abs(T - a)/abs(T)", "-sign(T - a)/abs(T)", factor=100),
    losses.mean_squared_logarithmic_error: LossFormula(
        "(log(T + 1) - log(a + 1))**2", "-(log(T + 1) - log(a + 1))/(a + 1)", times=2
    ),
    losses.huber: LossFormula(
        "min(abs(T - a), delta)*(abs(T - a) - min(abs(T - a), delta)/2)", "-max(-delta, min(T - a, delta))"
    ),
    losses.log_cosh: LossFormula("log(cosh(T - a))", "-tanh(T - a)"),
    losses.poisson: LossFormula("a - T*log(a + epsilon)", "1 - T/(a + epsilon)"),
    losses.kl_divergence: LossFormula("T*log(T/a)", "-T/a", mean=False),
    losses.binary_crossentropy: LossFormula(
        "-(T*log(a) + (1 - T)*log(1 - a))", "(1 - T)/(1 - a) - T/a", logits="a - T", when=_EXACT
    ),
    losses.categorical_crossentropy: LossFormula(
        "-T*log(a/total(a))", "total(T)/total(a) - T/a", mean=False, logits="a - T", shown="-T*log(a)", when=_EXACT
    ),
    losses.sparse_categorical_crossentropy: LossFormula(
        "-T*log(a)",
        "total(T)/total(a) - T/a",
        mean=False,
        logits="a - T",
        classes=True,
        shown="-T*log(a)",
        when={"ignore_class": None},
    ),
    losses.hinge: LossFormula("max(0, 1 - T*a)", "-T*(T*a <= 1)"),
    losses.squared_hinge: LossFormula("max(0, 1 - T*a)**2", "-max(0, 1 - T*a)*T", times=2),
}
"""Losses of Keras. (Where targets are 0 and 1 a hinge loss takes −1 and 1 for them.)"""


def hang() -> None:
    """Put every formula on the backward function of its rule, once all rules are registered."""
    every = {key: formula for keys, formula in {**ELEMENTWISE, **LAYERS}.items() for key in keys}
    for key, formula in {**every, **LOSSES}.items():
        written(formula)(registered()[key].backward)
