"""Findings about the flow of gradients: where they vanish or explode, and the units that stop them."""

import keras
import numpy as np
import tensorflow as tf

from keras_backprop.watch.finding import Finding

VANISHED, EXPLODED = 1e-5, 1e4
"""The factor by which ‖δ‖ changes from the last layer with weights to the first that counts as vanishing or exploding."""

DEAD, SATURATED = 0.6, 0.6
"""The share of units, or of values, of a layer from which on it is said."""


def findings(look, looked):
    """Vanishing, exploding, dead, saturated."""
    return [*_between_layers(look, looked), *_through_time(look, looked), *_units(look, looked)]


def _between_layers(look, looked):
    norms: list = []
    for link in look.layers():
        parts = [float(tf.norm(tf.cast(dy, tf.float64))) for dy in link.upstream if dy is not None]
        if parts and (not norms or norms[-1][0] != link.path):
            norms.append((link.path, max(parts)))
    norms = [(path, norm) for path, norm in norms if norm > 0]
    if len(norms) < 2:
        looked["gradient flow"] = "fewer than two layers with weights"
        return []
    (last, at_last), (first, at_first) = norms[-1], norms[0]
    smallest, largest = min(norms, key=lambda n: n[1]), max(norms, key=lambda n: n[1])
    looked["gradient flow"] = f"‖δ‖ is {at_last:.3g} at '{last}', {at_first:.3g} at '{first}'"
    count = len(norms) - 1
    if at_first < VANISHED * at_last or smallest[1] < VANISHED * VANISHED * at_last:
        factor = (smallest[1] / at_last) ** (1 / count)
        return [Finding(
            "Gradients vanish",
            f"‖δ‖ falls from {at_last:.3g} at '{last}' to {smallest[1]:.3g} at '{smallest[0]}', over {count} layers "
            f"by {factor:.2g} each",
            "use relu or gelu in the place of sigmoid and tanh, initialise accordingly (he_normal), normalise in between, or add "
            "skip connections", smallest[0], "critical" if smallest[1] < VANISHED**2 * at_last else "warning",
        )]  # fmt: skip
    if at_first > EXPLODED * at_last or largest[1] > EXPLODED * EXPLODED * at_last:
        factor = (largest[1] / at_last) ** (1 / count)
        return [Finding(
            "Gradients explode",
            f"‖δ‖ grows from {at_last:.3g} at '{last}' to {largest[1]:.3g} at '{largest[0]}', over {count} layers by "
            f"{factor:.3g} each",
            "initialise with smaller weights (he_normal, glorot), normalise in between, or clip gradients (`clipnorm`)",
            largest[0], "critical",
        )]  # fmt: skip
    return []


def _through_time(look, looked):
    """Of a recurrent layer ∂E/∂x at the first time step and at the last."""
    found = []
    for link in look.links:
        op = link.call.op
        rnn = isinstance(op, (keras.layers.RNN, keras.layers.Bidirectional)) and not isinstance(
            op, keras.layers.Bidirectional
        )
        dx = link.downstream[0] if link.downstream else None
        if not rnn or dx is None or len(dx.shape) != 3 or dx.shape[1] is None or dx.shape[1] < 5:
            continue
        if getattr(op, "return_sequences", False) or getattr(op, "go_backwards", False):
            continue
        by_step = np.sqrt(np.sum(np.square(np.asarray(tf.cast(dx, tf.float64))), (0, 2)))
        first, last = by_step[0], by_step[-1]
        looked[f"time, {link.path}"] = f"‖∂E/∂x‖ is {last:.3g} at the last step, {first:.3g} at the first"
        if last > 0 and first > EXPLODED * last:
            found.append(Finding(
                "Gradients explode through time",
                f"‖∂E/∂x‖ grows from {last:.3g} at the last of {len(by_step)} steps to {first:.3g} at "
                "the first", "clip gradients (`clipnorm`), or initialise the recurrent weights orthogonally", link.path,
                "critical",
            ))  # fmt: skip
        elif last > 0 and first < 1e-12 * last:
            found.append(Finding(
                "Gradients vanish through time",
                f"‖∂E/∂x‖ falls from {last:.3g} at the last of {len(by_step)} steps to {first:.3g} at "
                "the first",
                "use LSTM or GRU in the place of a simple recurrence, shorter sequences, or attention", link.path,
                "warning",
            ))  # fmt: skip
    return found


def _units(look, looked):
    """Units that are zero for all examples, and values at the flat ends of an activation."""
    found: list = []
    outputs = {id(y) for y in keras.tree.flatten(look.result.y_pred)}
    dead, flat = [], []
    for link in look.links:
        name = _activation(link)
        if name is None or not link.call.outputs:
            continue
        y = np.asarray(tf.cast(link.call.output, tf.float32))
        if y.ndim < 2:
            continue
        path = link.path.rpartition("/")[0] if isinstance(link.call.op, type(_activation)) else link.path
        if name in ("relu", "relu6"):
            zero = float((y == 0).all(tuple(range(y.ndim - 1))).mean())
            dead.append(zero)
            if zero >= DEAD and y.shape[-1] > 1:
                found.append(Finding(
                    "Dead units",
                    f"{zero:.0%} of the {y.shape[-1]} units of '{path}' are 0 for all {look.n} examples, and so is their "
                    "gradient",
                    "lower the learning rate, look at biases and at the scale of what comes in, or use leaky_relu or gelu", path,
                    "critical" if zero == 1 else "warning",
                ))  # fmt: skip
        elif id(link.call.output) not in outputs:
            low = 0.0 if name == "sigmoid" else -1.0
            share = float(((y < low + 0.01) | (y > 0.99)).mean())
            flat.append(share)
            if share >= SATURATED:
                found.append(Finding(
                    "Saturated units",
                    f"{share:.0%} of the values of '{path}' are within 0.01 of the ends of {name}, where its "
                    f"derivative is below {0.01 if name == 'sigmoid' else 0.02}",
                    "scale the inputs, initialise with smaller weights, or normalise before the activation", path,
                    "critical" if share > 0.95 else "warning",
                ))  # fmt: skip
    looked["relu units"] = f"at most {max(dead):.0%} of a layer are always 0" if dead else "none"
    looked["sigmoid and tanh"] = f"at most {max(flat):.0%} of a layer's values are saturated" if flat else "none"
    return found


def _activation(link):
    """The name of the activation that a link is, or None. That of a `keras.layers.Activation` is a link of its own."""
    op = link.call.op
    if isinstance(op, keras.layers.Layer):
        name = "relu" if type(op) is keras.layers.ReLU and not op.negative_slope and not op.threshold else ""
    elif hasattr(op, "operation"):
        name = op.operation.type.lower()
    else:
        name = getattr(op, "__name__", type(op).__name__).lower()
    return name if name in ("relu", "relu6", "sigmoid", "tanh") else None
