"""The sections of `results.md`. Each is measured, printed and put in the place of the section of that name."""

import pathlib
import re

import keras

from benchmarks import fits, growth, layers, memory
from benchmarks import ways as ways_of
from benchmarks.steps import compare, geometric_mean
from benchmarks.workloads import WORKLOADS

RESULTS = pathlib.Path(__file__).with_name("results.md")

HEAD = """# Benchmarks

Measured by `python -m benchmarks` on a 2-core CPU machine: TensorFlow 2.21, Keras 3.15.1. Ours and stock
Keras alternate in one process. A time is the median (smallest–largest); a ratio is the median of the ratios of neighbours in
time, ours to stock's, so that below 1 we are faster. Tracing is in CPU time.
"""


def write(options):
    """Measure the chosen sections and write them."""
    texts = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", _old(), re.S | re.M))
    for name in options.only:
        print(f"## {name}\n", flush=True)
        texts[name] = "\n" + "\n".join(SECTIONS[name](options)) + "\n\n"
        ordered = [f"## {section}\n{texts[section].rstrip()}\n" for section in SECTIONS if section in texts]
        RESULTS.write_text(HEAD + "\n" + "\n".join(ordered))


def fit(options):
    """Whole trainings."""
    yield "Whole trainings by `fit`, from building the model to the last epoch, tracing included."
    yield from table("training", "ours", "stock Keras", "stock / ours", *(others := OTHERS), "ours to stay below")
    for task in chosen(fits.tasks(), options):
        times = fits.measure(task, max(1, options.repeats // 5), options.torch_python)
        cells = [str(times[name].median_text()) if times.get(name) else "–" for name in others]
        speedup = f"{1 / times['ours'].over(times['stock']):.1f}"
        yield row(task.name, times["ours"], times["stock"], speedup, *cells, task.wanted)


def ways(options):
    """Ways to call `fit`."""
    yield "The same program on both sides, in turn; what is trained is equal (weights to 1e-4, or there would be no row)."
    yield from table("way", "ours", "stock Keras", "stock / ours", "wanted")
    for way in filter(ways_of.available, chosen(ways_of.ways(), options)):
        times = ways_of.measure(way, max(1, options.repeats // 5))
        yield row(way.name, times["ours"], times["stock"], f"{1 / times['ours'].over(times['stock']):.1f}", way.wanted)


OTHERS = ("compiled loop", "NumPy", "scikit-learn", "PyTorch")


def steps(options):
    """Compiled steps."""
    yield "One compiled training step (graph mode, the default on a CPU)."
    yield from table("workload", "stock", "ours", "ratio", "wanted", "tracing, stock", "ratio", "first call, ratio")
    ratios = []
    for workload in chosen(WORKLOADS, options):
        r = compare(workload, "graph", options.repeats)
        ratios.append(r["ratio"])
        first = r["compile"]["ours"].over(r["compile"]["stock"])
        yield row(
            workload.name, r["times"]["stock"], r["times"]["ours"], f"{r['ratio']:.2f}", workload.limit,
            r["trace"]["stock"].median_text(), f"{r['trace ratio']:.2f}", f"{first:.2f}",
        )  # fmt: skip
    yield mean_of(ratios)


def eager(options):
    """Uncompiled steps."""
    yield "One step in eager mode (`run_eagerly=True`)."
    yield from mode_table("eager", options, lambda workload: workload.eager)


def xla(options):
    """Steps under XLA."""
    yield "One step compiled by XLA (`jit_compile=True`), where that is of use on a CPU."
    yield from mode_table("xla", options, lambda workload: workload.xla)


def mode_table(mode, options, wanted):
    yield from table("workload", "stock", "ours", "ratio")
    ratios = []
    for workload in filter(wanted, chosen(WORKLOADS, options)):
        r = compare(workload, mode, max(3, options.repeats // 2), traces=1)
        ratios.append(r["ratio"])
        yield row(workload.name, r["times"]["stock"], r["times"]["ours"], f"{r['ratio']:.2f}")
    yield mean_of(ratios)


def peak_memory(options):
    """Memory."""
    yield "How far five compiled steps raise the resident memory above that of the built model; a process for each side."
    yield from table("workload", "stock, MB", "ours, MB", "ratio")
    for workload in chosen(WORKLOADS, options):
        stock, ours = (min(memory.peak(workload.name, side) for _ in range(2)) for side in ("stock", "ours"))
        yield row(workload.name, f"{stock / 1e6:.1f}", f"{ours / 1e6:.1f}", f"{ours / max(stock, 1):.2f}")


def each_layer(options):
    """Layers."""
    yield "Forward and backward of one layer of each class that owns weights, compiled, against the tape."
    yield from layers.lines(options.repeats)


def growing(options):
    """Growth."""
    growth.plot(growth.measure(max(3, options.repeats // 3)), RESULTS.with_name("growth.png"))
    yield shown("![Time against depth, width, batch and data](growth.png)")


SECTIONS = {
    "fit": fit, "ways": ways, "steps": steps, "eager": eager, "xla": xla, "memory": peak_memory, "layers": each_layer,
    "growth": growing,
}  # fmt: skip


def chosen(items, options):
    keras.backend.clear_session()
    return [item for item in items if options.match in item.name]


def table(*names):
    return [shown("\n| " + " | ".join(names) + " |"), shown("|" + "---|" * len(names))]


def row(*cells):
    return shown("| " + " | ".join(map(str, cells)) + " |")


def mean_of(ratios):
    return shown(f"\nGeometric mean {geometric_mean(ratios):.2f}, largest {max(ratios):.2f}.")


def shown(line):
    print(line, flush=True)
    return line


def _old():
    return RESULTS.read_text() if RESULTS.exists() else ""
