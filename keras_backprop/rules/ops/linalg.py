"""Linear algebra: inverses, determinants, factorisations, norms. All hold for stacks of matrices.

Letters: A⁻ᵀ the transpose of the inverse; tril(M) the lower triangle of M, Φ(M) the same with half its diagonal.
"""

import tensorflow as tf
from keras import ops as k

from keras_backprop._keras import ops
from keras_backprop.registry import backward_rule, not_differentiable, pullback
from keras_backprop.rule import Gradients
from keras_backprop.rules.ops.arithmetic import of_tensors
from keras_backprop.rules.ops.statistics import composed

not_differentiable(ops.MatrixRank)


def transposed(x):
    return tf.linalg.matrix_transpose(x)


@backward_rule(ops.Inv)
def inverse(call, dy):
    """Y = A⁻¹        dA = −Yᵀ·dY·Yᵀ"""
    y = call.output
    return Gradients(-tf.matmul(y, tf.matmul(dy, y, transpose_b=True), transpose_a=True))


@backward_rule(ops.Det)
def determinant(call, dy):
    """y = det A        dA = dy·y·A⁻ᵀ"""
    return Gradients((dy * call.output)[..., None, None] * tf.linalg.inv(call.input, adjoint=True))


@backward_rule(ops.Logdet)
def log_determinant(call, dy):
    """y = log det A, A symmetric and positive        dA = dy·A⁻¹"""
    return Gradients(dy[..., None, None] * tf.linalg.inv(call.input, adjoint=True))


@backward_rule(ops.Slogdet)
def signed_log_determinant(call, dy):
    """s, y = the sign of det A, log |det A|        dA = dy·A⁻ᵀ"""
    return Gradients(dy[1][..., None, None] * tf.linalg.inv(call.input, adjoint=True))


def half_lower(x):
    """The lower triangle with half the diagonal."""
    return tf.linalg.set_diag(tf.linalg.band_part(x, -1, 0), 0.5 * tf.linalg.diag_part(x))


@backward_rule(ops.Cholesky)
def cholesky(call, dy):
    """A = L·Lᵀ        dA = symmetric part of L⁻ᵀ·Φ(Lᵀ·dL)·L⁻¹        (with `upper` y = Lᵀ)"""
    y, upper = call.output, call["upper"]
    L, dL = (transposed(y), transposed(dy)) if upper else (y, dy)
    middle = half_lower(tf.matmul(L, dL, transpose_a=True))
    left = tf.linalg.triangular_solve(L, middle, adjoint=True)  # L⁻ᵀ·Φ
    dA = transposed(tf.linalg.triangular_solve(L, transposed(left), adjoint=True))
    return Gradients(0.5 * (dA + transposed(dA)))


def cholesky_inverse(op, x):
    """Y = (L·Lᵀ)⁻¹ = L⁻ᵀ·L⁻¹        (with `upper` Y = (Uᵀ·U)⁻¹ = U⁻¹·U⁻ᵀ)"""
    inverted = k.solve_triangular(x, k.eye(x.shape[-1], dtype=x.dtype), lower=not op.upper)
    return k.matmul(inverted, k.transpose(inverted)) if op.upper else k.matmul(k.transpose(inverted), inverted)


composed(ops.CholeskyInverse, cholesky_inverse)


@backward_rule(ops.Solve)
def solve(call, dy):
    """A·Y = B        dB = A⁻ᵀ·dY        dA = −dB·Yᵀ"""
    y = call.output
    a = tf.convert_to_tensor(call["a"], y.dtype)
    vector = len(y.shape) == len(a.shape) - 1
    y, dy = (x[..., None] if vector else x for x in (y, dy))
    db = tf.linalg.solve(a, dy, adjoint=True)
    return of_tensors(call, a=lambda: -tf.matmul(db, y, transpose_b=True), b=db[..., 0] if vector else db)


@backward_rule(ops.SolveTriangular)
def solve_triangular(call, dy):
    """A·Y = B for a triangle A        dB = A⁻ᵀ·dY        dA = −(the triangle of dB·Yᵀ)"""
    y, lower = call.output, call["lower"]
    a = tf.convert_to_tensor(call["a"], y.dtype)
    vector = len(y.shape) == len(a.shape) - 1
    y, dy = (x[..., None] if vector else x for x in (y, dy))
    db = tf.linalg.triangular_solve(a, dy, lower=lower, adjoint=True)
    band = (-1, 0) if lower else (0, -1)
    return of_tensors(
        call,
        a=lambda: -tf.linalg.band_part(tf.matmul(db, y, transpose_b=True), *band),
        b=db[..., 0] if vector else db,
    )


