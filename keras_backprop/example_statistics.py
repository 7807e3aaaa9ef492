"""How the gradients of single examples lie around their mean: variance, noise scale, cosines.

gₙ is the gradient of example n's own error, and ḡ the mean over the batch; sample weights and penalties are left out. Sums, norms
and inner products come from the products of the one backward pass, without gradients of single examples where mathematics allows.
The functions take a `keras_backprop.Backward`, also while a step is traced.
"""

from typing import Any

import tensorflow as tf


def gradient_variance(result: Any, weight: Any) -> Any:
    """The variance of gₙ over the batch, entry by entry, divided by n − 1.

    Args:
        result: a `Backward`.
        weight: a variable or its path.

    Returns:
        A tensor of the weight's shape; None where E does not depend on it.

    Raises:
        KeyError: no such weight.
        ValueError: the gradient exists as a sum over the batch only, and why.
    """
    factor, n = _own(result)
    squares, mean = result.squared_total(weight, factor), _mean(result, [weight], factor, n)[0]
    if mean is None:
        return None
    n = tf.cast(n, mean.dtype)
    return tf.maximum((squares - n * tf.square(mean)) / tf.maximum(n - 1, 1), 0)


def gradient_noise_scale(result: Any, weights: Any = None) -> Any:
    """B = tr Σ/‖G‖²: the batch size at which noise and mean are alike ("simple" noise scale; McCandlish et al., 2018, section
    2.2).

    tr Σ = (Σₙ ‖gₙ‖² − n·‖ḡ‖²)/(n − 1) and ‖G‖² = ‖ḡ‖² − tr Σ/n are estimated without bias from this batch. Estimates of
    one batch vary much: average both over steps, or the ratio over many.

    Args:
        result: a `Backward`.
        weights: list of variables or paths; None for all.

    Returns:
        tuple of float32 scalars (B, tr Σ, ‖G‖²); B is infinite where the estimate of ‖G‖² is not positive.

    Raises:
        KeyError, ValueError: as `gradient_variance`.
    """
    weights = result.weights if weights is None else list(weights)
    factor, n = _own(result)
    squares = result.squared_norms(weights)
    if squares is None:
        raise ValueError("The error does not depend on any of these weights.")
    total = tf.reduce_sum(tf.square(factor) * tf.cast(squares, tf.float32))
    means = [tf.cast(mean, tf.float32) for mean in _mean(result, weights, factor, n) if mean is not None]
    of_mean = tf.add_n([tf.reduce_sum(tf.square(mean)) for mean in means])
    n = tf.cast(n, tf.float32)
    trace = tf.maximum((total - n * of_mean) / tf.maximum(n - 1, 1), 0)
    norm = of_mean - trace / n
    return tf.where(norm > 0, trace / tf.where(norm > 0, norm, 1), float("inf")), trace, norm


def example_cosines(result: Any) -> Any:
    """The cosine of each gₙ to the mean ḡ, over all weights together: shape `(n,)`, 0 where one of the two is 0."""
    factor, n = _own(result)
    means = _mean(result, result.weights, factor, n)
    squares, products = result.squared_norms(), []
    for weight, mean in zip(result.weights, means, strict=True):
        if mean is not None:
            products.append(tf.cast(result.inner_products(weight, mean), tf.float32))
    if not products:
        raise ValueError("The error does not depend on any weight.")
    length = tf.sqrt(
        tf.add_n([tf.reduce_sum(tf.square(tf.cast(mean, tf.float32))) for mean in means if mean is not None])
    )
    # The factor of an example is in its norm as well.
    cosines = tf.math.divide_no_nan(tf.add_n(products), tf.sqrt(tf.cast(squares, tf.float32)) * length)
    return tf.where(factor > 0, cosines, 0)


def _own(result):
    """What turns contributions into gₙ, and how many examples there are."""
    factor = tf.cast(result.example_scale.own(), tf.float32)
    factor = factor if result.scale is None else factor / tf.cast(result.scale, tf.float32)
    factor = tf.broadcast_to(factor, tf.shape(result.example_scale.own()))
    return factor, tf.reduce_sum(tf.cast(factor > 0, tf.int32))


def _mean(result, weights, factor, n):
    """ḡ of each weight, dense, None where E does not depend on it."""
    wanted = {result.index(weight) for weight in weights}
    c = factor / tf.cast(tf.maximum(n, 1), tf.float32)
    sums = result.weighted([c if i in wanted else None for i in range(len(result.weights))], penalties=False)
    dense = [None if g is None else tf.convert_to_tensor(g) for g in sums]
    return [dense[result.index(weight)] for weight in weights]
