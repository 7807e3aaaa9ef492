"""How decompositions, Fourier transforms and sorting are written.

Derivatives of decompositions: Giles, "An extended collection of matrix derivative results" (2008); of Q·R: Walter and Lehmann,
"Algorithmic differentiation of linear algebra functions" (2012).
"""

from keras_backprop._keras import ops
from keras_backprop.formula import Cases, Formula

_OF_A_PAIR = (("u", "real({})"), ("v", "imag({})"))


def _of_pair(text):
    """The real and the imaginary part of a complex result: Keras keeps the two apart."""
    return tuple((letter, part.format(text)) for letter, part in _OF_A_PAIR)


def _transform(forward, back, **when):
    return Formula(
        "",
        outputs=_of_pair(f"{forward}(a + 1j*b)"),
        gradients={"a": f"real({back}(du + 1j*dv))", "b": f"imag({back}(du + 1j*dv))"},
        inputs="ab",
        when=when,
    )


_SORTED = Formula("ascending(x)", gradients={"x": "placed(dy)"})
_OUTSIDE_U, _OUTSIDE_V = "(du - u @ u.T @ du)/s @ w", "u @ ((dw.T - w.T @ w @ dw.T)/s).T"

MATRICES = {
    (ops.Sort,): _SORTED,
    (ops.TopK,): Formula("", outputs=(("u", "the_largest(x)"),), gradients={"x": "placed(du)"}),
    (ops.Cholesky,): Formula(
        "cholesky(x)",
        gradients={"x": "(dM + dM.T)/2"},
        parts=(("dM", "inverse(y).T @ half_lower(y.T @ dy) @ inverse(y)"),),
        when={"upper": False},
    ),
    (ops.SolveTriangular,): Formula(
        "inverse(triangle(a)) @ b",  # of a matrix that is none, the other triangle is not read
        gradients={"a": "-triangle(inverse(triangle(a)).T @ dy @ y.T)", "b": "inverse(triangle(a)).T @ dy"},
        when={"inputs": 2},
    ),
    (ops.Pinv,): Formula(
        "pinv(x)",
        gradients={
            "x": "dy.T @ y @ y.T - x @ y @ dy.T @ y @ y.T + y.T @ y @ dy.T - y.T @ y @ dy.T @ y @ x - y.T @ dy @ y.T"
        },
    ),
    (ops.Slogdet,): Formula(
        "", outputs=(("s", "sign(det(x))"), ("l", "log(abs(det(x)))")), gradients={"x": "dl*inverse(x).T"}
    ),
    (ops.Eigh,): Formula(
        "",
        outputs=(("e", "eigenvalues(x)"), ("v", "eigenvectors(x)")),
        gradients={"x": "half_lower(dM + dM.T)"},
        parts=(("dM", "v @ (diag(de) + v.T @ dv/differences(e)) @ v.T"),),
    ),
    (ops.Qr,): Formula(
        "",
        outputs=(("q", "orthonormal(x)"), ("r", "triangular(x)")),
        gradients={"x": "(dq + q @ mirrored(dM)) @ inverse(r).T"},
        parts=(("dM", "r @ upper(dr).T - dq.T @ q"),),
        when={"mode": "reduced", "wide": False},
    ),
    (ops.SVD,): Cases(
        (
            Formula(
                "singular(x)",
                gradients={"x": "u @ diag(dy) @ w"},
                parts=(("u, s, w", "svd(x)"),),
                when={"compute_uv": False},
            ),
            Formula(
                "",
                outputs=(("u", "left(x)"), ("s", "singular(x)"), ("w", "right(x)")),
                gradients={"x": f"u @ (diag(ds) + both(dA)*s + each(s)*both(dB)) @ w + {_OUTSIDE_U} + {_OUTSIDE_V}"},
                parts=(("dA", "u.T @ du/differences(s**2)"), ("dB", "w @ dw.T/differences(s**2)")),
                when={"compute_uv": True},
            ),
        )
    ),
    (ops.FFT,): _transform("fourier", "adjoint"),
    (ops.FFT2,): _transform("fourier2", "adjoint2"),
    (ops.IFFT2,): _transform("unfourier2", "unadjoint2"),
    (ops.RFFT,): Formula(
        "",
        outputs=_of_pair("half(fourier(x))"),
        gradients={"x": "real(adjoint(padded(du + 1j*dv)))"},
        when={"cut": False},
    ),
}
"""Operations on matrices, and what is written like them: y, or each of several outputs, and the gradients of what goes in."""
