"""Write docs/coverage.md from the registry and docs/grid.json: `python docs/generate_coverage.py`."""

import inspect
import json
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras

from keras_backprop import _keras
from keras_backprop.registry import rule_for

FOLDER = pathlib.Path(__file__).parent

EXPANDED = {
    "Wrapper": "abstract; what a subclass's `call` consists of",
    "Lambda": "what its function consists of",
}
"""Layers without a rule: they are expanded into the operations and layers that their `call` consists of."""

REFUSED = {
    "Layer": "abstract",
    "FlaxLayer": "another framework's code: refused by name",
    "JaxLayer": "another framework's code: refused by name",
    "TorchModuleWrapper": "another framework's code: refused by name",
    "TFSMLayer": "a SavedModel's raw TensorFlow graph: refused by name",
}
"""Layers that have no backward pass here and cannot have one."""

WEIGHT_OWNERS = {
    "Dense", "EinsumDense", "Embedding", "ReversibleEmbedding", "PReLU", "Conv1D", "Conv2D", "Conv3D", "Conv1DTranspose",
    "Conv2DTranspose", "Conv3DTranspose", "DepthwiseConv1D", "DepthwiseConv2D", "SeparableConv1D", "SeparableConv2D",
    "BatchNormalization", "LayerNormalization", "GroupNormalization", "RMSNormalization", "MultiHeadAttention",
    "GroupedQueryAttention", "Attention", "AdditiveAttention", "SimpleRNN", "GRU", "LSTM", "ConvLSTM1D", "ConvLSTM2D",
    "ConvLSTM3D",
}  # fmt: skip
"""The classes of layers that own weights, beside cells and wrappers."""

CONTROL_FLOW = "its backward pass is that of a function it is given: refused; write the loop out, or use an RNN layer"
COMPLEX = "complex numbers: refused"
NO_RULE = {
    **dict.fromkeys(
        ["AssociativeScan", "Cond", "ForiLoop", "JVP", "Map", "Scan", "Switch", "VectorizedMap", "WhileLoop"],
        CONTROL_FLOW,
    ),
    **dict.fromkeys(
        ["Angle", "Conj", "Conjugate", "Eig", "Imag", "Polar", "Real", "ViewAsComplex", "ViewAsReal"], COMPLEX
    ),
    **dict.fromkeys(["AffineTransform", "ElasticTransform", "PerspectiveTransform"], "no rule yet: refused"),
    **dict.fromkeys(["Nanmedian", "Nanpercentile", "Nanquantile"], "no rule yet: refused"),
    "CTCDecode": "a search, no function of its input to differentiate: refused",
    "Rearrange": "made of reshape and transpose, which Keras does not show: refused",
    "SegmentReduction": "abstract",
}
"""Operations without a rule. To meet one in training is an error that names it."""

COUPLED = {"BatchNormalization": "in inference; in training the batch statistics couple the examples"}
"""Weight-owning layers whose gradients of single examples exist in a part of their uses only."""


def public_layers():
    """Name -> class, each class once, for all of `keras.layers`."""
    names: dict = {}
    for name, value in sorted(vars(keras.layers).items()):
        if isinstance(value, type) and issubclass(value, keras.layers.Layer):
            names.setdefault(value, value.__name__ if hasattr(keras.layers, value.__name__) else name)
    return {name: cls for cls, name in names.items()}


def public_functions(module):
    """Name -> function, without aliases, of `keras.activations` or `keras.losses`."""
    skip = {"get", "serialize", "deserialize"}
    names: dict = {}
    for name, value in sorted(vars(module).items()):
        if inspect.isfunction(value) and name not in skip:
            names.setdefault(value, value.__name__)
    return {name: function for function, name in names.items()}


def public_operations():
    """Name -> operation class, of all `keras.ops`."""
    skip = {"Operation", "Function"}  # the machinery
    return {name: cls for name, cls in sorted(vars(_keras.ops).items()) if name not in skip}


def state(name, key):
    """One of the three states, or "unknown"."""
    rule = rule_for(key)
    if rule is not None:
        return rule.state
    if name in EXPANDED:
        return "expanded"
    return "refused" if name in REFUSED or name in NO_RULE else "unknown"


def layer_table(layers, grid):
    lines = [
        "| layer | state | gradients of single examples | cases in the grid | largest error |",
        "|---|---|---|--:|--:|",
    ]
    for name, cls in layers.items():
        seen = grid.get(cls.__name__, {})
        single = "" if cls.__name__ not in WEIGHT_OWNERS else COUPLED.get(cls.__name__, "yes")
        error = f"{seen['error']:.0e}" if seen else ""
        lines.append(f"| {name} | {state(name, cls)} | {single} | {seen.get('cases', '')} | {error} |")
    return lines


def name_table(kind, entries, columns=3):
    lines = [f"| {kind} | state " * columns + "|", "|---|---" * columns + "|"]
    cells = [f"| {name} | {state(name, key)} " for name, key in entries.items()]
    cells += ["| | "] * (-len(cells) % columns)
    return lines + ["".join(cells[i : i + columns]) + "|" for i in range(0, len(cells), columns)]


def page():
    """The text of docs/coverage.md."""
    grid = json.loads((FOLDER / "grid.json").read_text())
    everything = public_layers()
    preprocessing = {n: c for n, c in everything.items() if "preprocessing" in c.__module__}
    layers = {n: c for n, c in everything.items() if n not in preprocessing}
    regularizers = {
        n: v
        for n, v in sorted(vars(keras.regularizers).items())
        if isinstance(v, type) and n != "Regularizer" and n[0].isupper()
    }
    cases = sum(entry["cases"] for entry in grid.values())
    version = keras.__version__.rsplit(".", 1)[0]
    sections = [
        "# Coverage",
        f"""Generated by `python docs/generate_coverage.py` for Keras {version}; a test fails when it is stale.

* **rule**: a written-out backward rule. **expanded**: made of operations that have rules. **not differentiable**: declared so;
  nothing flows back, as on the tape. **refused**: a clear error.
* The table's figures come from {cases:,} cases of the gradient grid (`python -m tests.grid.run`
  runs all); *largest error* is the largest difference from the tape in float64, relative to the largest entry of the
  tensor's gradient.""",
        f"## Layers ({len(layers)})",
        "\n".join(layer_table(layers, grid)),
        "## What is expanded or refused, and why",
        "\n".join(f"* `{name}`: {why}." for name, why in {**EXPANDED, **REFUSED}.items()),
        f"## Preprocessing layers ({len(preprocessing)})",
        "\n".join(name_table("layer", preprocessing)),
        "## Activation functions",
        "\n".join(name_table("function", public_functions(keras.activations))),
        "## Losses",
        "\n".join(name_table("function", public_functions(keras.losses))),
        "## Regularisers",
        "\n".join(name_table("class", regularizers)),
        "## Operations that are refused, and why",
        "\n".join(
            f"* `{name}`: {why}."
            for name, why in sorted(NO_RULE.items())
            if rule_for(getattr(_keras.ops, name)) is None
        ),
        "## Operations",
        "\n".join(name_table("operation", public_operations())),
    ]
    return "\n\n".join(sections) + "\n"


if __name__ == "__main__":
    text = page()
    (FOLDER / "coverage.md").write_text(text)
    unknown = text.count("unknown")
    print(f"docs/coverage.md written, {unknown} unknown")
    sys.exit(bool(unknown))
