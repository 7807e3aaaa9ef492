"""Findings about the data and the loss: labels, logits, targets, the scale of the inputs."""

import math

import keras
import numpy as np
import tensorflow as tf

from keras_backprop import _keras
from keras_backprop.watch.finding import Finding

LARGE, SMALL = 15.0, 1e-3
"""The root of the mean square of inputs beyond which they count as not scaled."""


def of_labels(model, batch, y_pred, looked):
    """Labels out of range, and losses that take logits for probabilities or the reverse: without computing the error."""
    found: list = []
    pairs = list(_pairs(model, batch[1], y_pred))
    for loss, name, y, p in pairs:
        y, p = _array(y), _array(p)
        if "sparse_categorical" in name:
            found += _sparse(loss, y, p)
        elif "categorical_crossentropy" in name or "categorical_focal" in name:
            found += _one_hot(loss, y, p)
        elif "binary" in name:
            found += _binary(loss, y, p)
        if "crossentropy" in name:
            found += _logits(loss, name, p)
    looked["labels"] = ", ".join(f"{name} of {_range(_array(y))}" for _, name, y, _ in pairs) or "none"
    return found


def findings(look, looked):
    """Inputs that are not scaled, outputs that are always 1, targets that the output cannot reach."""
    outputs = _outputs(look)
    return [*_scale(look, looked), *_softmax_of_one(outputs), *_reach(outputs, looked)]


def _pairs(model, y, y_pred):
    """(loss, its name, targets, predictions) of every output that has a loss of Keras."""
    compiled = _keras.current(model, "_compile_loss")
    losses = _keras.losses_of(compiled)
    if not losses and compiled is not None:
        given = _keras.losses_as_given(compiled)
        losses = [keras.losses.get(loss) if isinstance(loss, str) else loss for loss in given]
    targets, predictions = keras.tree.flatten(y), keras.tree.flatten(y_pred)
    if not len(losses) == len(targets) == len(predictions):
        return
    if compiled.built:
        triples = [(entry.loss, *pair) for entry, *pair in _keras.losses_with_pairs(compiled, y, y_pred)]
    elif len(losses) == 1:
        triples = [(losses[0], targets[0], predictions[0])]
    else:  # which belongs to which is known when it is built
        return
    for loss, target, prediction in triples:
        if loss is not None and target is not None:
            function = _keras.current(loss, "fn") or loss
            yield loss, getattr(function, "__name__", type(function).__name__), target, prediction


def _option(loss, name, default=None):
    return _keras.options_of(loss).get(name, getattr(loss, name, default))


def _sparse(loss, y, p):
    if y.ndim == p.ndim and y.shape[-1] != 1:
        return [
            _of_other_kind(
                y, p, "One-hot targets for a loss of class numbers", "categorical_crossentropy", "y.argmax(-1)"
            )
        ]
    classes, ignored = p.shape[-1], _option(loss, "ignore_class")
    labels = y if ignored is None else y[y != ignored]
    wrong = (labels < 0) | (labels >= classes)
    if wrong.any():
        return [Finding(
            "Labels out of range",
            f"{wrong.sum()} of {labels.size} labels are outside 0 … {classes - 1}, the {classes} outputs of the "
            f"model: {_few(labels[wrong])}",
            f"count classes from 0, or give the output layer {int(labels.max()) + 1} units", "y", "critical",
        )]  # fmt: skip
    if np.issubdtype(labels.dtype, np.floating) and (labels != np.floor(labels)).any():
        return [
            Finding(
                "Labels that are no whole numbers", f"for example {_few(labels[labels != np.floor(labels)])}",
                "give class numbers, or use `categorical_crossentropy` for probabilities", "y", "critical",
            )
        ]  # fmt: skip
    return []


def _of_other_kind(y, p, title, loss, change):
    evidence = f"y has the shape {y.shape}, the predictions have {p.shape}"
    return Finding(title, evidence, f"use `{loss}`, or give `{change}`", "y", "critical")


