"""Long products and sums on several lines, broken before a sign that stands in no brackets."""

import re

from keras_backprop.explanations.writing.notation import plain

__all__ = ["COLUMNS", "ONE_LINE", "broken", "broken_text", "visible"]

WIDEST = 48
"""So many characters, as one sees them, stand on a line of a formula of several: some 380 pixels."""

ONE_LINE = 64
"""And so many on the only line."""

COLUMNS = 110
"""And so many on a line of a terminal."""

_SIGNS = (r" \cdot ", r" \odot ", " + ")
_MATRIX = re.compile(r"\\begin\{pmatrix\}(.*?)\\end\{pmatrix\}")
_FRACTION = re.compile(r"\\frac\{((?:[^{}]|\{[^{}]*\})*)\}\{((?:[^{}]|\{[^{}]*\})*)\}")


def visible(latex: str) -> int:
    """About how many characters wide a formula is: of a matrix its longest row, of a fraction its longer side."""
    text = _MATRIX.sub(lambda m: "(" + max(m[1].split(r"\\"), key=len).replace("&", " ") + ")", latex)
    text = _FRACTION.sub(lambda m: max(m.groups(), key=len), text)
    return len(plain(text))


def broken(latex: str, widest: int = WIDEST) -> list[str]:
    """A formula in parts of bearable width. Every part but the first begins with its sign."""
    return _packed(_pieces(latex, _SIGNS), widest, visible)


def broken_text(lead: str, text: str) -> list[str]:
    """Lines of a terminal: the lead, and the text of a product or sum beside it, broken where it is too long."""
    parts = _packed(_pieces(text, (" · ", " + ", " = ")), max(COLUMNS - len(lead), 40), len)
    return [lead + parts[0], *(" " * (len(lead) + 1) + part for part in parts[1:])]


def _pieces(text, signs):
    """The text cut before every sign outside brackets."""
    pieces, depth, start = [], 0, 0
    for position, character in enumerate(text):
        depth += (character in "({[") - (character in ")}]")
        if depth == 0 and text.startswith(signs, position):
            pieces.append(text[start:position])
            start = position
    return [*pieces, text[start:]]


def _packed(pieces, widest, size):
    """As many pieces on a line as there is room for."""
    lines = [pieces[0]]
    for piece in pieces[1:]:
        if size(lines[-1] + piece) <= widest:
            lines[-1] += piece
        else:
            lines.append(piece.lstrip())
    return lines
