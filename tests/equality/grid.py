"""The grid: every option of every table by itself, in two precisions, and every pair of options of different tables once.

python -m tests.equality.grid [pattern]     run it all and print what differs
"""

import itertools
import sys
from dataclasses import dataclass, replace

import keras

from tests.equality import compare
from tests.equality.models import CLASSES, PROBLEMS
from tests.equality.options import (
    BATCH,
    COMPILE,
    DATA,
    FIT,
    LISTED_LOSSES,
    LOSSES,
    NAMED_LOSSES,
    OPTIMIZERS,
    PRECISION,
    WEIGHTED,
    arrays,
    with_epsilon_above_rounding,
)

TABLES = {
    "problem": PROBLEMS,
    "data": DATA,
    "weights": WEIGHTED,
    "fit": FIT,
    "optimizer": OPTIMIZERS,
    "compile": {**COMPILE, **LOSSES, **NAMED_LOSSES, **LISTED_LOSSES},
    "precision": PRECISION,
}
XLA = 1e-5
"""The tolerance under XLA: it reorders sums and fuses multiplications with additions."""


@dataclass(frozen=True)
class Case:
    """One training run: the name of an option from every table."""

    problem: str = "dropout, shared layer, regularizers"
    data: str = "NumPy arrays"
    weights: str = "none"
    fit: str = "nothing"
    optimizer: str = "SGD, momentum"
    compile: str = "nothing"
    precision: str = "float32"

    @property
    def name(self):
        chosen = [getattr(self, axis) for axis in TABLES if getattr(self, axis) != getattr(Case, axis)]
        return " + ".join(chosen) or "the plain case"

    @property
    def tolerance(self):
        least = [PRECISION[self.precision]]
        if self.compile == "jit_compile=True" and self.precision == "float32":
            least.append(XLA)
        if PROBLEMS[self.problem].single:
            least.append(PRECISION["float32"])
        return max(least)


def possible(case):
    """Whether stock Keras can run the case."""
    problem, fit = PROBLEMS[case.problem], case.fit
    if case.weights == "sample_weight per time step" and not problem.steps:
        return False
    if case.weights == "sample_weight per output" and not problem.outputs:
        return False
    if case.problem == "constraints, regularizers" and case.precision == "float64":
        return False  # Keras's OrthogonalRegularizer multiplies float32 with float64
    integers = problem.y is CLASSES
    if case.weights == "class_weight" and not integers:
        return False
    if case.weights != "none" and problem.y is None:
        return False
    one_number = problem.compile().get("loss") == "mse" and getattr(problem.y, "shape", ()) == (len(problem.x), 1)
    if case.compile in LOSSES and not one_number:
        return False
    if case.compile in NAMED_LOSSES and not isinstance(problem.outputs, list):
        return False
    if case.compile in LISTED_LOSSES and not isinstance(problem.outputs, int):
        return False
    if problem.fixed_batch and ("batch" in fit or "validation" in fit):
        return False
    if problem.y is None and ("validation" in fit or case.compile in ("no metrics",)):
        return False
    if case.precision not in ("float32", "float64") and not case.optimizer.startswith(("SGD", "LossScale")):
        return False  # the others divide by the size of a gradient: what rounding leaves of a small one becomes a full step
    if "16" in case.precision and ("sum" in case.compile or case.compile.startswith("metrics as")):
        return False  # steps so large that rounding decides where they lead; an accuracy, which jumps
    if "float16" in case.precision and case.problem in (
        "overridden compute_loss",
        "overridden compute_loss, tensors kept in call",
    ):
        return False  # stock Keras does not subtract float16 from the float32 of a dataset; ours does
    if case.data != "NumPy arrays":
        if "batch" in fit and "validation" not in fit:
            return False
        if fit in ("steps_per_epoch", "validation_split", "validation_freq", "validation_freq as a list", "shuffle"):
            return False
    return True


def program(classes, case, nudged=False):
    """Build, compile, fit, evaluate, predict; return what there is to see.

    Nudged, inputs, targets and the weights that are there begin one unit in the last place higher.
    """
    if case.precision == "float64":
        keras.config.set_floatx("float64")
    keras.config.set_dtype_policy(case.precision)
    problem = PROBLEMS[case.problem]
    model = problem.build(classes)
    if case.precision == "mixed_float16" and case.optimizer.startswith("SGD"):
        # From 2¹⁵ on the scale finds its size by overflows, which depend on the order of sums; each is a step left out.
        compiled = {"optimizer": keras.optimizers.LossScaleOptimizer(OPTIMIZERS[case.optimizer]()["optimizer"], 64.0)}
    else:
        compiled = OPTIMIZERS[case.optimizer]()
    if case.precision == "float32":  # the cases in float64 keep Keras's ε
        compiled = with_epsilon_above_rounding(compiled)
    compiled = {**problem.compile(), **compiled, **TABLES["compile"][case.compile]()}
    model.compile(**compiled)
    x, y = (_cast(data, case.precision) for data in (problem.x, problem.y))
    if nudged:
        x, y = (data if data is None else keras.tree.map_structure(compare.nudge, data) for data in (x, y))
        for weight in model.weights:
            weight.assign(compare.nudge(keras.ops.convert_to_numpy(weight)))
    weights = {**WEIGHTED[case.weights](problem)}
    fit = FIT[case.fit](problem)
    if fit.get("shuffle") and classes is not compare.STOCK:
        model.epochs_per_execution = None  # the compiled loop draws an order of its own
    batch = fit.pop("batch_size", BATCH)
    given = DATA[case.data](x, y, weights.pop("sample_weight", None), batch)
    options = {"epochs": 10, "verbose": 0, "shuffle": False, **given, **weights, **fit}
    if "generator" in case.data or "Dataset" in case.data:
        options.pop("shuffle")
    history = model.fit(**options)
    seen = compare.observe(model, history)
    plain = {name: value for name, value in arrays(x, y, None, BATCH).items() if name != "sample_weight"}
    if problem.y is None:
        plain.pop("y")
    seen["evaluate"] = model.evaluate(**plain, verbose=0, return_dict=True)
    seen["predict"] = compare._plain(model.predict(x, batch_size=BATCH, verbose=0))
    seen["train_on_batch"] = model.train_on_batch(*_first_batch(x, y), return_dict=True)
    seen["test_on_batch"] = model.test_on_batch(*_first_batch(x, y))
    return {**seen, "after": compare.observe(model)}


