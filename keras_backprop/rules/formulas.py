"""How the rules are written, for those who read an explanation. Each formula is hung on its rule's backward function.

The letters are those of `rules/README.md`; `Formula` says what the text may contain. tests/rules/test_formulas.py evaluates
every one on random numbers and compares it with its rule.
"""

from keras import activations, layers, regularizers

from keras_backprop._keras import activations as symbolic
from keras_backprop._keras import ops
from keras_backprop.formula import Cases, Formula, written
from keras_backprop.registry import registered
from keras_backprop.rules.loss_formulas import LOSSES
from keras_backprop.rules.recurrent_formulas import RECURRENT

_RELU = {"negative_slope": 0, "max_value": None, "threshold": 0}
_relu = Formula("max(0, x)", "(x > 0)", when=_RELU)


def _is_number(value):
    return isinstance(value, (int, float))


def is_product_of_matrices(equation):
    """Whether the einsum x, W -> y is y = x·W, with several axes in the place of one: W's first are x's last, its last y's."""
    x, W, y = equation.replace(" ", "").replace("->", ",").split(",")
    bound = "".join(axis for axis in W if axis in x)
    return W.startswith(bound) and bound != "" and x.endswith(bound) and x[: -len(bound)] + W[len(bound) :] == y


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
    (ops.Rsqrt,): Formula("1/sqrt(x)", "-0.5*y*y*y"),
    (ops.Expm1,): Formula("exp(x) - 1", "exp(x)"),
    (ops.Log1p,): Formula("log(1 + x)", "1/(1 + x)"),
    (ops.Sin,): Formula("sin(x)", "cos(x)"),
    (ops.Cos,): Formula("cos(x)", "-sin(x)"),
    (ops.Tan,): Formula("tan(x)", "1/cos(x)**2"),
    (ops.Sinh,): Formula("sinh(x)", "cosh(x)"),
    (ops.Cosh,): Formula("cosh(x)", "sinh(x)"),
    (ops.Arctan,): Formula("arctan(x)", "1/(1 + x**2)"),
}
"""Functions of one number: y, and dy/dx."""

_ONE_SHAPE = {"broadcasts": False, "masked": False}
_TWO = {**_ONE_SHAPE, "inputs": 2}
_SCALE_AND_SHIFT = {"gamma": "examples(dy*h)", "beta": "examples(dy)"}
_DOT = {"class": "Attention", "score_mode": "dot", "use_scale": False, "dropout": 0.0}