@backward_rule(ops.LuFactor)
def lu_factor(call, dy):
    """P·A = L·U        dA = Pᵀ·L⁻ᵀ·(strict tril(Lᵀ·dL) + triu(dU·Uᵀ))·U⁻ᵀ, for a square A"""
    lu, places = call.outputs
    strict = tf.linalg.band_part(dy[0], -1, 0) - tf.linalg.band_part(dy[0], 0, 0)
    dU = tf.linalg.band_part(dy[0], 0, -1)
    U = tf.linalg.band_part(lu, 0, -1)
    L = tf.linalg.set_diag(tf.linalg.band_part(lu, -1, 0), tf.ones_like(tf.linalg.diag_part(lu)))
    in_l = tf.matmul(L, strict, transpose_a=True)
    middle = tf.linalg.band_part(in_l, -1, 0) - tf.linalg.band_part(in_l, 0, 0)
    middle += tf.linalg.band_part(tf.matmul(dU, U, transpose_b=True), 0, -1)
    right = transposed(tf.linalg.triangular_solve(U, transposed(middle), lower=False))
    return Gradients(
        tf.gather(tf.linalg.triangular_solve(L, right, adjoint=True), places, batch_dims=len(lu.shape) - 2)
    )


@backward_rule(ops.Qr)
def qr(call, dy):
    """A = Q·R        dA = (dQ + Q·sym)·R⁻ᵀ, sym = the lower triangle of M mirrored, M = R·dRᵀ − dQᵀ·Q

    For a wide A = [X, Y], R = [U, V] it is the gradient of X = Q·U with dQ + Y·dVᵀ, beside Q·dV.
    """
    (q, r), (dq, dr) = call.outputs, dy
    rows, columns = call.input.shape[-2:]
    if rows > columns and q.shape[-1] == rows:
        raise NotImplementedError(
            f"The backward pass of '{call.path}' (Qr with mode='complete') needs a matrix that is not taller than wide. "
            f"Received: shape={call.input.shape}. Use mode='reduced'."
        )
    if rows >= columns:
        return Gradients(_qr_of_a_tall_matrix(q, r, dq, dr))
    wide = call.input[..., rows:]
    dq = dq + tf.matmul(wide, dr[..., rows:], transpose_b=True)
    dx = _qr_of_a_tall_matrix(q, r[..., :rows], dq, dr[..., :rows])
    return Gradients(tf.concat([dx, tf.matmul(q, dr[..., rows:])], -1))


def _qr_of_a_tall_matrix(q, r, dq, dr):
    dr = tf.linalg.band_part(dr, 0, -1)
    m = tf.matmul(r, dr, transpose_b=True) - tf.matmul(dq, q, transpose_a=True)
    lower = tf.linalg.band_part(m, -1, 0)
    mirrored = lower + transposed(lower - tf.linalg.band_part(m, 0, 0))
    right = dq + tf.matmul(q, mirrored)
    return transposed(tf.linalg.triangular_solve(r, transposed(right), lower=False))


def differences_inverted(values):
    """F with Fᵢⱼ = 1/(vⱼ − vᵢ), and 0 where they are equal."""
    return tf.math.divide_no_nan(tf.ones([], values.dtype), values[..., None, :] - values[..., :, None])


@backward_rule(ops.Eigh)
def eigh(call, dy):
    """A = V·diag(e)·Vᵀ        dA = V·(diag(de) + F∘(Vᵀ·dV))·Vᵀ, Fᵢⱼ = 1/(eⱼ − eᵢ)

    Only the lower triangle of A is read: the gradient of the upper one is put there.
    """
    (e, v), (de, dv) = call.outputs, dy
    middle = tf.linalg.diag(de) + differences_inverted(e) * tf.matmul(v, dv, transpose_a=True)
    dA = tf.matmul(v, tf.matmul(middle, v, transpose_b=True))
    return Gradients(2 * half_lower(0.5 * (dA + transposed(dA))))


