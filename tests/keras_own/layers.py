"""Keras's own layer tests, every configuration of which goes through `check_layer` and through a training step.

Keras ships its tests in the installed package. Their `run_layer_test(layer_cls, init_kwargs, input_shape=…)` names a
configuration: `collect` runs a module's tests with that method replaced by ours. The layers that the tests construct and
call directly are seen by a stand-in for `Layer.__call__`. What Keras's tests assert of Keras does not matter here, and what
they do besides (saving, quantizing, symbolic calls) runs as ever.

    python -m tests.keras_own.layers [PATTERN]      prints what fails
"""

import argparse
import contextlib
import importlib
import os
import pathlib
import threading
import traceback
import unittest
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from keras_backprop import BackpropModel, check_layer
from keras_backprop.rule import MissingRuleError
from tests.keras_own.importable import importable

PACKAGE = pathlib.Path(keras.__file__).parent / "src"


@dataclass
class Outcome:
    """What came of one configuration.

    Attributes:
        test: str, Keras's test that has it.
        layer: str, the class of the layer.
        kind: "ok", "refused", "wrong" or "crash".
        text: str, the report or error.
    """

    test: str
    layer: str
    kind: str
    text: str = ""


def modules():
    """The names of Keras's layer test modules."""
    files = sorted((PACKAGE / "layers").rglob("*_test.py"))
    return [".".join(("keras", "src", *file.relative_to(PACKAGE).with_suffix("").parts)) for file in files]


def collect(module):
    """Run the tests of one of Keras's modules; returns the `Outcome`s of all configurations met."""
    outcomes: list = []
    with importable():
        imported = importlib.import_module(module)
    tests = unittest.defaultTestLoader.loadTestsFromModule(imported)
    with _instrumented(outcomes):
        for test in _flat(tests):
            _current.test = ".".join(test.id().split(".")[-2:])
            with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
                test.run(unittest.TestResult())
    return outcomes


_current = threading.local()


def _flat(suite):
    for test in suite:
        yield from _flat(test) if isinstance(test, unittest.TestSuite) else [test]


@contextlib.contextmanager
def _instrumented(outcomes):
    case = importlib.import_module("keras.src.testing.test_case")
    run_layer_test, layer_call = case.TestCase.run_layer_test, keras.layers.Layer.__call__
    seen: set = set()

    def note(layer, check):
        _current.busy = True
        try:
            kind, text = _verdict(check)
        finally:
            _current.busy = False
        outcomes.append(Outcome(_current.test, type(layer).__name__, kind, text))

    def our_layer_test(self, layer_cls, init_kwargs, input_shape=None, input_dtype=None, input_sparse=False,
                       input_ragged=False, input_data=None, call_kwargs=None, custom_objects=None, **expected):  # fmt: skip
        if input_shape is None and input_data is None:
            return
        if input_data is None:
            dtype = input_dtype or keras.tree.map_shape_structure(lambda _: "float32", input_shape)
            input_data = case.create_eager_tensors(input_shape, dtype, input_sparse, input_ragged)
        args, kwargs = ((), dict(input_data)) if isinstance(input_data, dict) else ((input_data,), {})
        kwargs.update(call_kwargs or {})
        _current.busy = True
        try:
            layer = layer_cls(**(init_kwargs or {}))
            layer(*args, **kwargs)
        finally:
            _current.busy = False
        note(layer, lambda: check_layer(layer, *args, **kwargs))
        if expected.get("run_training_check", True) and not isinstance(input_data, dict):
            note(layer, lambda: _training_equals_stock(layer, input_data))

    def watched_call(self, *args, **kwargs):
        outputs = layer_call(self, *args, **kwargs)
        leaves = keras.tree.flatten((args, kwargs, outputs))
        if getattr(_current, "busy", False) or not all(_is_concrete(x) for x in leaves) or not tf.executing_eagerly():
            return outputs
        key = (type(self), str(_config(self)), str(keras.tree.map_structure(_shape, (args, kwargs))))
        if key not in seen and any(_is_float(x) for x in leaves):
            seen.add(key)
            note(self, lambda: check_layer(self, *args, **kwargs))
        return outputs

    def guarded_call(self, *args, **kwargs):  # only the outermost call is looked at
        _current.depth = getattr(_current, "depth", 0) + 1
        try:
            return (watched_call if _current.depth == 1 else layer_call)(self, *args, **kwargs)
        finally:
            _current.depth -= 1

    case.TestCase.run_layer_test, keras.layers.Layer.__call__ = our_layer_test, guarded_call
    try:
        yield
    finally:
        case.TestCase.run_layer_test, keras.layers.Layer.__call__ = run_layer_test, layer_call


