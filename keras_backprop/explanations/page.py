"""The chain for a notebook: picture, and the text of the terminal."""

import html
from typing import Any

__all__ = ["to_html"]


def to_html(explanation: Any) -> str:
    """HTML of a notebook's cell: the picture, if Matplotlib is there, and the chain as text, which scrolls where it is wide."""
    from keras_backprop.explanations.plot import svg

    picture = svg(explanation)
    image = "" if picture is None else f'<div style="max-width:100%;overflow-x:auto">{_inline(picture)}</div>'
    text = html.escape(explanation.to_text())
    return f'{image}<pre style="overflow-x:auto;line-height:1.35">{text}</pre>'


def _inline(picture):
    """Without the header of a file, as wide as the page at the most."""
    start = picture[picture.index("<svg") :]
    return start.replace("<svg ", '<svg style="max-width:100%;height:auto" ', 1)
