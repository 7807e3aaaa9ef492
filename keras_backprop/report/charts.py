"""Charts as inline SVG: curves, a heat map, ranges and bars. Colours that people tell apart, texts for those who see none."""

import math
from html import escape
from typing import Any

import numpy as np

from keras_backprop.report.page import number

WIDTH = 720
SCALE = (
    "#00224e", "#0b2d5f", "#1f386e", "#31446b", "#404f6b", "#4e5a6c", "#5b656e", "#686f70", "#757a75", "#838577",
    "#928f77", "#a19a73", "#b0a66e", "#c1b167", "#d2bd5e", "#e4c952", "#f6d543", "#fdea45",
)  # fmt: skip
"""Dark to bright, for blue and yellow alike: after the colour map cividis (Nuñez, Anderton & Renslow, 2018)."""


def curves(lines: Any, x_label: str, described: str, aim: Any = None) -> str:
    """Curves over steps, on a logarithmic axis where all values are positive.

    Args:
        lines: list of (class, name, x, y), arrays.
        x_label: str, what x is.
        described: str, for those who do not see it.
        aim: float, a horizontal line, or None.
    """
    height, left, bottom, top = 240, 64, 34, 12
    values = np.concatenate([y for *_, y in lines] + [[] if aim is None else [aim]])
    finite = values[np.isfinite(values)]
    if not len(finite):
        return '<p class="soft">There is no finite value to draw.</p>'
    logarithmic = bool((finite > 0).all()) and finite.max() / finite.min() > 20
    convert = np.log10 if logarithmic else np.asarray
    low, high = convert(finite.min()), convert(finite.max())
    low, high = (low - 0.5, high + 0.5) if high - low < 1e-12 else (low, high)
    xs = np.concatenate([x for _, _, x, _ in lines])
    first, last = xs.min(), max(xs.max(), xs.min() + 1)

    def place(x, y):
        across = left + (x - first) / (last - first) * (WIDTH - left - 12)
        return across, top + (high - convert(y)) / (high - low) * (height - top - bottom)

    parts = []
    ticks = _ticks(low, high, logarithmic)
    for tick, written in zip(ticks, _written(ticks), strict=True):
        _, y = place(first, tick)
        parts.append(f'<line class="grid" x1="{left}" x2="{WIDTH - 12}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="soft" x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{written}</text>')
    for tick in sorted({int(first), int((first + last) // 2), int(last)}):
        x, _ = place(tick, 10**low if logarithmic else low)
        parts.append(f'<text class="soft" x="{x:.1f}" y="{height - 18}" text-anchor="middle">{tick}</text>')
    parts.append(f'<text class="soft" x="{WIDTH - 12}" y="{height - 4}" text-anchor="end">{escape(x_label)}</text>')
    if aim is not None:
        _, y = place(first, aim)
        parts.append(f'<line class="aim" x1="{left}" x2="{WIDTH - 12}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{WIDTH - 14}" y="{y - 4:.1f}" text-anchor="end">ε = {number(aim)}</text>')
    for kind, _, x, y in lines:
        kept = np.isfinite(y) & ((y > 0) | (not logarithmic))
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(*place(x[kept], y[kept]), strict=True))
        parts.append(f'<polyline class="{kind}" points="{points}"/>')
        if kept.sum() == 1:
            a, b = place(x[kept][0], y[kept][0])
            parts.append(f'<circle class="forward" cx="{a:.1f}" cy="{b:.1f}" r="3"/>')
    named = "; ".join(f"{name}: {_LOOK[kind]}" for kind, name, _, _ in lines)
    return _figure(parts, WIDTH, height, described, named)


_LOOK = {"curve": "full line", "epochs": "dashed line"}


def heat_map(names: Any, steps: Any, values: Any, described: str) -> str:
    """Rows of colours over steps: the logarithm of positive numbers.

    Args:
        names: list of str, of the rows.
        steps: array of int, of the columns.
        values: array of shape `(rows, columns)`; NaN for none.
        described: str.
    """
    cell = 14 if len(names) <= 60 else 6 if len(names) <= 160 else 4
    left, top = 230, 8
    height = top + cell * len(names) + 58
    positive = values[np.isfinite(values) & (values > 0)]
    if not len(positive):
        return '<p class="soft">There is no positive finite value to draw.</p>'
    low, high = math.log10(positive.min()), math.log10(positive.max())
    high = max(high, low + 0.1)
    with np.errstate(all="ignore"):
        share = (np.log10(values) - low) / (high - low)
    shade = np.clip(np.nan_to_num(share, nan=-1, posinf=1, neginf=0) * (len(SCALE) - 1), -1, len(SCALE) - 1)
    shade = np.where(np.isnan(values), -1, np.where(share < 0, 0, np.round(shade))).astype(int)
    width = (WIDTH - left - 10) / len(steps)
    parts = [f'<g transform="translate({left} {top}) scale({width:.5f} {cell})">']
    for colour in range(-1, len(SCALE)):
        runs = "".join(f"M{c} {r}h{n}v1h-{n}z" for r, c, n in _runs(shade == colour))
        fill = ' class="none"' if colour < 0 else f' fill="{SCALE[colour]}"'
        parts += [f'<path{fill} shape-rendering="crispEdges" d="{runs}"/>'] if runs else []
    parts.append("</g>")
    every = 1 if cell >= 14 else math.ceil(14 / cell)
    for r in range(0, len(names), every):
        text = _fitting(names[r], left - 8)
        y = top + cell * r + cell / 2 + 4
        parts.append(f'<text x="{left - 6}" y="{y:.1f}" text-anchor="end">{escape(text)}</text>')
    y = top + cell * len(names) + 16
    for at, anchor, step in ((left, "start", steps[0]), (WIDTH - 10, "end", steps[-1])):
        parts.append(f'<text class="soft" x="{at}" y="{y}" text-anchor="{anchor}">step {int(step)}</text>')
    for i, fill in enumerate(SCALE):
        parts.append(f'<rect x="{left + 60 + 12 * i}" y="{y + 12}" width="12" height="10" fill="{fill}"/>')
    parts.append(f'<text x="{left + 54}" y="{y + 21}" text-anchor="end">{number(10**low)}</text>')
    parts.append(f'<text x="{left + 66 + 12 * len(SCALE)}" y="{y + 21}">{number(10**high)}</text>')
    return _figure(parts, WIDTH, height, described)


def ranges(rows: Any, described: str, aim: Any) -> str:
    """For each name, from where to where a positive number went, and where it is now, on a logarithmic axis.

    Args:
        rows: list of (name, smallest, largest, last).
        described: str.
        aim: float, a vertical line.
    """
    left, cell, top = 260, 18, 22
    numbers = [x for _, *three in rows for x in three if np.isfinite(x) and x > 0]
    if not numbers:
        return '<p class="soft">There is no positive finite value to draw.</p>'
    low, high = math.log10(min(*numbers, aim)) - 0.1, math.log10(max(*numbers, aim)) + 0.1

    def across(x):
        x = min(max(x, 10**low), 10**high) if np.isfinite(x) else 10**high
        return left + (math.log10(x) - low) / (high - low) * (WIDTH - left - 16)

    height, parts = top + cell * len(rows) + 10, []
    for tick in _ticks(low, high, True):
        x = across(tick)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top - 4}" y2="{height}"/>')
        parts.append(f'<text class="soft" x="{x:.1f}" y="{top - 8}" text-anchor="middle">{number(tick)}</text>')
    x = across(aim)
    parts.append(f'<line class="aim" x1="{x:.1f}" x2="{x:.1f}" y1="{top - 4}" y2="{height}"/>')
    for r, (name, smallest, largest, last) in enumerate(rows):
        y = top + cell * r + 10
        text = _fitting(name, left - 8)
        parts.append(f'<text x="{left - 8}" y="{y + 4}" text-anchor="end">{escape(text)}</text>')
        parts.append(f'<line class="range" x1="{across(smallest):.1f}" x2="{across(largest):.1f}" y1="{y}" y2="{y}"/>')
        parts.append(
            f'<circle class="backward" cx="{across(last):.1f}" cy="{y}" r="4"><title>{number(last)}</title></circle>'
        )
    return _figure(parts, WIDTH, height, described)


def bars(rows: Any, described: str) -> str:
    """Shares from 0 to 1. `rows`: list of (name, share)."""
    left, cell = 260, 18
    height, parts = cell * len(rows) + 8, []
    for r, (name, share) in enumerate(rows):
        y, width = cell * r + 3, (WIDTH - left - 60) * (share if np.isfinite(share) else 1)
        text = _fitting(name, left - 8)
        parts.append(f'<text x="{left - 8}" y="{y + 11}" text-anchor="end">{escape(text)}</text>')
        parts.append(f'<rect class="box" x="{left}" y="{y}" width="{WIDTH - left - 60}" height="13"/>')
        parts.append(f'<rect class="backward" x="{left}" y="{y}" width="{width:.1f}" height="13"/>')
        parts.append(f'<text x="{WIDTH - 54}" y="{y + 11}">{share:.0%}</text>')
    return _figure(parts, WIDTH, height, described)


def histogram(name: str, first: Any, last: Any, edges: Any) -> str:
    """Shares of magnitudes by bin: of the first noted step as a line, of the last as bars."""
    width, height, floor = 340, 110, 88
    used = np.flatnonzero((first > 0) | (last > 0))
    if not len(used):
        return ""
    low, high = max(used[0] - 1, 0), min(used[-1] + 2, len(first))
    cell = (width - 20) / max(high - low, 1)
    shares = [counts / max(counts.sum(), 1) for counts in (first, last)]
    top = max(share.max() for share in shares)
    parts = []
    for i in range(low, high):
        tall = shares[1][i] / top * (floor - 22)
        parts.append(
            f'<rect class="forward" x="{10 + (i - low) * cell:.1f}" y="{floor - tall:.1f}" width="{cell - 1:.1f}" '
            f'height="{tall:.1f}"/>'
        )
    corners = " ".join(
        f"{10 + (i - low + side) * cell:.1f},{floor - shares[0][i] / top * (floor - 22):.1f}"
        for i in range(low, high)
        for side in (0, 1)
    )
    parts.append(f'<polyline class="epochs" points="{corners}"/>')
    ends = {low + 1: "start", high - 1: "end"} if low + 1 < high - 1 else {low + 1: "middle"}
    for i, anchor in ends.items():
        edge = edges[min(max(i - 1, 0), len(edges) - 1)]
        parts.append(
            f'<text class="soft" x="{10 + (i - low) * cell:.1f}" y="{height - 8}" text-anchor="{anchor}">'
            f"{number(float(edge))}</text>"
        )
    text = name if len(name) <= 48 else "…" + name[-47:]
    parts.append(f'<text x="10" y="13">{escape(text)}</text>')
    return _figure(parts, width, height, f"Magnitudes of {name}")


def _ticks(low, high, logarithmic):
    if logarithmic:
        whole = range(math.ceil(low), math.floor(high) + 1)
        step = max(1, math.ceil(len(whole) / 7))
        return [10.0**e for e in whole if e % step == 0] or [10**low, 10**high]
    rough = (high - low) / 4
    size = 10 ** math.floor(math.log10(rough))
    step = next(s * size for s in (1, 2, 5, 10) if s * size >= rough)
    return [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _written(ticks):
    """Ticks as texts that differ."""
    texts, digits = [number(tick) for tick in ticks], 4
    while len(set(texts)) < len(ticks) and digits < 17:
        texts, digits = [f"{tick:.{digits}g}" for tick in ticks], digits + 1
    return texts


def _fitting(name, width):
    """The end of a name that is too long for so many pixels, with a font as wide as they come."""
    length = int(width / 7.3)
    return name if len(name) <= length else "…" + name[1 - length :]


def _runs(cells):
    """(row, first column, length) of what is true in a row."""
    for r, row in enumerate(cells):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], row.astype(np.int8), [0]])))
        yield from ((r, int(a), int(b - a)) for a, b in zip(edges[::2], edges[1::2], strict=True))


def _figure(parts, width, height, described, caption=""):
    said = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return (
        f'<figure><svg viewBox="0 0 {width} {height:.0f}" width="{width}" height="{height:.0f}" role="img" '
        f'aria-label="{escape(described)}"><title>{escape(described)}</title>{"".join(parts)}</svg>{said}</figure>'
    )