def _one_hot(loss, y, p):
    classes = p.shape[-1]
    if classes > 1 and (y.ndim == p.ndim - 1 or (y.ndim == p.ndim and y.shape[-1] == 1)):
        title, change = "Class numbers for a loss of one-hot targets", f"keras.utils.to_categorical(y, {classes})"
        return [_of_other_kind(y, p, title, "sparse_categorical_crossentropy", change)]
    if y.shape != p.shape:
        return []
    sums = y.sum(-1)
    wrong = (y < 0).any() or (np.abs(sums - 1) > 1e-3).any()
    if not wrong:
        return []
    return [Finding(
        "Labels out of range",
        f"the rows of y should be probabilities that add up to 1; they add up to {_range(sums)}, and y is "
        f"in {_range(y)}",
        "encode classes one-hot (`keras.utils.to_categorical`), or use `binary_crossentropy` if several may be true at once",
        "y", "warning",
    )]  # fmt: skip


def _binary(loss, y, p):
    if not ((y < 0) | (y > 1)).any():
        return []
    return [Finding(
        "Labels out of range", f"y should be in 0 … 1; it is in {_range(y)}", "encode the classes as 0 and 1", "y",
        "critical",
    )]  # fmt: skip


def _logits(loss, name, p):
    from_logits = bool(_option(loss, "from_logits", False))
    several = "binary" not in name
    inside = bool(((p >= 0) & (p <= 1)).all())
    sums = np.abs(p.sum(-1) - 1).max() if several else 0.0
    if several and p.shape[-1] == 1:
        return [Finding(
            "A softmax of one unit",
            "the output has one unit, which a crossentropy over classes makes 1 whatever it is",
            "use `binary_crossentropy` with a sigmoid, or one unit for each class", "output", "critical",
        )]  # fmt: skip
    distinct = several or p.size >= 8
    if from_logits and inside and sums < 1e-3 and distinct:
        squashed = "softmax" if several else "sigmoid"
        return [Finding(
            f"A loss that expects logits behind a {squashed}", f"`{name}` has from_logits=True, and the predictions are "
            f"probabilities already, in {_range(p)}{', rows that add up to 1' if several else ''}",
            f"drop the {squashed} of the output, or say from_logits=False", "output", "critical" if several else "warning",
        )]  # fmt: skip
    if not from_logits and (not inside or sums > 1e-2):
        squashed = "softmax" if several else "sigmoid"
        return [Finding(
            "A loss that expects probabilities behind logits",
            f"`{name}` has from_logits=False, and the predictions are no "
            f"probabilities: they are in {_range(p)}" + (f", rows add up to {_range(p.sum(-1))}" if several else ""),
            f"say from_logits=True, or give the output a {squashed}", "output", "critical",
        )]  # fmt: skip
    return []


def _scale(look, looked):
    """The inputs of the first layers with weights, not what is rescaled or normalised before."""
    given = [x for x in keras.tree.flatten(look.batch[0]) if x is not None]
    sources = {id(x) for x in given}
    integers = [_array(x) for x in given if not x.dtype.is_floating]
    found, seen = [], []
    for link in look.links:
        op = link.call.op
        sources |= {id(x) for x in link.call.inputs if _is_one_of(x, integers)}  # which Keras casts first
        from_data = any(id(x) in sources for x in link.call.inputs)
        has_weights = isinstance(op, keras.layers.Layer) and bool(op.weights)
        if not from_data:
            continue
        if not has_weights or isinstance(op, keras.layers.Normalization):
            sources |= {id(y) for y in link.call.outputs}  # it passes data on
            continue
        if isinstance(op, (keras.layers.BatchNormalization, keras.layers.LayerNormalization, keras.layers.Embedding)):
            continue
        for x in link.call.inputs:
            if id(x) in sources and x.dtype.is_floating:
                size = _rms(_array(x))
                seen.append(f"{size:.3g}")
                found += _unscaled(link.path, _array(x), size)
    looked["inputs"] = f"root mean square {', '.join(seen)}" if seen else "no numbers that a layer multiplies"
    return found


def _is_one_of(x, integers):
    """Whether a tensor of floating-point numbers is one of some arrays of integers, cast and perhaps reshaped."""
    alike = [a for a in integers if x.dtype.is_floating and a.size == math.prod(x.shape)]
    return any(np.array_equal(_array(x).ravel(), a.ravel()) for a in alike)


