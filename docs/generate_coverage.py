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
from keras_backprop._tensorflow import gradients_by_type
from keras_backprop.chain import operations_by_rows as rows_of
from keras_backprop.registry import rule_for
from keras_backprop.rules.operation_gradients import BY_TYPE

FOLDER = pathlib.Path(__file__).parent

WEIGHT_OWNERS = {
    "Dense", "EinsumDense", "Embedding", "ReversibleEmbedding", "PReLU", "Conv1D", "Conv2D", "Conv3D", "Conv1DTranspose",
    "Conv2DTranspose", "Conv3DTranspose", "DepthwiseConv1D", "DepthwiseConv2D", "SeparableConv1D", "SeparableConv2D",
    "BatchNormalization", "LayerNormalization", "GroupNormalization", "RMSNormalization", "MultiHeadAttention",
    "GroupedQueryAttention", "Attention", "AdditiveAttention", "SimpleRNN", "GRU", "LSTM", "ConvLSTM1D", "ConvLSTM2D",
    "ConvLSTM3D",
}  # fmt: skip
"""The classes of layers that own weights, beside cells and wrappers."""


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
    """ "rule", "not differentiable", "followed", or "unknown"."""
    rule = rule_for(key)
    if rule is not None:
        return "not differentiable" if rule.kind == "not differentiable" else "rule"
    return "followed" if key.__module__.startswith("keras.") else "unknown"


def written(key):
    """Whether explanations have a formula for it: "yes", "of its links" where it runs other layers, else ""."""
    rule = rule_for(key)
    if rule is None or rule.kind == "not differentiable":
        return ""
    formulas = rule.formula if isinstance(rule.formula, tuple) else [rule.formula] if rule.formula is not None else []
    if any(_may_hold(formula, key) for formula in formulas):
        return "yes"
    return "of its links" if rule.composition is not None else "none"


def _may_hold(formula, key):
    """Whether a formula's condition on the operation's class, where it has one, is met: rules may be shared."""
    wanted, name = formula.when.get("class"), getattr(key, "__name__", "")
    return wanted is None or (wanted(name) if callable(wanted) else wanted == name)


def fused(key):
    """Whether the rule's code calls one of TensorFlow's kernels in `kernels.py` (or those of a convolution)."""
    rule = rule_for(key)
    return rule is not None and any(_calls_kernels(f, 4) for f in (rule.backward, rule.forward) if f is not None)


def _calls_kernels(function, depth):
    code = getattr(function, "__code__", None)
    if code is None or depth == 0:
        return False
    codes = [code, *(inner for inner in code.co_consts if inspect.iscode(inner))]
    names = {name for one in codes for name in one.co_names}
    if names & {"kernels", "raw_ops", "Convolution", "Window"}:
        return True
    near = [function.__globals__.get(name) for name in names]
    near += [cell.cell_contents for cell in function.__closure__ or ()]
    return any(_calls_kernels(f, depth - 1) for f in near if inspect.isfunction(f))


def figures(name, grid):
    """The number of cases of the grid in which it took part, and the largest error."""
    seen = grid.get(name)
    return f"{seen['cases']} | {seen['error']:.0e}" if seen else " | "


def single_examples(cls):
    """Whether the gradients of single examples exist for a layer's weights."""
    rule = rule_for(cls)
    return "yes" if rule is None or rule.couples is None else "in inference; in training the examples are coupled"


def layer_table(layers, grid):
    lines = [
        "| layer | state | formula | gradients of single examples | fused kernel | cases in the grid | largest error |",
        "|---|---|---|---|---|--:|--:|",
    ]
    for name, cls in layers.items():
        single = single_examples(cls) if cls.__name__ in WEIGHT_OWNERS else ""
        kernel = "yes" if fused(cls) else ""
        lines.append(
            f"| {name} | {state(name, cls)} | {written(cls)} | {single} | {kernel} | {figures(cls.__name__, grid)} |"
        )
    return lines


def name_table(kind, entries, grid, prefix="", columns=2):
    lines = [
        f"| {kind} | state | formula | fused kernel | cases | largest error " * columns + "|",
        "|---|---|---|---|--:|--:" * columns + "|",
    ]
    cells = [
        f"| {name} | {state(name, key)} | {written(key)} | {'yes' if fused(key) else ''} | {figures(prefix + name, grid)} "
        for name, key in entries.items()
    ]
    cells += ["| | | | | | "] * (-len(cells) % columns)
    return lines + ["".join(cells[i : i + columns]) + "|" for i in range(0, len(cells), columns)]


