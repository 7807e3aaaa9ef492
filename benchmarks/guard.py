"""The regression guard: ratios to stock Keras against the bounds in `bounds.json`."""

import json
import pathlib

from benchmarks.steps import compare
from benchmarks.workloads import WORKLOADS

BOUNDS = pathlib.Path(__file__).with_name("bounds.json")
NOISE = 0.08
"""How far a ratio may lie above its bound: what it was seen to vary by from run to run on a busy machine."""

QUICK = [
    "digits MLP 64-128-64-10, batch 32",
    "MLP 784-512-512-10, batch 128",
    "MobileNetV2 at 64×64, batch 16",
    "LSTM classifier, 50 steps",
    "Transformer encoder, 4 layers",
    "MLP of 64 layers of 16",
]


def measure(names=QUICK, repeats=9):
    """dict "workload | what" -> ratio, for compiled and eager steps and for tracing."""
    ratios = {}
    for workload in WORKLOADS:
        if workload.name in names:
            graph, eager = compare(workload, "graph", repeats, traces=2), compare(workload, "eager", 3)
            ratios[f"{workload.name} | compiled step"] = graph["ratio"]
            ratios[f"{workload.name} | tracing"] = graph["trace ratio"]
            ratios[f"{workload.name} | eager step"] = eager["ratio"]
    return ratios


def worsened(ratios, bounds):
    """The names of the ratios that lie beyond their bound and the noise."""
    return [name for name, ratio in ratios.items() if name in bounds and ratio > bounds[name] + NOISE]


def check(repeats=9):
    """Print every ratio with its bound; measure again what is beyond; return the exit status."""
    bounds = json.loads(BOUNDS.read_text())
    ratios = measure(repeats=repeats)
    for _ in range(2):  # one busy moment is no regression
        if not (again := {name.split(" | ")[0] for name in worsened(ratios, bounds)}):
            break
        ratios |= {name: min(ratio, ratios[name]) for name, ratio in measure(again, 2 * repeats).items()}
    bad = worsened(ratios, bounds)
    for name, ratio in ratios.items():
        print(f"{name:<62} {ratio:5.2f}  bound {bounds.get(name, float('nan')):5.2f}  {'WORSE' if name in bad else ''}")
    return 1 if bad else 0


def store(repeats=15):
    """Make the ratios of this moment the bounds."""
    ratios = {name: round(ratio, 2) for name, ratio in measure(repeats=repeats).items()}
    BOUNDS.write_text(json.dumps(ratios, indent=1, ensure_ascii=False) + "\n")
