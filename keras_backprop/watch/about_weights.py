"""Findings about weights: no gradient, frozen, zero, all the same, updates of the wrong size, regularised twice."""

import math
import operator

import keras
import numpy as np
import tensorflow as tf

from keras_backprop import _keras
from keras_backprop.trainer import BackpropTrainer
from keras_backprop.training.plans import plan_of
from keras_backprop.training.snapshot import Snapshot
from keras_backprop.training.update import unwrapped
from keras_backprop.watch.finding import Finding

LARGE_UPDATE, SMALL_UPDATE = 0.2, 1e-7
"""‖Δw‖/‖w‖ beyond which an update is far from a thousandth; of the median over the matrices."""


def findings(look, looked):
    """Of all weights."""
    stopped = _stopped(look)
    zero = _zero(look, stopped)
    return [
        *zero,
        *_without_gradient(look, looked, stopped),
        *_symmetric(look, {finding.path for finding in zero}),
        *_frozen(look, looked),
        *_updates(look, looked),
        *_regularised_twice(look, looked),
    ]


_VECTORS = ("bias", "gamma", "beta")
"""Names of weights that are vectors at heart, whatever their number of axes."""


def _matrices(look):
    """(weight, value, gradient) of the trainable weights of two axes or more, gradient None where there is none."""
    for v in look.model.trainable_weights:
        if len(v.shape) >= 2 and v.name not in _VECTORS and tf.as_dtype(v.dtype).is_floating:
            yield v, _array(v.value), look.gradient(v)


def _without_gradient(look, looked, stopped):
    without = [v.path for v, g in zip(look.result.weights, look.result.gradients, strict=True) if g is None]
    zero = sum(g is not None and _is_zero(g) for g in look.result.gradients)
    count, found = len(look.result.weights), []
    looked["gradients"] = f"{count - len(without) - zero} of {count} trainable weights get one"
    if without:
        found.append(Finding(
            "Weights that get no gradient",
            f"the error does not depend on {_listed(without)}", "use the layer in the call, or set "
            "`trainable = False`; look for `stop_gradient`, for arg max or rounding, and for outputs without a loss", without[0],
            "critical" if len(without) == count else "warning",
        ))  # fmt: skip
    if stopped:
        found.append(Finding(
            "Weights whose gradient is exactly zero", f"for this batch it is 0 in every entry of {_listed(_paths(stopped))}",
            "look at what stops it: dead units, weights of zero behind it, a multiplication by zero", stopped[0].path,
            "critical" if len(stopped) == count else "warning",
        ))  # fmt: skip
    return found


def _is_zero(g):
    return not bool(tf.reduce_any(tf.convert_to_tensor(g) != 0))


def _paths(weights):
    return [v.path for v in weights]


def _stopped(look):
    """The weights whose gradient is zero for good.

    A matrix of zeros that gets a gradient is none after the first update, and what it stops it stops but once: an output layer,
    a residual branch, or the second factor of LoRA may well begin with zeros. So the gradients are asked for again with random
    numbers in such matrices, until no other one gets a gradient.
    """
    gradients, grown = list(zip(look.result.weights, look.result.gradients, strict=True)), {}
    while zero := [v for v, g in gradients if g is not None and _is_zero(g)]:
        growing = [
            v for v, g in gradients
            if len(v.shape) >= 2 and id(v) not in grown and g is not None and not _is_zero(g) and not _array(v.value).any()
        ]  # fmt: skip
        if not growing:
            return zero
        draw = np.random.default_rng(0).normal
        grown.update({id(v): (v, draw(0.0, math.prod(v.shape[:-1]) ** -0.5, v.shape)) for v in growing})
        gradients = look.gradients_with(list(grown.values()))
    return []


def _zero(look, stopped):
    """Matrices of zeros that stay so."""
    found = []
    for v, value, _ in _matrices(look):
        if not value.any() and value.size > 1 and any(v is one for one in stopped):
            found.append(Finding(
                "Weights that are all zero", f"'{v.path}' of shape {tuple(v.shape)} is 0 everywhere, and so are the gradients of "
                f"{_listed(_paths(stopped))}",
                "initialise it at random (glorot_uniform, he_normal): zeros stop the gradient and keep units the same", v.path,
                "critical",
            ))  # fmt: skip
    return found