def _unscaled(path, x, size):
    remedy = (
        "scale them to about 1: a `Normalization` or `Rescaling(1/255)` layer, or (x − mean)/deviation of every feature"
    )
    if size > LARGE:
        by_feature = np.sqrt(np.mean(np.square(x.astype("float64")), tuple(range(x.ndim - 1))))
        across = (
            f"; its features differ from {by_feature.min():.3g} to {by_feature.max():.3g}"
            if by_feature.size > 1
            else ""
        )
        evidence = f"the inputs are in {_range(x)}, root mean square {size:.3g}{across}"
        return [Finding("Inputs that are not scaled", evidence, remedy, path, "warning")]
    if 0 < size < SMALL:
        return [Finding("Inputs that are very small", f"the inputs are in {_range(x)}", remedy, path, "warning")]
    return []


def _outputs(look):
    """(the loss, its name, targets, predictions, type of the operation that makes these) of every output with a loss."""
    producers = {id(y): one.type for one in look.record.timeline.operations() if one is not None for y in one.outputs}
    pairs = _pairs(look.model, look.batch[1], look.result.y_pred)
    return [(loss, name, _array(y), _array(p), producers.get(id(p), "")) for loss, name, y, p in pairs]


def _softmax_of_one(outputs):
    return [
        Finding(
            "A softmax of one unit", f"the output has the shape {p.shape}, and each of its numbers is 1 whatever the input is",
            "give the output a sigmoid, or one unit for each class", "output", "critical",
        )
        for _, _, _, p, kind in outputs
        if kind == "Softmax" and p.shape[-1] == 1
    ]  # fmt: skip


def _reach(outputs, looked):
    """Targets of a regression outside of the range of the output's activation, or of another shape than the output.

    A loss of one's own may mean by targets whatever it likes, the words of a sentence or what quantiles are of.
    """
    found = []
    for loss, name, y, p, kind in outputs:
        if not _is_known(loss):
            continue
        if "entropy" not in name and y.ndim == p.ndim and y.shape != p.shape:
            found.append(Finding(
                "Targets of another shape than the output",
                f"y has the shape {y.shape}, the predictions have {p.shape}: each target is compared with several numbers, or "
                "each number with several targets", "give the output as many units as there are targets", "y", "warning",
            ))  # fmt: skip
        bounds = _BOUNDS.get(kind)
        if "entropy" in name or "hinge" in name or bounds is None:
            continue
        outside = (y < bounds[0]) | (y > bounds[1])
        if outside.mean() > 0.05:
            found.append(Finding(
                "Targets that the output cannot reach",
                f"{outside.mean():.0%} of y, in {_range(y)}, is outside {bounds[0]} … {bounds[1]}, "
                f"the range of {kind.lower()}",
                "give the output no activation, or scale the targets", "output", "warning",
            ))  # fmt: skip
    looked["targets"] = "within what the output can reach" if not found else "not all within reach"
    return found


def _is_known(loss):
    """Whether a loss, or the function that it wraps, is of Keras or of this package."""
    function = _keras.current(loss, "fn") or loss
    module = getattr(function, "__module__", None) or type(function).__module__
    return module.partition(".")[0] in ("keras", "keras_backprop")


_BOUNDS = {"Sigmoid": (0, 1), "Softmax": (0, 1), "Tanh": (-1, 1), "Relu": (0, np.inf), "Softplus": (0, np.inf)}
"""Type of the operation that makes predictions -> what these can be."""


def _rms(x):
    return float(np.sqrt(np.mean(np.square(x.astype("float64"))))) if x.size else 0.0


def _range(x):
    return f"{x.min():.4g} … {x.max():.4g}" if x.size else "nothing"


def _few(values):
    return ", ".join(f"{v:g}" for v in values.ravel()[:5])


def _array(x):
    x = tf.convert_to_tensor(x)
    return keras.ops.convert_to_numpy(tf.cast(x, tf.float32) if x.dtype in (tf.bfloat16, tf.float16) else x)
