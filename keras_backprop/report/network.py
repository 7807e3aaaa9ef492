"""The drawing of a network: values forward, deltas backward, a row for each link, numbers that a slider changes."""

import math
from html import escape
from typing import Any

import numpy as np

from keras_backprop.report.page import number

ROW, BAR, WIDTH = 26, 130, 720
_LEFT = 190
"""Where the boxes begin; before them are the bars of the deltas."""


def drawing(links: Any, edges: Any, described: str) -> tuple[str, dict[str, Any]]:
    """Boxes for links from top to bottom, forward; activations to their right, deltas to their left.

    Args:
        links: list of (path, forward, backward): the norms now, floats or NaN, in forward order.
        edges: list of (path, path).
        described: str, for those who do not see it.

    Returns:
        The SVG, and what the script has to know of its bars: `bar`, `low`, `high`.
    """
    row = ROW if len(links) <= 80 else 20
    numbers = [x for _, *both in links for x in both if x is not None and np.isfinite(x) and x > 0]
    low = math.log10(min(numbers, default=0.1)) - 0.3
    high = max(math.log10(max(numbers, default=1)) + 0.3, low + 1)
    scale = {"bar": BAR, "low": round(low, 3), "high": round(high, 3)}
    order = {path: i for i, (path, _, _) in enumerate(links)}
    known = [(a, b) for a, b in edges if order.get(b, -1) > order.get(a, len(links))]
    skips = any(order[b] - order[a] > 1 for a, b in known)
    right = WIDTH - BAR - 60
    edge_of_boxes = right - (40 if skips else 0)
    parts = [
        f'<text class="soft" x="{_LEFT - 8}" y="14" text-anchor="end">‖∂E/∂y‖ ← backward</text>',
        f'<text class="soft" x="{right + 8}" y="14">forward → ‖y‖</text>',
    ]
    place = {path: 24 + row * i for i, (path, _, _) in enumerate(links)}
    for source, target in known:
        parts.append(_edge(place[source], place[target], row, edge_of_boxes))
    for i, (path, forward, backward) in enumerate(links):
        y = place[path]
        text = path if len(path) <= 44 else "…" + path[-43:]
        middle = y + (row - 6) / 2
        bar_y, text_y = middle - 4.5, middle + 4
        size = [_length(x, low, high) for x in (backward, forward)]
        parts.append(
            f'<rect class="box" x="{_LEFT}" y="{y}" width="{edge_of_boxes - _LEFT}" height="{row - 6}" rx="3"/>'
        )
        parts.append(f'<text x="{_LEFT + 8}" y="{text_y}">{escape(text)}</text>')
        parts.append(
            f'<rect class="backward" x="{_LEFT - 4 - size[0]:.1f}" y="{bar_y}" width="{size[0]:.1f}" height="9" '
            f'data-bar="{2 * i + 1}" data-right="{_LEFT - 4}"/>'
            f'<text class="soft" x="0" y="{text_y}" data-number="{2 * i + 1}">{number(backward)}</text>'
            f'<rect class="forward" x="{right + 4}" y="{bar_y}" width="{size[1]:.1f}" height="9" data-bar="{2 * i}"/>'
            f'<text class="soft" x="{WIDTH}" y="{text_y}" text-anchor="end" data-number="{2 * i}">{number(forward)}</text>'
        )
    height = 24 + row * len(links) + 4
    svg = (
        f'<figure><svg viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img" '
        f'aria-label="{escape(described)}">'
        f"<title>{escape(described)}</title>{''.join(parts)}</svg></figure>"
    )
    return svg, scale


def _edge(start, end, row, right):
    if end - start == row:
        x = (_LEFT + right) / 2
        return f'<path class="edge" d="M{x} {start + row - 6}V{end}"/>'
    y, to = start + row / 2, end + row / 2 - 6
    bend = min(10 + (to - y) / 12, 36)  # past the links that are left out
    return f'<path class="edge" d="M{right} {y:.0f}C{right + bend:.0f} {y:.0f} {right + bend:.0f} {to:.0f} {right} {to:.0f}"/>'


def _length(x, low, high):
    if x is None or x != x or x == 0:
        return 0.0
    if not np.isfinite(x):
        return float(BAR)
    return BAR * min(1.0, max(0.02, (math.log10(x) - low) / (high - low)))