def type_table():
    """TensorFlow's types of operations: whose gradient, and whether gradients of single examples pass through."""
    ours = {name.lower(): name for name, key in public_operations().items() if rule_for(key) is not None}
    lines = ["| type | gradient | rows of the examples " * 3 + "|", "|---|---|---" * 3 + "|"]
    cells = []
    kept = {*rows_of.ELEMENTWISE, *rows_of.KEEPS, "Reshape"}
    for name, gradient in sorted(gradients_by_type().items()):
        if name not in kept and name.lower() not in ours:
            continue
        by = "not differentiable" if gradient is None else "ours" if name in BY_TYPE else "TensorFlow's"
        by += f"; rule `ops.{ours[name.lower()]}`" if gradient is not None and name.lower() in ours else ""
        cells.append(f"| {name} | {by} | {'kept' if name in kept else ''} ")
    cells += ["| | | "] * (-len(cells) % 3)
    return lines + ["".join(cells[i : i + 3]) + "|" for i in range(0, len(cells), 3)]


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
    cases = grid.pop("")["cases"]
    version = keras.__version__.rsplit(".", 1)[0]
    sections = [
        "# Coverage",
        f"""Generated by `python docs/generate_coverage.py` for Keras {version}; a test fails when it is stale.

* **rule**: a written-out backward rule. **followed**: its own call runs, and the operations that it creates are links:
  functions of `keras.ops` by the rules below, all other operations of TensorFlow by the gradient function of their type, which
  is TensorFlow's but for the two named at the end. What has none is an error that names the operation and the layer.
  (`JaxLayer` runs as an operation of TensorFlow, and has a gradient. `TorchModuleWrapper` cannot run but on Keras's PyTorch
  backend.)
  **not differentiable**: declared so; nothing flows back, as on the tape.
* The table's figures come from {cases:,} cases of the gradient grid (`python -m tests.grid.run`
  runs all), counted wherever the rule takes part, in a layer made of others too; *largest error* is the largest difference
  from the tape in float64 in such a case, relative to the largest entry of the tensor's gradient.
* **formula**: whether `explain` writes the rule out. "Of its links": what runs other layers is written link by link. "None":
  the rule is named without an "=", because there is no formula shorter than its code (L·U, interpolation), or because
  no course has asked for it.
* **fused kernel**: the rule calls one of TensorFlow's kernels that compute a backward pass in one go, with some of its options
  at least (of `gelu` the approximate one).""",
        f"## Layers ({len(layers)})",
        "\n".join(layer_table(layers, grid)),
        f"## Preprocessing layers ({len(preprocessing)})",
        "\n".join(name_table("layer", preprocessing, grid)),
        "## Activation functions",
        "\n".join(name_table("function", public_functions(keras.activations), grid)),
        "## Losses",
        "\n".join(name_table("function", public_functions(keras.losses), grid)),
        "## Regularisers",
        "\n".join(name_table("class", regularizers, grid)),
        "## Operations",
        "\n".join(name_table("operation", public_operations(), grid, prefix="ops.")),
        "## TensorFlow's types of operations",
        """\
What is followed goes back by the gradient function that TensorFlow has registered for the type. *Ours*: by one of
`rules/operation_gradients.py` where ∂E/∂y is a dense tensor of float32 or float64, else by TensorFlow's. Types without one are
an error, but for control flow and calls of functions, whose gradients TensorFlow makes from those of what they hold. Where a
function of `keras.ops` runs, its rule serves. *Rows kept*: an example's rows stay its own (if axes and shapes allow), so
that the gradients of single examples of a weight that enters here are known. These are the types that have a namesake in
`keras.ops` or keep rows; TensorFlow has gradients for many more.""",
        "\n".join(type_table()),
    ]
    return "\n\n".join(sections) + "\n"


if __name__ == "__main__":
    text = page()
    (FOLDER / "coverage.md").write_text(text)
    unknown = text.count("unknown")
    print(f"docs/coverage.md written, {unknown} unknown")
    sys.exit(bool(unknown))
