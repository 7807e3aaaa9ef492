"""How layers and operations are written that take in more than one number: y, and the gradients of what goes in."""

from keras import activations, layers, regularizers

from keras_backprop._keras import ops
from keras_backprop.formula import Cases, Formula
from keras_backprop.rules.operation_formulas import is_number, with_numbers


def is_product_of_matrices(equation):
    """Whether the einsum x, W -> y is y = x·W, with several axes in the place of one: W's first are x's last, its last y's."""
    x, W, y = equation.replace(" ", "").replace("->", ",").split(",")
    bound = "".join(axis for axis in W if axis in x)
    return W.startswith(bound) and bound != "" and x.endswith(bound) and x[: -len(bound)] + W[len(bound) :] == y


_ONE_SHAPE = {"broadcasts": False, "masked": False}
_TWO = {**_ONE_SHAPE, "inputs": 2}
_DIFFERENCE = Formula("a - b", gradients={"a": "dy", "b": "-dy"}, when=_TWO)
_PRODUCT = Formula("a*b", gradients={"a": "dy*b", "b": "dy*a"}, when=_TWO)
_OF_THE_LARGER = {"a": "dy*(a >= b)", "b": "dy*(a < b)"}
_OF_THE_SMALLER = {"a": "dy*(a <= b)", "b": "dy*(a > b)"}
_TIED = {"reverse": True, "tie_weights": True, "logit_soft_cap": None}
_SCALE_AND_SHIFT = {"gamma": "examples(dy*h)", "beta": "examples(dy)"}
_SOFTMAX = Formula("softmax(x)", gradients={"x": "y*(dy - total(y*dy))"})
DENSE = Formula("x @ W + b", gradients={"x": "dy @ W.T", "W": "x.T @ dy", "b": "examples(dy)"})

LAYERS = {
    (layers.Dense,): DENSE,
    (activations.softmax, ops.Softmax, layers.Softmax): _SOFTMAX,
    (activations.log_softmax, ops.LogSoftmax): Formula(
        "x - log(total(exp(x)))", gradients={"x": "dy - exp(y)*total(dy)"}
    ),
    (layers.Identity, layers.ActivityRegularization): Formula("x", gradients={"x": "dy"}),
    (layers.Dropout,): Cases(
        (
            Formula("x*m", gradients={"x": "dy*m"}, when={"class": lambda name: name != "AlphaDropout"}),
            Formula("", gradients={"x": "dy*m"}, when={"class": "AlphaDropout"}),
        )
    ),
    (layers.GaussianNoise,): Formula("x + r", gradients={"x": "dy"}),
    (layers.Masking,): Formula("x*m", gradients={"x": "dy*m"}),
    (layers.Add,): Formula("a + b", gradients={"a": "dy", "b": "dy"}, when=_ONE_SHAPE),
    (ops.Add,): with_numbers(
        Formula("a + b", gradients={"a": "dy", "b": "dy"}, when=_TWO), ("x1 + x", "1"), ("x + x2", "1")
    ),
    (layers.Subtract,): _DIFFERENCE,
    (ops.Subtract,): with_numbers(_DIFFERENCE, ("x1 - x", "-1"), ("x - x2", "1")),
    (layers.Multiply,): _PRODUCT,
    (ops.Multiply,): with_numbers(_PRODUCT, ("x1*x", "x1"), ("x*x2", "x2")),
    (ops.Divide, ops.TrueDivide): with_numbers(
        Formula("a/b", gradients={"a": "dy/b", "b": "-dy*y/b"}, when=_TWO), ("x1/x", "-y/x"), ("x/x2", "1/x2")
    ),
    (ops.Maximum,): with_numbers(
        Formula("max(a, b)", gradients=_OF_THE_LARGER, when=_TWO),
        ("max(x1, x)", "(x > x1)"),
        ("max(x, x2)", "(x >= x2)"),
    ),
    (layers.Maximum,): Cases(
        (
            Formula("max(a, b)", gradients=_OF_THE_LARGER, when={**_TWO, "class": "Maximum"}),
            Formula("min(a, b)", gradients=_OF_THE_SMALLER, when={**_TWO, "class": "Minimum"}),
        )
    ),
    (layers.Dot,): Formula(
        "total(a*b)", gradients={"a": "dy*b", "b": "dy*a"}, when={"inputs": 2, "rank": 2, "normalize": False}
    ),
    (ops.Minimum,): with_numbers(
        Formula("min(a, b)", gradients=_OF_THE_SMALLER, when=_TWO),
        ("min(x1, x)", "(x < x1)"),
        ("min(x, x2)", "(x <= x2)"),
    ),
    (ops.Logaddexp,): Formula(
        "log(exp(a) + exp(b))", gradients={"a": "dy*exp(a - y)", "b": "dy*exp(b - y)"}, when=_TWO
    ),
    (ops.Hypot,): Formula("sqrt(a**2 + b**2)", gradients={"a": "dy*a/y", "b": "dy*b/y"}, when=_TWO),
    (ops.Logsumexp,): Formula("log(total(exp(x)))", gradients={"x": "dy*exp(x - y)"}),
    (layers.Average,): Formula("(a + b)/inputs", gradients={"a": "dy/inputs", "b": "dy/inputs"}, when=_ONE_SHAPE),
    (ops.Matmul,): Formula("a @ b", gradients={"a": "dy @ b.T", "b": "a.T @ dy"}, when={"inputs": 2}),
    (layers.Rescaling,): Formula(
        "x*scale + offset", gradients={"x": "dy*scale"}, when={"scale": is_number, "offset": is_number}
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
    (activations.glu, ops.Glu): Formula(
        "u*sigmoid(v)",
        gradients={"x": "join(dy*sigmoid(v), dy*y*(1 - sigmoid(v)))"},
        parts=(("u, v", "parts(x, 2)"),),
        when={"axis": -1},
    ),
    (layers.Normalization,): Cases(
        (
            Formula("(x - mu)/s", gradients={"x": "dy/s"}, when={"invert": False}),
            Formula("mu + x*s", gradients={"x": "dy*s"}, when={"invert": True}),
        )
    ),
    (layers.ReversibleEmbedding,): Cases(
        (
            Formula("C[k]", gradients={"C": "onehot(k).T @ dy"}, inputs="k", when={"reverse": False}),
            Formula("x @ C.T", gradients={"x": "dy @ C", "C": "dy.T @ x"}, when=_TIED),
        )
    ),
    (layers.Embedding,): Formula("C[k]", gradients={"C": "onehot(k).T @ dy"}, inputs="k"),
    (regularizers.L1,): Formula("l1*total(abs(x))", gradients={"x": "dy*l1*sign(x)"}),
    (regularizers.L2,): Formula("l2*total(x**2)", gradients={"x": "dy*2*l2*x"}),
    (regularizers.L1L2,): Formula("l1*total(abs(x)) + l2*total(x**2)", gradients={"x": "dy*(l1*sign(x) + 2*l2*x)"}),
}
"""What takes in more than one number: y, and the gradients of what goes in."""
