"""How time grows with depth, width, batch and amount of data: measured, and plotted against stock Keras."""

import dataclasses
import pathlib

import numpy as np

from benchmarks.fits import Task
from benchmarks.steps import SIDES, compare
from benchmarks.timing import once_each
from benchmarks.workloads import Workload, integers, mlp, normal


def workload(depth=4, width=64, batch=32):
    return Workload(
        f"{depth} layers of {width}, batch {batch}", lambda: mlp(*[width] * depth, 10), normal(batch, width),
        integers(10, batch),
    )  # fmt: skip


AXES = {
    "layers": [{"depth": d} for d in (2, 4, 8, 16, 32, 64)],
    "width": [{"width": w} for w in (16, 64, 256, 1024)],
    "batch": [{"batch": b} for b in (8, 32, 128, 512, 2048)],
}
EXAMPLES = (32, 320, 3200, 32000)


def measure(repeats=7):
    """dict title -> (values along the axis, dict line -> seconds)."""
    results = {}
    for axis, points in AXES.items():
        lines: dict = {side: [] for side in SIDES}
        traces: dict = {f"{side}, tracing": [] for side in SIDES}
        for point in points:
            result = compare(workload(**point), "graph", repeats)
            for side in SIDES:
                lines[side].append(result["times"][side].median)
                traces[f"{side}, tracing"].append(result["trace"][side].median)
        values = [next(iter(point.values())) for point in points]
        results[f"a compiled step against the {axis}"] = values, lines
        if axis == "layers":
            results["tracing a step against the layers"] = values, traces
    random = np.random.default_rng(0)
    task = Task("growth", random.normal(size=(1, 64)), np.zeros(1, int), (64, 64, 10), 5)
    lines = {side: [] for side in SIDES}
    for n in EXAMPLES:
        task = dataclasses.replace(task, x=random.normal(size=(n, 64)).astype("float32"), y=random.integers(0, 10, n))
        times = once_each({side: lambda side=side, task=task: task.fit(side) for side in SIDES}, 1)
        for side in SIDES:
            lines[side].append(times[side].median)
    results["5 epochs of fit against the examples"] = list(EXAMPLES), lines
    return results


def plot(results, path):
    """Draw one panel for each axis."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(2, 3, figsize=(11, 6.5), layout="constrained")
    panels = panels.ravel()
    for panel in panels[len(results) :]:
        panel.axis("off")
    for panel, (title, (values, lines)) in zip(panels, results.items(), strict=False):
        for name, seconds in lines.items():
            panel.loglog(values, seconds, marker="o", label=name.removesuffix(", tracing"))
        panel.set_title(title, fontsize=11)
        panel.set_xticks(values, [f"{value:,}" for value in values])
        panel.minorticks_off()
        panel.set_ylabel("seconds")
        panel.grid(alpha=0.3)
    panels[0].legend()
    figure.savefig(pathlib.Path(path), dpi=130)
    plt.close(figure)
