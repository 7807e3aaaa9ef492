"""The section of a monitor's report that draws the network, with a slider through the noted steps."""

import base64
from html import escape
from typing import Any

import numpy as np

from keras_backprop.report.network import drawing
from keras_backprop.report.page import number, section

FRAMES = 100
"""At most so many of the noted steps can be chosen with the slider; they are spread evenly."""


class _Frames:
    """Figures of a history at the steps that the slider can choose.

    Attributes:
        chosen: array of int, which of the noted steps.
        encoded: list of str, the figures that the script has been given.
    """

    def __init__(self, history):
        self._history, self._names = history, set(history.names())
        self.chosen, self.encoded = spread(len(history.steps), FRAMES), []

    def has(self, path, of, quantity):
        return (path, of, quantity) in self._names

    def add(self, path, of, quantity):
        """Give the script a figure, NaN where it was not noted. Returns it at the last noted step."""
        series = self._series(path, of, quantity)
        self.encoded.append(_encoded(series[self.chosen]))
        return float(series[self.chosen[-1]])

    def place(self, path, of, quantity):
        """Give the script a figure. Returns its place in `encoded`; -1 where it was not noted."""
        if not self.has(path, of, quantity):
            return -1
        self.add(path, of, quantity)
        return len(self.encoded) - 1

    def now(self, path, of, quantity):
        """A figure at the last noted step, in words."""
        return number(float(self._series(path, of, quantity)[-1]))

    def _series(self, *name):
        return self._history.series(*name) if name in self._names else np.full(len(self._history.steps), np.nan)


def network_section(monitor: Any) -> tuple[str, Any]:
    """The section, and the data of its script; nothing and None where no norms of links were noted."""
    history, edges = monitor.history, monitor.backward_observer.edges
    noted = (path for path, of, quantity in history.names() if quantity == "norm" and of in ("activation", "delta"))
    links = list(dict.fromkeys(noted))
    if not links:
        return "", None
    frames = _Frames(history)
    now = [(path, *(frames.add(path, of, "norm") for of in ("activation", "delta"))) for path in links]
    svg, scale = drawing(now, edges, "The network: norms of values forward and of deltas backward, link by link")
    gains = [[path, 2 * i + 1, frames.place(path, "delta", "gain")] for i, path in enumerate(links)]
    weights, lines = _weights(monitor.backward_observer, links, frames)
    data = {
        "steps": history.steps[frames.chosen].tolist(), "epochs": history.epochs[frames.chosen].tolist(),
        "losses": [number(float(x)) for x in history.losses[frames.chosen]], "series": frames.encoded, "links": gains,
        "weights": weights, **scale,
    }  # fmt: skip
    said = (
        "Numbers are Euclidean norms, bars their logarithms. Shown is the last noted step; where scripts run, the slider shows "
        "the others."
    )
    parts = (_controls(len(frames.chosen), weights), _written(lines), svg)
    return section("The network, forward and backward", *parts, said=said), data


def _weights(observer, links, frames):
    """What the script has to know of each weight, the last one first; and the derivation of the first of them."""
    weights, lines, index = [], [], {path: i for i, path in enumerate(links)}
    for path, (link, formula) in reversed(observer.uses.items()):
        if frames.has(path, "gradient", "norm") and link in index:
            way = _way(link, links, observer.edges)
            weights.append({
                "path": path, "formula": formula or "by its rule", "way": [index[p] for p in way],
                "gradient": frames.place(path, "gradient", "norm"), "ratio": frames.place(path, "weight", "update_ratio"),
            })  # fmt: skip
            lines = lines or _derivation(path, way, formula, frames)
    return weights, lines


def _controls(count, weights):
    """The slider, and the choice of a weight."""
    options = "".join(f'<option value="{i}">{escape(w["path"])}</option>' for i, w in enumerate(weights))
    select = f'<label class="pair">weight <select id="weight">{options}</select></label>' if weights else ""
    return (
        '<div class="live" id="live" hidden><label for="step">step </label>'
        f'<input type="range" id="step" min="0" max="{count - 1}" step="1" value="{count - 1}">'
        f'<output id="said" for="step"></output>{select}</div>'
    )


def _written(lines):
    if not lines:
        return ""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    listed = f'<ol class="derivation" id="derivation" aria-live="polite" tabindex="0">{items}</ol>'
    return f"<h3>From the error to a weight</h3>{listed}"


def _way(link, links, edges):
    """The links from the error back to a link: the shortest way, a list."""
    after: dict = {}
    for source, target in edges:
        after.setdefault(source, []).append(target)
    ways, seen = [[link]], {link}
    while ways:
        way = ways.pop(0)
        targets = [t for t in after.get(way[-1], ()) if t in links]
        if not targets:
            return way[::-1]
        for target in targets:
            if target not in seen:
                seen.add(target)
                ways.append([*way, target])
    return [link]


def _derivation(path, way, formula, frames):
    """What `slider.js` writes, of the last step."""
    lines = []
    for link in way:
        gain = f", gain {frames.now(link, 'delta', 'gain')}" if frames.has(link, "delta", "gain") else ""
        lines.append(f"‖∂E/∂y‖ of {link} = {frames.now(link, 'delta', 'norm')}{gain}")
    lines.append(f"{formula or 'by its rule'}, so ‖∂E/∂W‖ of {path} = {frames.now(path, 'gradient', 'norm')}")
    if frames.has(path, "weight", "update_ratio"):
        lines.append(f"and the update changes it by {frames.now(path, 'weight', 'update_ratio')} of its norm")
    return lines


def spread(count, most):
    """At most so many of the numbers 0, …, count − 1, spread evenly: an array."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


def _encoded(x):
    """Numbers as 16 bits of their logarithm, in base64 (see `slider.js`): 3 characters for each."""
    with np.errstate(all="ignore"):
        code = np.clip(np.round((np.log10(x) + 20) * 2000), 2, 65534)
    code = np.where(x == 0, 1, np.where(np.isnan(x), 0, np.where(np.isinf(x), 65535, code)))
    return base64.b64encode(np.nan_to_num(code).astype("<u2").tobytes()).decode()
