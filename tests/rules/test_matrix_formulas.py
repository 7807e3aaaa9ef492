"""Formulas of decompositions, transforms, sorting and additive attention, evaluated and compared with their rules."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_backprop import explain
from keras_backprop._keras import ops
from keras_backprop.explanations.observing.options import options_of
from keras_backprop.formula_value import evaluate, with_parts
from keras_backprop.formula_zeros import without
from keras_backprop.registry import registered
from keras_backprop.rule import Call
from keras_backprop.rules.matrix_formulas import MATRICES
from tests.rules.test_formulas import S, close, upstream_of

L = keras.layers
RE, IM = np.random.default_rng(5).normal(size=(2, 4, 6))
TALL = np.random.default_rng(6).normal(size=(4, 3))
FULL = S + 3 * np.eye(3)
OPERATIONS = [
    (ops.Sort(), {"x": RE}), (ops.TopK(2), {"x": RE}), (ops.Cholesky(), {"x": S @ S.T}), (ops.Pinv(), {"x": TALL}),
    (ops.SolveTriangular(True), {"a": FULL, "b": S}), (ops.SolveTriangular(), {"a": FULL, "b": S}), (ops.Slogdet(), {"x": S}), (ops.Eigh(), {"x": S + S.T}),
    (ops.Qr("reduced"), {"x": TALL}), (ops.SVD(False), {"x": TALL}), (ops.SVD(False, False), {"x": TALL}),
    (ops.SVD(False), {"x": TALL.T}), (ops.FFT(), {"real": RE, "imag": IM}), (ops.FFT2(), {"real": RE, "imag": IM}),
    (ops.IFFT2(), {"real": RE, "imag": IM}), (ops.RFFT(), {"x": RE}),
]  # fmt: skip


def functions_of(op, x, y):
    """The functions whose meaning depends on the call."""
    largest = np.argsort(-x, -1)[..., : y.shape[-1]] if isinstance(op, ops.TopK) else np.argsort(x, -1)
    return {
        "placed": lambda dy: np.put_along_axis(out := np.zeros_like(x), largest, dy, -1) or out,
        "the_largest": lambda x: -np.sort(-x, -1)[..., :2], "triangle": np.tril if getattr(op, "lower", True) else np.triu,

        "padded": lambda z: np.pad(z, [(0, 0), (0, x.shape[-1] - z.shape[-1])]),
    }  # fmt: skip


@pytest.mark.parametrize(("op", "arguments"), OPERATIONS, ids=lambda value: type(value).__name__)
def test_an_operation_of_matrices(op, arguments):
    tensors = [tf.constant(x) for x in arguments.values()]
    pair = isinstance(op, (ops.FFT, ops.FFT2, ops.IFFT2))
    outputs = keras.tree.flatten(op(tuple(tensors)) if pair else op(*tensors))
    call = Call(op, tensors, outputs, arguments=dict(zip(arguments, tensors, strict=True)), path="op")
    varied = [y for y in outputs if y.dtype.is_floating]
    dys = [upstream_of(y) * (1 + n) for n, y in enumerate(varied)]
    given = [tf.constant(dy) for dy in dys] + [tf.zeros_like(y) for y in outputs[len(varied) :]]
    made = registered()[type(op)].backward(call, tuple(given) if len(given) > 1 else given[0]).inputs
    dxs = [dx() if callable(dx) else dx for dx in made]
    formula = registered()[type(op)].formula.of(options_of(call, dxs))
    x, y = next(iter(arguments.values())), varied[0].numpy()
    letters = formula.inputs or ("ab" if len(arguments) > 1 else "x")
    values = {**functions_of(op, x, y), **dict(zip(letters, arguments.values(), strict=True)), "y": y, "dy": dys[0]}
    for (letter, text), output, dy in zip(formula.outputs, varied, dys, strict=False):
        found = evaluate(text, values)
        close(
            np.abs(found) if letter in "uvwqr" else found, np.abs(output) if letter in "uvwqr" else output
        )  # up to a sign
        values |= {letter: output.numpy(), f"d{letter}": dy}
    values = with_parts(formula.parts, values)
    if formula.value:
        close(evaluate(formula.value, values), y)
    for letter, dx in zip(letters, dxs, strict=True):
        close(evaluate(formula.gradients[letter], values), dx)


def test_every_formula_of_this_kind_is_compared():
    assert {type(op) for op, _ in OPERATIONS} == {key for keys in MATRICES for key in keys}


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("case", [3, 4, 5])
def test_additive_attention(case, scaled):
    formula, random = registered()[L.AdditiveAttention].formula[case], np.random.default_rng(0)
    arrays = {letter: random.normal(size=(1, n, 2)) for letter, n in (("q", 3), ("v", 4), ("k", 4))}
    seen = np.array([[True, True, False, True]])
    layer, masked = L.AdditiveAttention(use_scale=scaled, dtype="float64"), case == 4
    inputs = [tf.constant(arrays[letter]) for letter in formula.inputs]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        y = layer(inputs, mask=[None, tf.constant(seen)] if masked else None)
    dy = upstream_of(y)
    gamma = layer.scale.numpy() if scaled else 1.0
    values = {name: x[0] for name, x in arrays.items()} | {
        "dy": dy[0],
        "m": np.where(seen, 0.0, -np.inf),
        "gamma": gamma,
    }
    values = with_parts(formula.parts, values)
    close(evaluate(formula.value, values), y[0])
    sources = [*inputs, *([layer.scale.value] if scaled else [])]
    for letter, dx in zip([*formula.inputs, "gamma"], tape.gradient(y, sources, tf.constant(dy)), strict=False):
        close(evaluate(formula.gradients[letter], values), dx[0] if letter != "gamma" else dx)


@pytest.mark.parametrize("layer", [L.Attention, L.AdditiveAttention])
def test_attention_has_a_formula_only_where_it_holds(layer):
    q, v = np.random.default_rng(0).normal(size=(2, 1, 3, 2))
    seen, formula = tf.constant([[True, True, False]]), registered()[layer].formula
    queries, values = ([seen, None, None], [None, seen, None])

    def found(**arguments):
        made = layer(use_scale=False)
        given = {"inputs": [q, v, v], **arguments}
        outputs = keras.tree.flatten(made(**given))
        tensors = [tf.constant(x) for x in (q, v, v)] + [m for m in arguments.get("mask", ()) if m is not None]
        call = Call(made, tensors, outputs, arguments=given, path="attention")
        return formula.of(options_of(call, [None] * len(tensors)))

    assert found() is not None and not dict(found().parts)["P"].endswith("+ m)")
    assert dict(found(mask=values).parts)["P"].endswith("+ m)")
    assert found(mask=queries) is None and found(mask=[seen, seen, None]) is None
    assert found(return_attention_scores=True) is None


def test_terms_of_outputs_that_the_error_does_not_depend_on_are_left_out():
    assert without("v @ (diag(de) + v.T @ dv/differences(e)) @ v.T", {"dv"}) == "v @ diag(de) @ v.T"
    assert without("(du - u @ u.T @ du)/s @ w - dw.T", {"du"}) == "-dw.T"
    assert without("real(adjoint(du + 1j*dv))", {"du", "dv"}) == "0"

    class Eigenvalues(L.Layer):
        def call(self, x):
            return keras.ops.linalg.eigh(x)[0]

    model = keras.Sequential([keras.Input((3, 3)), L.EinsumDense("nij,jk->nik", (3, 3)), Eigenvalues(), L.Dense(1)])
    model.compile("sgd", "mse")
    text = explain(model, (S @ S.T)[None], np.ones((1, 1))).to_text()
    assert "y₁ = eigenvalues(z₁)" in text and "y₂ = eigenvectors(z₁)" in text and "∂E/∂M = y₂ diag(∂E/∂y₁) y₂ᵀ" in text
