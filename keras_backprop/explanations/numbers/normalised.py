"""Layers that normalise: x̂ as a node of its own, and behind it the scale γ and the shift β."""

from typing import Any

import keras
import numpy as np

from keras_backprop.explanations.numbers.agreement import agrees
from keras_backprop.explanations.numbers.graph import Head
from keras_backprop.explanations.numbers.nodes import Edge, Node, Use, places_in
from keras_backprop.explanations.numbers.positions import fits, flat, node_of

__all__ = ["normalised"]

MOST_DERIVATIVES = 250_000


def normalised(link: Any, graph: Any, source: Any, path_of: dict) -> Any:
    """Add the nodes of a layer that normalises to a graph.

    Statistics of the batch make x̂ depend on all examples: paths then lead to γ and β, and end at x̂.

    Args:
        link: the `Link`.
        graph: the `Graph`.
        source: the `Node` of its input.
        path_of: dict, symbol of a weight -> its path.

    Returns:
        The `Node` of its output; None where it is no such layer, or it does something besides.
    """
    if source is None or link.output_symbols[0] is None or not fits(link.outputs[0]) or not fits(link.inputs[0]):
        return None
    kind = next((kind for kind in _KINDS if isinstance(link.op, kind)), None)
    if kind is None or link.formula is None:
        return None
    node = node_of(link.output_symbols[0], link.outputs[0])
    x_hat = _KINDS[kind](link, source)
    names = [name for name in ("gamma", "scale", "beta") if name in link.weights]
    if x_hat is None or not names:
        return None
    x_hat.letter, x_hat.layer, x_hat.shape = r"\hat{x}", node.layer, node.shape
    edge, uses, value = Edge(x_hat, local=np.ones_like(x_hat.value), text="1", rule=link.rule), [], x_hat.value
    for name in names:
        path, weight = path_of[link.weight_symbols[name]], np.array(link.weights[name], "float64")
        places = _spread(link, weight)
        if name == "beta":
            node.bias = weight.ravel()[places]
            uses.append(Use(path, node, None, places))
            value = value + node.bias
        else:
            edge.weight, edge.entries = path, places
            edge.local = edge.made_of(weight)
            uses.append(Use(path, node, edge))
            value = value * edge.local
    if not agrees(value, node.value):
        return None  # a mask, or statistics of another kind
    node.edges.append(edge)
    node.compute = (lambda h: h) if edge.weight is None else None
    if not x_hat.edges and link.downstream[0] is not None:  # what x adds by way of the other examples is in it
        graph.heads.append(Head(source, flat(link.downstream[0]), via=link.path))
    graph.nodes += [x_hat, node]
    graph.uses += uses
    return node


def _spread(link, weight):
    """Which entry of γ or β each number of an example has."""
    shape, axes = np.shape(link.inputs[0]), _axes(link)
    wide = [n if position in axes else 1 for position, n in enumerate(shape)]
    return np.broadcast_to(places_in(weight).reshape(wide), shape)[0].ravel()


def _axes(link):
    """The axes of a layer that normalises, counted from the front."""
    axis, before = link.op.axis, 0 if link.steps is None else 1  # of one time step
    rank = np.ndim(link.inputs[0]) - before
    return [one % rank + before for one in (axis if isinstance(axis, (list, tuple)) else [axis])]


def _of_batch(link, source):
    """By the statistics of the batch, or in inference by those of all batches before."""
    layer, x = link.op, np.array(link.inputs[0], "float64")
    axes = tuple(n for n in range(x.ndim) if n != layer.axis % x.ndim)
    if link.options.get("of_batch"):
        mean, variance = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    else:
        mean, variance = (np.expand_dims(link.weights[name], axes) for name in ("moving_mean", "moving_variance"))
    r = 1 / np.sqrt(variance + layer.epsilon)
    node = Node("", flat((x - mean) * r))
    if not link.options.get("of_batch"):
        node.edges.append(Edge(source, local=flat(r * np.ones_like(x)), text=r"\frac{1}{\sigma}", rule=link.rule))
        node.edges[0].derive = lambda y, x, local=node.edges[0].local: local
        centre = flat(mean * np.ones_like(x))
        node.compute = lambda x, scale=node.edges[0].local: (x - centre) * scale
    return node


def _of_example(groups, centred=True):
    """By the statistics of an example; `groups`: function link -> ints, which of the numbers of an example belong together."""

    def made(link, source):
        ids, epsilon = np.ravel(groups(link)), link.op.epsilon
        if len(ids) ** 2 * len(source.value) > MOST_DERIVATIVES:
            return None
        same = (ids[:, None] == ids[None, :]) / np.bincount(ids)[ids]  # row by column: the mean over a group

        def parts(x):
            away = x - x @ same.T if centred else x
            return away, 1 / np.sqrt(away**2 @ same.T + epsilon)

        def compute(x):
            away, r = parts(x)
            return away * r

        def derive(y, x):
            h, (_, r) = compute(x), parts(x)
            return r[:, :, None] * (
                np.eye(len(ids)) - (same if centred else 0.0) - same * h[:, :, None] * h[:, None, :]
            )

        edge = Edge(source, jacobian=derive(None, source.value), rule=link.rule, derive=derive)
        return Node("", compute(source.value), edges=[edge], compute=compute)

    return made


def _of_axes(link):
    shape, axes = np.shape(link.inputs[0]), _axes(link)
    kept = [n if position not in axes else 1 for position, n in enumerate(shape) if position]
    return _of_each_step(np.broadcast_to(np.arange(int(np.prod(kept))).reshape(kept), shape[1:]), link)


def _of_each_step(ids, link):
    """Groups that do not reach over several time steps."""
    if link.steps is None:
        return ids
    return ids + np.arange(link.steps).reshape(-1, *(1,) * (ids.ndim - 1)) * (int(ids.max()) + 1)


def _of_channels(link):
    (axis,) = _axes(link)
    shape, axis = np.shape(link.inputs[0])[1:], axis - 1
    wide = [n if position == axis else 1 for position, n in enumerate(shape)]
    ids = np.broadcast_to((np.arange(shape[axis]) // (shape[axis] // link.op.groups)).reshape(wide), shape)
    return _of_each_step(ids, link)


_KINDS: dict = {
    keras.layers.BatchNormalization: _of_batch,
    keras.layers.LayerNormalization: _of_example(_of_axes),
    keras.layers.RMSNormalization: _of_example(_of_axes, centred=False),
    keras.layers.GroupNormalization: _of_example(_of_channels),
}
"""Kind of layer -> function (link, node of its input) -> the node of x̂, without a name; None for too many numbers."""