def _symmetric(look, known):
    found = []
    for v, value, g in _matrices(look):
        if v.path in known or value.shape[-1] < 2 or not value.any() or g is None or not g.any():
            continue
        columns, slopes = value.reshape(-1, value.shape[-1]), g.reshape(-1, g.shape[-1])
        same = np.ptp(columns, 1).max() <= 1e-6 * np.abs(columns).max()
        alike = np.ptp(slopes, 1).max() <= 1e-5 * np.abs(slopes).max()
        if same and alike:
            found.append(Finding(
                "Units that are all the same",
                f"the {value.shape[-1]} units of '{v.path}' have equal weights and equal gradients, and "
                "will stay equal", "initialise at random: a constant makes of many units one", v.path, "critical",
            ))  # fmt: skip
    return found


def _frozen(look, looked):
    model = look.model
    frozen = [
        x
        for x in _keras.layers_in(model)
        if x is not model and not x.trainable and x.weights and not _keras.has_parts(x) and not _is_state(x)
    ]
    looked["frozen layers"] = str(len(frozen)) if frozen else "none"
    if frozen and not model.trainable_weights:
        return [Finding(
            "All weights are frozen", f"{len(frozen)} layers have `trainable = False`, and nothing can be learned",
            "set `trainable = True` for the layers that are to learn, and compile the model again", frozen[0].path, "critical",
        )]  # fmt: skip
    found = []
    fresh = [x for x in frozen if _as_initialised(x)]
    if fresh:
        found.append(Finding(
            "Frozen as initialised",
            f"{_listed([x.path for x in fresh])} {'have' if len(fresh) > 1 else 'has'} `trainable = False`, and "
            "weights that look as they were drawn: nothing has been learned there, and nothing will be",
            "load weights into it, or set `trainable = True` and compile the model again", fresh[0].path, "warning",
        ))  # fmt: skip
    order = [link.call.op for link in look.layers()]
    trainable = [i for i, x in enumerate(order) if x.trainable_weights]
    late = [x for i, x in enumerate(order) if trainable and i > trainable[0] and any(x is f for f in frozen)]
    late = [x for x in late if not any(x is f for f in fresh)]
    if late:
        found.append(Finding(
            "Frozen layers above layers that learn",
            f"{_listed(list(dict.fromkeys(x.path for x in late)))}: `trainable = False`, behind "
            f"'{order[trainable[0]].path}', which learns",
            "if that is not meant, set `trainable = True` and compile the model again", late[0].path, "note",
        ))  # fmt: skip
    return found


def _is_state(layer):
    """Layers whose weights are no matter of learning."""
    kinds = keras.layers.BatchNormalization, keras.layers.Normalization
    return isinstance(layer, kinds) or not any(len(v.shape) >= 2 for v in layer.weights)


def _as_initialised(layer):
    """Whether the kernel has the spread that its initializer gives, and the bias is 0."""
    kernel, bias = getattr(layer, "kernel", None), getattr(layer, "bias", None)
    initializer = getattr(layer, "kernel_initializer", None)
    if kernel is None or not isinstance(initializer, keras.initializers.VarianceScaling):
        return False
    if bias is not None and _array(bias.value).any():
        return False
    value = _array(kernel.value)
    drawn = _array(initializer(kernel.shape, dtype="float32"))  # a generator of its own
    uniform = initializer.distribution == "uniform"
    alike = abs(value.std() / max(drawn.std(), 1e-30) - 1) < max(0.1, 2.0 / np.sqrt(value.size))
    return bool(alike and (not uniform or np.abs(value).max() <= 1.25 * np.abs(drawn).max()))


