"""A pytest plugin: in Keras's test modules `Model`, `Sequential`, `Functional` and the trainer are ours.

The names are exchanged in Keras's modules while a test module is imported, so that it binds ours, and put back; Keras
itself never sees them. A test module that holds a package (`models.Sequential`) gets a copy of the package with our names.
What is expected to fail is in `differences.txt`; it must fail.
"""

import contextlib
import pathlib
import sys
import types

import keras
import pytest
from keras.src import models, testing  # noqa: F401, TID251 - loaded before names are exchanged
from keras.src.backend.tensorflow import trainer  # noqa: TID251

import keras_backprop.trainer
from keras_backprop import BackpropModel, BackpropSequential
from keras_backprop.model import FunctionalBackpropModel
from keras_backprop.trainer import BackpropTrainer
from tests.keras_own.importable import add_markers, importable

DIFFERENCES = pathlib.Path(__file__).with_name("differences.txt")
STOCK = "--stock" in sys.argv
OPTIONAL = ("grain", "jax", "torch", "orbax", "tensorboard", "requests")


trained: list = []
_pass = keras_backprop.trainer.backward_pass


def counted(*args, **kwargs):
    trained.append(None)
    return _pass(*args, **kwargs)


keras_backprop.trainer.backward_pass = counted


class Trainer(BackpropTrainer, trainer.TensorFlowTrainer):
    """Some tests mix a trainer into a layer."""


OURS = {
    models.model.Model: BackpropModel,
    models.sequential.Sequential: BackpropSequential,
    models.functional.Functional: FunctionalBackpropModel,
    trainer.TensorFlowTrainer: Trainer,
}
PLACES = [keras, keras.models, models, models.model, models.sequential, models.functional, trainer]


@contextlib.contextmanager
def exchanged():
    """For the duration of the block Keras's modules hold our classes."""
    held = [(place, name, value) for place in PLACES for name, value in vars(place).items() if _ours(value) is not None]
    try:
        for place, name, value in held:
            setattr(place, name, _ours(value))
        yield
    finally:
        for place, name, value in held:
            setattr(place, name, value)


class Module(pytest.Module):
    def _getobj(self):
        with importable():
            if STOCK:
                return super()._getobj()
            with exchanged():
                module = super()._getobj()
        for name, value in list(vars(module).items()):
            if value is keras or value is models:
                vars(module)[name] = _copy(value)
        return module


def _copy(package):
    copy = types.ModuleType(package.__name__)
    vars(copy).update(vars(package))
    for name, value in vars(package).items():
        if _ours(value) is not None:
            setattr(copy, name, _ours(value))
        elif value is keras.models:
            setattr(copy, name, _copy(value))
    return copy


def _ours(value):
    return OURS.get(value) if isinstance(value, type) else None


def differences():
    """dict: test -> why it fails."""
    lines = DIFFERENCES.read_text().splitlines()
    return dict(line.split("  ", 1) for line in lines if line and not line.startswith("#"))


def pytest_addoption(parser):
    parser.addoption("--stock", action="store_true", help="run with the stock classes")


def pytest_configure(config):
    add_markers(config)


def pytest_pycollect_makemodule(module_path, parent):
    return Module.from_parent(parent, path=module_path)


def pytest_collection_modifyitems(items):
    expected = {} if STOCK else differences()
    for item in items:
        reason = expected.get(item.nodeid)
        if reason is not None:
            item.add_marker(pytest.mark.xfail(reason=reason, strict=True))


def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line(f"{len(trained)} train steps of ours run or compiled")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    error = call.excinfo.value if call.excinfo else None
    if report.failed and isinstance(error, ImportError) and any(name in str(error) for name in OPTIONAL):
        report.outcome, report.longrepr = "skipped", (str(item.path), 0, f"needs an optional package: {error}")
    return report
