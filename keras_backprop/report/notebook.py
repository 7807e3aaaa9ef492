"""What notebooks show of monitors, checks, explanations and backward passes: pieces of HTML with formulas in LaTeX."""

import base64
from html import escape
from typing import Any

from keras_backprop.report.monitor import flow
from keras_backprop.report.page import number, page, table


def framed(document: str) -> str:
    """A whole document inside a notebook's page, which it can neither reach nor be styled by."""
    encoded = base64.b64encode(document.encode()).decode()
    source = f"data:text/html;charset=utf-8;base64,{encoded}"
    return f'<iframe sandbox width="100%" height="460" title="report" src="{source}"></iframe>'


def monitor_html(monitor: Any) -> str:
    """The flow of the gradient, and where the rest is."""
    history = monitor.history
    if not len(history.steps):
        return f"<p>{escape(repr(monitor.layers))}: nothing has been noted yet.</p>"
    said = f"<p class='soft'>{escape(repr(history))}. <code>monitor.report(\"report.html\")</code> has the rest.</p>"
    return framed(page(monitor._title(), [said, flow(history)]))


def check_html(report: Any) -> str:
    """The table of a gradient check."""
    rows = [
        (row.path, str(row.shape), number(row.tape_relative), number(row.difference_relative), row.verdict)
        for row in report.rows
    ]
    head = ["tensor", "shape", "relative difference from the tape", "from finite differences", "verdict"]
    faults = [*map(str, report.culprits), *([] if report.forward is None else [report.forward])]
    culprits = "".join(f"<p>{escape(fault)}</p>" for fault in faults)
    said = report.said if report.passed else f"<strong>{report.said}</strong>"
    return f"<p>Gradients of {escape(str(report.subject))}: {said}</p>{table(head, rows)}{culprits}"
