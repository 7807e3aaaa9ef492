"""How functions of one number are written: y, and dy/dx."""

from keras import activations, layers

from keras_backprop._keras import activations as symbolic
from keras_backprop._keras import ops
from keras_backprop.formula import Cases, Formula

_RELU = {"negative_slope": 0, "max_value": None, "threshold": 0}
_relu = Formula("max(0, x)", "(x > 0)", when=_RELU)


def _some(option):
    """Whether an option is a number other than 0."""
    return bool(option)


def _cap(option):
    """Whether an option is a cap at which the derivative is 1 still."""
    return bool(option) and option != 6


_LEAKY, _CAPPED, _CAPPED_AT_6 = {"negative_slope": _some}, {"max_value": _cap}, {"max_value": 6}

ELEMENTWISE = {
    (activations.linear,): Formula("x", "1"),
    (activations.sigmoid, ops.Sigmoid): Formula("sigmoid(x)", "y*(1 - y)"),
    (activations.tanh, ops.Tanh): Formula("tanh(x)", "1 - y**2"),
    (activations.relu, symbolic.ReLU): _relu,
    (ops.Relu,): Formula("max(0, x)", "(x > 0)"),
    (layers.ReLU,): Cases(
        (
            _relu,
            Formula("max(0, x) + negative_slope*min(0, x)", "(x > 0) + negative_slope*(x <= 0)", when=_RELU | _LEAKY),
            Formula("min(max(0, x), max_value)", "(x > 0)*(x <= max_value)", when=_RELU | _CAPPED),
            Formula("min(max(0, x), max_value)", "(x > 0)*(x < max_value)", when=_RELU | _CAPPED_AT_6),
        )
    ),
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
    (activations.squareplus, ops.Squareplus): Formula("(x + sqrt(x**2 + b))/2", "(1 + x/sqrt(x**2 + b))/2"),
    (activations.tanh_shrink, ops.TanhShrink): Formula("x - tanh(x)", "tanh(x)**2"),
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
    (ops.Arcsin,): Formula("arcsin(x)", "1/sqrt(1 - x**2)"),
    (ops.Arccos,): Formula("arccos(x)", "-1/sqrt(1 - x**2)"),
    (ops.Arcsinh,): Formula("arsinh(x)", "1/cosh(y)"),
    (ops.Arccosh,): Formula("arcosh(x)", "1/sinh(y)"),
    (ops.Arctanh,): Formula("artanh(x)", "1/(1 - x**2)"),
    (ops.Exp2,): Formula("2**x", "y*log(2)"),
    (ops.Log2,): Formula("log(x)/log(2)", "1/(x*log(2))"),
    (ops.Log10,): Formula("log(x)/log(10)", "1/(x*log(10))"),
    (ops.Cbrt,): Formula("sign(x)*abs(x)**(1/3)", "abs(x)**(1/3 - 1)/3"),
    (ops.Erf,): Formula("erf(x)", "2/sqrt(pi)*exp(-x**2)"),
    (ops.Erfc,): Formula("1 - erf(x)", "-2/sqrt(pi)*exp(-x**2)"),
    (ops.Sinc,): Formula("sin(pi*x)/(pi*x)", "(cos(pi*x) - y)/x"),
    (ops.Deg2rad,): Formula("x*pi/180", "pi/180"),
    (ops.Rad2deg,): Formula("x*180/pi", "180/pi"),
}
"""Functions of one number: y, and dy/dx."""
