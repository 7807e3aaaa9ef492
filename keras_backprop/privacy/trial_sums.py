"""What some examples contribute together, and whether it is another in another pass."""

import keras
import numpy as np
import tensorflow as tf


def sums_of(result, own, some, norms):
    """The gradients of some examples, added up with factors by which they are of about one length: id -> (weight, array).

    Args:
        result: a `Backward`.
        own: array, what turns contributions into the examples' own gradients.
        some: slice, which of them.
        norms: array, of their gradients.
    """
    c = np.zeros(len(own))
    c[some] = _factors(norms)
    sums = result.weighted(tf.constant(c * own), penalties=False, left_out=tf.constant(c), least=tf.float32)
    return {
        id(v): (v, keras.ops.convert_to_numpy(tf.cast(tf.convert_to_tensor(g), tf.float64)))
        for v, g in zip(result.weights, sums, strict=True)
        if g is not None
    }


def changed(usual, others, rtol):
    """The first weight whose gradient is another in `others` than in `usual`, or None. In neither, it would be 0."""
    largest = max((_largest(gradient) for _, gradient in usual.values()), default=0)
    for number, (weight, either) in {**others, **usual}.items():
        one, other = (sums[number][1] if number in sums else np.zeros_like(either) for sums in (usual, others))
        atol = rtol / 10 * _largest(one) + 1e-6 * largest
        if not np.allclose(one, other, rtol, atol, equal_nan=True):
            return weight
    return None


def _largest(x):
    """The largest finite number of an array, without its sign: beside one that is not finite no deviation would be too large."""
    return np.abs(x).max(initial=0, where=np.isfinite(x))


def _factors(norms):
    """Factors near 1, each another, with which gradients of these norms are of about one length; 0 for one that is not finite."""
    usable = np.isfinite(norms) & (norms > 0)
    usual = np.median(norms[usable]) if usable.any() else 1.0
    factors = 1 + np.arange(len(norms)) / len(norms)
    factors[usable] *= np.clip(usual / norms[usable], 1e-3, 1e3)
    return np.where(np.isfinite(norms), factors, 0)
