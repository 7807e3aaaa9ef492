"""A pytest plugin: in Keras's test modules `Model`, `Sequential`, `Functional` and the trainer are ours.

The names are exchanged in Keras's modules while a test module is imported, so that it binds ours, and put back; Keras
itself never sees them. A test module that holds a package (`models.Sequential`) gets a copy of the package with our names.
What is expected to fail is in `differences.txt`; it must fail.
"""

import contextlib
import importlib
import pathlib
import sys
import types

import keras
import pytest
from keras.src import models, testing  # noqa: F401, TID251 - loaded before names are exchanged
from keras.src.backend.tensorflow import trainer  # noqa: TID251

from keras_backprop import BackpropModel, BackpropSequential
from keras_backprop.model import BackpropTrainer, FunctionalBackpropModel

DIFFERENCES = pathlib.Path(__file__).with_name("differences.txt")
STOCK = "--stock" in sys.argv
OPTIONAL = ("grain", "jax", "torch", "orbax", "tensorboard", "requests")


trained: list = []
_train_step = BackpropTrainer.train_step


def counted(self, data):
    trained.append(None)
    return _train_step(self, data)


BackpropTrainer.train_step = counted


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


@contextlib.contextmanager
def importable():
    """For the duration of the block, what a test module imports at its top and few of its tests need can be imported."""
    conftest = types.ModuleType("conftest")
    conftest.skip_if_backend = lambda backend, reason: pytest.mark.skipif(backend == "tensorflow", reason=reason)
    added = {"conftest": conftest, "jax": types.ModuleType("jax")}
    added = {name: module for name, module in added.items() if name not in sys.modules and not _installed(name)}
    sys.modules.update(added)
    try:
        yield
    finally:
        for name in added:
            del sys.modules[name]


class Module(pytest.Module):
    def _getobj(self):
        with importable():
            if STOCK:
                return super()._getobj()
            with exchanged():
                module = super()._getobj()
        for name, value in list(vars(module).items()):
            if value in (keras, models):
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


def _installed(name):
    with contextlib.suppress(ImportError):
        return importlib.util.find_spec(name) is not None


def differences():
    """dict: test -> why it fails."""
    lines = DIFFERENCES.read_text().splitlines()
    return dict(line.split("  ", 1) for line in lines if line and not line.startswith("#"))


def pytest_addoption(parser):
    parser.addoption("--stock", action="store_true", help="run with the stock classes")


def pytest_configure(config):
    add_markers(config)


def add_markers(config):
    """Let Keras's tests have the markers that they have at home."""
    for marker in ("requires_trainable_backend", "multi_device"):
        config.addinivalue_line("markers", f"{marker}: Keras's")


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
