"""The report of a `BackwardMonitor`."""

from typing import Any

import numpy as np

from keras_backprop.report import charts
from keras_backprop.report.findings import findings_section
from keras_backprop.report.network_section import network_section, spread
from keras_backprop.report.page import details, page, section, table
from keras_backprop.watch.moments import EDGES

COLUMNS = 240
SHOWN = 40
"""So many rows of a chart, those that matter most; tables have all."""


def monitor_page(monitor: Any, title: str, epsilon: Any = None, findings: Any = None) -> str:
    """The document: error, gradient flow, drawing with a slider, ratios, units, histograms, findings.

    Args:
        monitor: a `BackwardMonitor` that has watched.
        title: str.
        epsilon: float, the error at which training was to stop, or None.
        findings: list of findings, or None where nobody has looked for any.
    """
    history = monitor.history
    if not len(history.steps):
        said = "<p>Nothing has been noted yet: call <code>fit</code> with the monitor among its callbacks.</p>"
        return page(title, [said])
    network, data = network_section(monitor)
    sections = [
        _summary(history),
        findings_section(findings),
        _error(monitor, epsilon),
        flow(history),
        network,
        _ratios(history),
        _gains(history),
        _units(history),
        _histograms(history),
        _table_of_links(history),
    ]
    return page(title, sections, data)


def paths_of(history: Any, of: str, quantity: str) -> list[str]:
    """The paths of which there is such a figure, in the order of the forward pass."""
    return [path for path, kind, name in history.names() if (kind, name) == (of, quantity)]


def flow(history: Any) -> str:
    """The heat map of ‖∂E/∂y‖, links × steps; of ‖∂E/∂W‖ where no deltas were noted."""
    for of, what in (("delta", "‖∂E/∂y‖ of every link"), ("gradient", "‖∂E/∂W‖ of every weight")):
        paths = paths_of(history, of, "norm")
        if paths:
            chosen = spread(len(history.steps), COLUMNS)
            values = np.stack([history.series(path, of, "norm")[chosen] for path in paths])
            described = f"{what}, {len(paths)} rows over {len(chosen)} steps"
            said = (
                "Input at the top, error at the bottom: where it darkens upwards the gradient vanishes on its way, where it "
                "brightens it grows. What is not positive and finite has no colour."
            )
            return section(
                f"Gradient flow: {what}", charts.heat_map(paths, history.steps[chosen], values, described), said=said
            )
    return ""


def _summary(history):
    steps, first, last = history.steps, int(history.epochs[0]), int(history.epochs[-1])
    epochs = f"epoch {first}" if first == last else f"the epochs {first} to {last}"
    return (
        f'<p class="soft">{len(steps)} noted steps, {int(steps[0])} to {int(steps[-1])}, of {epochs}; '
        f"{len(history.names())} figures of each. Figures are of the weights before a step's update, without "
        "a loss scale.</p>"
    )


def _error(monitor, epsilon):
    history = monitor.history
    lines = [("curve", "of each noted step", history.steps, history.losses)]
    ends = [(epoch, logs["loss"]) for epoch, logs in monitor.epoch_logs if logs.get("loss") is not None]
    if len(ends) > 1:
        ends_at = np.linspace(history.steps[0], history.steps[-1], len(ends))
        last = {int(e): int(s) for e, s in zip(history.epochs, history.steps, strict=True)}
        at = np.array([last.get(epoch, x) for (epoch, _), x in zip(ends, ends_at, strict=True)], float)
        lines.append(
            ("epochs", "mean over each epoch, as fit says it", at, np.array([loss for _, loss in ends], float))
        )
    return section("Error", charts.curves(lines, "step", "The error over the steps", epsilon))


def _ranges(history, of, quantity, aim, described):
    rows = []
    for path in paths_of(history, of, quantity):
        x = history.series(path, of, quantity)
        x = x[np.isfinite(x) & (x > 0)]
        if len(x):
            rows.append((path, float(x.min()), float(x.max()), float(x[-1])))
    far = {row[0] for row in sorted(rows, key=lambda row: -abs(np.log10(row[3] / aim)))[:SHOWN]}
    kept = [row for row in rows if row[0] in far]
    more = table(["path", "smallest", "largest", "last"], rows)
    shown = (
        f"The {len(kept)} of {len(rows)} that are the farthest from the dotted line. " if len(rows) > len(kept) else ""
    )
    return rows, charts.ranges(kept, described, aim), details("All numbers", more), shown


def _ratios(history):
    rows, chart, more, shown = _ranges(history, "weight", "update_ratio", 1e-3, "Update-to-weight ratios")
    said = (
        f"{shown}‖change by one update‖ / ‖weight‖: line from the smallest to the largest, dot the last. About 0.001, the dotted "
        "line, is usual."
    )
    return section("Update-to-weight ratios", chart, more, said=said) if rows else ""


def _gains(history):
    rows, chart, more, shown = _ranges(history, "delta", "gain", 1.0, "Gains of links")
    said = (
        f"{shown}‖∂E/∂x‖ / ‖∂E/∂y‖ of each link: left of the dotted line the gradient gets smaller, right of it larger."
    )
    return section("Gains", chart, more, said=said) if rows else ""


def _units(history):
    rows = []
    for quantity, what in (("dead", "dead"), ("saturated", "saturated")):
        for path in paths_of(history, "activation", quantity):
            rows.append((f"{path}: {what}", float(history.series(path, "activation", quantity)[-1])))
    worst = sorted(rows, key=lambda row: -row[1])[:SHOWN]
    kept = [row for row in rows if row in worst]
    said = (
        "In the last noted step. Dead: units that are 0 for all examples. Saturated: values where the local derivative is below "
        "1 % of its largest."
    )
    return (
        section("Dead and saturated units", charts.bars(kept, "Shares of dead and saturated units"), said=said)
        if rows
        else ""
    )


def _histograms(history):
    parts = []
    for of, what in (("activation", "values"), ("delta", "deltas"), ("gradient", "gradients")):
        for path in paths_of(history, of, "histogram")[:SHOWN]:
            x = history.series(path, of, "histogram")
            x = x[np.isfinite(x).all(1)]
            parts += [charts.histogram(f"{path}: {what}", x[0], x[-1], EDGES)] if len(x) else []
    said = "Magnitudes, on a logarithmic axis: bars of the last noted step, the dashed line of the first."
    return section("Histograms", f'<div class="grid-of-charts">{"".join(parts)}</div>', said=said) if parts else ""


def _table_of_links(history):
    rows, steps = [], history.steps
    for path, of, quantity in history.names():
        x = history.series(path, of, quantity)
        if x.ndim == 1:
            rows.append((path, of, quantity, float(x[0]), float(x[-1])))
    if len(rows) > 3000:
        return ""
    head = ["path", "of", "quantity", f"step {int(steps[0])}", f"step {int(steps[-1])}"]
    return section("All figures", details("The first and the last noted step, as a table", table(head, rows)))