def _verdict(check):
    try:
        report = check()
    except MissingRuleError as error:
        return "refused", str(error)[:400]
    except ValueError as error:
        if "no floating-point output" in str(error):
            return "ok", "nothing to differentiate"
        return "crash", _where(error)
    except Exception as error:
        return "crash", _where(error)
    return ("ok", "") if report.passed else ("wrong", str(report))


def _where(error):
    """The error and the last of our own lines that it came through."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "keras_backprop" in f.filename]
    place = f" at {pathlib.Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{place}: {str(error).strip()[:600]}"


class _Trained:
    passed = True


def _training_equals_stock(layer, x, steps=2):
    """Weights after some steps of `fit`, by the rules and by stock Keras."""
    ends = []
    for base in (keras.Model, BackpropModel):

        class Network(base):
            def __init__(self, inner):
                super().__init__()
                self.inner = inner

            def call(self, x, training=False):
                return self.inner(x, training=training)

        keras.utils.set_random_seed(1)
        copy = type(layer).from_config(layer.get_config())
        model = Network(copy)
        y = copy(x)
        for new, old in zip(copy.variables, layer.variables, strict=True):
            new.assign(old)
        sparse = any(isinstance(a, tf.SparseTensor) for a in keras.tree.flatten(x))
        model.compile("sgd", _Sum(), jit_compile=False if sparse else "auto")
        keras.utils.set_random_seed(2)
        model.fit(((x, y) for _ in range(steps)), steps_per_epoch=steps, verbose=0)
        ends.append([keras.ops.convert_to_numpy(v) for v in copy.variables])
    rtol, atol = (1e-2, 1e-3) if "16" in layer.compute_dtype else (1e-4, 1e-5)
    for variable, stock, ours in zip(copy.variables, *ends, strict=True):
        np.testing.assert_allclose(ours, stock, rtol=rtol, atol=atol, err_msg=variable.path)
    return _Trained


class _Sum(keras.losses.Loss):
    def __call__(self, y_true, y_pred, sample_weight=None):
        return keras.ops.sum(y_pred)


def _config(layer):
    try:
        return layer.get_config()
    except Exception:
        return id(layer)


def _is_concrete(x):
    return not isinstance(x, keras.KerasTensor) and (
        not tf.is_tensor(x) or hasattr(x, "numpy") or isinstance(x, tf.SparseTensor)
    )


def _is_float(x):
    return hasattr(x, "dtype") and keras.backend.is_float_dtype(keras.backend.standardize_dtype(x.dtype))


def _shape(x):
    return (tuple(x.shape), str(x.dtype)) if hasattr(x, "shape") and hasattr(x, "dtype") else x


def main():
    parser = argparse.ArgumentParser(description="Put Keras's own layer tests through check_layer.")
    parser.add_argument("pattern", nargs="?", default="")
    options = parser.parse_args()
    counts: dict = {}
    for module in (m for m in modules() if options.pattern in m):
        try:
            outcomes = collect(module)
        except Exception as error:
            print(f"SKIPPED {module}: {type(error).__name__}: {error}", flush=True)
            continue
        print(f"{module}: {len(outcomes)} configurations", flush=True)
        for outcome in outcomes:
            counts[outcome.kind] = counts.get(outcome.kind, 0) + 1
            if outcome.kind != "ok":
                print(f"{outcome.kind.upper()} {outcome.test} {outcome.layer}: {outcome.text}", flush=True)
    print(counts)


if __name__ == "__main__":
    main()
