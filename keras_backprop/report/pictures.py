"""Figures of a monitor as pictures, by Matplotlib."""

import pathlib
from typing import Any

import numpy as np

from keras_backprop.report.monitor import paths_of

NAMED = 40
"""Curves up to so many are named."""

_OF = {"update_ratio": "weight", "gain": "delta", "dead": "activation", "saturated": "activation"}
_LABELS = {
    "update_ratio": "‖change by the update‖ / ‖W‖", "gain": "‖∂E/∂x‖ / ‖∂E/∂y‖", "dead": "share of dead units",
    "saturated": "share of saturated values",
}  # fmt: skip


def plot(monitor: Any, path: Any, what: str) -> pathlib.Path:
    """See `BackwardMonitor.plot`."""
    path, history = pathlib.Path(path), monitor.history
    if path.suffix not in (".png", ".svg", ".pdf"):
        raise ValueError(f"A plot is a .png, .svg or .pdf file. Received: {str(path)!r}")
    if what not in ("flow", "error", *_OF):
        raise ValueError(f"There is no figure {what!r}. There are: 'flow', 'error', {', '.join(map(repr, _OF))}")
    paths = paths_of(history, "delta", "norm") if what == "flow" else paths_of(history, _OF.get(what, ""), what)
    if not len(history.steps) or (what != "error" and not paths):
        raise ValueError(f"Nothing was noted of {what!r}. Ask the monitor for its quantity, and call `fit` with it.")
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('`plot` needs Matplotlib: `pip install "keras-backprop[plot]"`.') from error
    figure = Figure(
        figsize=(8, 0.22 * len(paths) + 1.4 if what == "flow" and len(paths) > 14 else 4.2), layout="constrained"
    )
    axes = figure.add_subplot()
    axes.set_xlabel("step")
    if what == "flow":
        _flow(figure, axes, history, paths)
    elif what == "error":
        axes.plot(history.steps, history.losses, color="#0072b2")
        axes.set(ylabel="E", yscale="log" if (history.losses > 0).all() else "linear")
    else:
        _over_steps(axes, history, paths, what)
    figure.savefig(path, dpi=144)
    return path


def _flow(figure, axes, history, paths):
    values = np.stack([history.series(path, "delta", "norm") for path in paths])
    with np.errstate(all="ignore"):
        logarithms = np.ma.masked_invalid(np.log10(values))
    image = axes.imshow(logarithms, aspect="auto", cmap="cividis", interpolation="nearest")
    axes.set_yticks(range(len(paths)), paths, fontsize=8)
    ticks = np.unique(np.linspace(0, len(history.steps) - 1, 6).round().astype(int))
    axes.set_xticks(ticks, [str(history.steps[t]) for t in ticks])
    figure.colorbar(image, ax=axes, label="log₁₀ ‖∂E/∂y‖")


def _over_steps(axes, history, paths, what):
    styles = ("-", "--", ":", "-.")
    colours = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
    for i, path in enumerate(paths):
        label = path if len(paths) <= NAMED else None
        x = history.series(path, _OF[what], what)
        axes.plot(
            history.steps, x, styles[i // len(colours) % len(styles)], color=colours[i % len(colours)], label=label
        )
    axes.set_ylabel(_LABELS[what])
    if what in ("update_ratio", "gain"):
        axes.set_yscale("log")
        axes.axhline(1e-3 if what == "update_ratio" else 1, color="0.5", linewidth=0.8)
    if len(paths) <= NAMED:
        axes.legend(fontsize=8 if len(paths) <= 14 else 6, loc="center left", bbox_to_anchor=(1, 0.5))
