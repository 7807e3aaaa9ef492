"""How operations of `keras.ops` are written that are no functions of one number: y, and the gradients of what goes in.

`spread` gives every number along an axis what came out of the axis; `summed(a, b)` is a·b, added up over the axes that do not
come out; `taken` is some of the numbers, `placed` puts them back where they were taken, and adds up what was taken several times.
"""

from dataclasses import replace

from keras_backprop._keras import ops
from keras_backprop.formula import Cases, Formula


def is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def with_numbers(formula, first, second):
    """A formula of two tensors, and those for a number, or for one row for all examples, in the place of one of them.

    Args:
        formula: `Formula`, of a and b.
        first: (value, derivative), of the number x1 and the tensor x.
        second: (value, derivative), of the tensor x and the number x2.
    """
    numbers = [
        Formula(value, derivative, when={"inputs": 1, name: is_number})
        for name, (value, derivative) in (("x1", first), ("x2", second))
    ]
    rows = [
        replace(
            formula, gradients={**formula.gradients, letter: f"examples({text})"}, when={"inputs": 2, "row": letter}
        )
        for letter, text in formula.gradients.items()
    ]
    return Cases((formula, *numbers, *rows))


_TWO = {"broadcasts": False, "inputs": 2}
_SUMMED = Formula("summed(a, b)", gradients={"a": "summed(dy, b)", "b": "summed(dy, a)"}, when={"inputs": 2})
_TAKEN = Formula("taken(x)", gradients={"x": "placed(dy)"})
_AS_IT_IS = Formula("x", gradients={"x": "dy"})
_MOVED = Formula("permuted(x)", gradients={"x": "permuted(dy)"})
_BESIDE = Formula("join(a, b)", gradients={"a": "head(dy, a)", "b": "tail(dy, b)"})
_BESIDE_ANOTHER = Formula(
    "join(a, b, c)", gradients={"a": "head(dy, a)", "b": "middle(dy, a, b)", "c": "tail(dy, c)"}, inputs="abc"
)


def side_by_side(**when):
    """Two or three tensors put together along their last axis."""
    return Cases((replace(_BESIDE, when={"inputs": 2, **when}), replace(_BESIDE_ANOTHER, when={"inputs": 3, **when})))


OPERATIONS = {
    (ops.Power,): with_numbers(
        Formula("a**b", gradients={"a": "dy*b*a**(b - 1)", "b": "dy*y*log(a)"}, when=_TWO),
        ("x1**x", "y*log(x1)"),
        ("x**x2", "x2*x**(x2 - 1)"),
    ),
    (ops.Arctan2,): Formula(
        "arctan2(a, b)", gradients={"a": "dy*b/(a**2 + b**2)", "b": "-dy*a/(a**2 + b**2)"}, when=_TWO
    ),
    (ops.Mod,): Formula("a - b*floor(a/b)", gradients={"a": "dy", "b": "-dy*floor(a/b)"}, when=_TWO),
    (ops.Cross,): Formula("cross(a, b)", gradients={"a": "cross(b, dy)", "b": "cross(dy, a)"}, when=_TWO),
    (ops.Clip,): Formula(
        "max(x_min, min(x, x_max))",
        "(x >= x_min)*(x <= x_max)",
        when={"inputs": 1, "x_min": is_number, "x_max": is_number},
    ),
    (ops.Where,): Formula(
        "where(c, a, b)",
        gradients={"a": "where(c, dy, 0)", "b": "where(c, 0, dy)"},
        when={"inputs": 3, "broadcasts": False},
        inputs="cab",
    ),
    (ops.Prod,): Formula("product(x)", gradients={"x": "spread(dy*y)/x"}),
    (ops.Var,): Formula("mean((x - mean(x))**2)", gradients={"x": "2/k*spread(dy)*(x - mean(x))"}),
    (ops.Std,): Formula("sqrt(mean((x - mean(x))**2))", gradients={"x": "spread(dy/y)*(x - mean(x))/k"}),
    (ops.Cumsum,): Formula("sum_so_far(x)", gradients={"x": "sum_from_here(dy)"}, when={"class": "Cumsum"}),
    (ops.Cumprod,): Formula("product_so_far(x)", gradients={"x": "sum_from_here(dy*y)/x"}, when={"class": "Cumprod"}),
    (ops.Einsum, ops.Tensordot, ops.Dot, ops.Inner, ops.Vdot): _SUMMED,
    (ops.Outer,): Formula("outer(a, b)", gradients={"a": "summed(dy, b)", "b": "summed(dy, a)"}, when={"inputs": 2}),
    (ops.Inv,): Formula("inverse(x)", gradients={"x": "-y.T @ dy @ y.T"}),
    (ops.Det,): Formula("det(x)", gradients={"x": "dy*y*inverse(x).T"}),
    (ops.Logdet,): Formula("log(abs(det(x)))", gradients={"x": "dy*inverse(x).T"}),
    (ops.Solve,): Formula(
        "inverse(a) @ b", gradients={"a": "-inverse(a).T @ dy @ y.T", "b": "inverse(a).T @ dy"}, when={"inputs": 2}
    ),
    (ops.GetItem, ops.Slice, ops.Take, ops.TakeAlongAxis, ops.Diagonal): _TAKEN,
    (ops.Tril, ops.Triu): Formula("triangle(x)", gradients={"x": "triangle(dy)"}),
    (ops.Repeat, ops.Tile, ops.BroadcastTo): Formula("repeated(x)", gradients={"x": "total(window(dy))"}),
    (ops.Pad,): Formula("padded(x)", gradients={"x": "cropped(dy)"}, when={"mode": "constant"}),
    (ops.Fliplr, ops.Flipud, ops.Rot90, ops.DepthToSpace, ops.SpaceToDepth): _MOVED,
    (ops.Cast, ops.ConvertToTensor, ops.Array, ops.Copy): _AS_IT_IS,
    (ops.Concatenate,): side_by_side(last=True),
}
"""Operations of tensors: y, and the gradients of what goes in."""