def _updates(look, looked):
    """The update that the optimizer would make, of the size of the weight."""
    model = look.model
    matrices = [(v, value) for v, value, g in _matrices(look) if g is not None and g.any() and value.any()]
    optimizer = None if not matrices else _copy_of(model.optimizer, look.result.weights)
    if optimizer is None:
        return []
    ours = isinstance(model, BackpropTrainer) and plan_of(model) is None  # what a private plan adds is accounted for
    make = model._part_of_step("make_gradients") if ours else operator.attrgetter("gradients")
    before = Snapshot(model)
    pairs = zip(make(look.result), look.result.weights, strict=True)
    optimizer.apply_gradients([(g, v) for g, v in pairs if g is not None])
    ratios = {}
    for v, value in matrices:
        change = np.linalg.norm((_array(v.value) - value).astype("float64"))
        ratios[v.path] = float(change / np.linalg.norm(value.astype("float64")))
    before.restore()
    median = float(np.median(list(ratios.values())))
    path = max(ratios, key=ratios.__getitem__)
    looked["update to weight"] = f"median ‖Δw‖/‖w‖ {median:.2g}, largest {ratios[path]:.2g} at '{path}'"
    rate = _rate(model.optimizer)
    if median > LARGE_UPDATE:
        return [Finding(
            "Updates that are very large",
            f"‖Δw‖/‖w‖ is {median:.2g} in the median, and {ratios[path]:.2g} for '{path}', where 0.001 is "
            f"usual{rate}",
            f"lower the learning rate, by a factor of about {median / 1e-3:.0f}, or clip gradients", path,
            "critical" if median > 1 else "warning",
        )]  # fmt: skip
    accumulates = getattr(unwrapped(model.optimizer), "gradient_accumulation_steps", None)
    scheduled = _keras.is_scheduled(unwrapped(model.optimizer))
    if median < SMALL_UPDATE and not accumulates and not scheduled:
        smallest = min(ratios, key=ratios.__getitem__)
        return [Finding(
            "Updates that are very small",
            f"‖Δw‖/‖w‖ is {median:.2g} in the median, and {ratios[smallest]:.2g} for '{smallest}', where "
            f"0.001 is usual{rate}",
            "raise the learning rate, or look for what makes the gradients so small", smallest, "warning",
        )]  # fmt: skip
    return []


def _copy_of(optimizer, weights):
    """An optimizer of its own, that would make the same update; None where it cannot be copied."""
    optimizer = unwrapped(optimizer)
    try:
        copy = type(optimizer).from_config(optimizer.get_config())
        copy.build(weights)
    except (AttributeError, TypeError, ValueError, NotImplementedError):
        return None
    if optimizer.built and [v.shape for v in optimizer.variables] == [v.shape for v in copy.variables]:
        for own, known in zip(copy.variables, optimizer.variables, strict=True):
            own.assign(known.value)
    return copy


def _rate(optimizer):
    try:
        return f" (learning rate {float(keras.ops.convert_to_numpy(unwrapped(optimizer).learning_rate)):.3g})"
    except (AttributeError, TypeError, ValueError):
        return ""


def _regularised_twice(look, looked):
    model = look.model
    optimizer = unwrapped(model.optimizer)
    decays = getattr(optimizer, "weight_decay", None)
    penalised = [v for v in model.trainable_weights if _penalty(v)]
    looked["regularisation"] = (f"{len(penalised)} weights with a penalty" if penalised else "no penalties") + (
        f", weight decay {decays:g}" if decays else ", no weight decay"
    )
    if not decays:
        return []
    both = [v for v in penalised if _keras.decays(optimizer, v)]
    if not both:
        return []
    return [Finding(
        "Weights that are regularised twice",
        f"{_listed([v.path for v in both])}: a penalty ({_penalty(both[0])}) in the loss, and the "
        f"optimizer's weight decay of {decays:g}",
        "keep one of the two; with Adam rather the weight decay, or `optimizer.exclude_from_weight_decay(…)`", both[0].path,
        "warning",
    )]  # fmt: skip


def _penalty(v):
    regularizer = _keras.current(v, "_regularizer")
    if regularizer is None:
        return ""
    strengths = [getattr(regularizer, name, None) for name in ("l1", "l2")]
    numbers = [float(keras.ops.convert_to_numpy(s)) for s in strengths if s is not None]
    return "" if numbers and not any(numbers) else type(regularizer).__name__


def _listed(paths):
    shown = ", ".join(f"'{p}'" for p in paths[:3])
    return f"{shown} and {len(paths) - 3} more" if len(paths) > 3 else shown


def _array(x):
    x = tf.convert_to_tensor(x)
    return keras.ops.convert_to_numpy(tf.cast(x, tf.float32) if x.dtype in (tf.bfloat16, tf.float16) else x)
