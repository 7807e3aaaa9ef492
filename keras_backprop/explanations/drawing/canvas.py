"""A sheet of paper measured in inches, and the few shapes that the drawings are made of."""

import io
import math
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, PathPatch
from matplotlib.path import Path

INK = "#1b2a3a"  # forward: values
FAINT = "#8896a5"  # what only frames
GRADIENT = "#c0392b"  # backward: gradients
NODE, NODE_EDGE = "#eaf2fb", "#2f6da8"
INPUT, INPUT_EDGE = "#f3f4f2", "#7b8794"
ERROR, ERROR_EDGE = "#fdf0ec", GRADIENT
LIT = "#ffd166"  # the paths of a chain

MOST_PIXELS = 40_000  # along one side; Matplotlib can do 65 535
_STYLE = {"svg.hashsalt": "keras_backprop"}
FONTS: dict[str, Any] = {
    "font.family": ["STIXGeneral", "DejaVu Sans"],
    "mathtext.fontset": "stix",
}  # all are Matplotlib's
_LETTERS: dict[str, Any] = {"fontfamily": FONTS["font.family"], "math_fontfamily": FONTS["mathtext.fontset"]}


class Canvas:
    """A drawing. One unit is one inch, y points up.

    Args:
        left, bottom, right, top: the part of the plane to show.
    """

    def __init__(self, left, bottom, right, top):
        self.figure = Figure(figsize=(right - left, top - bottom), facecolor="white")
        self.axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set_xlim(left, right)
        self.axes.set_ylim(bottom, top)
        self.axes.axis("off")

    def text(self, x, y, text, color=INK, size=12.5, align="center", rotation=0, box=False, **options):
        """Write text, with formulas between dollars. `box`: on a white ground, so that a line below does not disturb."""
        ground = {"facecolor": "white", "edgecolor": "none", "pad": 1.2, "alpha": 0.9} if box else None
        self.axes.text(
            x, y, text, color=color, fontsize=size, ha=align, va="center", rotation=rotation, bbox=ground, **_LETTERS, **options
        )  # fmt: skip

    def circle(self, x, y, radius, fill=NODE, edge=NODE_EDGE, zorder=3):
        self.axes.add_patch(Circle((x, y), radius, facecolor=fill, edgecolor=edge, linewidth=1.6, zorder=zorder))

    def box(self, x, y, width, height, fill=NODE, edge=NODE_EDGE, dashed=False, zorder=3):
        self.axes.add_patch(
            FancyBboxPatch(
                (x - width / 2, y - height / 2),
                width,
                height,
                boxstyle="round,pad=0,rounding_size=0.12",
                facecolor=fill,
                edgecolor=edge,
                linewidth=1.6,
                linestyle="--" if dashed else "-",
                zorder=zorder,
            )
        )

    def arrow(self, start, end, color=INK, width=1.3, style="-|>", bend=0.0, alpha=1.0):
        self.axes.add_patch(
            FancyArrowPatch(
                start,
                end,
                arrowstyle=style,
                mutation_scale=13,
                color=color,
                linewidth=width,
                shrinkA=0,
                shrinkB=0,
                alpha=alpha,
                connectionstyle=f"arc3,rad={bend}",
                zorder=1,
            )
        )

    def route(self, points):
        """An arrow along straight lines with rounded corners."""
        width, radius = 1.3, 0.15
        vertices, codes = [points[0]], [Path.MOVETO]
        for before, corner, after in zip(points, points[1:], points[2:], strict=False):
            vertices += [_toward(corner, before, radius), corner, _toward(corner, after, radius)]
            codes += [Path.LINETO, Path.CURVE3, Path.CURVE3]
        path = Path([*vertices, points[-1]], [*codes, Path.LINETO])
        self.axes.add_patch(PathPatch(path, facecolor="none", edgecolor=INK, linewidth=width, zorder=1))
        self.arrow(_toward(points[-1], points[-2], 0.1), points[-1], INK, width)

    def line(self, start, end):
        self.axes.plot(*zip(start, end, strict=True), color=FAINT, linewidth=0.8, zorder=4)

    def save(self, path):
        """Write the file and return its path. The same drawing gives the same file."""
        metadata = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(path.suffix.lower())
        with rc_context(_STYLE):
            self.figure.savefig(path, dpi=self._dpi(), metadata=metadata)
        return path

    def _dpi(self):
        return min(200, MOST_PIXELS / max(self.figure.get_size_inches()))

    def pixels(self):
        """The drawing as an array of pixels, `(height, width, 4)`."""
        self.figure.set_dpi(self._dpi())
        drawn = FigureCanvasAgg(self.figure)
        drawn.draw()
        return np.asarray(drawn.buffer_rgba())

    def to_svg(self):
        """The drawing as the text of an SVG file."""
        buffer = io.StringIO()
        with rc_context(_STYLE):
            self.figure.savefig(buffer, format="svg", metadata={"Date": None})
        return buffer.getvalue()


def stacked(canvases, titles):
    """A `Canvas` on which others stand one below the other, each under its title."""
    sizes = [canvas.figure.get_size_inches() for canvas in canvases]
    pictures = [canvas.pixels() for canvas in canvases]
    width, height = max(size[0] for size in sizes), sum(size[1] + 0.5 for size in sizes)
    sheet, top = Canvas(0, 0, width, height), height
    for (wide, high), picture, title in zip(sizes, pictures, titles, strict=True):
        sheet.text(0.2, top - 0.3, title, size=17, align="left", weight="bold")
        sheet.axes.imshow(picture, extent=(0, wide, top - 0.5 - high, top - 0.5), interpolation="none", aspect="auto")
        top -= high + 0.5
    sheet.axes.set_xlim(0, width)
    sheet.axes.set_ylim(0, height)
    return sheet


def _toward(start, end, distance):
    """The point at a distance from one point on the way to another."""
    share = min(0.5, distance / math.dist(start, end))
    return tuple(s + share * (e - s) for s, e in zip(start, end, strict=True))
