"""The report of an explanation: the chain rule of one batch."""

from html import escape
from typing import Any

import numpy as np

from keras_backprop.report.findings import findings_section
from keras_backprop.report.network import drawing
from keras_backprop.report.page import details, page, section, table

LARGEST = 60_000
"""So many characters of the chain are written out at most."""


def explanation_page(explanation: Any, title: str, findings: Any = None) -> str:
    """The document: the drawing, the derivation with its numbers, every link, every weight.

    Args:
        explanation: what `explain` returns.
        title: str.
        findings: list of findings, or None.
    """
    said = f"One batch of {explanation.examples}, error E = {explanation.loss:.6g}, optimizer {explanation.optimizer}."
    links, makers, edges = [], {}, []
    for link in explanation.links:
        if link.kind == "op" and not any(link.input_symbols):
            continue  # of constants only
        links.append((link.path, _norm(link.outputs), _norm(link.upstream)))
        edges += [(makers[s], link.path) for s in link.input_symbols if s is not None and s in makers]
        makers.update((s, link.path) for s in link.output_symbols if s is not None)
    svg, _ = drawing(links, edges, "The network: norms of values forward and of deltas backward, link by link")
    text = explanation.to_text()
    shown = text if len(text) <= LARGEST else text[:LARGEST] + "\n…"
    weights = [
        (w.path, _symbol(w), str(w.value.shape), _norm([w.value]), _norm([w.gradient]), _norm([w.updated]))
        for w in explanation.weights
    ]
    sections = [
        f'<p class="soft">{escape(said)}</p>',
        findings_section(findings),
        section(
            "The network, forward and backward", svg, said="Numbers are Euclidean norms; bars are their logarithms."
        ),
        section("Weights", table(["weight", "symbol", "shape", "‖w‖", "‖∂E/∂w‖", "‖w‖ after the update"], weights)),
        section("The derivation", _derivations(explanation), f"<pre>{escape(shown)}</pre>"),
    ]
    return page(title, sections)


def _derivations(explanation):
    """Small weights with all their numbers, on request."""
    parts = []
    for weight in explanation.weights:
        if weight.value.size <= 64 and weight.gradient is not None:
            rows = [
                (
                    str(tuple(map(int, index))),
                    float(weight.value[index]),
                    float(weight.gradient[index]),
                    float(weight.updated[index]),
                )
                for index in np.ndindex(weight.value.shape)
            ]
            parts.append(
                details(
                    ", ".join(filter(None, (_symbol(weight), weight.path))),
                    table(["entry", "w", "∂E/∂w", "w after the update"], rows),
                )
            )
    return "".join(parts)


def _symbol(weight):
    """Its symbol, if it has one besides its path."""
    return "" if str(weight.symbol) == weight.path else str(weight.symbol)


def _norm(tensors):
    present = [
        np.asarray(x, "float64").ravel()
        for x in tensors
        if x is not None and np.issubdtype(np.asarray(x).dtype, np.floating)
    ]
    return float(np.linalg.norm(np.concatenate(present))) if present else float("nan")