def _first_batch(x, y):
    return [None if data is None else keras.tree.map_structure(lambda a: a[:BATCH], data) for data in (x, y)]


def _cast(data, precision):
    if data is None or precision != "float64":
        return data
    return keras.tree.map_structure(lambda a: a.astype("float64") if a.dtype.kind == "f" else a, data)


HOME = {
    **dict.fromkeys(LOSSES, "Sequential built by the first batch"),
    **dict.fromkeys(NAMED_LOSSES, "dict inputs and outputs"),
    **dict.fromkeys(LISTED_LOSSES, "list inputs and outputs"),
    # Stock Keras has no activity regularizers in half precision.
    **dict.fromkeys([name for name in PRECISION if "16" in name], "Sequential built by the first batch"),
    "sample_weight per time step": "mask from Embedding to the loss",
    "sample_weight per output": "dict inputs and outputs",
}
"""The model an option needs, where the usual one does not do."""


def alone():
    """Every option by itself, in float32 and in float64; the precisions by themselves."""
    cases = []
    for axis, table in TABLES.items():
        for option in table:
            case = replace(Case(problem=HOME.get(option, Case.problem)), **{axis: option})
            precisions = (option,) if axis == "precision" else ("float32", "float64")
            cases += [replace(case, precision=precision) for precision in precisions]
    cases.append(Case("list inputs and outputs", weights="sample_weight per output"))
    return [case for case in dict.fromkeys(cases) if possible(case)]


def pairs():
    """Cases in which every possible pair of options of two tables occurs.

    Not every optimizer with every problem, which never meet: an optimizer sees gradients and weights. These pairs are drawn
    as they come.
    """
    axes = list(TABLES)
    uncovered = dict.fromkeys(
        pair
        for a, b in itertools.combinations(axes, 2)
        if (a, b) != ("problem", "optimizer")
        for pair in itertools.product(((a, o) for o in TABLES[a]), ((b, o) for o in TABLES[b]))
        if possible(_of(*pair))
    )
    cases = []
    for number in itertools.count():
        if not uncovered:
            return cases
        first = next(iter(uncovered))
        case = _of(*first)
        for axis in axes:
            if axis in dict(first) or (axis == "problem" and case.problem != Case.problem):
                continue
            options = list(TABLES[axis])
            start = number % len(options)  # among equals another one every time
            candidates = [replace(case, **{axis: o}) for o in options[start:] + options[:start]]
            case = max(
                filter(possible, candidates), key=lambda c: sum(p in uncovered for p in _pairs_of(c)), default=case
            )
        uncovered.pop(first)
        for pair in _pairs_of(case):
            uncovered.pop(pair, None)
        cases.append(case)


def _of(*options):
    chosen = dict(options)
    home = next((HOME[o] for o in chosen.values() if o in HOME), Case.problem)
    return Case(**{"problem": home, **chosen})


def _pairs_of(case):
    return itertools.combinations([(axis, getattr(case, axis)) for axis in TABLES], 2)


def disagreements(case, subject="backprop"):
    """What differs between stock Keras and a subject in a case, as text; and what stock Keras shows."""
    stock = compare.run(program, compare.STOCK, case)
    ours = compare.run(program, compare.SUBJECTS[subject], case)
    found = compare.differences(ours, stock, case.tolerance)
    double = replace(case, precision="float64")
    if found and case.precision == "float32" and possible(double):
        in_double, _ = disagreements(double, subject)
        nudged = compare.run(program, compare.STOCK, case, True)
        rest = compare.more_than_rounding(ours, stock, nudged, case.tolerance)
        found = [*(f"in float64: {difference}" for difference in in_double), *rest]
    return found, stock


def main():
    pattern = sys.argv[1] if len(sys.argv) > 1 else ""
    cases = [case for case in dict.fromkeys(alone() + pairs()) if pattern in case.name]
    failed = 0
    for case in cases:
        found, _ = disagreements(case)
        failed += bool(found)
        if found:
            print(f"{case.name}\n    " + "\n    ".join(found[:4]), flush=True)
    print(f"{len(cases) - failed} of {len(cases)} cases equal stock Keras")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
