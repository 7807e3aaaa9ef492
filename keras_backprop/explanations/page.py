"""The chain for a notebook: picture, and the text of the terminal."""

import html
import re
from typing import Any

from keras_backprop.explanations.drawing.plot import svg

__all__ = ["to_html"]


def to_html(explanation: Any) -> str:
    """HTML of a notebook's cell: the picture, if Matplotlib is there, and the chain as text, which scrolls where it is wide."""
    picture = svg(explanation)
    image = "" if picture is None else f'<div style="max-width:100%;overflow-x:auto">{_inline(picture)}</div>'
    text = html.escape(explanation.to_text())
    return f'{image}<pre style="overflow-x:auto;line-height:1.35">{text}</pre>'


LEGIBLE = 0.6
"""A picture is not drawn smaller than this share of its size: on a narrow page it scrolls in its frame."""


def _inline(picture):
    """Without the header of a file, as wide as the page at the most, and as wide as its numbers need at the least."""
    start = picture[picture.index("<svg") :]
    (width, *_) = (float(number) for number in re.findall(r'width="([\d.]+)pt"', start))
    style = f"width:{width:.0f}pt;max-width:100%;min-width:{LEGIBLE * width:.0f}pt;height:auto"
    return start.replace("<svg ", f'<svg style="{style}" ', 1)