def _attention(times, inputs, when, mask=False):
    """Scores, weights P, output. With two inputs the values are the keys as well. A mask m is −∞ where nothing is seen."""
    keys = "v" if inputs == "qv" else "k"
    weights = f"softmax({times}q @ {keys}.T{' + m' if mask else ''})"
    gradients = {"q": f"{times}dS @ {keys}", "v": "P.T @ dy"}
    if keys == "k":
        gradients["k"] = f"{times}dS.T @ q"
    else:
        gradients["v"] += f" + {times}dS.T @ q"
    parts = (("P", weights), ("dP", "dy @ v.T"), ("dS", "P*(dP - total(P*dP))"))
    return Formula("P @ v", gradients=gradients, when=when, inputs=inputs, parts=parts)


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
    (layers.Add,): Formula("a + b", gradients={"a": "dy", "b": "dy"}, when=_ONE_SHAPE),
    (ops.Add,): Formula("a + b", gradients={"a": "dy", "b": "dy"}, when=_TWO),
    (layers.Subtract, ops.Subtract): Formula("a - b", gradients={"a": "dy", "b": "-dy"}, when=_TWO),
    (layers.Multiply, ops.Multiply): Formula("a*b", gradients={"a": "dy*b", "b": "dy*a"}, when=_TWO),
    (ops.Divide, ops.TrueDivide): Formula("a/b", gradients={"a": "dy/b", "b": "-dy*y/b"}, when=_TWO),
    (ops.Maximum,): Formula("max(a, b)", gradients={"a": "dy*(a >= b)", "b": "dy*(a < b)"}, when=_TWO),
    (ops.Minimum,): Formula("min(a, b)", gradients={"a": "dy*(a <= b)", "b": "dy*(a > b)"}, when=_TWO),
    (layers.Average,): Formula("(a + b)/inputs", gradients={"a": "dy/inputs", "b": "dy/inputs"}, when=_ONE_SHAPE),
    (layers.Concatenate,): Formula(
        "join(a, b)", gradients={"a": "head(dy, a)", "b": "tail(dy, b)"}, when={"inputs": 2, "axis": -1}
    ),
    (ops.Matmul,): Formula("a @ b", gradients={"a": "dy @ b.T", "b": "a.T @ dy"}, when={"inputs": 2}),
    (layers.Flatten,): Formula("x", gradients={"x": "dy"}),
    (layers.Rescaling,): Formula(
        "x*scale + offset", gradients={"x": "dy*scale"}, when={"scale": _is_number, "offset": _is_number}
    ),
    (layers.PReLU,): Formula(
        "max(0, x) + alpha*min(0, x)",
        gradients={"x": "dy*((x > 0) + alpha*(x < 0))", "alpha": "examples(dy*min(0, x))"},
    ),
    (layers.EinsumDense,): Formula(
        "x @ W + b",
        gradients={"x": "dy @ W.T", "W": "x.T @ dy", "b": "examples(dy)"},
        when={"equation": is_product_of_matrices},
    ),
    (layers.Conv1D, layers.Conv2D, layers.Conv3D): Formula(
        "window(x) @ W + b", gradients={"x": "spread(dy @ W.T)", "W": "window(x).T @ dy", "b": "examples(dy)"}
    ),
    (layers.MaxPooling1D, layers.MaxPooling2D, layers.MaxPooling3D): Formula(
        "largest(window(x))", gradients={"x": "spread(dy*(window(x) == y))"}
    ),
    (layers.AveragePooling1D, layers.AveragePooling2D, layers.AveragePooling3D): Formula(
        "mean(window(x))", gradients={"x": "spread(dy/k)"}
    ),
    (layers.GlobalAveragePooling1D, layers.GlobalAveragePooling2D, layers.GlobalAveragePooling3D): Formula(
        "mean(x)", gradients={"x": "spread(dy/k)"}, when={"masked": False}
    ),
    (layers.GlobalMaxPooling1D, layers.GlobalMaxPooling2D, layers.GlobalMaxPooling3D): Formula(
        "largest(x)", gradients={"x": "spread(dy*(x == y)/total(x == y))"}
    ),
    (layers.BatchNormalization,): Cases(
        (
            Formula(
                "gamma*h + beta",
                gradients={"x": "gamma*r*(dy - average(dy) - h*average(dy*h))", **_SCALE_AND_SHIFT},
                when={"of_batch": True, "masked": False, "renorm": lambda renorm: not renorm},
            ),
            Formula("gamma*h + beta", gradients={"x": "gamma*r*dy", **_SCALE_AND_SHIFT}, when={"of_batch": False}),
        )
    ),
    (layers.LayerNormalization, layers.GroupNormalization): Formula(
        "gamma*h + beta",
        gradients={"x": "r*(gamma*dy - mean(gamma*dy) - h*mean(gamma*dy*h))", **_SCALE_AND_SHIFT},
    ),
    (layers.RMSNormalization,): Formula(
        "gamma*h", gradients={"x": "r*(gamma*dy - h*mean(gamma*dy*h))", "gamma": "examples(dy*h)"}
    ),
    (layers.UnitNormalization,): Formula(
        "x/length(x)", gradients={"x": "(dy - y*total(dy*y))/length(x)"}, when={"axis": -1}
    ),
    (layers.Embedding,): Formula("E[k]", gradients={"E": "onehot(k).T @ dy"}, inputs="k"),
    (layers.Attention,): Cases(
        (
            _attention("", "qvk", {**_DOT, "inputs": 3, "masked": False}),
            _attention("", "qvk", {**_DOT, "masked": True, "inputs": lambda count: count > 2}, mask=True),
            _attention("", "qv", {**_DOT, "inputs": 2, "masked": False}),
        )
    ),
    (ops.DotProductAttention,): Cases(
        (
            _attention("scale*", "qkv", {"masked": False, "biased": False, "scale": _is_number}),
            _attention("scale*", "qkv", {"masked": True, "biased": False, "scale": _is_number}, mask=True),
        )
    ),
    (regularizers.L1,): Formula("l1*total(abs(x))", gradients={"x": "dy*l1*sign(x)"}),
    (regularizers.L2,): Formula("l2*total(x**2)", gradients={"x": "dy*2*l2*x"}),
    (regularizers.L1L2,): Formula("l1*total(abs(x)) + l2*total(x**2)", gradients={"x": "dy*(l1*sign(x) + 2*l2*x)"}),
}
"""What takes in more than one number: y, and the gradients of what goes in."""


OF_TENSORFLOW = {
    "AddV2": ops.Add, "Sub": ops.Subtract, "Mul": ops.Multiply, "RealDiv": ops.Divide, "Maximum": ops.Maximum,
    "Minimum": ops.Minimum, "Neg": ops.Negative, "Abs": ops.Absolute, "Square": ops.Square, "Sqrt": ops.Sqrt, "Rsqrt": ops.Rsqrt,
    "Exp": ops.Exp, "Expm1": ops.Expm1, "Log": ops.Log, "Log1p": ops.Log1p, "Reciprocal": ops.Reciprocal, "Sin": ops.Sin,
    "Cos": ops.Cos, "Tan": ops.Tan, "Sinh": ops.Sinh, "Cosh": ops.Cosh, "Atan": ops.Arctan, "Tanh": ops.Tanh,
    "Sigmoid": ops.Sigmoid, "Relu": ops.Relu, "Relu6": ops.Relu6, "Softplus": ops.Softplus, "Softsign": ops.Softsign,
    "Selu": ops.Selu,
}  # fmt: skip
"""Type of a TensorFlow operation -> the operation of Keras that computes the same."""


def of_tensorflow(kind: str) -> Formula | None:
    """How an operation of TensorFlow is written, by its type; None where it is not known."""
    key = OF_TENSORFLOW.get(kind)
    return None if key is None else registered()[key].formula


def hang() -> None:
    """Put every formula on the backward function of its rule, once all rules are registered."""
    every = {key: formula for keys, formula in {**ELEMENTWISE, **LAYERS}.items() for key in keys}
    for key, formula in {**every, **LOSSES, **RECURRENT}.items():
        written(formula)(registered()[key].backward)
