"""The frame of a report: one file, no network, everything escaped, nothing that runs but the script in it."""

import base64
import hashlib
import importlib.resources
import json
import pathlib
from html import escape
from typing import Any


def page(title: str, sections: Any, data: Any = None) -> str:
    """An HTML document.

    Args:
        title: str, not escaped.
        sections: list of str, HTML.
        data: what `slider.js` reads, or None for a page without a script.
    """
    style, script = asset("style.css"), asset("slider.js")
    policy = f"default-src 'none'; style-src {_hash(style)}; base-uri 'none'; form-action 'none'"
    scripts = ""
    if data is not None:
        policy += f"; script-src {_hash(script)}"
        said = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
        scripts = f'<script type="application/json" id="data">{said}</script><script>{script}</script>'
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<style>{style}</style></head><body><h1>{escape(title)}</h1>{''.join(sections)}{scripts}</body></html>"
    ).replace("default-src 'none'", "default-src 'none'; img-src data:", 1)


def write(document: str, path: Any) -> pathlib.Path:
    """Write a document to a file, which must end in .html. Returns the path.

    Raises:
        ValueError: another suffix.
    """
    path = pathlib.Path(path)
    if path.suffix not in (".html", ".htm"):
        raise ValueError(f"A report is an HTML file: give a path that ends in .html. Received: {str(path)!r}")
    path.write_text(document, encoding="utf-8")
    return path


def section(title: str, *parts: str, said: str = "") -> str:
    """A section with a heading, a sentence that says how it is read, and what follows."""
    explained = f'<p class="soft">{escape(said)}</p>' if said else ""
    return f"<section><h2>{escape(title)}</h2>{explained}{''.join(parts)}</section>"


def table(head: Any, rows: Any) -> str:
    """A table of texts and numbers; a cell that is a pair is (HTML attributes, text)."""

    def cell(value):
        attributes, text = value if isinstance(value, tuple) else ("", value)
        return f"<td{attributes}>{escape(number(text) if isinstance(text, float) else str(text))}</td>"

    body = "".join(f"<tr>{''.join(map(cell, row))}</tr>" for row in rows)
    heads = "".join(f'<th scope="col">{escape(text)}</th>' for text in head)
    return f'<div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>'


def details(summary: str, *parts: str) -> str:
    """Parts that are shown on request."""
    return f"<details><summary>{escape(summary)}</summary>{''.join(parts)}</details>"


def number(x: Any) -> str:
    """A number for people: three digits."""
    if x is None or x != x:
        return "–"
    if abs(x) == float("inf"):
        return "not finite"
    if x == 0 or 1e-3 <= abs(x) < 1e5:
        return f"{float(f'{x:.3g}'):g}"
    mantissa, exponent = f"{x:.1e}".split("e")
    return f"{mantissa}·10{str(int(exponent)).translate(_RAISED)}"


_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def asset(name: str) -> str:
    """The text of a file of this package."""
    return importlib.resources.files("keras_backprop.report").joinpath(name).read_text(encoding="utf-8")


def _hash(text):
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
