"""The error of every epoch as a curve."""

from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from keras_backprop.explanations.drawing.canvas import FAINT, FONTS, GRADIENT, INK

__all__ = ["error_curve"]


def error_curve(errors: Any, epsilon: float, path: Any) -> Any:
    """The error of every epoch, on a logarithmic scale, with the line it has to reach."""
    last, error = len(errors), errors[-1]
    with rc_context({**FONTS, "font.size": 14, "text.color": INK, "axes.labelcolor": INK}):
        figure = Figure(figsize=(7.5, 4.5), layout="constrained")
        axes = figure.add_subplot()
        axes.axhline(epsilon, color=GRADIENT, linewidth=1.5, linestyle="--")
        axes.plot(range(1, last + 1), errors, color=INK, linewidth=2.2)
        axes.plot(last, error, "o", color=INK, markersize=8, zorder=3)
        axes.annotate(
            rf"$\varepsilon = {epsilon:g}$", (0.012, epsilon), xycoords=("axes fraction", "data"), xytext=(0, 6),
            textcoords="offset points", color=GRADIENT,
        )  # fmt: skip
        sign = r"\leq" if error <= epsilon else ">"
        axes.set_title(rf"epoch {last}:  $E = {error:.3g} {sign} \varepsilon$", loc="right", fontsize=15, pad=10)
        if min(errors) > 0:
            axes.set_yscale("log")
            axes.set_ylim(0.6 * min(*errors, epsilon), 1.6 * max(*errors, epsilon))
            axes.yaxis.set_major_formatter("{x:g}")
        axes.set_xlim(0, 1.04 * last + 0.5)
        axes.locator_params(axis="x", integer=True)
        axes.set_xlabel("epoch")
        axes.set_ylabel("error $E$ before the epoch's update")
        axes.grid(color=FAINT, alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(path, dpi=200)
    return path