@backward_rule(ops.SVD)
def svd(call, dy):
    """A = U·S·Vᵀ        dA = U·(dS + (F∘(Uᵀ·dU))ₛ·S + S·(F∘(Vᵀ·dV))ₛ)·Vᵀ + (1 − U·Uᵀ)·dU·S⁻¹·Vᵀ + U·S⁻¹·dVᵀ·(1 − V·Vᵀ)

    F = 1/(sⱼ² − sᵢ²), Mₛ = M + Mᵀ. Of full matrices only the first columns are unique.
    """
    x = call.input
    if not call["compute_uv"]:
        _, u, v = tf.linalg.svd(x)
        return Gradients(tf.matmul(u * dy[..., None, :], v, transpose_b=True))
    rows, columns = x.shape[-2:]
    size = min(rows, columns)
    if call["full_matrices"] and rows != columns:
        raise NotImplementedError(
            f"The backward pass of '{call.path}' (SVD with full_matrices=True) needs a square matrix: further columns of "
            f"U and V are not unique. Received: shape={x.shape}. Use full_matrices=False."
        )
    (u, s, vt), (du, ds, dvt) = call.outputs, dy
    v, dv = transposed(vt), transposed(dvt)
    F, inverse = differences_inverted(tf.square(s)), tf.math.reciprocal_no_nan(s)[..., None, :]
    in_u, in_v = F * tf.matmul(u, du, transpose_a=True), F * tf.matmul(v, dv, transpose_a=True)
    middle = tf.linalg.diag(ds) + (in_u + transposed(in_u)) * s[..., None, :] + s[..., None] * (in_v + transposed(in_v))
    dA = tf.matmul(u, tf.matmul(middle, v, transpose_b=True))
    if rows > size:
        outside = du - tf.matmul(u, tf.matmul(u, du, transpose_a=True))
        dA += tf.matmul(outside * inverse, v, transpose_b=True)
    if columns > size:
        outside = dv - tf.matmul(v, tf.matmul(v, dv, transpose_a=True))
        dA += tf.matmul(u * inverse, outside, transpose_b=True)
    return Gradients(dA)


def pseudo_inverse_back(call, dy):
    """Y = A⁺        dA = −Yᵀ·dY·Yᵀ + (1 − A·Y)·dYᵀ·(Y·Yᵀ) + (Yᵀ·Y)·dYᵀ·(1 − Y·A)"""
    a, y = call.input, call.output
    back = transposed(dy)
    left = tf.matmul(back, tf.matmul(y, y, transpose_b=True))
    right = tf.matmul(tf.matmul(y, y, transpose_a=True), back)
    dA = left - tf.matmul(a, tf.matmul(y, left)) + right - tf.matmul(tf.matmul(right, y), a)
    return dA - tf.matmul(y, tf.matmul(dy, y, transpose_b=True), transpose_a=True)


pullback(ops.Pinv, pseudo_inverse_back)
composed(ops.Lstsq, lambda op, a, b: k.matmul(k.pinv(a, rcond=op.rcond), b))


def norm(op, x):
    """‖x‖ of vectors or matrices along one or two axes, as sums, maxima and powers of |x|"""
    order, axis, keep = op.ord, op.axis, op.keepdims
    rank = len(x.shape)
    axes = [a % rank for a in (range(rank) if axis is None else axis if isinstance(axis, (tuple, list)) else [axis])]
    if order is None or order == "fro" or (order == 2 and len(axes) == 1):
        return k.sqrt(k.sum(k.square(x), axis=axes, keepdims=keep))
    if len(axes) == 2 and order in ("nuc", 2, -2):
        values = k.svd(k.moveaxis(x, axes, (-2, -1)), compute_uv=False)
        y = {"nuc": k.sum, 2: k.max, -2: k.min}[order](values, axis=-1)
        first, second = axis or axes
        return k.expand_dims(k.expand_dims(y, first), second) if keep else y
    if len(axes) == 2:  # the largest or smallest sum over the rows (1, −1) or the columns (∞, −∞)
        summed, picked = axes if abs(order) == 1 else reversed(axes)
        y = (k.max if order > 0 else k.min)(k.sum(k.abs(x), axis=summed, keepdims=True), axis=picked, keepdims=True)
        return y if keep else k.squeeze(y, axes)
    if abs(order) == float("inf"):
        return (k.max if order > 0 else k.min)(k.abs(x), axis=axes, keepdims=keep)
    if order == 0:
        return k.sum(k.cast(k.not_equal(x, 0), x.dtype), axis=axes, keepdims=keep)
    return k.power(k.sum(k.power(k.abs(x), order), axis=axes, keepdims=keep), 1.0 / order)


composed(ops.Norm, norm)
