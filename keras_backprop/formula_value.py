"""The number that a formula's text gives, with NumPy: what the letters and functions of formulas mean."""

import math
from typing import Any

import numpy as np

from keras_backprop.alignments import likelihood, occupancy

__all__ = ["evaluate", "with_parts"]


def evaluate(expression: str, values: dict) -> Any:
    """The number that a formula's text gives, with NumPy.

    Args:
        expression: str, a formula.
        values: dict, letter -> array or number.

    Raises:
        NameError: a letter has no value.
    """
    return eval(compile(expression, "<formula>", "eval"), {"__builtins__": {}}, {**_FUNCTIONS, **values})


def with_parts(parts: Any, values: dict) -> dict:
    """The letters and their numbers, and those of a formula's parts. See `evaluate`.

    Args:
        parts: (letters, expression) in order; several letters, "u, v", name the parts of what the expression gives.
        values: dict, letter -> array or number.
    """
    for letters, expression in parts:
        result, names = evaluate(expression, values), letters.split(", ")
        values = {**values, **(dict(zip(names, result, strict=True)) if len(names) > 1 else {letters: result})}
    return values


def _softmax(z):
    powers = np.exp(z - np.max(z, -1, keepdims=True))
    return powers / np.sum(powers, -1, keepdims=True)


def _sigmoid(x):
    return 0.5 * (1 + np.tanh(0.5 * np.asarray(x)))


def _orthogonal(x, a, b, c, steps):
    """The Newton–Schulz iteration of Muon: x with all its singular values near 1."""
    x = x / (np.sqrt(np.sum(np.square(x))) + 1e-7)
    for _ in range(int(steps)):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x


def _trust(w, d):
    """‖w‖/‖d‖, 1 where one of the two is 0."""
    sizes = np.sqrt(np.sum(np.square(w))), np.sqrt(np.sum(np.square(d)))
    return sizes[0] / sizes[1] if all(sizes) else 1.0


def _pairs(labels, alike):
    """1 where two examples have the same label, or another one, else 0. No example is a pair with itself."""
    labels = np.ravel(labels)
    equal = labels[:, None] == labels[None, :]
    return (equal & ~np.eye(len(labels), dtype=bool) if alike else ~equal).astype(float)


def _differences(values):
    """vⱼ − vᵢ, ∞ where there is none."""
    difference = values[None, :] - values[:, None]
    return np.where(difference == 0, np.inf, difference)


_FUNCTIONS: dict[str, Any] = {
    "sigmoid": _sigmoid, "tanh": np.tanh, "exp": np.exp, "log": np.log, "sqrt": np.sqrt, "abs": np.abs, "sign": np.sign,
    "max": np.maximum, "min": np.minimum, "cosh": np.cosh, "softmax": _softmax, "pi": math.pi,
    "softplus": lambda x: np.logaddexp(0.0, x),
    "Phi": lambda x: 0.5 * (1 + np.vectorize(math.erf)(np.asarray(x) / math.sqrt(2))),
    "total": lambda x: np.sum(x, -1, keepdims=True), "mean": lambda x: np.mean(x, -1, keepdims=True),
    "examples": lambda x: np.sum(x, 0), "average": lambda x: np.mean(x, 0, keepdims=True),
    "largest": lambda x: np.max(x, -1, keepdims=True), "smallest": lambda x: np.min(x, -1, keepdims=True),
    "window": lambda x: x, "spread": lambda x: x, "norm": lambda x: np.sqrt(np.sum(np.square(x))),
    "rms": lambda x: np.sqrt(np.mean(np.square(x))), "rows": lambda x: np.mean(x, -1), "columns": lambda x: np.mean(x, -2),
    "outer": lambda x, y: x[..., :, None] * y[..., None, :], "longest": lambda x: max(np.shape(x)), "orthogonal": _orthogonal,
    "trust": _trust, "parts": lambda z, k: np.split(np.asarray(z), int(k), -1), "join": lambda *x: np.concatenate(x, -1),
    "stack": lambda *x: np.stack(x),
    "length": lambda x: np.sqrt(np.sum(np.square(x), -1, keepdims=True)), "classes": lambda x: np.shape(x)[-1],
    "head": lambda dy, x: dy[..., : np.shape(x)[-1]],
    "middle": lambda dy, a, b: dy[..., np.shape(a)[-1] :][..., : np.shape(b)[-1]],
    "tail": lambda dy, x: dy[..., -np.shape(x)[-1] :],
    "sin": np.sin, "cos": np.cos, "tan": np.tan, "sinh": np.sinh, "arctan": np.arctan,
    "arcsin": np.arcsin, "arccos": np.arccos, "arsinh": np.arcsinh, "arcosh": np.arccosh, "artanh": np.arctanh,
    "erf": lambda x: np.vectorize(math.erf)(np.asarray(x)), "channels": lambda x: x,
    "where": np.where, "floor": np.floor, "arctan2": np.arctan2, "cross": np.cross,
    "inverse": np.linalg.inv, "det": np.linalg.det,
    "real": np.real, "imag": np.imag, "fourier": np.fft.fft, "fourier2": np.fft.fft2, "unfourier2": np.fft.ifft2,
    "adjoint": lambda z: np.conj(np.fft.fft(np.conj(z))), "adjoint2": lambda z: np.conj(np.fft.fft2(np.conj(z))),
    "unadjoint2": lambda z: np.conj(np.fft.ifft2(np.conj(z))), "half": lambda z: z[..., : np.shape(z)[-1] // 2 + 1],
    "pairs": lambda q, k: q[:, None, :] + k[None, :, :], "each": lambda x: np.asarray(x)[..., None],
    "over_features": lambda x: np.sum(x, -1), "over_keys": lambda x: np.sum(x, 1), "over_queries": lambda x: np.sum(x, 0),
    "over_pairs": lambda S, u: np.sum(S[..., None] * u, (0, 1)), "ascending": lambda x: np.sort(x, -1),
    "cholesky": np.linalg.cholesky, "pinv": np.linalg.pinv, "half_lower": lambda x: np.tril(x) - np.diag(np.diag(x)) / 2,
    "eigenvalues": lambda x: np.linalg.eigh(x)[0], "eigenvectors": lambda x: np.linalg.eigh(x)[1], "diag": np.diag,
    "differences": _differences, "orthonormal": lambda x: np.linalg.qr(x)[0], "triangular": lambda x: np.linalg.qr(x)[1],
    "mirrored": lambda x: np.tril(x) + np.tril(x, -1).T, "upper": np.triu, "both": lambda x: x + x.T,
    "svd": lambda x: np.linalg.svd(x, full_matrices=False), "left": lambda x: np.linalg.svd(x, full_matrices=False)[0],
    "singular": lambda x: np.linalg.svd(x, compute_uv=False), "right": lambda x: np.linalg.svd(x, full_matrices=False)[2],
    "product": lambda x: np.prod(x, -1, keepdims=True), "sum_so_far": lambda x: np.cumsum(x, -1),
    "product_so_far": lambda x: np.cumprod(x, -1), "sum_from_here": lambda x: np.flip(np.cumsum(np.flip(x, -1), -1), -1),
    "whole": lambda x: np.sum(x), "same": lambda labels: _pairs(labels, True), "different": lambda labels: _pairs(labels, False),
    "likelihood": lambda T, p: np.array([[likelihood(*one)] for one in zip(np.asarray(T), p, strict=True)]),
    "occupancy": lambda T, p: np.stack([occupancy(*one) for one in zip(np.asarray(T), p, strict=True)]),
}  # fmt: skip
